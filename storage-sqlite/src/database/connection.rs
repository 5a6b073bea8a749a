//! How connections to the client's file are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::error::Result;
use super::opening::Durability;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory of the writer for pages, in KiB, negative as SQLite wants it.
pub(crate) const WRITER_CACHE: i64 = -32_000;
/// Pages of the log after which a commit moves them into the file. A page that was written again is moved once: the more,
/// the less is written in all, and the longer that commit takes.
const CHECKPOINT_PAGES: i64 = 2_000;
/// Statements that a connection keeps prepared.
const CACHED_STATEMENTS: usize = 256;

/// The one connection of this process that writes.
pub(crate) fn open_writer(path: &Path, durability: Durability) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(syncline_core::Error::unavailable(format!(
            "the file cannot be used in WAL mode (it stays in {mode}): is it on a network drive?"
        ))
        .into());
    }
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
        Durability::Off => "OFF",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", WRITER_CACHE)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    prepare(&conn)?;
    Ok(conn)
}

/// A connection that cannot write.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", -8_000)?;
    prepare(&conn)?;
    Ok(conn)
}

/// What all connections have in common: foreign keys are off, because partial replication leaves parents outside and a
/// publish must not fail or cascade on an application's own table.
fn prepare(conn: &Connection) -> Result<()> {
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    for name in ["uuid", "gen_random_uuid"] {
        conn.create_scalar_function(name, 0, FunctionFlags::SQLITE_UTF8, |_| Ok(Uuid::new_v4().to_string()))?;
    }
    Ok(())
}
