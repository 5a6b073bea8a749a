//! The size of the write-ahead log: SQLite begins it anew only when no reader is in the way, which with busy readers is
//! never.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::workers::Brake;

/// With a larger log than this, readers are held back for a moment.
const LIMIT: u64 = 256 << 20;
/// How long to wait for the reads at hand, each a short transaction.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for readers of other programs, which cannot be held back.
const OTHERS: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_secs(10);

/// Keeps the log of a store from growing without end.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    readers: Brake,
    pub(super) limit: u64,
    /// After a failure: not before the log is this large.
    not_below: u64,
}

impl Wal {
    pub(super) fn new(path: PathBuf, readers: Brake) -> Self {
        Self { path, readers, limit: LIMIT, not_below: 0 }
    }

    /// Moves a log that is too large into the database, and empties it. After a commit, on the connection that writes.
    pub(super) fn trim(&mut self, connection: &Connection) {
        let size = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if size <= self.limit.max(self.not_below) {
            return;
        }
        let run = |mode: &str| {
            let pragma = format!("PRAGMA wal_checkpoint({mode})");
            connection.query_row(&pragma, [], |row| row.get::<_, bool>(0))
        };
        // Most of the work is done beside the readers.
        let beside = run("PASSIVE");
        let emptied = self.readers.hold(PATIENCE, || {
            connection.busy_timeout(OTHERS)?;
            let busy = run("TRUNCATE");
            connection.busy_timeout(BUSY)?;
            busy
        });
        match (beside, emptied) {
            (Ok(_), Some(Ok(false))) => {
                self.not_below = 0;
                tracing::debug!(size, "the log of the bucket store was emptied");
            }
            (beside, emptied) => {
                self.not_below = size + self.limit / 4;
                tracing::warn!(size, ?beside, ?emptied, "the log of the bucket store cannot be emptied, and grows on");
            }
        }
    }
}
