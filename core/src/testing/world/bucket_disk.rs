//! The bucket store on a slow disk: every call takes a while before and after its effect, may fail on either side of it,
//! and may be dropped there by a crash.
//!
//! A call that was dropped before its effect has none; one that was dropped after it has all of it, unknown to its caller.
//! That is what a crash of its caller may do to a store that keeps its contract: each effect is durable before its call
//! returns, so nothing of it can be lost later. The process of the store itself may die as well, also in the middle of an
//! effect: what is there then, the store's own disk decides.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::database::Database;
use super::faults::Faults;
use super::ledger::{Fact, Ledger};
use super::lock;
use super::process::Process;
use super::random::Random;
use super::stores::WorldBucketStore;
use super::virtual_time::VirtualTime;
use crate::bucket::BucketId;
use crate::bucket_store::{
    AppendBatch, BucketStore, Commit, CompactLimits, Compacted, CurrentRow, OperationChunk, ReadRequest, Resume,
};
use crate::checkpoint::{BucketChecksum, Checkpoint, LookupKey, LookupRows, Published};
use crate::error::{Error, Result};
use crate::lookup_change::LookupChange;
use crate::operation::OpId;
use crate::source::SourcePosition;
use crate::table::RowKey;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// A bucket store whose calls take time. A handle.
#[derive(Debug, Clone)]
pub(super) struct BucketDisk {
    pub(super) store: Arc<dyn WorldBucketStore>,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    pub(super) database: Database,
    /// The position of the last commit.
    pub(super) durable: Arc<Mutex<Option<SourcePosition>>>,
    /// Where the store stood after the last commit, as whoever opens it again must find it.
    pub(super) known: Arc<Mutex<Option<Resume>>>,
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

    /// The effect of a call, in the middle of which the process may die: then nobody hears of it.
    async fn effect<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if !self.faults.dies_now(Process::Host) {
            return call.await;
        }
        if self.store.brace(self.random.next()) {
            drop(call.await);
        }
        self.faults.lock().died.push((Process::Host, None));
        futures::future::pending().await
    }

    /// Takes in where the store stands after a commit. `resume` of the store itself forgets what was appended, which is
    /// nothing right then.
    pub(super) async fn look(&self) -> Result<Resume> {
        let resume = self.store.resume().await?;
        lock(&self.durable).clone_from(&resume.position);
        *lock(&self.known) = Some(resume.clone());
        Ok(resume)
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
        self.effect(self.store.append(batch)).await?;
        self.half().await
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.half().await?;
        let checkpoint = self.effect(self.store.commit(commit)).await?;
        let resume = self.look().await?;
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
        self.effect(self.store.reset()).await?;
        self.look().await?;
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

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        self.half().await?;
        self.store.lookup_changes(since, at, keys).await
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
        let number = self.effect(self.store.request_write_checkpoint(client, request)).await?;
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
        let done = self.effect(self.store.compact(limits)).await?;
        self.ledger.record(Fact::Compacted);
        Ok(done)
    }
}
