//! Staging changes inside the open transaction.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::{
    AppendBatch, ChangeCollector, ChunkBuilder, ClientKey, CurrentRow, Error, LookupEntry, NewOperation, OpId, Result,
    RowKey, TableId, WriteCheckpoint,
};

use super::bucket_cache::{ChunkHeader, Totals};
use super::row_codec;
use super::sqlite_error::{failed, signed};
use super::writer::Writer;
use crate::failpoint;

/// A bucket's operations are written as a chunk when they take this much,
const CHUNK: usize = 64 << 10;
/// and those of all buckets when together they take this much.
const BUFFER: usize = 8 << 20;
/// From so many rows on it is worth to look where their table ends.
const MANY: usize = 50;
/// Rows of a truncated table that are looked at together.
const PAGE: usize = 500;

/// What the open transaction appended.
#[derive(Debug)]
pub(super) struct Staged {
    /// The last operation id given.
    pub(super) last_op: u64,
    /// Operations that are not written yet, by the number of their bucket.
    builders: HashMap<i64, ChunkBuilder>,
    /// Bytes that they take.
    buffered: usize,
    /// Whether the source confirmed write checkpoints.
    pub(super) confirms: bool,
    changes: ChangeCollector,
}

impl Staged {
    fn after(last_op: u64) -> Self {
        Self { last_op, builders: HashMap::new(), buffered: 0, confirms: false, changes: ChangeCollector::new() }
    }

    pub(super) fn into_changes(self) -> ChangeCollector {
        self.changes
    }
}

impl Writer {
    pub(super) fn append(&mut self, batch: AppendBatch) -> Result<()> {
        self.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        // Set back at the end: a batch that was staged in part must not be committed.
        self.failed = true;
        self.begin()?;
        let mut staged = self.staged.take().unwrap_or_else(|| Staged::after(self.meta.last_op));
        let done = self.stage(&mut staged, batch);
        self.staged = Some(staged);
        done?;
        self.failed = false;
        failpoint::reach("append.staged");
        Ok(())
    }

    fn stage(&mut self, staged: &mut Staged, batch: AppendBatch) -> Result<()> {
        for table in batch.truncate {
            self.truncate(staged, table)?;
        }
        for operation in &batch.operations {
            let number = self.cache.number(&self.connection, &operation.bucket)?;
            self.stage_operation(staged, number, operation)?;
        }
        self.write_rows(&batch.rows)?;
        self.write_lookups(staged, &batch.lookups)?;
        self.write_confirmed(staged, &batch.write_checkpoints)
    }

    fn stage_operation(&mut self, staged: &mut Staged, number: i64, operation: &NewOperation) -> Result<()> {
        staged.last_op += 1;
        let builder = staged.builders.entry(number).or_insert_with(|| {
            staged.changes.bucket(&operation.bucket);
            ChunkBuilder::new()
        });
        let before = builder.size();
        builder.push_new(OpId(staged.last_op), operation)?;
        let after = builder.size();
        staged.buffered += after - before;
        if after >= CHUNK
            && let Some(mut builder) = staged.builders.remove(&number)
        {
            staged.buffered = staged.buffered.saturating_sub(after);
            self.write_chunk(number, &mut builder)?;
        }
        if staged.buffered >= BUFFER {
            self.flush(staged)?;
        }
        Ok(())
    }

    /// Writes all operations that are staged.
    pub(super) fn flush_all(&mut self) -> Result<()> {
        if let Some(mut staged) = self.staged.take() {
            let done = self.flush(&mut staged);
            self.staged = Some(staged);
            done?;
        }
        Ok(())
    }

    fn flush(&mut self, staged: &mut Staged) -> Result<()> {
        let mut builders: Vec<(i64, ChunkBuilder)> = staged.builders.drain().collect();
        // By bucket: neighbours in the table of headers.
        builders.sort_unstable_by_key(|(number, _)| *number);
        for (number, mut builder) in builders {
            self.write_chunk(number, &mut builder)?;
        }
        staged.buffered = 0;
        Ok(())
    }

    fn write_chunk(&mut self, number: i64, builder: &mut ChunkBuilder) -> Result<()> {
        let chunk = builder.finish();
        let (Some(first_op), Some(last_op)) = (chunk.first_op(), chunk.last_op()) else { return Ok(()) };
        let (count, sum) = chunk.sum_upto(last_op);
        let before = self.cache.totals(&self.connection, number)?;
        let totals = Totals { count: before.count + count, sum: before.sum + sum };
        let header = ChunkHeader {
            last_op: last_op.0,
            first_op: first_op.0,
            totals,
            target: 0,
            size: chunk.bytes().len() as u64,
        };
        header.write(&self.connection, number, chunk.bytes())?;
        self.cache.set_totals(number, totals);
        Ok(())
    }

    fn write_rows(&mut self, rows: &[(RowKey, Option<CurrentRow>)]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let failed = failed("cannot store a row");
        let mut write = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO source_rows (source_table, key, content) VALUES (?, ?, ?)")
            .map_err(&failed)?;
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM source_rows WHERE source_table = ? AND key = ?")
            .map_err(&failed)?;
        let mut buffer = Vec::new();
        for (key, row) in rows {
            let table = table_number(key.table);
            match row {
                Some(row) => {
                    row_codec::encode(&key.key, row, &self.connection, &mut self.cache, &mut buffer)?;
                    write.execute(params![table, &key.key[..], buffer]).map_err(&failed)?;
                }
                None => {
                    delete.execute(params![table, &key.key[..]]).map_err(&failed)?;
                }
            }
        }
        Ok(())
    }

