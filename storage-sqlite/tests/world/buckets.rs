//! The bucket store in its file, as the world wants it: each call is one step, and its process may die.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::executor::block_on;
use futures::stream::{BoxStream, StreamExt};
use syncline_core::testing::Mortal;
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketStore, Checkpoint, ClientKey, Clock, Commit, CompactLimits, Compacted,
    CurrentRow, LookupChange, LookupKey, LookupRows, MarkerToken, OpId, OperationChunk, Published, ReadRequest, Result,
    Resume, RowKey, WriteCheckpoint, WriteCheckpointRequest,
};
use syncline_storage_sqlite::SqliteBucketStore;
use tempfile::TempDir;

use crate::bell::Bell;
use crate::disk_file::DiskFile;
use crate::stand_ins::StandIns;

/// A bucket store, through all the processes that have it.
pub(crate) struct Buckets {
    process: Mutex<Process>,
    stand_ins: Arc<Mutex<StandIns>>,
    bell: Bell,
}

/// The process that has the store, and its disk.
struct Process {
    /// None only between two processes.
    store: Option<SqliteBucketStore>,
    file: DiskFile,
    requests: DiskFile,
    /// How far the call comes amid which it dies.
    braced: Option<u64>,
    _directory: TempDir,
}

impl Process {
    fn open(&mut self) {
        self.store = Some(block_on(SqliteBucketStore::open(self.file.path())).unwrap());
        self.file.opened();
        self.requests.opened();
    }
}

impl Buckets {
    pub(crate) fn new(directory: TempDir, clock: Arc<dyn Clock>, chance: u64) -> Self {
        let file = DiskFile::new(directory.path().join("store.db"));
        let requests = DiskFile::new(directory.path().join("store.db-write-checkpoints"));
        let mut process = Process { store: None, file, requests, braced: None, _directory: directory };
        process.open();
        Self {
            process: Mutex::new(process),
            stand_ins: Arc::new(Mutex::new(StandIns::new(clock, chance))),
            bell: Bell::default(),
        }
    }

    fn store(&self) -> SqliteBucketStore {
        self.process.lock().unwrap().store.clone().unwrap()
    }
}

impl Mortal for Buckets {
    fn brace(&self, chance: u64) -> bool {
        let mut process = self.process.lock().unwrap();
        process.braced = Some(chance);
        process.file.brace();
        process.requests.brace();
        true
    }

    fn crash(&self, chance: u64) {
        let process = &mut *self.process.lock().unwrap();
        // The last handle: it waits for the threads.
        process.store = None;
        // The requests are written after the store.
        let lost = process.braced.take().map(|chance| chance % 3);
        process.file.crash(lost == Some(0), chance);
        process.requests.crash(lost == Some(0) || lost == Some(1), chance / 7);
        process.open();
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store().fmt(f)
    }
}

#[async_trait]
impl BucketStore for Buckets {
    async fn resume(&self) -> Result<Resume> {
        let resume = block_on(self.store().resume())?;
        self.bell.ring();
        let mut stand_ins = self.stand_ins.lock().unwrap();
        Ok(Resume {
            generation: stand_ins.generation(resume.generation),
            checkpoint: resume.checkpoint.map(|checkpoint| stand_ins.checkpoint(checkpoint)),
            ..resume
        })
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        block_on(self.store().current_rows(keys))
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        block_on(self.store().append(batch))
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        let markers = {
            let stand_ins = self.stand_ins.lock().unwrap();
            commit.markers.into_iter().map(|token| stand_ins.real_token(token)).collect()
        };
        let checkpoint = block_on(self.store().commit(Commit { markers, ..commit }))?;
        self.bell.ring();
        Ok(checkpoint.map(|checkpoint| self.stand_ins.lock().unwrap().checkpoint(checkpoint)))
    }

    async fn reset(&self) -> Result<()> {
        block_on(self.store().reset())?;
        self.bell.ring();
        Ok(())
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        let stand_ins = Arc::clone(&self.stand_ins);
        let checkpoints = self.bell.guard(self.store().checkpoints()).map(move |published| {
            published.map(|Published { checkpoint, changes }| {
                let checkpoint = stand_ins.lock().unwrap().checkpoint(checkpoint);
                Published { checkpoint, changes }
            })
        });
        checkpoints.boxed()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        block_on(self.store().lookup(at, keys))
    }

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        block_on(self.store().lookup_changes(since, at, keys))
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        block_on(self.store().checksums(at, buckets))
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        block_on(self.store().read(requests))
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        let number = block_on(self.store().request_write_checkpoint(client, request))?;
        self.bell.ring();
        Ok(self.stand_ins.lock().unwrap().given(client, number))
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        let numbers = block_on(self.store().write_checkpoints(at, clients))?;
        let stand_ins = self.stand_ins.lock().unwrap();
        let shown = clients.iter().zip(numbers);
        Ok(shown.map(|(client, number)| number.map(|number| stand_ins.shown(client, number))).collect())
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        let stand_ins = Arc::clone(&self.stand_ins);
        let markers = self.bell.guard(self.store().pending_markers());
        markers.map(move |token| token.map(|token| stand_ins.lock().unwrap().token(token))).boxed()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        block_on(self.store().compact(limits))
    }
}
