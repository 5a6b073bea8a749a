//! How long it took until things went on.

use std::time::Duration;

/// Replication goes on within this time of the restart of whatever stopped.
const PROMISED: Duration = Duration::from_secs(2);
/// For a client, the slowest of several: it finds out by itself that there is a server again.
const SHOWN: Duration = Duration::from_secs(5);

/// From the restart of something to a row that was committed after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// Until the row was in the bucket store.
    pub(crate) replicated: Duration,
    /// Until it was in a client's table.
    pub(crate) shown: Duration,
}

/// The recoveries of one scenario.
#[derive(Debug)]
pub(crate) struct Figures {
    what: &'static str,
    recoveries: Vec<Recovery>,
}

impl Figures {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, recoveries: Vec::new() }
    }

    pub(crate) fn add(&mut self, recovery: Recovery) {
        self.recoveries.push(recovery);
    }

    /// Prints all figures and holds them to the promise.
    pub(crate) fn check(&self) {
        for (place, of, limit) in [
            ("the store", (|recovery| recovery.replicated) as fn(&Recovery) -> Duration, PROMISED),
            ("a client", |recovery| recovery.shown, SHOWN),
        ] {
            let mut times: Vec<Duration> = self.recoveries.iter().map(of).collect();
            println!("{}, until a new row is in {place}: {times:.1?}", self.what);
            times.sort();
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            assert!(median <= PROMISED && worst <= limit, "{}, {place}: median {median:?}, worst {worst:?}", self.what);
        }
    }
}
