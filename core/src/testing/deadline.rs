//! Waiting in a conformance suite: never without end.

use std::future::Future;
use std::time::Duration;

use futures::future::{Either, select};

use crate::error::Result;

/// Long enough for any machine; no case waits for it unless it fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// The future's output, within a deadline.
#[allow(clippy::disallowed_methods, reason = "a store under test may wait for a disk, which knows real time only")]
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    match select(Box::pin(future), futures_timer::Delay::new(DEADLINE)).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("this should have happened within {DEADLINE:?}"),
    }
}

/// What a store answered, which must not be an error.
pub(super) fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}
