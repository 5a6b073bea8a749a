//! The lease of a file: one sync engine at a time, in this process or another.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use syncline_core::{Error, Result, StoreLease};

/// The files with an engine in this process. The operating system's lock does not count within a process on every system.
static LEASED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn leased() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LEASED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a lease holds.
struct Guard {
    path: PathBuf,
    /// Locked while it is open. It lies beside the database and stays there when it is released.
    lock: Option<File>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the path is free again.
        self.lock = None;
        leased().remove(&self.path);
    }
}

/// Takes the lease of a database's file.
///
/// # Errors
/// `Unavailable` while somebody else has it, or if the file beside the database cannot be made.
pub(crate) fn take(database: &Path) -> Result<StoreLease> {
    let failed =
        |error: io::Error| Error::unavailable("the database cannot be taken for synchronisation").caused_by(error);
    let path = database.canonicalize().map_err(failed)?;
    if !leased().insert(path.clone()) {
        return Err(Error::unavailable("another sync engine of this program uses the database"));
    }
    // From here on the path is given back, however this ends.
    let mut guard = Guard { path, lock: None };
    let mut name = guard.path.clone().into_os_string();
    name.push("-sync");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => guard.lock = Some(file),
        Err(TryLockError::WouldBlock) => {
            return Err(Error::unavailable("another process synchronises the database"));
        }
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!(path = %guard.path.display(), "no file can be locked here: nothing keeps other processes out");
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    Ok(StoreLease::new(guard))
}