    /// All entries get one operation id: an entry is the state of its row from then on.
    fn write_lookups(&mut self, staged: &mut Staged, entries: &[LookupEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        staged.last_op += 1;
        let failed = failed("cannot store a lookup");
        let mut write = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO lookups (definition, key_values, source_table, key, op_id, outputs)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .map_err(&failed)?;
        for entry in entries {
            let outputs = match entry.outputs.is_empty() {
                true => None,
                false => Some(
                    postcard::to_stdvec(&entry.outputs)
                        .map_err(|error| Error::internal("cannot encode a lookup").caused_by(error))?,
                ),
            };
            write
                .execute(params![
                    entry.key.index.0,
                    &*entry.key.values,
                    table_number(entry.row.table),
                    &entry.row.key[..],
                    signed(staged.last_op),
                    outputs
                ])
                .map_err(&failed)?;
            staged.changes.lookup(&entry.key, &entry.row);
        }
        self.sweeper.lookups_written(entries.len() as u64);
        Ok(())
    }

    /// Keeps the largest number of each client until the commit, however many there are.
    fn write_confirmed(&mut self, staged: &mut Staged, numbers: &BTreeMap<ClientKey, WriteCheckpoint>) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let failed = failed("cannot store a write checkpoint");
        if !staged.confirms {
            // Those of an earlier commit have arrived, or it would have failed.
            self.connection.execute("DELETE FROM confirmed", []).map_err(&failed)?;
            staged.confirms = true;
        }
        let mut write = self
            .connection
            .prepare_cached(
                "INSERT INTO confirmed (client, number) VALUES (?, ?)
                 ON CONFLICT (client) DO UPDATE SET number = max(number, excluded.number)",
            )
            .map_err(&failed)?;
        for (client, number) in numbers {
            write.execute(params![&*client.0, number.0]).map_err(&failed)?;
        }
        Ok(())
    }

    /// Takes the rows of a table out of their buckets and lookups, page by page.
    fn truncate(&mut self, staged: &mut Staged, table: TableId) -> Result<()> {
        loop {
            let rows = self.first_rows(table)?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut lookups = Vec::new();
            let mut forgotten = Vec::with_capacity(rows.len());
            for (key, row) in rows {
                for membership in row.memberships {
                    let number = self.cache.number(&self.connection, &membership.bucket)?;
                    let subkey = key.subkey(&membership.object_id);
                    let (object_type, object_id) = (membership.object_type, membership.object_id);
                    let remove = NewOperation::remove(membership.bucket, object_type, object_id, subkey);
                    self.stage_operation(staged, number, &remove)?;
                }
                let gone = |key_values| LookupEntry { row: key.clone(), key: key_values, outputs: Vec::new() };
                lookups.extend(row.lookups.into_iter().map(gone));
                forgotten.push((key, None));
            }
            self.write_lookups(staged, &lookups)?;
            self.write_rows(&forgotten)?;
        }
    }

    fn first_rows(&mut self, table: TableId) -> Result<Vec<(RowKey, CurrentRow)>> {
        let failed = failed("cannot read rows");
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, content FROM source_rows WHERE source_table = ? ORDER BY key LIMIT ?")
            .map_err(&failed)?;
        let mut found = statement.query(params![table_number(table), signed(PAGE as u64)]).map_err(&failed)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(&failed)? {
            let key: Vec<u8> = row.get(0).map_err(&failed)?;
            let key = Bytes::from(key);
            let content = row.get_ref(1).and_then(|content| Ok(content.as_blob()?)).map_err(&failed)?;
            let decoded = row_codec::decode(&key, content, &self.connection, &mut self.cache)?;
            rows.push((RowKey { table, key }, decoded));
        }
        Ok(rows)
    }

    pub(super) fn current_rows(&mut self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        let failed = failed("cannot read rows");
        let mut statement = self
            .connection
            .prepare_cached("SELECT content FROM source_rows WHERE source_table = ? AND key = ?")
            .map_err(&failed)?;
        let mut rows = Vec::with_capacity(keys.len());
        let mut last: Option<(TableId, Option<Vec<u8>>)> = None;
        for key in keys {
            // Behind the last row of a table there is none. A snapshot, and a table whose keys rise, comes to no other place.
            if keys.len() >= MANY {
                let known = last.take().filter(|(table, _)| *table == key.table);
                let (_, last_key) = last.insert(match known {
                    Some(known) => known,
                    None => (key.table, last_key(&self.connection, key.table)?),
                });
                if last_key.as_ref().is_none_or(|last_key| key.key > *last_key) {
                    rows.push(None);
                    continue;
                }
            }
            let mut found = statement.query(params![table_number(key.table), &key.key[..]]).map_err(&failed)?;
            rows.push(match found.next().map_err(&failed)? {
                None => None,
                Some(row) => {
                    let content = row.get_ref(0).and_then(|content| Ok(content.as_blob()?)).map_err(&failed)?;
                    Some(row_codec::decode(&key.key, content, &self.connection, &mut self.cache)?)
                }
            });
        }
        Ok(rows)
    }
}

/// The highest key of the rows of a table.
fn last_key(connection: &Connection, table: TableId) -> Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT key FROM source_rows WHERE source_table = ? ORDER BY key DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([table_number(table)], |row| row.get(0)).optional())
        .map_err(failed("cannot read rows"))
}

/// Any 64 bits, kept as they are: tables are only compared for equality.
pub(super) fn table_number(table: TableId) -> i64 {
    i64::from_ne_bytes(table.0.to_ne_bytes())
}
