//! The files of a store: the database, the requests beside it, and the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use syncline_core::{Error, Result};

use super::schema;
use super::sqlite_error::failed;

/// Connections that read.
const READERS: usize = 4;
/// Bytes of a page. What is written here is mostly chunks of many pages and rows that come by the thousand, which half as many
/// pages of twice the size take in with a quarter less work.
const PAGE: u32 = 8_192;
/// The same of the file of requests, where a commit changes a few bytes of a few pages.
const REQUESTS_PAGE: u32 = 4_096;
/// With so many bytes the write-ahead log is moved into the database: a page that was written many times meanwhile is moved
/// once.
const LOG: u32 = 32 << 20;

/// Open connections, and the lock that keeps other processes away as long as it lives.
pub(super) struct Files {
    pub(super) writer: Connection,
    /// None in memory: there the writer answers reads as well.
    pub(super) readers: Vec<Reader>,
    pub(super) requests: Connection,
    pub(super) on_disk: Option<OnDisk>,
}

/// Where the files are, and the lock.
pub(super) struct OnDisk {
    path: PathBuf,
    pub(super) lock: File,
}

impl OnDisk {
    /// The write-ahead log of the database.
    pub(super) fn wal(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }
}

/// Connections that only read.
pub(super) struct Reader {
    pub(super) store: Connection,
    pub(super) requests: Connection,
}

impl Files {
    /// Opens or makes the files. Readers are opened by [`open_readers`](Self::open_readers), when there are tables.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Whatever name leads to it, the file has one lock.
        let path = real_path(path)?;
        let lock = lock(&path)?;
        let failed = failed("cannot open the bucket store");
        let writer = Connection::open(&path).map_err(&failed)?;
        let requests = Connection::open(requests_path(&path)).map_err(&failed)?;
        // Before anything is changed: the files of others are left as they are.
        schema::check(&writer)?;
        schema::check_requests(&requests)?;
        configure(&writer, 64 << 10, PAGE)?;
        configure(&requests, 2 << 10, REQUESTS_PAGE)?;
        Ok(Self { writer, readers: Vec::new(), requests, on_disk: Some(OnDisk { path, lock }) })
    }

    /// A store that is gone with its connections.
    pub(super) fn in_memory() -> Result<Self> {
        let open = || Connection::open_in_memory().map_err(failed("cannot open a bucket store in memory"));
        let files = Self { writer: open()?, readers: Vec::new(), requests: open()?, on_disk: None };
        configure(&files.writer, 64 << 10, PAGE)?;
        configure(&files.requests, 2 << 10, REQUESTS_PAGE)?;
        Ok(files)
    }

    /// Opens the connections that only read.
    pub(super) fn open_readers(&mut self) -> Result<()> {
        let Some(OnDisk { path, .. }) = &self.on_disk else { return Ok(()) };
        for _ in 0..READERS {
            let reader = Reader { store: open_reader(path, 8_192)?, requests: open_reader(&requests_path(path), 512)? };
            self.readers.push(reader);
        }
        Ok(())
    }
}

fn open_reader(path: &Path, cache_kib: u32) -> Result<Connection> {
    let failed = failed("cannot open the bucket store to read");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags).map_err(&failed)?;
    let pragmas = format!("PRAGMA query_only = ON; PRAGMA cache_size = -{cache_kib}; PRAGMA busy_timeout = 10000;");
    reader.execute_batch(&pragmas).map_err(&failed)?;
    reader.set_prepared_statement_cache_capacity(32);
    Ok(reader)
}

/// The file of requests for write checkpoints.
pub(super) fn requests_path(path: &Path) -> PathBuf {
    beside(path, "-write-checkpoints")
}

/// The path without links, of a file that may not exist yet.
pub(super) fn real_path(path: &Path) -> Result<PathBuf> {
    let cannot = |error: std::io::Error| {
        Error::unavailable(format!("cannot open the bucket store {}", path.display())).caused_by(error)
    };
    match path.canonicalize() {
        // A link to nothing would be followed when the file is made, and the lock would lie beside the link.
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().ok_or_else(|| Error::invalid("the path of the bucket store names no file"))?;
            Ok(folder.canonicalize().map_err(cannot)?.join(name))
        }
        found => found.map_err(cannot),
    }
}

/// Every commit is synced to the disk before it returns. The size of pages is for a new file.
fn configure(connection: &Connection, cache_kib: u32, page: u32) -> Result<()> {
    let moved = LOG / page;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = {page}; PRAGMA busy_timeout = 10000;
             PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};
             PRAGMA wal_autocheckpoint = {moved}; PRAGMA journal_size_limit = 67108864;"
        ))
        .map_err(failed("cannot set up the bucket store"))
}

fn lock(path: &Path) -> Result<File> {
    let lock_path = beside(path, ".lock");
    let cannot = |error: std::io::Error| {
        Error::unavailable(format!("cannot open the lock file {}", lock_path.display())).caused_by(error)
    };
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// Somebody else has the store.
pub(super) fn in_use(path: &Path) -> Error {
    Error::unavailable(format!(
        "the bucket store {} is open already, here or in another process; one process at a time may use it",
        path.display()
    ))
}

/// The file beside another whose name ends so.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
