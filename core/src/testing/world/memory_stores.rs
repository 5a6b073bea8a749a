//! Stores in memory, which the world uses unless it is given others. Their disk keeps all of an effect or nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::{Map, Value as Json};

use super::lock;
use super::stores::{Mortal, WorldBucketStore, WorldClientStore, WorldStores};
use crate::bucket::{BucketId, Generation};
use crate::bucket_store::{
    AppendBatch, BucketStore, Commit, CompactLimits, Compacted, CurrentRow, OperationChunk, ReadRequest, Resume,
};
use crate::checkpoint::{BucketChecksum, Checkpoint, LookupKey, LookupRows, Published};
use crate::clock::Clock;
use crate::error::Result;
use crate::local_transaction::{LocalTransaction, LocalWrite};
use crate::lookup_change::LookupChange;
use crate::memory::{MemoryBucketStore, MemoryClientStore};
use crate::operation::OpId;
use crate::table::RowKey;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// Makes stores in memory.
#[derive(Debug)]
pub(super) struct MemoryStores;

impl WorldStores for MemoryStores {
    fn bucket_store(&self, clock: Arc<dyn Clock>, chance: u64) -> Arc<dyn WorldBucketStore> {
        let generation = Generation(u32::try_from(chance % u64::from(u32::MAX)).unwrap_or(0) + 1);
        Arc::new(MemoryBuckets(Mutex::new(MemoryBucketStore::with_clock(clock, generation))))
    }

    fn client_store(&self, client_id: &str) -> Arc<dyn WorldClientStore> {
        Arc::new(MemoryClientStore::new(client_id))
    }

    fn test(&self) -> &str {
        "-p syncline-core --all-features --test world seeds"
    }
}

/// A bucket store in memory, and after a crash the one that takes its place.
struct MemoryBuckets(Mutex<MemoryBucketStore>);

impl MemoryBuckets {
    fn store(&self) -> MemoryBucketStore {
        lock(&self.0).clone()
    }
}

impl Mortal for MemoryBuckets {
    fn brace(&self, chance: u64) -> bool {
        chance.is_multiple_of(2)
    }

    fn crash(&self, _chance: u64) {
        let mut store = lock(&self.0);
        let reopened = store.reopened();
        *store = reopened;
    }
}

impl Mortal for MemoryClientStore {
    fn brace(&self, chance: u64) -> bool {
        chance.is_multiple_of(2)
    }

    /// Everything in it counts as written.
    fn crash(&self, _chance: u64) {}
}

impl WorldClientStore for MemoryClientStore {
    fn write(&self, writes: Vec<LocalWrite>) -> Option<LocalTransaction> {
        let mut crud = writes.clone();
        let transaction_id = Self::write(self, writes);
        for (write, op_id) in crud.iter_mut().zip(transaction_id..) {
            write.op_id = op_id;
            write.tx_id = Some(transaction_id);
        }
        let client_id = Some(self.client_id().to_string());
        Some(LocalTransaction { transaction_id: Some(transaction_id), client_id, crud })
    }

    fn visible_rows(&self) -> BTreeMap<(String, String), Map<String, Json>> {
        Self::visible_rows(self)
    }

    fn is_queued(&self, transaction_id: Option<i64>) -> bool {
        Self::is_queued(self, transaction_id)
    }

    fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        Self::rejected(self)
    }
}

impl fmt::Debug for MemoryBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store().fmt(f)
    }
}

#[async_trait]
impl BucketStore for MemoryBuckets {
    async fn resume(&self) -> Result<Resume> {
        self.store().resume().await
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        self.store().current_rows(keys).await
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        self.store().append(batch).await
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.store().commit(commit).await
    }

    async fn reset(&self) -> Result<()> {
        self.store().reset().await
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.store().checkpoints()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        self.store().lookup(at, keys).await
    }

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        self.store().lookup_changes(since, at, keys).await
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        self.store().checksums(at, buckets).await
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        self.store().read(requests).await
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        self.store().request_write_checkpoint(client, request).await
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        self.store().write_checkpoints(at, clients).await
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.store().pending_markers()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        self.store().compact(limits).await
    }
}
