//! What was appended and not yet committed.

use std::collections::{BTreeMap, BTreeSet};

use crate::bucket::BucketId;
use crate::bucket_store::{AppendBatch, CurrentRow, LookupEntry};
use crate::changes::ChangeCollector;
use crate::chunk::ChunkBuilder;
use crate::error::{Error, Result};
use crate::operation::{NewOperation, OpId};
use crate::table::{RowKey, TableId};
use crate::write_checkpoint::{ClientKey, WriteCheckpoint};

/// Changes on top of the committed state.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// The last operation id given.
    pub(super) last_op: u64,
    pub(super) chunks: BTreeMap<BucketId, ChunkBuilder>,
    pub(super) rows: BTreeMap<RowKey, Option<CurrentRow>>,
    pub(super) lookups: Vec<(OpId, LookupEntry)>,
    pub(super) write_checkpoints: BTreeMap<ClientKey, WriteCheckpoint>,
    pub(super) changes: ChangeCollector,
    /// Whether an append failed half-way: nothing may be committed then.
    failed: bool,
}

impl Staged {
    pub(super) fn after(last_op: u64) -> Self {
        Self { last_op, ..Self::default() }
    }

    /// Refuses to go on after a failed append.
    pub(super) fn check(&self) -> Result<()> {
        if self.failed {
            return Err(Error::unavailable("an earlier append failed; start again from resume"));
        }
        Ok(())
    }

    pub(super) fn row<'a>(
        &'a self,
        committed: &'a BTreeMap<RowKey, CurrentRow>,
        key: &RowKey,
    ) -> Option<&'a CurrentRow> {
        match self.rows.get(key) {
            Some(staged) => staged.as_ref(),
            None => committed.get(key),
        }
    }

    pub(super) fn append(&mut self, batch: AppendBatch, committed: &BTreeMap<RowKey, CurrentRow>) -> Result<()> {
        self.check()?;
        self.failed = true;
        let mut lookups = Vec::new();
        for table in batch.truncate {
            self.truncate(table, committed, &mut lookups)?;
        }
        for operation in &batch.operations {
            self.operation(operation)?;
        }
        self.rows.extend(batch.rows);
        lookups.extend(batch.lookups);
        if !lookups.is_empty() {
            // One id for all: an entry is the state of its row from then on.
            self.last_op += 1;
            for entry in lookups {
                self.changes.lookup(&entry.key);
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
