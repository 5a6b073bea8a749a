//! The bucket store on a slow disk: every call takes a while before and after its effect, may fail on either side of it,
//! and may be dropped there by a crash.
//!
//! A call that was dropped before its effect has none; one that was dropped after it has all of it, unknown to its caller.
//! That is what a crash may do to a store that keeps its contract: each effect is durable before its call returns, so
//! nothing of it can be lost later.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::database::Database;
use super::faults::Faults;
use super::ledger::{Fact, Ledger};
use super::lock;
use super::random::Random;
use super::virtual_time::VirtualTime;
use crate::bucket::BucketId;
use crate::bucket_store::{
    AppendBatch, BucketStore, Commit, CompactLimits, Compacted, CurrentRow, OperationChunk, ReadRequest, Resume,
};
use crate::checkpoint::{BucketChecksum, Checkpoint, LookupKey, LookupRows, Published};
use crate::error::{Error, Result};
use crate::memory::MemoryBucketStore;
use crate::operation::OpId;
use crate::source::SourcePosition;
use crate::table::RowKey;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// A bucket store whose calls take time. A handle.
#[derive(Debug, Clone)]
pub(super) struct BucketDisk {
    pub(super) store: MemoryBucketStore,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    pub(super) database: Database,
    /// The position of the last commit.
    pub(super) durable: Arc<Mutex<Option<SourcePosition>>>,
}

impl BucketDisk {
    /// Half of a call: what lies before its effect, or after it.
    async fn half(&self) -> Result<()> {
        let (delay, fails) = {
            let faults = self.faults.lock();
            (faults.store_delay, faults.store_fails)
        };
        self.time.delay(self.random.between(0, delay)).await;
        if self.random.permille(fails) {
            return Err(Error::unavailable("the disk of the bucket store is full"));
        }
        Ok(())
    }
}

#[async_trait]
impl BucketStore for BucketDisk {
    async fn resume(&self) -> Result<Resume> {
        self.half().await?;
        let resume = self.store.resume().await?;
        self.half().await?;
        Ok(resume)
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        self.half().await?;
        self.store.current_rows(keys).await
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        self.half().await?;
        let buckets: Vec<BucketId> = batch.operations.iter().map(|operation| operation.bucket.clone()).collect();
        self.ledger.record(Fact::Appended { buckets });
        self.store.append(batch).await?;
        self.half().await
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.half().await?;
        let checkpoint = self.store.commit(commit).await?;
        let resume = peek(&self.store).await?;
        lock(&self.durable).clone_from(&resume.position);
        self.ledger.record(Fact::StoreCommitted {
            position: resume.position,
            state: resume.source_state.map(|state| state.0),
            checkpoint: checkpoint.clone(),
        });
        self.half().await?;
        Ok(checkpoint)
    }

    async fn reset(&self) -> Result<()> {
        self.half().await?;
        self.store.reset().await?;
        *lock(&self.durable) = None;
        self.ledger.record(Fact::StoreReset);
        self.half().await
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.store.checkpoints()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        self.half().await?;
        self.store.lookup(at, keys).await
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        self.half().await?;
        let answer = self.store.checksums(at, buckets).await?;
        self.half().await?;
        Ok(answer)
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        self.half().await?;
        let answer = self.store.read(requests).await?;
        self.half().await?;
        Ok(answer)
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        self.half().await?;
        let number = self.store.request_write_checkpoint(client, request).await?;
        let commits = self.database.commits();
        self.ledger.record(Fact::WriteCheckpointGiven { client: client.clone(), number, commits });
        self.half().await?;
        Ok(number)
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        self.half().await?;
        self.store.write_checkpoints(at, clients).await
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        // Taken one by one, with a pause: a crash may hit between any two.
        let time = self.time.clone();
        let markers = self.store.pending_markers().then(move |token| {
            let pause = time.delay(0);
            async move {
                pause.await;
                token
            }
        });
        markers.boxed()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        self.half().await?;
        let done = self.store.compact(limits).await?;
        self.ledger.record(Fact::Compacted);
        Ok(done)
    }
}

/// Where the store stands. `resume` of the store itself forgets what was appended, which is nothing right after a commit.
async fn peek(store: &MemoryBucketStore) -> Result<Resume> {
    store.resume().await
}
