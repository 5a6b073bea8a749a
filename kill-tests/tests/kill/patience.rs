//! Waiting for a condition: often looked at, never for ever.

use std::time::{Duration, Instant};

/// How long anything that a test waits for may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);
/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// Looks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = look().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
