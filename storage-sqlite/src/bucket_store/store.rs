//! The handle.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::channel::oneshot;
use futures::stream::BoxStream;
use rusqlite::Connection;
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketStore, Checkpoint, CheckpointFeed, ClientKey, Commit, CompactLimits,
    Compacted, CurrentRow, Error, LookupChange, LookupKey, LookupRows, MarkerFeed, MarkerToken, OpId, OperationChunk,
    Published, ReadRequest, Result, Resume, RowKey, WriteCheckpoint, WriteCheckpointRequest,
};

use super::files::{Files, Reader};
use super::inspection::{self, StoreInspection};
use super::meta::Meta;
use super::wal::Wal;
use super::workers::Workers;
use super::write_requests::{AskedRequest, WriteRequests, shown};
use super::writer::Writer;
use super::{reading, schema};

/// A [`BucketStore`] in one SQLite file, embedded and durable. A handle: clones are the same store.
///
/// Beside the file `path` there are its write-ahead log (`path-wal`, `path-shm`), the requests for write checkpoints
/// (`path-write-checkpoints` and its log) and `path.lock`. One process at a time may open it. Every commit is synced to
/// the disk before it returns.
///
/// When the last handle is dropped, calls that were begun are finished and the files are closed; that blocks the thread
/// for as long as the call at hand takes. Streams from the store end then.
#[derive(Clone)]
pub struct SqliteBucketStore {
    inner: Arc<Inner>,
}

/// Fields are dropped in this order: the lock last, when all connections are closed.
struct Inner {
    readers: Option<Workers<Reader>>,
    writer: Workers<Writer>,
    requests: Workers<Arc<Mutex<WriteRequests>>>,
    /// Requests that came and have not been answered; answered together.
    asked: Arc<Mutex<Vec<AskedRequest>>>,
    checkpoints: CheckpointFeed,
    markers: MarkerFeed,
    _lock: Option<File>,
}

impl SqliteBucketStore {
    /// Opens the store in this file, or makes it.
    ///
    /// # Errors
    /// `Unavailable` if the store is open already, here or in another process, or if the disk refuses. `Invalid` if the
    /// file is something else, or of a newer version. `Data` if it is damaged.
    ///
    /// # Cancel safety
    /// If the future is dropped, the store is opened and closed again.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        off_the_executor(move || {
            let mut files = Files::open(&path)?;
            schema_and_meta(&files.writer)?;
            files.open_readers()?;
            Self::start(files)
        })
        .await
    }

    /// Opens an empty store in memory, which is gone with its last handle.
    ///
    /// # Errors
    /// `Unavailable` if threads cannot be started.
    pub async fn open_in_memory() -> Result<Self> {
        off_the_executor(|| {
            let files = Files::in_memory()?;
            schema_and_meta(&files.writer)?;
            Self::start(files)
        })
        .await
    }

    /// Looks whether [`open`](Self::open) would succeed on this file, and at what it holds, and changes nothing. `None` if
    /// there is no store yet, which `open` would make; whether the folder may be written is the caller's to find out.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn inspect(path: impl AsRef<Path>) -> Result<Option<StoreInspection>> {
        let path = path.as_ref().to_owned();
        off_the_executor(move || inspection::inspect(&path)).await
    }

    fn start(files: Files) -> Result<Self> {
        let Files { writer, readers, requests, on_disk } = files;
        let meta = Meta::load(&writer)?;
        let (mut requests, markers) = WriteRequests::open(requests, meta.generation)?;
        // A crash may have come between the two files.
        requests.confirm(&writer, meta.last_op, meta.published_op())?;
        let requests = Arc::new(Mutex::new(requests));
        let checkpoints = CheckpointFeed::new(meta.checkpoint());
        let mut writer = Writer::new(writer, meta, checkpoints.clone(), markers.clone(), Arc::clone(&requests));
        let readers = if readers.is_empty() { None } else { Some(Workers::start("bucket store reader", readers)?) };
        if let (Some(readers), Some(on_disk)) = (&readers, &on_disk) {
            writer.wal = Some(Wal::new(on_disk.wal(), readers.brake()));
        }
        let inner = Inner {
            readers,
            writer: Workers::start("bucket store writer", vec![writer])?,
            requests: Workers::start("write checkpoints", vec![requests])?,
            asked: Arc::default(),
            checkpoints,
            markers,
            _lock: on_disk.map(|on_disk| on_disk.lock),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.inner.readers {
            Some(readers) => readers.ask(move |reader| read(&reader.store)).await,
            None => self.inner.writer.ask(move |writer| read(&writer.connection)).await,
        }
    }

    /// Runs on the writer's thread.
    #[cfg(test)]
    pub(super) async fn with_writer<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.writer.call(job).await
    }
}

