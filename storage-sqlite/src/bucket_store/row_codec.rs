//! Source rows as they are stored: compact, with buckets by their numbers.

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use syncline_core::{CurrentRow, Error, LookupKey, Membership, Result};

use super::bucket_cache::BucketCache;

/// A membership names the table and the id that clients see. The number of its bucket is negative if the id is the key of
/// the row, as it is of most: then it is not written again.
#[derive(Serialize)]
struct RowToWrite<'a> {
    image: &'a Bytes,
    memberships: Vec<(i64, &'a str, &'a str)>,
    lookups: &'a [LookupKey],
}

/// What [`RowToWrite`] is read back as; the two encode alike.
#[derive(Deserialize)]
struct StoredRow {
    image: Bytes,
    memberships: Vec<(i64, ByteString, ByteString)>,
    lookups: Vec<LookupKey>,
}

/// Encodes the row of a key into `buffer`, which is reused from row to row.
pub(super) fn encode(
    key: &[u8],
    row: &CurrentRow,
    connection: &Connection,
    cache: &mut BucketCache,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let mut memberships = Vec::with_capacity(row.memberships.len());
    for membership in &row.memberships {
        let number = cache.number(connection, &membership.bucket)?;
        let object_id = &*membership.object_id;
        memberships.push(match object_id.as_bytes() == key {
            true => (-number, &*membership.object_type, ""),
            false => (number, &*membership.object_type, object_id),
        });
    }
    let row = RowToWrite { image: &row.image, memberships, lookups: &row.lookups };
    buffer.clear();
    *buffer = postcard::to_extend(&row, std::mem::take(buffer))
        .map_err(|error| Error::internal("cannot encode a row").caused_by(error))?;
    Ok(())
}

pub(super) fn decode(
    key: &Bytes,
    bytes: &[u8],
    connection: &Connection,
    cache: &mut BucketCache,
) -> Result<CurrentRow> {
    let row: StoredRow =
        postcard::from_bytes(bytes).map_err(|error| Error::data("a stored row is damaged").caused_by(error))?;
    let mut memberships = Vec::with_capacity(row.memberships.len());
    for (number, object_type, object_id) in row.memberships {
        let object_id = match number {
            ..0 => ByteString::try_from(key.clone())
                .map_err(|error| Error::data("a stored row is damaged").caused_by(error))?,
            _ => object_id,
        };
        let bucket = cache.bucket(connection, number.saturating_abs())?;
        memberships.push(Membership { bucket, object_type, object_id });
    }
    Ok(CurrentRow { image: row.image, memberships, lookups: row.lookups })
}
