//! How an uploaded write meets a row that has changed meanwhile. Decided in the backend; the client never merges.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::identity::Identity;
use crate::local_transaction::LocalWrite;

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
#[derive(Debug, Clone, Copy, Default)]
pub struct RejectIfChanged;

impl ConflictResolver for RejectIfChanged {
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution {
        let Some(old) = &conflict.write.old else { return Resolution::Apply };
        let Some(current) = conflict.current else {
            return Resolution::Reject { reason: "the row was deleted meanwhile".into() };
        };
        let null = Json::Null;
        let changed = old.iter().find(|(column, seen)| current.get(*column).unwrap_or(&null) != *seen);
        match changed {
            None => Resolution::Apply,
            Some((column, _)) => Resolution::Reject { reason: format!("`{column}` was changed meanwhile") },
        }
    }
}
