//! Compaction beside replication: sweeps in slices, paced so that commits go on between them.

use std::convert::Infallible;
use std::time::Duration;

use crate::bucket_store::{BucketStore, CompactLimits, Compacted};
use crate::clock::Clock;
use crate::error::Result;

/// Operations that the first slice looks at: few, because nothing is known yet of the size of the rows.
const FIRST: u64 = 1_000;
const MOST: u64 = 20_000;
const LEAST: u64 = 20;
/// A commit waits for at most one slice: after one that took longer come smaller ones.
const SLICE: Duration = Duration::from_millis(50);
/// After a slice the store is left to replication for as long as the slice took, but at least for this long.
const PAUSE: Duration = Duration::from_millis(5);

/// What keeps a store from growing for ever.
#[derive(Debug)]
pub(super) struct Upkeep<'a> {
    store: &'a dyn BucketStore,
    clock: &'a dyn Clock,
    every: Duration,
    /// Operations of the next slice.
    slice: u64,
}

impl<'a> Upkeep<'a> {
    pub(super) fn new(store: &'a dyn BucketStore, clock: &'a dyn Clock, every: Duration) -> Self {
        Self { store, clock, every, slice: FIRST }
    }

    /// Sweeps again and again, `every` after the last sweep. A failure is not fatal: the store grows meanwhile, and
    /// whatever made it fail is replication's to report if it meets it too.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            self.clock.sleep_until(self.clock.now() + self.every).await;
            match self.sweep().await {
                Ok(done) => {
                    tracing::debug!(done.operations, done.bytes_freed, "compacted the bucket store");
                }
                Err(error) => {
                    let again_in_s = self.every.as_secs();
                    tracing::warn!(%error, again_in_s, "the bucket store could not be compacted");
                }
            }
        }
    }

    /// One look at everything that is superseded.
    async fn sweep(&mut self) -> Result<Compacted> {
        let mut all = Compacted::default();
        loop {
            let began = self.clock.now();
            let done = self.store.compact(CompactLimits { max_operations: self.slice }).await?;
            all.operations += done.operations;
            all.bytes_freed += done.bytes_freed;
            if !done.more {
                return Ok(all);
            }
            let ended = self.clock.now();
            let took = ended.since(began);
            if took > SLICE {
                let share = SLICE.as_secs_f64() / took.as_secs_f64();
                self.slice = ((self.slice as f64 * share) as u64).max(LEAST);
            } else if took < SLICE / 2 {
                self.slice = (self.slice * 2).min(MOST);
            }
            self.clock.sleep_until(ended + took.max(PAUSE)).await;
        }
    }
}
