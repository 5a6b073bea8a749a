//! How long a transaction of sync may last, so that a local write waits for at most 50 ms (C4).

use std::time::{Duration, Instant};

use super::writer::WriterQueue;

/// After this time a transaction ends if a local write waits.
const YIELD: Duration = Duration::from_millis(2);
/// After this time it ends anyway: what it holds must also be written by its commit.
const END: Duration = Duration::from_millis(8);
/// But not before so many rows, unless a local write waits: every commit writes all the pages of an index that rows are
/// scattered over, be they few or many.
pub(crate) const LEAST: usize = 512;
/// Rows between two looks at the clock.
const STRIDE: usize = 64;

/// The time of one transaction.
#[derive(Debug)]
pub(crate) struct Slice<'q> {
    queue: &'q WriterQueue,
    begun: Instant,
    most: usize,
    rows: usize,
    over: bool,
}

impl<'q> Slice<'q> {
    /// One that begins now and ends after `most` rows at the latest.
    pub(crate) fn new(queue: &'q WriterQueue, most: usize) -> Self {
        Self { queue, begun: Instant::now(), most: most.max(1), rows: 0, over: false }
    }

    /// Rows to be taken at once where they are not counted one by one.
    pub(crate) fn stride(&self) -> usize {
        STRIDE.min(self.most)
    }

    /// Counts a row. True when the transaction should end.
    pub(crate) fn is_over_after_row(&mut self) -> bool {
        self.rows += 1;
        self.over |= self.rows >= self.most;
        if self.rows.is_multiple_of(STRIDE) {
            self.look();
        }
        self.over
    }

    /// Counts so many rows. True when the transaction should end.
    pub(crate) fn is_over_after_stride(&mut self) -> bool {
        self.rows += self.stride();
        self.over |= self.rows >= self.most;
        self.look()
    }

    /// Rows that were counted.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Looks at the clock now. True when the transaction should end.
    pub(crate) fn look(&mut self) -> bool {
        let elapsed = self.begun.elapsed();
        self.over |= (elapsed >= END && self.rows >= LEAST) || (elapsed >= YIELD && self.queue.waiting().is_some());
        self.over
    }

    /// Whether a local write waits, and the transaction has lasted for long enough to let it through.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_late() && self.queue.waiting().is_some()
    }

    /// Whether much more does not fit into the transaction.
    pub(crate) fn is_late(&self) -> bool {
        self.over || self.begun.elapsed() >= YIELD
    }
}
