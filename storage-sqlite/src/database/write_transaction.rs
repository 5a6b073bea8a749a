//! The transaction that a closure of the application writes in.

use std::cell::Cell;
use std::ops::Deref;

use rusqlite::{Params, Row, Transaction};

use super::error::Result;
use super::layout::State;
use super::queue_runs;

/// A write transaction: all of [`rusqlite::Transaction`], with prepared statements kept for the next call.
///
/// It commits when the closure of [`Database::write`](crate::Database::write) returns `Ok`, and rolls back otherwise.
#[derive(Debug)]
pub struct WriteTransaction<'c> {
    transaction: Transaction<'c>,
    noted: Cell<bool>,
}

impl<'c> WriteTransaction<'c> {
    pub(crate) fn new(transaction: Transaction<'c>) -> Self {
        Self { transaction, noted: Cell::new(false) }
    }

    /// Executes one statement, prepared once and kept. Returns the number of rows changed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.transaction.prepare_cached(sql)?.execute(params)
    }

    /// Reads one row with a statement that is prepared once and kept.
    ///
    /// # Errors
    /// What SQLite says; `QueryReturnedNoRows` if there is none.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.transaction.prepare_cached(sql)?.query_row(params, read)
    }

    /// Attaches a note to the writes that follow in this transaction, for tables that
    /// [track metadata](crate::Table::track_metadata).
    ///
    /// # Errors
    /// What SQLite says.
    pub fn metadata(&self, note: &str) -> rusqlite::Result<()> {
        self.noted.set(true);
        self.execute("DELETE FROM syncline_note WHERE 1", [])?;
        self.execute("INSERT INTO syncline_note (note) VALUES (?1)", [note])?;
        Ok(())
    }

    /// Commits. `first_entry` is the first queue entry that was seen; together with the last one it tells which entries
    /// this transaction made.
    pub(crate) fn commit(self, first_entry: Option<i64>) -> Result<()> {
        if self.transaction.is_autocommit() {
            return Err(syncline_core::Error::invalid("the closure of a write ended its transaction itself").into());
        }
        if self.noted.get() {
            self.execute("DELETE FROM syncline_note WHERE 1", [])?;
        }
        if let Some(first) = first_entry {
            let sent = State::load(&self.transaction)?.sent_upto;
            queue_runs::record(&self.transaction, first, sent)?;
        }
        self.transaction.commit()?;
        crate::failpoint::reach("database.write.committed");
        Ok(())
    }

    pub(crate) fn rollback(self) -> Result<()> {
        if self.transaction.is_autocommit() {
            return Ok(());
        }
        self.transaction.rollback()?;
        Ok(())
    }
}

impl<'c> Deref for WriteTransaction<'c> {
    type Target = Transaction<'c>;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}
