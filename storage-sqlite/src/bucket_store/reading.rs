//! Reads at a published checkpoint, each within one short transaction.

use std::collections::BTreeSet;

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::{Connection, OptionalExtension, Row, params};
use syncline_core::{
    BucketChecksum, BucketId, BucketRead, Chunk, Error, LookupChange, LookupDifference, LookupKey, LookupRows, OpId,
    OperationChunk, ReadRequest, Result, RowKey,
};

use super::appending::table_number;
use super::bucket_cache::{ChunkHeader, Totals};
use super::sqlite_error::{failed, signed, unsigned};

/// What limits a read, as of its transaction.
struct Bounds {
    published: OpId,
    floor: OpId,
    lookup_floor: OpId,
}

/// A bucket's row.
struct FoundBucket {
    id: i64,
    cleared: OpId,
    removed: u64,
}

/// Runs a read on one state of the store. Within the writer's own open transaction it is run as it is: everything is cut
/// by operation ids.
fn on_one_state<T>(connection: &Connection, read: impl FnOnce(&Connection, &Bounds) -> Result<T>) -> Result<T> {
    if !connection.is_autocommit() {
        return read(connection, &Bounds::load(connection)?);
    }
    let failed = failed("cannot read from the bucket store");
    connection.execute_batch("BEGIN").map_err(&failed)?;
    let answer = Bounds::load(connection).and_then(|bounds| read(connection, &bounds));
    // A transaction that stayed open would show every later read the same old state.
    let ended = connection.execute_batch("COMMIT").or_else(|_| connection.execute_batch("ROLLBACK"));
    ended.map_err(&failed)?;
    answer
}

impl Bounds {
    fn load(connection: &Connection) -> Result<Self> {
        connection
            .prepare_cached("SELECT published_op, floor, lookup_floor FROM meta")
            .and_then(|mut statement| {
                statement.query_row([], |row| {
                    Ok(Self {
                        published: OpId(row.get::<_, Option<i64>>(0)?.map_or(0, unsigned)),
                        floor: OpId(unsigned(row.get(1)?)),
                        lookup_floor: OpId(unsigned(row.get(2)?)),
                    })
                })
            })
            .map_err(failed("cannot read where the bucket store stands"))
    }
}

fn gone(at: OpId) -> Error {
    Error::unavailable(format!("the state at {at} is gone, ask at a newer checkpoint"))
}

fn find_bucket(connection: &Connection, bucket: &BucketId) -> Result<Option<FoundBucket>> {
    connection
        .prepare_cached("SELECT id, cleared_op, removed FROM buckets WHERE definition = ? AND parameters = ?")
        .and_then(|mut statement| {
            let row = statement.query_row(params![bucket.definition.0, &*bucket.parameters], |row| {
                Ok(FoundBucket {
                    id: row.get(0)?,
                    cleared: OpId(unsigned(row.get(1)?)),
                    removed: unsigned(row.get(2)?),
                })
            });
            row.optional()
        })
        .map_err(failed("cannot read a bucket"))
}

/// The content of a chunk.
pub(super) fn load_chunk(connection: &Connection, last_op: u64) -> Result<Chunk> {
    let bytes = connection
        .prepare_cached("SELECT bytes FROM contents WHERE last_op = ?")
        .and_then(|mut statement| {
            let row =
                statement.query_row([signed(last_op)], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)));
            row.optional()
        })
        .map_err(failed("cannot read operations"))?;
    Chunk::from_bytes(bytes.ok_or_else(|| Error::data("stored operations are missing"))?)
}

pub(super) fn checksums(connection: &Connection, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
    on_one_state(connection, |connection, bounds| {
        if at < bounds.floor {
            return Err(gone(at));
        }
        let at = at.min(bounds.published);
        buckets.iter().map(|bucket| checksum(connection, at, bucket)).collect()
    })
}

