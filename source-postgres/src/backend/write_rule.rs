//! Who may write which rows.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use syncline_core::{Identity, WriteKind};

/// A write to one row, as a [`WriteRule`] sees it.
///
/// Rows are in the JSON of Postgres (`to_jsonb`): a boolean is `true`, a `jsonb` column is what it holds, a timestamp is
/// in ISO 8601.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub identity: &'a Identity,
    /// The synced table.
    pub table: &'a str,
    /// The row's id, as the client sent it.
    pub id: &'a str,
    /// What the client did.
    pub kind: WriteKind,
    /// The row before the write; `None` if there was none.
    pub before: Option<&'a Map<String, Json>>,
    /// The row after the write, as it will be stored, defaults and triggers included; `None` if it is deleted.
    pub after: Option<&'a Map<String, Json>>,
}

/// Decides whether a write is allowed, by identity, row before and row after.
///
/// A refusal rejects the whole local transaction with one and the same reason, whether the row belongs to somebody else
/// or does not fit the rule, so that it tells nothing about rows that the user may not see.
///
/// ```
/// use syncline_source_postgres::WriteRule;
///
/// let rule = WriteRule::owner("owner_id").and(WriteRule::check(|write| {
///     write.before.is_none_or(|row| row["locked"] != true)
/// }));
/// # let _ = rule;
/// ```
#[derive(Clone)]
pub struct WriteRule(Kind);

type Check = dyn Fn(&Write<'_>) -> bool + Send + Sync;

#[derive(Clone)]
enum Kind {
    Everyone,
    ReadOnly,
    Owner(Arc<str>),
    Check(Arc<Check>),
    And(Arc<(WriteRule, WriteRule)>),
    Or(Arc<(WriteRule, WriteRule)>),
}

/// What of a row a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Nothing.
    Nothing,
    /// These columns.
    Columns(Vec<Arc<str>>),
    /// All of it.
    Row,
}

impl Sight {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Row, _) | (_, Self::Row) => Self::Row,
            (Self::Nothing, sight) | (sight, Self::Nothing) => sight,
            (Self::Columns(mut columns), Self::Columns(more)) => {
                for column in more {
                    if !columns.contains(&column) {
                        columns.push(column);
                    }
                }
                Self::Columns(columns)
            }
        }
    }
}

impl WriteRule {
    /// A row belongs to the user whose [id](Identity::user_id) is in this column, and only that user may insert, update
    /// or delete it. It can be given to nobody else.
    ///
    /// Compares texts: a `sub` of `42` owns a row with `42` in an integer column. A row without an owner and a token
    /// without a `sub` match nothing.
    pub fn owner(column: impl Into<Arc<str>>) -> Self {
        Self(Kind::Owner(column.into()))
    }

    /// Every authenticated user may write every row.
    pub fn everyone() -> Self {
        Self(Kind::Everyone)
    }

    /// Nobody may write; a client that does is told that the table is read-only.
    pub fn read_only() -> Self {
        Self(Kind::ReadOnly)
    }

    /// A rule of one's own: `true` allows. It must be pure: it may be called more than once for a write, and not at all
    /// for one that changes nothing (an update or a deletion of a row that is gone).
    pub fn check(check: impl Fn(&Write<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Check(Arc::new(check)))
    }

    /// Allows what both rules allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(Kind::And(Arc::new((self, other))))
    }

    /// Allows what one of the rules allows.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(Kind::Or(Arc::new((self, other))))
    }

    /// Whether the rule allows the write.
    pub fn allows(&self, write: &Write<'_>) -> bool {
        match &self.0 {
            Kind::Everyone => true,
            Kind::ReadOnly => false,
            Kind::Owner(column) => {
                [write.before, write.after].into_iter().flatten().all(|row| owns(write.identity, row.get(&**column)))
            }
            Kind::Check(check) => check(write),
            Kind::And(both) => both.0.allows(write) && both.1.allows(write),
            Kind::Or(either) => either.0.allows(write) || either.1.allows(write),
        }
    }

    /// Whether it allows nothing, whoever writes whatever.
    pub(crate) fn is_read_only(&self) -> bool {
        self.constant() == Some(false)
    }

    /// What it says whatever the write is, if that can be told.
    fn constant(&self) -> Option<bool> {
        match &self.0 {
            Kind::Everyone => Some(true),
            Kind::ReadOnly => Some(false),
            Kind::Owner(_) | Kind::Check(_) => None,
            Kind::And(both) => match (both.0.constant(), both.1.constant()) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), other) | (other, Some(true)) => other,
                (None, None) => None,
            },
            Kind::Or(either) => match (either.0.constant(), either.1.constant()) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), other) | (other, Some(false)) => other,
                (None, None) => None,
            },
        }
    }

    /// What it looks at. Nothing only if it says the same of every write ([`is_read_only`](Self::is_read_only) tells
    /// what): whoever applies writes need not ask it then.
    pub(crate) fn sight(&self) -> Sight {
        if self.constant().is_some() {
            return Sight::Nothing;
        }
        match &self.0 {
            Kind::Everyone | Kind::ReadOnly => Sight::Nothing,
            Kind::Owner(column) => Sight::Columns(vec![column.clone()]),
            Kind::Check(_) => Sight::Row,
            Kind::And(rules) | Kind::Or(rules) => rules.0.sight().join(rules.1.sight()),
        }
    }
}