/// Makes the tables of a new store, with their one row of meta.
fn schema_and_meta(connection: &Connection) -> Result<()> {
    schema::prepare(connection)?;
    // Not only for a new file: a crash may have come between the tables and the row.
    Meta::new().save_first(connection)
}

/// Runs something that blocks on a thread of its own.
async fn off_the_executor<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("syncline open".to_owned())
        // One who is gone needs no answer: what was opened is dropped here.
        .spawn(move || drop(reply.send(job())))
        .map_err(|error| Error::unavailable("cannot start a thread").caused_by(error))?;
    answer.await.map_err(|_| Error::internal("opening the bucket store failed"))?
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.checkpoints.close();
        self.markers.close();
    }
}

impl fmt::Debug for SqliteBucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checkpoint = self.inner.checkpoints.current().map(|checkpoint| checkpoint.op_id);
        f.debug_struct("SqliteBucketStore").field("checkpoint", &checkpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl BucketStore for SqliteBucketStore {
    async fn resume(&self) -> Result<Resume> {
        self.inner.writer.call(Writer::resume).await
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.inner.writer.ask(move |writer| writer.current_rows(&keys)).await
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        self.inner.writer.call(move |writer| writer.append(batch)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.inner.writer.call(move |writer| writer.commit(commit)).await
    }

    async fn reset(&self) -> Result<()> {
        self.inner.writer.call(Writer::reset).await
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.inner.checkpoints.subscribe()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        let keys = keys.to_vec();
        self.read_with(move |connection| reading::lookup(connection, at, &keys)).await
    }

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        let changed = |key: &LookupKey| (key.clone(), self.inner.checkpoints.changed_rows(key, since, at));
        let keys = keys.iter().map(changed).collect::<Vec<_>>();
        self.read_with(move |connection| reading::lookup_changes(connection, since, at, &keys)).await
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        let buckets = buckets.to_vec();
        self.read_with(move |connection| reading::checksums(connection, at, &buckets)).await
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        let requests = requests.to_vec();
        self.read_with(move |connection| reading::read(connection, &requests)).await
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        request.check()?;
        let (reply, answer) = oneshot::channel();
        let inner = &self.inner;
        inner.asked.lock().unwrap_or_else(PoisonError::into_inner).push((client.clone(), request, reply));
        let (asked, markers) = (Arc::clone(&inner.asked), inner.markers.clone());
        // The first of those that came together answers all; the others find nothing left to do.
        let answer_all = move |requests: &mut Arc<Mutex<WriteRequests>>| {
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
            requests.answer(asked, &markers);
            Ok(())
        };
        inner.requests.call(answer_all).await?;
        answer.await.map_err(|_| Error::internal("the thread of write checkpoints ended"))?
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        if clients.is_empty() {
            return Ok(Vec::new());
        }
        let at = at.min(self.inner.checkpoints.current().map_or(OpId::ZERO, |checkpoint| checkpoint.op_id));
        let clients = clients.to_vec();
        match &self.inner.readers {
            // Not behind the requests that are being synced to the disk.
            Some(readers) => readers.ask(move |reader| shown(&reader.requests, at, &clients)).await,
            None => {
                let shown = move |requests: &mut Arc<Mutex<WriteRequests>>| {
                    requests.lock().unwrap_or_else(PoisonError::into_inner).shown(at, &clients)
                };
                self.inner.requests.ask(shown).await
            }
        }
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.inner.markers.subscribe()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        self.inner.writer.call(move |writer| writer.compact(limits)).await
    }
}
