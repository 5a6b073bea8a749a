//! Operations that a prepared publish supersedes: noted while it is prepared, removed when it has been shown.

use rusqlite::Connection;

use super::error::Result;

/// Forgets the notes of a preparation that came to nothing, before the next begins. False if those of one that was shown
/// must be carried out first.
pub(crate) fn begin(conn: &Connection) -> Result<bool> {
    if is_due(conn)? {
        return Ok(false);
    }
    conn.prepare_cached("DELETE FROM syncline_superseded")?.execute([])?;
    Ok(true)
}

/// What is noted has been shown.
pub(crate) fn publish(conn: &Connection) -> Result<()> {
    conn.prepare_cached("UPDATE syncline_state SET superseded = EXISTS (SELECT 1 FROM syncline_superseded)")?
        .execute([])?;
    Ok(())
}

/// Removes up to `limit` operations. False when there is nothing left to remove.
pub(crate) fn purge(conn: &Connection, limit: usize) -> Result<bool> {
    if !is_due(conn)? {
        return Ok(false);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let some = "IN (SELECT seq FROM syncline_superseded ORDER BY seq LIMIT ?1)";
    conn.prepare_cached(&format!("DELETE FROM syncline_log WHERE seq {some}"))?.execute([limit])?;
    let removed =
        conn.prepare_cached(&format!("DELETE FROM syncline_superseded WHERE seq {some}"))?.execute([limit])?;
    if removed == 0 {
        conn.prepare_cached("UPDATE syncline_state SET superseded = 0")?.execute([])?;
    }
    Ok(removed > 0)
}

/// Whether operations are to be removed.
pub(crate) fn is_due(conn: &Connection) -> Result<bool> {
    Ok(conn.prepare_cached("SELECT superseded FROM syncline_state")?.query_row([], |row| row.get(0))?)
}
