//! How many rows a single transaction of a publish may show: as many as this device writes in a moment.

use std::time::Duration;

use super::slice::{self, Slice};
use super::writer::WriterQueue;

/// What it begins with, and never exceeds.
const MOST: usize = 2048;
/// What is always allowed.
const LEAST: usize = 64;
/// A transaction should take about so long.
const AIM: Duration = Duration::from_millis(16);

/// A transaction that shows nothing yet, but stages or prepares, takes so many rows to begin with, and never more: its commit
/// must write them all.
const SLICE: usize = 8192;
/// How long it should last, its commit included.
const SLICE_AIM: Duration = Duration::from_millis(10);

/// The number, which follows what transactions took.
#[derive(Debug)]
pub(crate) struct Budget {
    rows: usize,
    slice: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { rows: MOST, slice: SLICE }
    }
}

impl Budget {
    /// Rows that the next transaction may show.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// A transaction that prepares begins now.
    pub(crate) fn slice<'q>(&self, queue: &'q WriterQueue) -> Slice<'q> {
        Slice::new(queue, self.slice)
    }

    /// A transaction that prepared took so many rows and so long, its commit included.
    pub(crate) fn prepared(&mut self, rows: usize, time: Duration) {
        if time > SLICE_AIM && rows >= slice::LEAST {
            let fitting = rows as u128 * SLICE_AIM.as_micros() / time.as_micros().max(1);
            // By halves at most: one slow commit is no slow device.
            self.slice = usize::try_from(fitting).unwrap_or(SLICE).max(rows / 2).max(slice::LEAST).min(self.slice);
        } else if time < SLICE_AIM / 2 && rows * 2 > self.slice {
            self.slice = (self.slice * 2).min(SLICE);
        }
    }

    /// One that makes large what is small, for tests.
    #[cfg(test)]
    pub(crate) fn of(rows: usize, slice: usize) -> Self {
        Self { rows, slice }
    }

    /// A transaction that showed so many rows took so long, its commit included.
    pub(crate) fn took(&mut self, rows: usize, time: Duration) {
        if time > AIM * 2 && rows >= LEAST {
            let fitting = rows as u128 * AIM.as_micros() / time.as_micros().max(1);
            self.rows = usize::try_from(fitting).unwrap_or(MOST).max(LEAST).min(self.rows);
        } else if time < AIM / 2 && rows > self.rows / 2 {
            self.rows = (self.rows * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_transactions_took() {
        let mut budget = Budget::default();
        assert_eq!(budget.rows(), MOST);
        budget.took(2000, Duration::from_millis(160));
        assert_eq!(budget.rows(), 200, "so many fit into the time");
        budget.took(10, Duration::from_secs(1));
        assert_eq!(budget.rows(), 200, "a few rows say nothing about rows");
        budget.took(200, Duration::from_millis(20));
        assert_eq!(budget.rows(), 200);
        budget.took(200, Duration::from_millis(2));
        assert_eq!(budget.rows(), 400);
        budget.took(100, Duration::from_secs(60));
        assert_eq!(budget.rows(), LEAST);
    }

    #[test]
    fn slices_follow_what_their_commits_took() {
        let mut budget = Budget::default();
        budget.prepared(8000, Duration::from_millis(100));
        assert_eq!(budget.slice, 4000, "by halves");
        budget.prepared(4000, Duration::from_micros(13_333));
        assert_eq!(budget.slice, 3000);
        budget.prepared(3000, Duration::from_millis(7));
        assert_eq!(budget.slice, 3000);
        budget.prepared(3000, Duration::from_millis(2));
        assert_eq!(budget.slice, 6000);
        budget.prepared(200, Duration::from_secs(1));
        assert_eq!(budget.slice, 6000, "a few rows say nothing about rows");
    }
}
