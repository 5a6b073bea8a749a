//! How an uploaded write meets a row that has changed meanwhile. Decided in the backend; the client never merges.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::identity::Identity;
use crate::local_transaction::{LocalWrite, WriteKind};

/// An uploaded write, and the row that it meets, locked in the backend's transaction.
#[derive(Debug, Clone)]
pub struct Conflict<'a> {
    /// Who wrote it.
    pub identity: &'a Identity,
    /// The write. [`LocalWrite::old`] holds what the client saw before it, if its table tracks previous values.
    pub write: &'a LocalWrite,
    /// The row as it is in the database now; `None` if there is none.
    pub current: Option<&'a Map<String, Json>>,
}

/// What to do with an uploaded write.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// Apply it as it is.
    Apply,
    /// Write these columns instead.
    ApplyInstead(Map<String, Json>),
    /// Leave the row as it is; the write counts as applied.
    KeepCurrent,
    /// Refuse the whole transaction.
    Reject {
        /// Why, for the user of the app.
        reason: String,
    },
}

/// Decides what happens to an uploaded write. Pure: it sees everything that it may decide by.
pub trait ConflictResolver: Send + Sync + fmt::Debug {
    /// Called for every write to a table that this resolver is set for, under the row's lock.
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution;
}

impl<T: ConflictResolver + ?Sized> ConflictResolver for Arc<T> {
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution {
        (**self).resolve(conflict)
    }
}

/// The default: the last write to arrive wins, column by column.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastWriteWins;

impl ConflictResolver for LastWriteWins {
    fn resolve(&self, _conflict: &Conflict<'_>) -> Resolution {
        Resolution::Apply
    }
}

/// Refuses a write whose row is no longer what the client saw. Needs a table that tracks previous values.
///
/// - An update passes if each previous value is still the row's; so does a deletion.
/// - An insertion passes if there is no row. Over one that is there it is refused, unless the client knew it.
/// - What is there already counts as applied, because an upload whose answer was lost is repeated: a row that holds what
///   is written, and a deletion of a row that is gone. So a write that another made in the same way is no conflict.
///
/// It judges one write at a time. If a transaction that writes a row several times is repeated after its answer was lost,
/// its first write meets what the last one made, which looks changed: a backend whose clients write so remembers applied
/// transactions (`PostgresBackend::idempotency_table`). The same helps if others changed the row before the repetition.
#[derive(Debug, Clone, Copy, Default)]
pub struct RejectIfChanged;

impl ConflictResolver for RejectIfChanged {
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution {
        let write = conflict.write;
        let Some(current) = conflict.current else {
            return match (write.op, &write.old) {
                (WriteKind::Delete, _) => Resolution::KeepCurrent,
                (_, None) => Resolution::Apply,
                (_, Some(_)) => Resolution::Reject { reason: "the row was deleted meanwhile".into() },
            };
        };
        let holds = |(column, value): (&String, &Json)| current.get(column).unwrap_or(&Json::Null) == value;
        let is_there = write.op != WriteKind::Delete && write.data.iter().flatten().all(holds);
        if is_there {
            return Resolution::KeepCurrent;
        }
        match (write.op, &write.old) {
            (WriteKind::Put, None) => Resolution::Reject { reason: "the row is there already".into() },
            (_, None) => Resolution::Apply,
            (_, Some(old)) => match old.iter().find(|member| !holds(*member)) {
                None => Resolution::Apply,
                Some((column, _)) => Resolution::Reject { reason: format!("`{column}` was changed meanwhile") },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(op: WriteKind, data: Json, old: Json, current: Json) -> Resolution {
        let write = LocalWrite {
            op_id: 1,
            op,
            table: "docs".into(),
            id: "d".into(),
            data: data.as_object().cloned(),
            tx_id: None,
            old: old.as_object().cloned(),
            metadata: None,
        };
        let identity = Identity::new("anna");
        RejectIfChanged.resolve(&Conflict { identity: &identity, write: &write, current: current.as_object() })
    }

    #[test]
    fn what_is_there_already_counts_as_applied() {
        use WriteKind::{Delete, Patch, Put};
        let none = || Json::Null;
        let kept = Resolution::KeepCurrent;
        assert_eq!(resolve(Patch, json!({"t": 2}), json!({"t": 1, "u": 1}), json!({"t": 2, "u": 9})), kept);
        assert_eq!(resolve(Put, json!({"t": 2}), none(), json!({"id": "d", "t": 2, "u": 1})), kept);
        assert_eq!(resolve(Patch, json!({"t": null}), json!({"t": 1}), json!({"t": null})), kept);
        assert_eq!(resolve(Delete, none(), json!({"t": 1}), none()), kept);
        assert_eq!(resolve(Delete, none(), none(), none()), kept);
    }

    #[test]
    fn what_the_client_did_not_see_is_not_overwritten() {
        use WriteKind::{Delete, Patch, Put};
        let none = || Json::Null;
        let rejected = |answer| matches!(answer, Resolution::Reject { .. });
        assert!(rejected(resolve(Put, json!({"t": 2}), none(), json!({"t": 1}))));
        assert!(rejected(resolve(Put, json!({"t": 2}), json!({"t": 0}), json!({"t": 1}))));
        assert!(rejected(resolve(Patch, json!({"t": 2}), json!({"t": 0}), json!({"t": 1}))));
        assert!(rejected(resolve(Patch, json!({"t": 2}), json!({"t": 0}), none())));
        assert!(rejected(resolve(Delete, none(), json!({"t": 0}), json!({"t": 1}))));
        for (op, data, old, current) in [
            (Put, json!({"t": 2}), none(), none()),
            (Put, json!({"t": 2}), json!({"t": 1}), json!({"t": 1})),
            (Patch, json!({"t": 2}), json!({"t": 1}), json!({"t": 1, "u": 1})),
            (Patch, json!({"t": 2}), none(), json!({"t": 1})),
            (Delete, none(), json!({"t": 1}), json!({"t": 1})),
            (Delete, none(), none(), json!({"t": 1})),
        ] {
            assert_eq!(resolve(op, data, old, current), Resolution::Apply);
        }
    }
}
