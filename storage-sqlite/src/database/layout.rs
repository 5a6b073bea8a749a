//! The tables of this library in the client's file.

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::error::Result;
use super::upgrade;

/// The version of these tables that this library writes.
const FORMAT: i64 = 3;

/// All start with `syncline_`.
///
/// - `syncline_state`: one row. `next_seq` numbers the operation log; `published_seq` is where the last full publish
///   stood; `sent_upto` is the last entry of the queue that was uploaded.
/// - `syncline_tables`: the table names that operations mention, as small numbers.
/// - `syncline_buckets`: a bucket that is dropped, cleared or discarded is *retired*: it loses its name, which is its
///   `former_name` from then on, and its published rows stay visible until a full publish. `published_seq` is ahead of that of the state after a partial publish.
/// - `syncline_log`: operations as downloaded; those with `seq` up to the bucket's published one are published, later ones
///   are staged and invisible. `data IS NULL` is a REMOVE, which lives until it is published.
/// - `syncline_rows`: the index of the log by row, complete up to `sorted_seq` of the state, which no publish is ahead of.
/// - `syncline_superseded`: operations that a publish in preparation supersedes. When it has been shown, `superseded` of the
///   state is 1, and they are removed, in order: a REMOVE after what it ended.
/// - `syncline_shadow_…`: tables in preparation, or no longer needed.
/// - `syncline_queue`: local writes, until a publish covers them. AUTOINCREMENT: ids are never reused (C9).
/// - `syncline_transactions`: the runs of queue entries that one local transaction made, numbered without a gap.
/// - `syncline_covers`: entries up to `upto` wait for this write checkpoint.
const TABLES: &str = "
CREATE TABLE syncline_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    format INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    next_seq INTEGER NOT NULL DEFAULT 1,
    published_seq INTEGER NOT NULL DEFAULT 0,
    published_op INTEGER,
    write_checkpoint INTEGER,
    sent_upto INTEGER NOT NULL DEFAULT 0,
    last_synced_at INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0,
    sorted_seq INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE syncline_schema (name TEXT PRIMARY KEY NOT NULL, shape TEXT NOT NULL, definition TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE syncline_tables (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE syncline_buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    last_op INTEGER NOT NULL DEFAULT 0,
    sum INTEGER NOT NULL DEFAULT 0,
    published_seq INTEGER NOT NULL DEFAULT 0,
    former_name TEXT
);
CREATE TABLE syncline_log (
    seq INTEGER PRIMARY KEY,
    bucket INTEGER NOT NULL,
    op_id INTEGER NOT NULL,
    tbl INTEGER NOT NULL,
    row_id TEXT NOT NULL,
    subkey TEXT,
    data TEXT
);
CREATE INDEX syncline_log_by_bucket ON syncline_log (bucket);
CREATE TABLE syncline_rows (
    tbl INTEGER NOT NULL,
    row_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (tbl, row_id, seq)
) WITHOUT ROWID;
CREATE TRIGGER syncline_log_deleted AFTER DELETE ON syncline_log BEGIN
    DELETE FROM syncline_rows WHERE tbl = OLD.tbl AND row_id = OLD.row_id AND seq = OLD.seq;
END;
CREATE TABLE syncline_superseded (seq INTEGER PRIMARY KEY);
CREATE TABLE syncline_queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    written_at INTEGER NOT NULL,
    op TEXT NOT NULL,
    tbl TEXT NOT NULL,
    row_id TEXT NOT NULL,
    data TEXT,
    old TEXT,
    note TEXT
);
CREATE TABLE syncline_transactions (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, number INTEGER NOT NULL);
CREATE TABLE syncline_covers (upto INTEGER PRIMARY KEY, checkpoint INTEGER NOT NULL);
CREATE TABLE syncline_rejected (
    id INTEGER PRIMARY KEY,
    rejected_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    writes TEXT NOT NULL
);
CREATE TABLE syncline_subscriptions (
    stream TEXT NOT NULL,
    parameters TEXT NOT NULL,
    priority INTEGER,
    expires_at INTEGER NOT NULL,
    last_synced_at INTEGER,
    PRIMARY KEY (stream, parameters)
);
CREATE TABLE syncline_publishing (active INTEGER NOT NULL);
CREATE TABLE syncline_note (note TEXT);
";

/// Makes the tables in a new file, or checks that this library can read those that are there. Inside a transaction.
pub(crate) fn prepare(conn: &Connection) -> Result<()> {
    let exists: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'syncline_state')",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        conn.execute_batch(TABLES)?;
        let client_id = Uuid::new_v4().to_string();
        conn.execute("INSERT INTO syncline_state (id, format, client_id) VALUES (1, ?1, ?2)", (FORMAT, client_id))?;
        return Ok(());
    }
    let format: Option<i64> =
        conn.query_row("SELECT format FROM syncline_state WHERE id = 1", [], |row| row.get(0)).optional()?;
    match format {
        Some(FORMAT) => Ok(()),
        Some(1) => {
            upgrade::from_format_1(conn)?;
            upgrade::from_format_2(conn)
        }
        Some(2) => upgrade::from_format_2(conn),
        Some(format) if format > FORMAT => Err(syncline_core::Error::invalid(format!(
            "this file was written by a newer version (format {format}, this version knows {FORMAT}): update the app"
        ))
        .into()),
        _ => Err(syncline_core::Error::data("the file has lost its state: delete it and sync again").into()),
    }
}

/// The row of `syncline_state`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) next_seq: i64,
    pub(crate) published_seq: i64,
    pub(crate) sent_upto: i64,
    pub(crate) last_synced_at: Option<i64>,
}

impl State {
    /// Reads it.
    pub(crate) fn load(conn: &Connection) -> Result<Self> {
        let mut statement = conn.prepare_cached(
            "SELECT next_seq, published_seq, sent_upto, last_synced_at FROM syncline_state WHERE id = 1",
        )?;
        let state = statement.query_row([], |row| {
            Ok(Self {
                next_seq: row.get(0)?,
                published_seq: row.get(1)?,
                sent_upto: row.get(2)?,
                last_synced_at: row.get(3)?,
            })
        })?;
        Ok(state)
    }
}
