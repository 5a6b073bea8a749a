//! The numbers of buckets, and their running totals.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::{BucketId, Checksum, DefinitionId, Error, Result};

use super::sqlite_error::{failed, signed, unsigned};

/// Entries of each kind that are remembered; the cache starts anew beyond it.
const LIMIT: usize = 200_000;

/// A bucket's running count and sum, up to and including its last chunk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) count: u64,
    pub(super) sum: Checksum,
}

/// What the writer remembers of buckets. It must be [cleared](Self::clear) when a transaction is rolled back.
#[derive(Debug, Default)]
pub(super) struct BucketCache {
    numbers: HashMap<BucketId, i64>,
    /// The one that was asked for last: operations and rows of one bucket often follow each other.
    last: Option<(BucketId, i64)>,
    buckets: HashMap<i64, BucketId>,
    totals: HashMap<i64, Totals>,
}

impl BucketCache {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The number of a bucket, which is made if it is new.
    pub(super) fn number(&mut self, connection: &Connection, bucket: &BucketId) -> Result<i64> {
        if let Some((last, number)) = &self.last
            && last == bucket
        {
            return Ok(*number);
        }
        let number = self.number_of(connection, bucket)?;
        self.last = Some((bucket.clone(), number));
        Ok(number)
    }

    fn number_of(&mut self, connection: &Connection, bucket: &BucketId) -> Result<i64> {
        if let Some(number) = self.numbers.get(bucket) {
            return Ok(*number);
        }
        let failed = failed("cannot store a bucket");
        let number = match find_number(connection, bucket)? {
            Some(number) => number,
            None => {
                connection
                    .prepare_cached("INSERT INTO buckets (definition, parameters) VALUES (?, ?)")
                    .and_then(|mut statement| statement.execute(params![bucket.definition.0, &*bucket.parameters]))
                    .map_err(&failed)?;
                connection.last_insert_rowid()
            }
        };
        if self.numbers.len() >= LIMIT {
            self.numbers.clear();
        }
        self.numbers.insert(bucket.clone(), number);
        Ok(number)
    }

    /// The bucket of a number.
    pub(super) fn bucket(&mut self, connection: &Connection, number: i64) -> Result<BucketId> {
        if let Some(bucket) = self.buckets.get(&number) {
            return Ok(bucket.clone());
        }
        let found = connection
            .prepare_cached("SELECT definition, parameters FROM buckets WHERE id = ?")
            .and_then(|mut statement| {
                let row = statement.query_row([number], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
                row.optional()
            })
            .map_err(failed("cannot read a bucket"))?;
        let Some((definition, parameters)) = found else {
            return Err(Error::data("a stored row names a bucket that does not exist"));
        };
        let bucket = BucketId { definition: DefinitionId(definition), parameters: parameters.into() };
        if self.buckets.len() >= LIMIT {
            self.buckets.clear();
        }
        self.buckets.insert(number, bucket.clone());
        Ok(bucket)
    }

    pub(super) fn totals(&mut self, connection: &Connection, number: i64) -> Result<Totals> {
        if let Some(totals) = self.totals.get(&number) {
            return Ok(*totals);
        }
        let found = connection
            .prepare_cached("SELECT count, sum FROM chunks WHERE bucket = ? ORDER BY last_op DESC LIMIT 1")
            .and_then(|mut statement| {
                let row = statement
                    .query_row([number], |row| Ok(Totals { count: unsigned(row.get(0)?), sum: Checksum(row.get(1)?) }));
                row.optional()
            })
            .map_err(failed("cannot read a bucket"))?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn set_totals(&mut self, number: i64, totals: Totals) {
        if self.totals.len() >= LIMIT {
            self.totals.clear();
        }
        self.totals.insert(number, totals);
    }

    pub(super) fn forget_totals(&mut self, number: i64) {
        self.totals.remove(&number);
    }
}

fn find_number(connection: &Connection, bucket: &BucketId) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM buckets WHERE definition = ? AND parameters = ?")
        .and_then(|mut statement| {
            statement.query_row(params![bucket.definition.0, &*bucket.parameters], |row| row.get(0)).optional()
        })
        .map_err(failed("cannot read a bucket"))
}

/// A chunk's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkHeader {
    pub(super) last_op: u64,
    pub(super) first_op: u64,
    pub(super) totals: Totals,
    pub(super) target: u64,
    pub(super) size: u64,
}

impl ChunkHeader {
    /// From `last_op, first_op, count, sum, target, size`.
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            last_op: unsigned(row.get(0)?),
            first_op: unsigned(row.get(1)?),
            totals: Totals { count: unsigned(row.get(2)?), sum: Checksum(row.get(3)?) },
            target: unsigned(row.get(4)?),
            size: unsigned(row.get(5)?),
        })
    }

    /// Writes the chunk; one with the same last operation is replaced.
    pub(super) fn write(&self, connection: &Connection, bucket: i64, bytes: &[u8]) -> Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO chunks (bucket, last_op, first_op, count, sum, target, size)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    bucket,
                    signed(self.last_op),
                    signed(self.first_op),
                    signed(self.totals.count),
                    self.totals.sum.0,
                    signed(self.target),
                    signed(self.size),
                ])
            })
            .and_then(|_| connection.prepare_cached("INSERT OR REPLACE INTO contents (last_op, bytes) VALUES (?, ?)"))
            .and_then(|mut statement| statement.execute(params![signed(self.last_op), bytes]))
            .map_err(failed("cannot store operations"))?;
        Ok(())
    }

    pub(super) fn delete(&self, connection: &Connection, bucket: i64) -> Result<()> {
        connection
            .prepare_cached("DELETE FROM chunks WHERE bucket = ? AND last_op = ?")
            .and_then(|mut statement| statement.execute(params![bucket, signed(self.last_op)]))
            .and_then(|_| connection.prepare_cached("DELETE FROM contents WHERE last_op = ?"))
            .and_then(|mut statement| statement.execute([signed(self.last_op)]))
            .map_err(failed("cannot delete operations"))?;
        Ok(())
    }
}