fn checksum(connection: &Connection, at: OpId, bucket: &BucketId) -> Result<BucketChecksum> {
    let Some(bucket) = find_bucket(connection, bucket)? else { return Ok(BucketChecksum::default()) };
    if at < bucket.cleared {
        return Err(gone(at));
    }
    let failed = failed("cannot read a checksum");
    let before = connection
        .prepare_cached("SELECT count, sum FROM chunks WHERE bucket = ? AND last_op <= ? ORDER BY last_op DESC LIMIT 1")
        .and_then(|mut statement| {
            let row = statement.query_row(params![bucket.id, signed(at.0)], |row| {
                Ok(Totals { count: unsigned(row.get(0)?), sum: syncline_core::Checksum(row.get(1)?) })
            });
            row.optional()
        })
        .map_err(&failed)?;
    let mut sum = match before {
        Some(totals) => BucketChecksum { count: totals.count.saturating_sub(bucket.removed), checksum: totals.sum },
        None => BucketChecksum::default(),
    };
    // Merged chunks may reach over an older checkpoint.
    let next: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT first_op, last_op FROM chunks WHERE bucket = ? AND last_op > ? ORDER BY last_op LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row(params![bucket.id, signed(at.0)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(&failed)?;
    if let Some((first_op, last_op)) = next
        && unsigned(first_op) <= at.0
    {
        let (count, added) = load_chunk(connection, unsigned(last_op))?.sum_upto(at);
        sum.count += count;
        sum.checksum += added;
    }
    Ok(sum)
}

pub(super) fn read(connection: &Connection, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
    on_one_state(connection, |connection, bounds| {
        requests.iter().map(|request| read_one(connection, bounds, request)).collect()
    })
}

fn read_one(connection: &Connection, bounds: &Bounds, request: &ReadRequest) -> Result<OperationChunk> {
    let request = ReadRequest { upto: request.upto.min(bounds.published), ..request.clone() };
    let mut read = BucketRead::new(&request);
    if request.upto < bounds.floor {
        read.supersede(bounds.floor);
    }
    let Some(bucket) = find_bucket(connection, &request.bucket)? else { return Ok(read.finish()) };
    if request.upto < bucket.cleared {
        read.supersede(bucket.cleared);
    }
    let failed = failed("cannot read operations");
    let mut statement = connection
        .prepare_cached(
            "SELECT last_op, first_op, count, sum, target, size FROM chunks
             WHERE bucket = ? AND last_op > ? ORDER BY last_op",
        )
        .map_err(&failed)?;
    let mut found = statement.query(params![bucket.id, signed(request.after.0)]).map_err(&failed)?;
    while let Some(row) = found.next().map_err(&failed)? {
        let header = ChunkHeader::from_row(row).map_err(&failed)?;
        if !read.wants(OpId(header.first_op), usize::try_from(header.size).unwrap_or(usize::MAX)) {
            break;
        }
        read.add(load_chunk(connection, header.last_op)?, OpId(header.target));
    }
    Ok(read.finish())
}

pub(super) fn lookup(connection: &Connection, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
    on_one_state(connection, |connection, bounds| {
        if at < bounds.lookup_floor {
            return Err(gone(at));
        }
        let at = at.min(bounds.published);
        keys.iter().map(|key| lookup_one(connection, at, key)).collect()
    })
}

fn lookup_one(connection: &Connection, at: OpId, key: &LookupKey) -> Result<LookupRows> {
    let failed = failed("cannot read a lookup");
    // The newest entry of each row; SQLite takes the other columns from the row of the maximum.
    let mut statement = connection
        .prepare_cached(
            "SELECT outputs, max(op_id) FROM lookups
             WHERE definition = ? AND key_values = ? AND op_id <= ? GROUP BY source_table, key",
        )
        .map_err(&failed)?;
    let mut found = statement.query(params![key.index.0, &*key.values, signed(at.0)]).map_err(&failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(&failed)? {
        rows.extend(outputs(row)?);
    }
    Ok(LookupRows { rows })
}

/// What a state of an entry yields: the first column.
fn outputs(row: &Row<'_>) -> Result<Vec<ByteString>> {
    let outputs = row.get_ref(0).and_then(|outputs| Ok(outputs.as_blob_or_null()?));
    let outputs = outputs.map_err(failed("cannot read a lookup"))?;
    let Some(outputs) = outputs else { return Ok(Vec::new()) };
    postcard::from_bytes(outputs).map_err(|error| Error::data("a stored lookup is damaged").caused_by(error))
}

/// The same as what differs since another checkpoint, where it is known which source rows have changed.
pub(super) fn lookup_changes(
    connection: &Connection,
    since: OpId,
    at: OpId,
    keys: &[(LookupKey, Option<BTreeSet<RowKey>>)],
) -> Result<Vec<LookupChange>> {
    on_one_state(connection, |connection, bounds| {
        if at < bounds.lookup_floor {
            return Err(gone(at));
        }
        let at = at.min(bounds.published);
        let change = |(key, changed): &(LookupKey, Option<BTreeSet<RowKey>>)| match changed {
            Some(rows) if since >= bounds.lookup_floor => {
                let mut difference = LookupDifference::default();
                for row in rows {
                    let state = |at| outputs_of(connection, at, key, row);
                    difference.add(state(since)?, state(at)?);
                }
                Ok(LookupChange::Difference(difference))
            }
            // States of before may be gone.
            _ => lookup_one(connection, at, key).map(LookupChange::Whole),
        };
        keys.iter().map(change).collect()
    })
}

/// What a source row yields for a key.
fn outputs_of(connection: &Connection, at: OpId, key: &LookupKey, row: &RowKey) -> Result<Vec<ByteString>> {
    let failed = failed("cannot read a lookup");
    let mut statement = connection
        .prepare_cached(
            "SELECT outputs FROM lookups
             WHERE definition = ? AND key_values = ? AND source_table = ? AND key = ? AND op_id <= ?
             ORDER BY op_id DESC LIMIT 1",
        )
        .map_err(&failed)?;
    let entry = params![key.index.0, &*key.values, table_number(row.table), &row.key[..], signed(at.0)];
    let mut found = statement.query(entry).map_err(&failed)?;
    found.next().map_err(&failed)?.map_or_else(|| Ok(Vec::new()), outputs)
}
