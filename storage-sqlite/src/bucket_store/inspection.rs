//! Looking at a store without opening it: what a program checks before it starts.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use syncline_core::{Checkpoint, DeployedConfig, Error, Result};

use super::files::{beside, real_path, requests_path};
use super::meta::Meta;
use super::schema;
use super::sqlite_error::failed;

/// What a store holds, as [`SqliteBucketStore::inspect`](crate::SqliteBucketStore::inspect) finds it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreInspection {
    /// The deployed config.
    pub config: Option<Arc<DeployedConfig>>,
    /// The last published checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

/// Looks at the files; nothing if there are none yet.
pub(super) fn inspect(path: &Path) -> Result<Option<StoreInspection>> {
    let path = real_path(path)?;
    // Held while the files are looked at: whoever has them open writes to them. It is not made here.
    let _lock = lock(&path)?;
    for file in [path.clone(), requests_path(&path), beside(&path, "-wal")] {
        open_for_writing(&file)?;
    }
    let requests = requests_path(&path);
    if is_filled(&requests) {
        schema::check_requests(&Reading::open(&requests)?.connection)?;
    }
    if !is_filled(&path) {
        return Ok(None);
    }
    let reading = Reading::open(&path)?;
    schema::check(&reading.connection)?;
    let meta = Meta::load_if_any(&reading.connection)?;
    Ok(Some(StoreInspection {
        config: meta.as_ref().and_then(|meta| meta.config().cloned()),
        checkpoint: meta.as_ref().and_then(Meta::checkpoint),
    }))
}

/// The lock of the store, if it was ever opened.
fn lock(path: &Path) -> Result<Option<File>> {
    let lock_path = beside(path, ".lock");
    let Some(file) = open_for_writing(&lock_path)? else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(super::files::in_use(path)),
        Err(TryLockError::Error(error)) => {
            Err(Error::unavailable(format!("cannot lock {}", lock_path.display())).caused_by(error))
        }
    }
}

/// Opens a file as it would have to be opened, and leaves it as it is; `None` if there is none.
fn open_for_writing(path: &Path) -> Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::unavailable(format!("cannot write {}", path.display())).caused_by(error)),
    }
}

fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// A connection that leaves no file behind.
struct Reading {
    connection: Connection,
    /// The index of the log, which SQLite makes to read it.
    made: Option<std::path::PathBuf>,
}

impl Reading {
    fn open(path: &Path) -> Result<Self> {
        let failed = failed("cannot open the bucket store to look at it");
        let index = beside(path, "-shm");
        if is_filled(&beside(path, "-wal")) {
            let made = (!index.exists()).then_some(index);
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
            return Ok(Self { connection, made });
        }
        // Without a log all is in the file, and nobody has it open: so it need not be looked for, nor made.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(immutable(path), flags).map_err(&failed)?;
        Ok(Self { connection, made: None })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // It is of no importance whether it stays: whoever opens the store makes it again.
            let _ = fs::remove_file(made);
        }
    }
}

/// The address of a file that does not change.
fn immutable(path: &Path) -> String {
    let mut address = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => address.push(char::from(*byte)),
            _ => address.push_str(&format!("%{byte:02x}")),
        }
    }
    address + "?immutable=1"
}
