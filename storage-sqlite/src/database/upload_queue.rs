//! The upload queue: local writes, until a publish covers them.
//!
//! The queue is sent in order, so one number (`sent_upto`) tells what was sent, and `syncline_covers` which write
//! checkpoint the sent ones wait for.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Map, Value as Json};
use syncline_core::{
    LocalTransaction, LocalWrite, UploadSequence, UploadState, Uploaded, WallTime, WriteCheckpoint, WriteKind,
};

use super::error::{Error, Result};
use super::layout::State;
use super::queue_runs;

/// A local transaction that the application's backend refused.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedTransaction {
    /// The number of the transaction: that of its first write. Identifies it for
    /// [`Database::dismiss_rejected`](crate::Database::dismiss_rejected).
    pub id: i64,
    /// When this device learned of it.
    pub rejected_at: WallTime,
    /// What the backend said.
    pub reason: String,
    /// What was refused.
    pub transaction: LocalTransaction,
}

/// The id of the newest entry, or 0.
pub(crate) fn last_entry(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("SELECT coalesce(max(id), 0) FROM syncline_queue")?.query_row([], |row| row.get(0))?)
}

/// Up to where entries are covered, and the largest write checkpoint that they wait for.
pub(crate) fn last_cover(conn: &Connection) -> Result<Option<(i64, WriteCheckpoint)>> {
    let mut statement = conn.prepare_cached("SELECT max(upto), max(checkpoint) FROM syncline_covers")?;
    let cover: (Option<i64>, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(cover.0.zip(cover.1).map(|(upto, checkpoint)| (upto, WriteCheckpoint(checkpoint))))
}

/// Entries up to this one are carried by a checkpoint with this write checkpoint.
pub(crate) fn released_by(conn: &Connection, carried: Option<WriteCheckpoint>) -> Result<i64> {
    let Some(carried) = carried else { return Ok(0) };
    // Numbers may fall from one cover to the next: what comes after one that is still awaited is not released.
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(max(upto), 0) FROM syncline_covers \
         WHERE upto < coalesce((SELECT min(upto) FROM syncline_covers WHERE checkpoint > ?1), upto + 1)",
    )?;
    Ok(statement.query_row([carried.0], |row| row.get(0))?)
}

/// Forgets the entries that a full publish has shown: all, because it needs the queue to be covered. Without a condition
/// SQLite drops whole pages. False if there were none.
pub(crate) fn forget_published(conn: &Connection) -> Result<bool> {
    if last_entry(conn)? == 0 {
        return Ok(false);
    }
    for table in ["syncline_queue", "syncline_transactions", "syncline_covers"] {
        conn.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
    }
    Ok(true)
}

/// The state of the queue.
pub(crate) fn state(conn: &Connection) -> Result<UploadState> {
    let sent = State::load(conn)?.sent_upto;
    let last = last_entry(conn)?;
    let cover = last_cover(conn)?;
    let uncovered = (sent > cover.map_or(0, |(upto, _)| upto) && first_entry(conn)?.is_some_and(|first| first <= sent))
        .then_some(UploadSequence(sent));
    let queued = if last > sent { queue_runs::count(conn, sent)? } else { 0 };
    let (covered, awaited) = cover.unzip();
    Ok(UploadState { queued, uncovered, covered: covered.map(UploadSequence), awaited })
}

fn first_entry(conn: &Connection) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT min(id) FROM syncline_queue")?.query_row([], |row| row.get(0))?)
}

/// The oldest transactions that were not sent, at most `limit`.
pub(crate) fn unsent(conn: &Connection, limit: usize) -> Result<Vec<LocalTransaction>> {
    let mut sent = State::load(conn)?.sent_upto;
    let client_id: String =
        conn.prepare_cached("SELECT client_id FROM syncline_state")?.query_row([], |row| row.get(0))?;
    let mut transactions = Vec::new();
    while transactions.len() < limit {
        let Some(transaction) = next_after(conn, sent, &client_id)? else { break };
        sent = transaction.crud.last().map_or(i64::MAX, |write| write.op_id);
        transactions.push(transaction);
    }
    Ok(transactions)
}

