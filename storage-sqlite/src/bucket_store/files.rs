//! The files of a store: the database, the requests beside it, and the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use syncline_core::{Error, Result};

use super::sqlite_error::failed;

/// Connections that read.
const READERS: usize = 4;

/// Open connections, and the lock that keeps other processes away as long as it lives.
pub(super) struct Files {
    pub(super) writer: Connection,
    /// None in memory: there the writer answers reads as well.
    pub(super) readers: Vec<Connection>,
    pub(super) requests: Connection,
    pub(super) lock: Option<File>,
}

impl Files {
    /// Opens or makes the files. Readers are opened by [`open_readers`](Self::open_readers), when there are tables.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        let writer = Connection::open(path).map_err(failed("cannot open the bucket store"))?;
        configure(&writer, 64 << 10)?;
        let requests =
            Connection::open(beside(path, "-write-checkpoints")).map_err(failed("cannot open the bucket store"))?;
        configure(&requests, 2 << 10)?;
        Ok(Self { writer, readers: Vec::new(), requests, lock: Some(lock) })
    }

    /// A store that is gone with its connections.
    pub(super) fn in_memory() -> Result<Self> {
        let open = || Connection::open_in_memory().map_err(failed("cannot open a bucket store in memory"));
        let files = Self { writer: open()?, readers: Vec::new(), requests: open()?, lock: None };
        configure(&files.writer, 64 << 10)?;
        configure(&files.requests, 2 << 10)?;
        Ok(files)
    }

    /// Opens the connections that only read.
    pub(super) fn open_readers(&mut self, path: &Path) -> Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        for _ in 0..READERS {
            let reader =
                Connection::open_with_flags(path, flags).map_err(failed("cannot open the bucket store to read"))?;
            reader
                .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192; PRAGMA busy_timeout = 10000;")
                .map_err(failed("cannot open the bucket store to read"))?;
            reader.set_prepared_statement_cache_capacity(32);
            self.readers.push(reader);
        }
        Ok(())
    }
}

/// Every commit is synced to the disk before it returns.
fn configure(connection: &Connection, cache_kib: u32) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch(&format!(
            "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;"
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
        Err(TryLockError::WouldBlock) => Err(Error::unavailable(format!(
            "the bucket store {} is open already, here or in another process; one process at a time may use it",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
