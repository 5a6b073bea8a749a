//! The buckets that this client holds.

use std::collections::HashMap;

use bytestring::ByteString;
use rusqlite::Connection;
use syncline_core::{Checksum, OpId};

use super::error::Result;

/// A bucket that is not retired.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) id: i64,
    pub(crate) last_op: OpId,
    /// Of everything received since its beginning or the last CLEAR. One sum is enough: what a later operation
    /// supersedes still counts.
    pub(crate) sum: Checksum,
    /// Operations up to here are published, or up to that of the last full publish if that is further.
    pub(crate) published_seq: i64,
}

/// All buckets that are not retired, by name.
pub(crate) fn load(conn: &Connection) -> Result<HashMap<ByteString, Bucket>> {
    let mut statement = conn
        .prepare_cached("SELECT name, id, last_op, sum, published_seq FROM syncline_buckets WHERE name IS NOT NULL")?;
    let mut rows = statement.query([])?;
    let mut buckets = HashMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let bucket = read(row)?;
        buckets.insert(name.into(), bucket);
    }
    Ok(buckets)
}

/// One bucket, if it is there.
pub(crate) fn find(conn: &Connection, name: &str) -> Result<Option<Bucket>> {
    let mut statement =
        conn.prepare_cached("SELECT name, id, last_op, sum, published_seq FROM syncline_buckets WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    match rows.next()? {
        None => Ok(None),
        Some(row) => Ok(Some(read(row)?)),
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        id: row.get(1)?,
        last_op: OpId(u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)),
        sum: Checksum::from_wire(row.get(3)?),
        published_seq: row.get(4)?,
    })
}

/// Makes a bucket without operations.
pub(crate) fn create(conn: &Connection, name: &str) -> Result<Bucket> {
    conn.prepare_cached("INSERT INTO syncline_buckets (name) VALUES (?1)")?.execute([name])?;
    Ok(Bucket { id: conn.last_insert_rowid(), last_op: OpId::ZERO, sum: Checksum(0), published_seq: 0 })
}

/// Records position and sum.
pub(crate) fn save(conn: &Connection, bucket: &Bucket) -> Result<()> {
    conn.prepare_cached("UPDATE syncline_buckets SET last_op = ?2, sum = ?3 WHERE id = ?1")?.execute((
        bucket.id,
        signed(bucket.last_op),
        i64::from(bucket.sum.0),
    ))?;
    Ok(())
}

/// Takes a bucket's name away: what it staged is garbage now, what it published stays visible until a full publish.
/// `published_seq` is that of the last full publish.
pub(crate) fn retire(conn: &Connection, bucket: &Bucket, published_seq: i64) -> Result<()> {
    conn.prepare_cached(
        "UPDATE syncline_buckets SET name = NULL, former_name = name, published_seq = ?2 WHERE id = ?1",
    )?
    .execute((bucket.id, bucket.published_seq.max(published_seq)))?;
    Ok(())
}

/// The names of retired buckets of which something may still be shown.
pub(crate) fn shown_retired(conn: &Connection) -> Result<Vec<ByteString>> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT former_name FROM syncline_buckets AS b WHERE name IS NULL AND former_name IS NOT NULL \
         AND EXISTS (SELECT 1 FROM syncline_log WHERE bucket = b.id AND seq <= b.published_seq)",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(names.map(|name| name.map(ByteString::from)).collect::<rusqlite::Result<_>>()?)
}

/// A retired bucket that takes over published operations which a partial publish must not take out of sight.
pub(crate) fn create_retired(conn: &Connection) -> Result<i64> {
    conn.prepare_cached("INSERT INTO syncline_buckets (name, published_seq) VALUES (NULL, ?1)")?.execute([i64::MAX])?;
    Ok(conn.last_insert_rowid())
}

/// An operation id as SQLite stores it. Those of the wire are within `i64`; what is not is no position to resume from.
pub(crate) fn signed(op: OpId) -> i64 {
    i64::try_from(op.0).unwrap_or(i64::MAX)
}

/// Whether there are retired buckets.
pub(crate) fn has_retired(conn: &Connection) -> Result<bool> {
    Ok(conn.prepare_cached("SELECT 1 FROM syncline_buckets WHERE name IS NULL")?.exists([])?)
}

/// Removes up to `limit` operations of retired buckets that nothing shows any more, and retired buckets that are empty.
/// `false` when there is nothing left to remove.
pub(crate) fn purge(conn: &Connection, limit: usize) -> Result<bool> {
    let mut statement = conn.prepare_cached("SELECT id, published_seq FROM syncline_buckets WHERE name IS NULL")?;
    let retired: Vec<(i64, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut left = limit;
    for (id, published_seq) in retired {
        let mut delete = conn.prepare_cached(
            "DELETE FROM syncline_log WHERE seq IN \
             (SELECT seq FROM syncline_log WHERE bucket = ?1 AND seq > ?2 LIMIT ?3)",
        )?;
        let limit = i64::try_from(left).unwrap_or(i64::MAX);
        left = left.saturating_sub(delete.execute((id, published_seq, limit))?);
        if left == 0 {
            return Ok(true);
        }
        conn.prepare_cached(
            "DELETE FROM syncline_buckets WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM syncline_log WHERE bucket = ?1)",
        )?
        .execute([id])?;
    }
    Ok(false)
}