fn next_after(conn: &Connection, sent: i64, client_id: &str) -> Result<Option<LocalTransaction>> {
    let mut oldest =
        conn.prepare_cached("SELECT id, written_at FROM syncline_queue WHERE id > ?1 ORDER BY id LIMIT 1")?;
    let Some((first, written_at)): Option<(i64, i64)> =
        oldest.query_row([sent], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
    else {
        return Ok(None);
    };
    let mut boundary =
        conn.prepare_cached("SELECT first, last FROM syncline_transactions WHERE last >= ?1 ORDER BY last LIMIT 1")?;
    let boundary: Option<(i64, i64)> = boundary.query_row([first], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    // Entries of other processes are grouped by their statement, whose time they share.
    let (last, statement_time) = match boundary {
        Some((begin, end)) if begin <= first => (end, None),
        Some((begin, _)) => (begin - 1, Some(written_at)),
        None => (i64::MAX, Some(written_at)),
    };
    let mut entries = conn.prepare_cached(
        "SELECT id, op, tbl, row_id, data, old, note, written_at FROM syncline_queue \
         WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    let mut rows = entries.query((first, last))?;
    let mut crud = Vec::new();
    while let Some(row) = rows.next()? {
        if statement_time.is_some_and(|time| row.get(7) != Ok(time)) {
            break;
        }
        crud.push(read_write(conn, row, first)?);
    }
    Ok(Some(LocalTransaction { transaction_id: Some(first), client_id: Some(client_id.to_owned()), crud }))
}

fn read_write(conn: &Connection, row: &Row<'_>, transaction: i64) -> Result<LocalWrite> {
    let op: String = row.get(1)?;
    let op = match op.as_str() {
        "PUT" => WriteKind::Put,
        "PATCH" => WriteKind::Patch,
        "DELETE" => WriteKind::Delete,
        _ => return Err(syncline_core::Error::data("the upload queue holds an unknown kind of write").into()),
    };
    Ok(LocalWrite {
        op_id: row.get(0)?,
        op,
        table: text(row, 2)?.unwrap_or_default().into(),
        id: text(row, 3)?.unwrap_or_default(),
        tx_id: Some(transaction),
        data: object(conn, text(row, 4)?)?,
        old: object(conn, text(row, 5)?)?,
        metadata: text(row, 6)?,
    })
}

/// Text as another process may have written it: bytes that are no UTF-8 must not block the queue.
pub(crate) fn text(row: &Row<'_>, column: usize) -> Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
    })
}

/// The members of a JSON object. What `serde_json` refuses (another SQLite may have written an infinity) is read by SQLite,
/// value by value, so that nothing wedges the queue.
fn object(conn: &Connection, json: Option<String>) -> Result<Option<Map<String, Json>>> {
    let Some(json) = json else { return Ok(None) };
    if let Ok(map) = serde_json::from_str(&json) {
        return Ok(Some(map));
    }
    let mut statement = conn.prepare_cached("SELECT key, atom FROM json_each(?1) WHERE json_valid(?1)")?;
    let mut rows = statement.query([&json])?;
    let mut map = Map::new();
    while let Some(row) = rows.next()? {
        let value = match row.get_ref(1)? {
            ValueRef::Integer(value) => value.into(),
            ValueRef::Real(value) => value.into(),
            ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
            ValueRef::Null | ValueRef::Blob(_) => Json::Null,
        };
        map.insert(text(row, 0)?.unwrap_or_default(), value);
    }
    Ok(Some(map))
}

/// Marks the oldest transaction as sent. The second report of the same one changes nothing.
pub(crate) fn finish(conn: &Connection, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
    let sent = State::load(conn)?.sent_upto;
    let ends = transaction.crud.first().zip(transaction.crud.last());
    let Some((first, last)) = ends.map(|(first, last)| (first.op_id, last.op_id)) else {
        return Err(syncline_core::Error::invalid("a transaction without writes was never in the queue").into());
    };
    if last <= sent {
        return Ok(());
    }
    let mut oldest = conn.prepare_cached("SELECT min(id) FROM syncline_queue WHERE id > ?1")?;
    let oldest: Option<i64> = oldest.query_row([sent], |row| row.get(0))?;
    if oldest != Some(first) {
        return Err(syncline_core::Error::invalid("only the oldest transaction of the queue can be finished").into());
    }
    conn.prepare_cached("UPDATE syncline_state SET sent_upto = ?1")?.execute([last])?;
    conn.prepare_cached("DELETE FROM syncline_transactions WHERE last <= ?1")?.execute([last])?;
    if let Uploaded::Rejected { reason } = outcome {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO syncline_rejected (id, rejected_at, reason, writes) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((first, now().0, reason, serde_json::to_string(transaction)?))?;
    }
    Ok(())
}

/// Records that entries up to `upto` wait for a write checkpoint.
pub(crate) fn cover(conn: &Connection, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
    let sent = State::load(conn)?.sent_upto;
    if upto.0 > sent {
        return Err(syncline_core::Error::invalid("an entry that was not sent cannot be covered").into());
    }
    if first_entry(conn)?.is_none_or(|first| first > upto.0) {
        return Ok(());
    }
    // What those entries waited for before does not count any more, be it larger. Covers of later entries stay.
    conn.prepare_cached("DELETE FROM syncline_covers WHERE upto <= ?1")?.execute([upto.0])?;
    conn.prepare_cached("INSERT INTO syncline_covers (upto, checkpoint) VALUES (?1, ?2)")?
        .execute((upto.0, checkpoint.0))?;
    Ok(())
}

/// The refused transactions, oldest first.
pub(crate) fn rejected(conn: &Connection) -> Result<Vec<RejectedTransaction>> {
    let mut statement =
        conn.prepare_cached("SELECT id, rejected_at, reason, writes FROM syncline_rejected ORDER BY id")?;
    let rows = statement.query_and_then([], |row| {
        let writes: String = row.get(3)?;
        Ok::<_, Error>(RejectedTransaction {
            id: row.get(0)?,
            rejected_at: WallTime(row.get(1)?),
            reason: row.get(2)?,
            transaction: serde_json::from_str(&writes)?,
        })
    })?;
    rows.collect()
}

/// Forgets a refused transaction.
pub(crate) fn dismiss(conn: &Connection, id: i64) -> Result<bool> {
    Ok(conn.prepare_cached("DELETE FROM syncline_rejected WHERE id = ?1")?.execute([id])? > 0)
}

/// The time of day, for the record of a rejection.
pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
