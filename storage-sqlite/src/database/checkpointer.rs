//! The checkpointer: a thread that moves what was committed from the log of the file (its WAL) into the file, so that no
//! transaction has to wait for that (C4).
//!
//! It works beside the writer, which only appends. The log begins anew when all of it has been moved, and while sync writes
//! much, that moment never comes by itself: beyond a limit, tasks of sync wait until the checkpointer has caught up. The
//! application's writes never wait for it, and a reader that holds on to an old state only makes the log grow.

use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::writer::WriterQueue;

/// Pages that are moved at a time. A page that was written again meanwhile is moved once.
const WORTHWHILE: u32 = 1_000;
/// The log is to have no more pages: tasks of sync wait.
pub(crate) const LIMIT: u32 = 6_000;
/// So often what local writes add meanwhile is moved too, before they are kept out for a moment.
const ROUNDS: usize = 4;
/// So many pages at most are moved while local writes are kept out.
const LAST: u32 = 64;

/// What writer and checkpointer know about the log.
pub(crate) struct Checkpoints {
    queue: Arc<WriterQueue>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The length of the log, in pages, after the last commit.
    pages: u32,
    /// The same when it was last dealt with.
    seen: u32,
    closed: bool,
}

impl State {
    fn is_due(&self) -> bool {
        self.pages >= LIMIT && self.pages != self.seen || self.pages >= self.seen.saturating_add(WORTHWHILE)
    }
}

impl Checkpoints {
    /// For the writer with this queue.
    pub(crate) fn new(queue: Arc<WriterQueue>) -> Self {
        Self { queue, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing runs under the lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit has made the log so long.
    pub(crate) fn committed(&self, pages: u32) {
        let mut state = self.lock();
        if pages < state.pages {
            state.seen = 0;
        }
        state.pages = pages;
        if state.closed || !state.is_due() {
            return;
        }
        if pages >= LIMIT {
            self.queue.hold_tasks();
        }
        self.changed.notify_one();
    }

    /// The checkpointer ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until there is enough to move. `None` when it is to end.
    fn next(&self) -> Option<u32> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.is_due() {
                return Some(state.pages);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The log was dealt with as far as it had so many pages.
    fn done(&self, pages: u32) {
        let mut state = self.lock();
        // Otherwise it has begun anew in the meantime.
        if state.pages >= pages {
            state.seen = pages;
        }
        // Under the lock, so that no commit holds tasks in between.
        if !state.is_due() || state.pages < LIMIT {
            self.queue.release_tasks();
        }
    }
}

/// Nothing waits for a checkpointer that is gone, however it went.
struct Release<'c>(&'c Checkpoints);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.queue.release_tasks();
    }
}

/// The thread's own.
pub(crate) struct Checkpointer {
    conn: Connection,
    checkpoints: Arc<Checkpoints>,
}

impl Checkpointer {
    /// With a connection of its own, which must not wait for others.
    pub(crate) fn new(conn: Connection, checkpoints: Arc<Checkpoints>) -> Self {
        Self { conn, checkpoints }
    }

    /// Runs until [`Checkpoints::close`]. If its connection is the last one, SQLite moves the rest and removes the log.
    pub(crate) fn run(self) {
        let release = Release(&self.checkpoints);
        while let Some(pages) = self.checkpoints.next() {
            let seen = self.shorten().unwrap_or_else(|error| {
                // For example a full disk. The next commits try again.
                tracing::debug!(%error, "the log of the client's database could not be moved into the file");
                pages
            });
            self.checkpoints.done(seen.max(pages));
        }
        drop(release);
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "the client's database did not close cleanly");
        }
    }

    /// Moves what can be moved. Answers how many pages the log had.
    fn shorten(&self) -> rusqlite::Result<u32> {
        let (mut pages, mut moved) = self.checkpoint(CheckpointMode::PASSIVE)?;
        if pages < LIMIT {
            return Ok(pages);
        }
        // The next writer begins anew as soon as all is moved. Local writes go on and add to it.
        for _ in 0..ROUNDS {
            if moved >= pages {
                return Ok(pages);
            }
            let before = moved;
            (pages, moved) = self.checkpoint(CheckpointMode::PASSIVE)?;
            if moved == before {
                break;
            }
        }
        if moved < pages && pages - moved <= LAST {
            // It answers at once if somebody reads what is to be overwritten, or writes just now.
            match self.checkpoint(CheckpointMode::RESTART) {
                Ok(_) => {}
                Err(error) if is_busy(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pages)
    }

    fn checkpoint(&self, mode: CheckpointMode) -> rusqlite::Result<(u32, u32)> {
        let (pages, moved) = self.conn.wal_checkpoint_v2(None::<&CStr>, mode)?;
        // Negative where there is no log.
        Ok((u32::try_from(pages).unwrap_or(0), u32::try_from(moved).unwrap_or(0)))
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}
