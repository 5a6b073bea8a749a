//! A store whose reads, sums and lookups can be held up, or fail.

use std::sync::{Arc, Mutex};

use futures::channel::oneshot;
use futures::stream::BoxStream;
use syncline_core::memory::MemoryBucketStore;
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketStore, Checkpoint, ClientKey, Commit, CompactLimits, Compacted,
    CurrentRow, Error, LookupChange, LookupKey, LookupRows, MarkerToken, OpId, OperationChunk, Published, ReadRequest,
    Result, Resume, RowKey, WriteCheckpoint, WriteCheckpointRequest, async_trait,
};

/// What goes wrong at the next call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held_reads: Option<oneshot::Receiver<()>>,
    held_sums: Option<oneshot::Receiver<()>>,
    held_lookups: Option<oneshot::Receiver<()>>,
    gone: Option<OpId>,
    broken: bool,
    write_checkpoints: usize,
}

impl Troubles {
    /// The next read is answered when the sender is dropped.
    pub(crate) fn hold_reads(&self) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().held_reads = Some(receiver);
        sender
    }

    /// The next sums are given when the sender is dropped.
    pub(crate) fn hold_sums(&self) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().held_sums = Some(receiver);
        sender
    }

    /// The next lookup is answered when the sender is dropped.
    pub(crate) fn hold_lookups(&self) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().held_lookups = Some(receiver);
        sender
    }

    /// Sums below this one are gone.
    pub(crate) fn forget_below(&self, op_id: OpId) {
        self.0.lock().unwrap().gone = Some(op_id);
    }

    /// As if a thread of the store had panicked.
    pub(crate) fn break_down(&self, broken: bool) {
        self.0.lock().unwrap().broken = broken;
    }

    /// How often write checkpoints were looked up.
    pub(crate) fn write_checkpoints(&self) -> usize {
        self.0.lock().unwrap().write_checkpoints
    }
}

#[derive(Debug)]
pub(crate) struct SlowStore {
    pub(crate) inner: MemoryBucketStore,
    pub(crate) troubles: Troubles,
}

impl SlowStore {
    /// Waits as long as lookups are held.
    async fn hold_lookup(&self) {
        let held = self.troubles.0.lock().unwrap().held_lookups.take();
        if let Some(held) = held {
            let _ = held.await;
        }
    }
}

#[async_trait]
impl BucketStore for SlowStore {
    async fn resume(&self) -> Result<Resume> {
        self.inner.resume().await
    }
    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        self.inner.current_rows(keys).await
    }
    async fn append(&self, batch: AppendBatch) -> Result<()> {
        self.inner.append(batch).await
    }
    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.inner.commit(commit).await
    }
    async fn reset(&self) -> Result<()> {
        self.inner.reset().await
    }
    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.inner.checkpoints()
    }
    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        self.hold_lookup().await;
        self.inner.lookup(at, keys).await
    }
    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        self.hold_lookup().await;
        self.inner.lookup_changes(since, at, keys).await
    }
    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        let held = self.troubles.0.lock().unwrap().held_sums.take();
        if let Some(held) = held {
            let _ = held.await;
        }
        if self.troubles.0.lock().unwrap().broken {
            return Err(Error::internal("a thread of the store panicked"));
        }
        if self.troubles.0.lock().unwrap().gone.is_some_and(|gone| at < gone) {
            return Err(Error::unavailable("that state is gone"));
        }
        self.inner.checksums(at, buckets).await
    }
    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        let held = self.troubles.0.lock().unwrap().held_reads.take();
        if let Some(held) = held {
            let _ = held.await;
        }
        self.inner.read(requests).await
    }
    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        self.inner.request_write_checkpoint(client, request).await
    }
    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        self.troubles.0.lock().unwrap().write_checkpoints += 1;
        self.inner.write_checkpoints(at, clients).await
    }
    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.inner.pending_markers()
    }
    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        self.inner.compact(limits).await
    }
}
