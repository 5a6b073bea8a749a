//! How badly the ends behave at the moment, apart from the network of a client, which is its [`Link`](super::link::Link)'s.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use super::lock;
use super::process::Process;
use crate::client_store::PublishRequest;

/// The faults of a world, for its ends to ask. A handle.
#[derive(Clone, Default)]
pub(super) struct Faults(Arc<Mutex<FaultState>>);

/// Chances are in permille, delays in milliseconds.
#[derive(Default)]
pub(super) struct FaultState {
    /// The database cannot be reached by replication.
    pub(super) source_away: bool,
    /// Every increase breaks the connection of replication to the database.
    pub(super) source_cuts: u64,
    /// The longest time that a message between replication and the database takes.
    pub(super) source_delay: u64,
    /// A marker's answer is lost, before or after the marker was written.
    pub(super) marker_answers_lost: u64,
    /// The longest time that a call of the bucket store takes.
    pub(super) store_delay: u64,
    /// A call of the bucket store fails, before or after its effect.
    pub(super) store_fails: u64,
    /// The longest time that a call of a client's store takes.
    pub(super) device_delay: u64,
    /// A call of a client's store fails.
    pub(super) device_fails: u64,
    /// A signal of a changed upload queue is lost.
    pub(super) signals_lost: u64,
    /// Processes that die in the middle of what they next do to their stores.
    pub(super) doomed: BTreeSet<Process>,
    /// Processes that just died so, each with the publish that it was at.
    pub(super) died: Vec<(Process, Option<PublishRequest>)>,
    wakers: Vec<Waker>,
}

impl Faults {
    pub(super) fn lock(&self) -> MutexGuard<'_, FaultState> {
        lock(&self.0)
    }

    /// Whether a process dies in the middle of what it does to its store just now.
    pub(super) fn dies_now(&self, process: Process) -> bool {
        self.lock().doomed.remove(&process)
    }

    /// Changes them, and wakes who waits for a change.
    pub(super) fn set(&self, change: impl FnOnce(&mut FaultState)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl FaultState {
    /// Wakes once when anything changes.
    pub(super) fn wake_later(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}
