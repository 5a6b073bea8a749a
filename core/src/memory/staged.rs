//! What was appended and not yet committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::stored_bucket::StoredBucket;
use super::stored_lookups::StoredLookups;
use crate::bucket::BucketId;
use crate::bucket_store::{AppendBatch, CurrentRow, LookupEntry};
use crate::changes::ChangeCollector;
use crate::chunk::ChunkBuilder;
use crate::error::{Error, Result};
use crate::operation::{NewOperation, OpId};
use crate::table::{RowKey, TableId};
use crate::write_checkpoint::{ClientKey, WriteCheckpoint};

/// What was appended to a store since its last commit. [`MemoryBucketStore`](super::MemoryBucketStore) stages so; so may any
/// store that keeps its rows in memory and makes them durable by other means.
#[derive(Debug, Default)]
pub struct Staged {
    last_op: u64,
    chunks: BTreeMap<BucketId, ChunkBuilder>,
    rows: BTreeMap<RowKey, Option<CurrentRow>>,
    lookups: Vec<(OpId, LookupEntry)>,
    write_checkpoints: BTreeMap<ClientKey, WriteCheckpoint>,
    changes: ChangeCollector,
    /// Whether something failed half-way: nothing may be committed then.
    failed: bool,
}

impl Staged {
    /// Nothing, on top of a state whose last operation id is this one.
    pub fn after(last_op: u64) -> Self {
        Self { last_op, ..Self::default() }
    }

    /// Whether it may be committed.
    ///
    /// # Errors
    /// `Unavailable` after an append that failed, or once it was [spoiled](Self::spoil).
    pub fn check(&self) -> Result<()> {
        if self.failed {
            return Err(Error::unavailable("an append or a commit failed; start again from resume"));
        }
        Ok(())
    }

    /// Lets nothing be appended or committed any more.
    pub fn spoil(&mut self) {
        self.failed = true;
    }

    /// The last operation id that was given.
    pub fn last_op(&self) -> u64 {
        self.last_op
    }

    /// The largest number of each client that the source confirmed.
    pub fn write_checkpoints(&self) -> &BTreeMap<ClientKey, WriteCheckpoint> {
        &self.write_checkpoints
    }

    /// A row as it is then, on top of those that are committed.
    pub fn row<'a>(&'a self, committed: &'a BTreeMap<RowKey, CurrentRow>, key: &RowKey) -> Option<&'a CurrentRow> {
        match self.rows.get(key) {
            Some(staged) => staged.as_ref(),
            None => committed.get(key),
        }
    }

    /// Stages a batch on top of the rows that are committed.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); `Invalid` for an operation that no chunk can hold.
    pub fn append(&mut self, batch: AppendBatch, committed: &BTreeMap<RowKey, CurrentRow>) -> Result<()> {
        self.check()?;
        self.failed = true;
        let mut lookups = Vec::new();
        for table in batch.truncate {
            self.truncate(table, committed, &mut lookups)?;
        }
        for operation in &batch.operations {
            self.operation(operation)?;
        }
        // Its image is cut from a block that it would keep alive as a whole.
        let own = |row: CurrentRow| CurrentRow { image: Bytes::copy_from_slice(&row.image), ..row };
        self.rows.extend(batch.rows.into_iter().map(|(key, row)| (key, row.map(own))));
        lookups.extend(batch.lookups);
        if !lookups.is_empty() {
            // One id for all: an entry is the state of its row from then on.
            self.last_op += 1;
            for entry in lookups {
                self.changes.lookup(&entry.key, &entry.row);
                self.lookups.push((OpId(self.last_op), entry));
            }
        }
        for (client, number) in batch.write_checkpoints {
            let largest = self.write_checkpoints.entry(client).or_insert(number);
            *largest = number.max(*largest);
        }
        self.failed = false;
        Ok(())
    }

    /// Moves operations, rows and lookups to the committed state, and says what changed. Write checkpoints are for the caller to
    /// [resolve](super::MarkerRequests::resolve).
    pub fn apply(
        &mut self,
        buckets: &mut BTreeMap<BucketId, StoredBucket>,
        rows: &mut BTreeMap<RowKey, CurrentRow>,
        lookups: &mut StoredLookups,
    ) -> ChangeCollector {
        for (bucket, mut builder) in std::mem::take(&mut self.chunks) {
            buckets.entry(bucket).or_default().push(builder.finish());
        }
        for (key, row) in std::mem::take(&mut self.rows) {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        for (from, entry) in std::mem::take(&mut self.lookups) {
            lookups.push(from, entry);
        }
        std::mem::take(&mut self.changes)
    }

    fn operation(&mut self, operation: &NewOperation) -> Result<()> {
        self.last_op += 1;
        self.changes.bucket(&operation.bucket);
        self.chunks.entry(operation.bucket.clone()).or_default().push_new(OpId(self.last_op), operation)
    }

    fn truncate(
        &mut self,
        table: TableId,
        committed: &BTreeMap<RowKey, CurrentRow>,
        lookups: &mut Vec<LookupEntry>,
    ) -> Result<()> {
        let from = RowKey { table, key: bytes::Bytes::new() };
        let stored = committed.range(from.clone()..).take_while(|(key, _)| key.table == table).map(|(key, _)| key);
        let staged = self.rows.range(from..).take_while(|(key, _)| key.table == table).map(|(key, _)| key);
        let keys: BTreeSet<RowKey> = stored.chain(staged).cloned().collect();
        for key in keys {
            let Some(row) = self.row(committed, &key).cloned() else { continue };
            for membership in row.memberships {
                let subkey = key.subkey(&membership.object_id);
                self.operation(&NewOperation::remove(
                    membership.bucket,
                    membership.object_type,
                    membership.object_id,
                    subkey,
                ))?;
            }
            for index in row.lookups {
                lookups.push(LookupEntry { row: key.clone(), key: index, outputs: Vec::new() });
            }
            self.rows.insert(key, None);
        }
        Ok(())
    }
}
