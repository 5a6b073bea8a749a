//! Waiting in a conformance suite: never without end.

use std::future::Future;
use std::time::Duration;

use futures::future::{Either, select};

use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::time::Time;

/// Long enough for any machine; no case waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long is left until something must have happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Time);

impl Deadline {
    pub(super) fn after(patience: Duration) -> Self {
        Self(SystemClock.now() + patience)
    }

    pub(super) fn has_passed(self) -> bool {
        SystemClock.now() >= self.0
    }

    /// The future's output.
    ///
    /// # Panics
    /// If it does not come in time.
    pub(super) async fn wait<T>(self, what: &str, future: impl Future<Output = T>) -> T {
        match select(Box::pin(future), SystemClock.sleep_until(self.0)).await {
            Either::Left((output, _)) => output,
            Either::Right(_) => panic!("this did not happen in time: {what}"),
        }
    }
}

/// The output of a store's future, in time.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    Deadline::after(PATIENCE).wait("an answer of the store", future).await
}

/// What a store answered, which must not be an error.
pub(super) fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

/// A moment before the next attempt at something that may pass.
#[allow(clippy::disallowed_methods, reason = "an adapter under test may wait for what knows real time only")]
pub(super) async fn pause() {
    futures_timer::Delay::new(Duration::from_millis(20)).await;
}

/// Polls a future up to so many times, then drops it; what it returned, if it was ready by then.
pub(super) async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>, deadline: Deadline) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    let polled = std::future::poll_fn(|cx| {
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            // Not polled at all is a point to be dropped at, and so is the moment after the last poll.
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    });
    deadline.wait("a future that is dropped makes progress", polled).await
}
