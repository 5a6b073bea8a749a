//! The handle to a client's database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::changes::Hub;
use super::error::Result;
use super::opening::Opening;
use super::query::Query;
use super::reader::ReaderQueue;
use super::schema::Schema;
use super::write_transaction::WriteTransaction;
use super::writer::{WriterQueue, ask};

/// A client's database: a standard SQLite file that is read and written at once, online or not, and that a
/// [`SyncClient`](syncline_core::ClientStore) keeps in sync.
///
/// A cheap handle: all clones are the same database, which closes when the last of them is dropped. No async runtime is
/// needed; SQLite works on threads of its own.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

impl Database {
    /// Opens a file or makes it. Awaiting the answer opens; options are set before:
    /// `Database::open("app.db", schema).durability(Durability::Normal).await`.
    ///
    /// # Errors
    /// `Invalid`: the schema is wrong, or a newer version wrote the file. `Unavailable`: the file cannot be opened now.
    /// `Data`: it is damaged, or no database.
    pub fn open(path: impl AsRef<Path>, schema: Schema) -> Opening {
        Opening::file(path.as_ref(), schema)
    }

    /// Opens an empty database that vanishes with its last handle, for tests. It is a file in a temporary directory, so
    /// that readers work beside the writer as everywhere.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_in_memory(schema: Schema) -> Opening {
        Opening::temporary(schema)
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn writer(&self) -> &Arc<WriterQueue> {
        &self.shared.writer
    }

    pub(crate) fn readers(&self) -> &Arc<ReaderQueue> {
        &self.shared.readers
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// The schema that it was opened with.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs a closure in one write transaction: commits on `Ok`, rolls back on `Err` and on a panic, which goes on in the
    /// caller. Returns when the commit is durable; never waits for the network.
    ///
    /// The writes to synced tables are one [`LocalTransaction`](syncline_core::LocalTransaction) of the upload queue.
    ///
    /// # Errors
    /// That of the closure; `Closed` after [`Database::close`]; `Invalid` inside another such closure.
    ///
    /// # Cancel safety
    /// Dropped before its turn, nothing happens; later, the closure runs to its end and commits.
    pub async fn write<R: Send + 'static>(
        &self,
        write: impl FnOnce(&WriteTransaction<'_>) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        ask(self.writer(), move |writer| writer.local_write(write)).await
    }

    /// Runs a closure in one read transaction, which sees one state from beginning to end. It cannot write.
    ///
    /// # Errors
    /// That of the closure; `Closed` after [`Database::close`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        ask(self.readers(), move |reader| reader.read(read)).await
    }

    /// A query whose rows become values of `T`, column by column name.
    pub fn query<T>(&self, sql: impl Into<String>) -> Query<T> {
        Query::new(self.clone(), sql.into())
    }

    /// Refuses further use, finishes what was begun, and closes the file. All clones are closed with it.
    ///
    /// Blocks a thread of this call's own making, not the caller.
    pub async fn close(&self) {
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.close();
        let Some(thread) = thread else { return };
        let (sender, receiver) = futures::channel::oneshot::channel();
        std::thread::spawn(move || {
            if thread.join().is_err() {
                tracing::error!("the writer thread panicked");
            }
            // Nobody waits any more if this fails.
            let _ = sender.send(());
        });
        // A sender that is gone means the same: the thread has ended.
        let _ = receiver.await;
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

/// What all clones of a handle share.
pub(crate) struct Shared {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: Arc<WriterQueue>,
    readers: Arc<ReaderQueue>,
    hub: Arc<Hub>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn new(
        path: PathBuf,
        schema: Arc<Schema>,
        writer: Arc<WriterQueue>,
        readers: Arc<ReaderQueue>,
        hub: Arc<Hub>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self { path, schema, writer, readers, hub, thread: Mutex::new(Some(thread)) }
    }

    fn close(&self) {
        self.writer.close();
        self.readers.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
