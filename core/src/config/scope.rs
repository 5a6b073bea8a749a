//! What names mean at one place of a query: the result sets of its FROM, and those of the queries around it.

use std::sync::Arc;

use super::expression::{ConditionInput, EachPart, Expression, SourceId};
use super::span::Span;
use super::sql::ast::Name;

pub(super) type Condition = Expression<ConditionInput>;

/// An entry of FROM, under its name.
#[derive(Debug)]
pub(super) struct ResultSet {
    pub(super) name: String,
    pub(super) kind: SetKind,
}

/// What an entry of FROM yields.
#[derive(Debug)]
pub(super) enum SetKind {
    /// A table of the source, whose columns are not known.
    Table(SourceId),
    /// `json_each`.
    Each(SourceId),
    /// A subquery or a named query: its columns, each as an expression over the sources inside it.
    Derived(Vec<(Arc<str>, Condition)>),
}

/// The result sets that an expression may name.
#[derive(Debug, Default)]
pub(super) struct Scope<'s> {
    pub(super) sets: Vec<ResultSet>,
    /// Around a subquery: what it may name too, if it does not have it itself.
    pub(super) outer: Option<&'s Self>,
}

/// Why a column has no meaning.
#[derive(Debug)]
pub(super) enum NameError {
    /// No table is there.
    NoTable,
    /// Several tables may have it.
    Ambiguous(Vec<String>),
    /// No table has this name; these are there.
    UnknownTable(Vec<String>),
    /// The result set does not have it; these it has.
    UnknownColumn(Vec<String>),
}

impl<'s> Scope<'s> {
    /// The result set of this name, without regard to case, from the inside out.
    pub(super) fn set(&self, name: &str) -> Option<&ResultSet> {
        let wanted = name.to_lowercase();
        let own = self.sets.iter().find(|set| set.name.to_lowercase() == wanted);
        own.or_else(|| self.outer?.set(name))
    }

    /// The names of all result sets, from the inside out.
    pub(super) fn names(&self) -> Vec<String> {
        let own = self.sets.iter().map(|set| set.name.clone());
        own.chain(self.outer.map(Scope::names).unwrap_or_default()).collect()
    }

    /// What a column is. Without a table it is one of the innermost query that has any table.
    pub(super) fn column(&self, table: Option<&Name>, name: &Name, span: Span) -> Result<Condition, NameError> {
        let set = match table {
            Some(table) => self.set(&table.text).ok_or_else(|| NameError::UnknownTable(self.names()))?,
            None => match self.sets.as_slice() {
                [] => return self.outer.ok_or(NameError::NoTable)?.column(None, name, span),
                [only] => only,
                several => {
                    return Err(NameError::Ambiguous(several.iter().map(|set| set.name.clone()).collect()));
                }
            },
        };
        set.column(name, span)
    }
}

impl ResultSet {
    fn column(&self, name: &Name, span: Span) -> Result<Condition, NameError> {
        match &self.kind {
            SetKind::Table(source) => {
                Ok(Expression::Input(ConditionInput::Column { source: *source, name: name.text.as_str().into(), span }))
            }
            SetKind::Each(source) => {
                let part = match name.text.as_str() {
                    "key" => EachPart::Key,
                    "value" => EachPart::Value,
                    _ => return Err(NameError::UnknownColumn(vec!["key".into(), "value".into()])),
                };
                Ok(Expression::Input(ConditionInput::Each { source: *source, part, span }))
            }
            SetKind::Derived(columns) => {
                let found = columns.iter().find(|(known, _)| **known == *name.text);
                let found = found.map(|(_, value)| value.clone());
                found.ok_or_else(|| {
                    NameError::UnknownColumn(columns.iter().map(|(known, _)| known.to_string()).collect())
                })
            }
        }
    }
}
