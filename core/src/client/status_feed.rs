//! The newest status, for any number of readers: each sees the newest one, and may miss those in between.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::status::SyncStatus;

#[derive(Debug, Default)]
pub(super) struct StatusFeed {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: Arc<SyncStatus>,
    version: u64,
    readers: u64,
    waiting: Vec<(u64, Waker)>,
}

impl StatusFeed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn current(&self) -> Arc<SyncStatus> {
        Arc::clone(&self.lock().status)
    }

    /// Shows `status` if it differs from the one before.
    pub(super) fn show(&self, status: &SyncStatus) {
        let mut state = self.lock();
        if *state.status == *status {
            return;
        }
        state.status = Arc::new(status.clone());
        state.version += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    pub(super) fn updates(self: &Arc<Self>) -> StatusUpdates {
        let mut state = self.lock();
        state.readers += 1;
        StatusUpdates { feed: Arc::clone(self), id: state.readers, seen: None }
    }
}

/// The status now, and again after each change. It never ends.
#[derive(Debug)]
pub struct StatusUpdates {
    feed: Arc<StatusFeed>,
    id: u64,
    seen: Option<u64>,
}

impl Stream for StatusUpdates {
    type Item = SyncStatus;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut state = this.feed.lock();
        if this.seen != Some(state.version) {
            this.seen = Some(state.version);
            let status = Arc::clone(&state.status);
            drop(state);
            return Poll::Ready(Some(SyncStatus::clone(&status)));
        }
        match state.waiting.iter_mut().find(|(id, _)| *id == this.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.waiting.push((this.id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for StatusUpdates {
    fn drop(&mut self) {
        self.feed.lock().waiting.retain(|(id, _)| *id != self.id);
    }
}
