//! Forgetting everything, when another user signs in.

use rusqlite::Connection;

use super::error::Result;
use super::handle::Database;
use super::layout::State;
use super::schema::Schema;
use super::table_sql::identifier;
use super::writer::ask;
use super::{publish, upload_queue};

/// What [`Database::clear`] may destroy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clear {
    unsent: bool,
    local_only: bool,
}

impl Clear {
    /// Synced rows and what was downloaded. Local-only tables stay, and unsent writes make it fail.
    pub fn new() -> Self {
        Self::default()
    }

    /// Destroys local writes that were not uploaded. They are gone for good.
    #[must_use]
    pub fn discard_unsent(mut self) -> Self {
        self.unsent = true;
        self
    }

    /// Empties local-only tables too.
    #[must_use]
    pub fn local_only_tables(mut self) -> Self {
        self.local_only = true;
        self
    }
}

/// What [`Database::clear`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// Local transactions that were not uploaded and are lost.
    pub discarded_transactions: u64,
}

impl Database {
    /// Forgets all synced data, the upload queue, subscriptions and refused writes; the id of the client stays, and
    /// numbers of writes are never used again. The sync client must not be running.
    ///
    /// # Errors
    /// `Invalid`: local writes were not uploaded and [`Clear::discard_unsent`] was not asked for; nothing has changed.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn clear(&self, clear: Clear) -> Result<Cleared> {
        ask(self.writer(), move |writer| {
            let cleared = writer.transaction(|conn, schema| run(conn, schema, clear));
            if cleared.is_ok() && writer.preparation.take().is_some() {
                publish::submit_purge(writer);
            }
            Ok(cleared)
        })
        .await
    }
}

fn run(conn: &Connection, schema: &Schema, clear: Clear) -> Result<Cleared> {
    let unsent = upload_queue::state(conn)?.queued;
    if unsent > 0 && !clear.unsent {
        let message =
            format!("{unsent} local transactions were not uploaded and would be lost: upload or discard them");
        return Err(syncline_core::Error::invalid(message).into());
    }
    let last = upload_queue::last_entry(conn)?;
    let sent = State::load(conn)?.sent_upto.max(last);
    conn.execute("INSERT INTO syncline_publishing (active) VALUES (1)", [])?;
    for table in schema.tables().iter().filter(|table| clear.local_only || !table.is_local_only()) {
        conn.execute(&format!("DELETE FROM {} WHERE true", identifier(table.name())), [])?;
    }
    conn.execute("DELETE FROM syncline_publishing WHERE true", [])?;
    for table in [
        "syncline_rows",
        "syncline_log",
        "syncline_superseded",
        "syncline_buckets",
        "syncline_queue",
        "syncline_transactions",
        "syncline_covers",
        "syncline_rejected",
        "syncline_subscriptions",
    ] {
        conn.execute(&format!("DELETE FROM {table} WHERE true"), [])?;
    }
    conn.execute(
        "UPDATE syncline_state SET published_seq = next_seq - 1, published_op = NULL, write_checkpoint = NULL, \
         last_synced_at = NULL, sent_upto = ?1, superseded = 0, \
         sorted_seq = next_seq - 1",
        [sent],
    )?;
    Ok(Cleared { discarded_transactions: unsent })
}
