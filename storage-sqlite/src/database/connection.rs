//! How connections to the client's file are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::checkpointer;
use super::error::Result;
use super::opening::Durability;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory of the writer for pages, in KiB, negative as SQLite wants it.
pub(crate) const WRITER_CACHE: i64 = -32_000;
/// Bytes that the log may keep on disk when it begins anew.
const LOG_KEPT: i64 = checkpointer::LIMIT as i64 * 4096;
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
    conn.pragma_update(None, "synchronous", synchronous(durability))?;
    conn.pragma_update(None, "cache_size", WRITER_CACHE)?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    // The checkpointer does it.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    prepare(&conn)?;
    Ok(conn)
}

/// The connection of the checkpointer, for a file that is in WAL mode already. It waits for nobody.
pub(crate) fn open_checkpointer(path: &Path, durability: Durability) -> Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(Duration::ZERO)?;
    // Also decides whether it syncs the log before it moves pages, and the file after.
    conn.pragma_update(None, "synchronous", synchronous(durability))?;
    Ok(conn)
}

fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
        Durability::Off => "OFF",
    }
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