fn owns(identity: &Identity, owner: Option<&Json>) -> bool {
    if !matches!(identity.claims().get("sub"), Some(Json::String(_) | Json::Number(_))) {
        return false;
    }
    match owner {
        Some(Json::String(text)) => *text == identity.user_id(),
        Some(Json::Number(number)) => number.to_string() == identity.user_id(),
        _ => false,
    }
}

impl fmt::Debug for WriteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Everyone => f.write_str("Everyone"),
            Kind::ReadOnly => f.write_str("ReadOnly"),
            Kind::Owner(column) => f.debug_tuple("Owner").field(column).finish(),
            Kind::Check(_) => f.write_str("Check(..)"),
            Kind::And(rules) => f.debug_tuple("And").field(&rules.0).field(&rules.1).finish(),
            Kind::Or(rules) => f.debug_tuple("Or").field(&rules.0).field(&rules.1).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn allows(rule: &WriteRule, identity: &Identity, before: Json, after: Json) -> bool {
        let write = Write {
            identity,
            table: "lists",
            id: "l1",
            kind: WriteKind::Patch,
            before: before.as_object(),
            after: after.as_object(),
        };
        rule.allows(&write)
    }

    #[test]
    fn an_owner_writes_only_own_rows_and_gives_none_away() {
        let rule = WriteRule::owner("owner_id");
        let anna = Identity::new("anna");
        let (mine, other, nobody) =
            (json!({"owner_id": "anna"}), json!({"owner_id": "ben"}), json!({"owner_id": null}));
        assert!(allows(&rule, &anna, json!(null), mine.clone()));
        assert!(allows(&rule, &anna, mine.clone(), mine.clone()));
        assert!(allows(&rule, &anna, mine.clone(), json!(null)));
        assert!(!allows(&rule, &anna, json!(null), other.clone()));
        assert!(!allows(&rule, &anna, mine.clone(), other.clone()));
        assert!(!allows(&rule, &anna, other.clone(), mine.clone()));
        assert!(!allows(&rule, &anna, other, json!(null)));
        assert!(!allows(&rule, &anna, nobody.clone(), mine));
        assert!(!allows(&rule, &anna, json!(null), nobody));
    }

    #[test]
    fn a_token_without_a_subject_owns_nothing() {
        let rule = WriteRule::owner("owner_id");
        let nobody = Identity::from_claims(Map::new());
        assert_eq!(nobody.user_id(), "null");
        assert!(!allows(&rule, &nobody, json!(null), json!({"owner_id": "null"})));
        assert!(!allows(&rule, &nobody, json!(null), json!({"owner_id": null})));
    }

    #[test]
    fn a_numeric_subject_owns_rows_of_an_integer_column() {
        let rule = WriteRule::owner("owner_id");
        let user = Identity::from_claims(json!({"sub": 42}).as_object().unwrap().clone());
        assert!(allows(&rule, &user, json!(null), json!({"owner_id": 42})));
        assert!(!allows(&rule, &user, json!(null), json!({"owner_id": 43})));
    }

    #[test]
    fn combined_rules_look_at_what_both_need() {
        let rule = WriteRule::owner("a").and(WriteRule::owner("b")).or(WriteRule::owner("a"));
        assert_eq!(rule.sight(), Sight::Columns(vec!["a".into(), "b".into()]));
        assert_eq!(rule.and(WriteRule::check(|_| true)).sight(), Sight::Row);
        assert_eq!(WriteRule::everyone().sight(), Sight::Nothing);
    }

    /// A rule, and what it is said to allow: by hand, beside the code under test.
    type Told = (WriteRule, bool);

    fn leaves() -> Vec<Told> {
        vec![
            (WriteRule::everyone(), true),
            (WriteRule::read_only(), false),
            (WriteRule::owner("mine"), true),
            (WriteRule::owner("other"), false),
            (WriteRule::check(|_| true), true),
            (WriteRule::check(|_| false), false),
        ]
    }

    fn combined(left: &[Told], right: &[Told]) -> Vec<Told> {
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a, b)));
        pairs
            .flat_map(|(a, b)| [(a.0.clone().and(b.0.clone()), a.1 && b.1), (a.0.clone().or(b.0.clone()), a.1 || b.1)])
            .collect()
    }

    #[test]
    fn every_tree_of_rules_allows_what_its_leaves_say_and_is_asked_unless_it_is_constant() {
        let leaves = leaves();
        let pairs = combined(&leaves, &leaves);
        let mut trees = combined(&pairs, &leaves);
        trees.extend(combined(&leaves, &pairs));
        trees.extend(combined(&pairs, &pairs));
        trees.extend(pairs);
        trees.extend(leaves);
        let anna = Identity::new("anna");
        let row = json!({"mine": "anna", "other": "ben"});
        for (rule, expected) in trees {
            assert_eq!(allows(&rule, &anna, row.clone(), row.clone()), expected, "{rule:?}");
            if rule.sight() == Sight::Nothing {
                // It is not asked about writes, so this is all that stands between a client and the table.
                assert_eq!(rule.is_read_only(), !expected, "{rule:?}");
            } else {
                assert!(!rule.is_read_only(), "{rule:?}");
            }
        }
    }
}
