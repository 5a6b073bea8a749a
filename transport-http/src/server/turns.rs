//! A bounded number of requests at work, and a bounded queue before them.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Turns of requests; a handle.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// One for each request that is at work or waits.
    places: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// The right to work; dropping it makes room for the next.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _working: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at work, and as many that wait.
    pub(super) fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS / 2);
        Self { places: Arc::new(Semaphore::new(count * 2)), working: Arc::new(Semaphore::new(count)) }
    }

    /// Waits for its turn, unless too many wait already.
    pub(super) async fn take(&self) -> Result<Turn, Problem> {
        let full = || {
            let message = "too many requests for write checkpoints wait already (`HttpLimits::write_checkpoints`)";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "PSYNC_S2304", message)
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        let working = Arc::clone(&self.working).acquire_owned().await.map_err(|_| full())?;
        Ok(Turn { _place: place, _working: working })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn some_work_as_many_wait_and_more_are_refused() {
        let turns = Turns::new(2);
        let working = [turns.take().await.ok(), turns.take().await.ok()];
        let mut waiting = [Box::pin(turns.take()), Box::pin(turns.take())];
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let refused = turns.take().now_or_never();
        assert_eq!(refused.map(|turn| turn.err().map(|problem| problem.status().as_u16())), Some(Some(429)));
        drop(working);
        let [first, _] = waiting;
        assert!(first.await.is_ok());
    }
}
