//! Chance, from a seed alone: the same seed draws the same numbers, on any machine.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::lock;

/// A generator of pseudo-random numbers (SplitMix64). A handle: clones draw from the same sequence.
#[derive(Clone)]
pub(super) struct Random(Arc<Mutex<u64>>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// Another sequence, which depends on this one's seed and a name only if it is taken at the beginning.
    pub(super) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(super) fn next(&self) -> u64 {
        let mut state = lock(&self.0);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`; 0 for a bound of 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        // The tiny bias does not matter here.
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Between both, ends included.
    pub(super) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True in so many of a thousand cases. Draws nothing for 0, so that a fault that is off costs no chance.
    pub(super) fn permille(&self, cases: u64) -> bool {
        cases > 0 && self.below(1_000) < cases
    }

    /// An index of something with `length` elements.
    pub(super) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}
