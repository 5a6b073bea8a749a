//! Opening a client's database.

use std::future::{Future, IntoFuture};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::channel::oneshot;
use uuid::Uuid;

use super::changes::Hub;
use super::checkpointer::{Checkpointer, Checkpoints};
use super::connection;
use super::error::{Error, Result};
use super::handle::{Database, Shared};
use super::reader::{Reader, ReaderQueue};
use super::schema::Schema;
use super::work_queue::WorkQueue;
use super::writer::{Writer, WriterQueue};
use super::{layout, migration, publish};

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power loss: every commit waits for the disk.
    #[default]
    Full,
    /// The death of the process; a power loss may take the last commits, never more.
    Normal,
    /// The death of the process; a power loss may damage the file. For tests and throwaway data.
    Off,
}

/// A database about to be opened: `.await` opens it.
#[derive(Debug)]
#[must_use = "nothing is opened before this is awaited"]
pub struct Opening {
    place: Place,
    schema: Schema,
    durability: Durability,
    readers: usize,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Temporary,
}

impl Opening {
    pub(crate) fn file(path: &Path, schema: Schema) -> Self {
        Self { place: Place::File(path.to_owned()), schema, durability: Durability::Full, readers: 4 }
    }

    pub(crate) fn temporary(schema: Schema) -> Self {
        Self { place: Place::Temporary, schema, durability: Durability::Off, readers: 2 }
    }

    /// What a commit survives. Default: [`Durability::Full`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many queries run at the same time, at least one. Default: 4.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.clamp(1, 64);
        self
    }

    async fn open(self) -> Result<Database> {
        self.schema.validate()?;
        let (path, directory) = match self.place {
            Place::File(path) => (path, None),
            Place::Temporary => {
                let directory = TemporaryDirectory::create()?;
                (directory.0.join("client.db"), Some(Arc::new(directory)))
            }
        };
        let writer_queue: Arc<WriterQueue> = Arc::new(WorkQueue::new());
        let reader_queue: Arc<ReaderQueue> = Arc::new(WorkQueue::new());
        let hub = Arc::new(Hub::default());
        let schema = Arc::new(self.schema);
        let (sender, opened) = oneshot::channel();
        let start = Start {
            path: path.clone(),
            durability: self.durability,
            readers: self.readers,
            schema: Arc::clone(&schema),
            writer_queue: Arc::clone(&writer_queue),
            reader_queue: Arc::clone(&reader_queue),
            hub: Arc::clone(&hub),
            directory,
        };
        let thread = std::thread::Builder::new()
            .name("syncline-writer".into())
            .spawn(move || start.run(sender))
            .map_err(no_thread)?;
        opened.await.map_err(|_| syncline_core::Error::internal("the writer thread ended early"))??;
        Ok(Database::from_shared(Shared::new(path, schema, writer_queue, reader_queue, hub, thread)))
    }
}

impl IntoFuture for Opening {
    type Output = Result<Database>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

fn no_thread(error: std::io::Error) -> Error {
    syncline_core::Error::unavailable("cannot start a thread").caused_by(error).into()
}

/// What the writer thread needs to begin.
struct Start {
    path: PathBuf,
    durability: Durability,
    readers: usize,
    schema: Arc<Schema>,
    writer_queue: Arc<WriterQueue>,
    reader_queue: Arc<ReaderQueue>,
    hub: Arc<Hub>,
    directory: Option<Arc<TemporaryDirectory>>,
}

/// What has begun.
struct Running {
    writer: Writer,
    readers: Vec<JoinHandle<()>>,
    checkpoints: Arc<Checkpoints>,
    checkpointer: JoinHandle<()>,
}

impl Start {
    fn run(self, opened: oneshot::Sender<Result<()>>) {
        let reader_queue = Arc::clone(&self.reader_queue);
        let directory = self.directory.clone();
        let Running { writer, readers, checkpoints, checkpointer } = match self.open() {
            Ok(open) => open,
            Err(error) => {
                // Nobody waits any more if this fails.
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            self.writer_queue.close();
            self.reader_queue.close();
        }
        drop(self);
        writer.run();
        reader_queue.close();
        for reader in readers {
            if reader.join().is_err() {
                tracing::error!("a reader thread panicked");
            }
        }
        // Last, because readers cannot move the log into the file.
        checkpoints.close();
        if checkpointer.join().is_err() {
            tracing::error!("the checkpointer thread panicked");
        }
        drop(directory);
    }

    /// Opens the file, brings the tables in line with the schema, and starts readers and checkpointer.
    fn open(&self) -> Result<Running> {
        let mut conn = connection::open_writer(&self.path, self.durability)?;
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        layout::prepare(&transaction)?;
        transaction.commit()?;
        migration::apply(&mut conn, &self.schema)?;
        let checkpoints = Arc::new(Checkpoints::new(Arc::clone(&self.writer_queue)));
        let writer = Writer::new(
            conn,
            Arc::clone(&self.schema),
            Arc::clone(&self.writer_queue),
            Arc::clone(&self.hub),
            Arc::clone(&checkpoints),
        )?;
        publish::purge_leftovers(&writer)?;
        let checkpointer = connection::open_checkpointer(&self.path, self.durability)?;
        let mut readers = Vec::with_capacity(self.readers);
        for number in 0..self.readers {
            let reader = Reader::new(connection::open_reader(&self.path)?)?;
            let queue = Arc::clone(&self.reader_queue);
            let thread = std::thread::Builder::new()
                .name(format!("syncline-reader-{number}"))
                .spawn(move || reader.run(&queue))
                .map_err(|error| {
                    self.reader_queue.close();
                    no_thread(error)
                })?;
            readers.push(thread);
        }
        let checkpointer = Checkpointer::new(checkpointer, Arc::clone(&checkpoints));
        let checkpointer = std::thread::Builder::new()
            .name("syncline-checkpointer".into())
            .spawn(move || checkpointer.run())
            .map_err(|error| {
                self.reader_queue.close();
                no_thread(error)
            })?;
        Ok(Running { writer, readers, checkpoints, checkpointer })
    }
}

/// The directory of a database that lives only as long as its handles.
#[derive(Debug)]
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("syncline-{}", Uuid::new_v4()));
        std::fs::create_dir(&path).map_err(|error| {
            syncline_core::Error::unavailable(format!("cannot make the directory {}", path.display())).caused_by(error)
        })?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a temporary database could not be removed");
        }
    }
}
