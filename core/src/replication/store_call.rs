//! A call of the store that is on its way while replication goes on with what needs nothing of the store.

use std::fmt;

use futures::future::{BoxFuture, FutureExt};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::source::SourcePosition;

/// What changes the store. The next call of the store waits for it: a store sees one call of replication at a time.
pub(super) struct StoreCall<'a> {
    future: BoxFuture<'a, Result<Option<Checkpoint>>>,
    done: Option<Result<Option<Checkpoint>>>,
    /// What is to be told once a commit is durable; none if it is no commit.
    commit: Option<SentCommit>,
}

/// What is told of a commit once it is durable.
#[derive(Debug)]
pub(super) struct SentCommit {
    /// Up to here the source may forget.
    pub(super) position: Option<SourcePosition>,
    pub(super) rows: u64,
    pub(super) failed: u64,
    pub(super) blocker: Option<&'static str>,
}

impl<'a> StoreCall<'a> {
    /// Begins the call, so that a store with a thread of its own is at work on it from now on.
    pub(super) fn begin(
        mut future: BoxFuture<'a, Result<Option<Checkpoint>>>,
        commit: impl Into<Option<SentCommit>>,
    ) -> Self {
        let done = (&mut future).now_or_never();
        Self { future, done, commit: commit.into() }
    }

    /// Waits for its end.
    pub(super) async fn end(self) -> Result<(Option<Checkpoint>, Option<SentCommit>)> {
        let outcome = match self.done {
            Some(outcome) => outcome,
            None => self.future.await,
        };
        Ok((outcome?, self.commit))
    }
}

impl fmt::Debug for StoreCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCall").field("done", &self.done).field("commit", &self.commit).finish_non_exhaustive()
    }
}
