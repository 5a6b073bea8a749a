//! What a source's author supplies: a hand on the database that the source reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::source::Source;

/// The columns of a row by their names, without `id`; `None` is NULL.
pub type Row = BTreeMap<String, Option<String>>;

/// A change that a transaction is to make. Every table has a key `id`, and every column is text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Inserts a row that is not there. It has all columns of its table.
    Insert {
        /// Its table.
        table: String,
        /// Its key.
        id: String,
        /// Its columns.
        row: Row,
    },
    /// Sets some columns of a row that is there, and does not touch the others: no statement may name them.
    Update {
        /// Its table.
        table: String,
        /// Its key.
        id: String,
        /// What is set.
        columns: Row,
    },
    /// Gives a row that is there a key that no row has, and does not touch its columns.
    Rename {
        /// Its table.
        table: String,
        /// Its key.
        from: String,
        /// Its new key.
        to: String,
    },
    /// Deletes a row that is there.
    Delete {
        /// Its table.
        table: String,
        /// Its key.
        id: String,
    },
    /// Deletes all rows of a table, by the means that the database has for that.
    Truncate {
        /// The table.
        table: String,
    },
}

/// A hand on a database under test: it writes what a case needs, and makes the source that reads it.
///
/// The database is empty at first, and this case's alone. Whatever fails panics: it is the test that is broken then.
#[async_trait]
pub trait Hand: Send + Sync + fmt::Debug {
    /// The source of this database, as a process makes it when it starts: a handle of its own, which knows nothing of those
    /// before it. There is one stream at a time over all of them.
    fn source(&self) -> Arc<dyn Source>;

    /// How long anything may take before a case fails: half a minute is a good answer. No case waits for it unless it fails.
    fn patience(&self) -> Duration;

    /// How many rows a table needs to be read in several parts, if the source ever reads one so; at least 80.
    fn many_rows(&self) -> usize;

    /// Creates a table in the default schema, in whatever the source reads: a text key `id`, and these columns of text that
    /// may be NULL. Values of `body` are large; where the database can store a large value outside its row, it is to do so.
    async fn create_table(&self, name: &str, columns: &[&str]);

    /// Commits these changes as one transaction, in this order.
    async fn commit(&self, changes: &[Change]);

    /// Commits two transactions: `first`, then `second`, which has made its first change before `first` began. They touch
    /// different rows but for the last change of each. Where only one can write at a time: one after the other.
    async fn commit_overlapping(&self, first: &[Change], second: &[Change]);

    /// Takes away the history that positions until now refer to, and leaves the rows: the slot is dropped, a backup is
    /// restored. Nothing reads while it does.
    async fn lose_history(&self);
}
