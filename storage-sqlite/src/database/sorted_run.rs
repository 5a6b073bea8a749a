//! What is sorted in memory before it is written, so that each page of an index is written about once. It is sorted in parts
//! as it comes and merged as it goes, so that no step of it takes long (C4).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries that are sorted at a time.
const RUN: usize = 100_000;
/// And bytes of what they point to.
const RUN_BYTES: usize = 8 << 20;
/// Entries of a part, which is sorted at once: in less than a millisecond.
const PART: usize = 2_048;

/// A run: first it takes entries, then it gives them back in order.
#[derive(Debug)]
pub(crate) struct SortedRun<T> {
    open: Vec<T>,
    parts: Vec<std::vec::IntoIter<T>>,
    /// The first entry of each part.
    heads: BinaryHeap<Reverse<(T, usize)>>,
    entries: usize,
    bytes: usize,
}

impl<T: Ord> Default for SortedRun<T> {
    fn default() -> Self {
        Self { open: Vec::new(), parts: Vec::new(), heads: BinaryHeap::new(), entries: 0, bytes: 0 }
    }
}

impl<T: Ord> SortedRun<T> {
    /// Takes an entry, which points to so many bytes. Not after [`SortedRun::close`].
    pub(crate) fn push(&mut self, entry: T, bytes: usize) {
        self.open.push(entry);
        self.entries += 1;
        self.bytes += bytes;
        if self.open.len() >= PART {
            self.close_part();
        }
    }

    /// Whether it should take no more.
    pub(crate) fn is_full(&self) -> bool {
        self.entries >= RUN || self.bytes >= RUN_BYTES
    }

    /// Whether nothing is left in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn close_part(&mut self) {
        let mut part = std::mem::take(&mut self.open);
        part.sort_unstable();
        let mut part = part.into_iter();
        if let Some(first) = part.next() {
            self.heads.push(Reverse((first, self.parts.len())));
            self.parts.push(part);
        }
    }

    /// From now on it gives.
    pub(crate) fn close(&mut self) {
        self.close_part();
    }

    /// The smallest entry that is left, after [`SortedRun::close`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        let Reverse((entry, part)) = self.heads.pop()?;
        if let Some(next) = self.parts.get_mut(part).and_then(Iterator::next) {
            self.heads.push(Reverse((next, part)));
        }
        self.entries -= 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_in_order_what_it_took() {
        let numbers: Vec<usize> = (0..3 * PART + 5).map(|n| n.wrapping_mul(7919) % 4_001).collect();
        let mut run = SortedRun::default();
        numbers.iter().for_each(|n| run.push(*n, 1));
        assert!(!run.is_full() && !run.is_empty());
        run.close();
        let given: Vec<usize> = std::iter::from_fn(|| run.pop()).collect();
        let mut sorted = numbers;
        sorted.sort_unstable();
        assert_eq!(given, sorted);
        assert!(run.is_empty());
        run.push(1, RUN_BYTES);
        assert!(run.is_full());
    }
}
