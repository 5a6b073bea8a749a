//! Chance, from a seed alone: the same seed draws the same numbers, on any machine. Or from bytes, which choose instead.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::lock;

/// A generator of pseudo-random numbers (SplitMix64), or bytes in its place. A handle: clones draw from the same sequence.
#[derive(Clone)]
pub(crate) struct Random(Arc<Mutex<Draws>>);

enum Draws {
    Seeded(u64),
    /// What is left of them, the next one last. Once all are drawn, there are only zeros.
    Bytes(Vec<u8>),
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Draws::Seeded(seed))))
    }

    /// Draws what these bytes say: few for a small choice, so that a change of one byte changes one choice.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Draws::Bytes(bytes.iter().rev().copied().collect()))))
    }

    /// Whether bytes are left; a seed never ends.
    pub(crate) fn has_more(&self) -> bool {
        !matches!(&*lock(&self.0), Draws::Bytes(bytes) if bytes.is_empty())
    }

    /// Another sequence, which depends on this one's seed and a name only if it is taken at the beginning.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        self.draw(u64::MAX)
    }

    /// Below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        // The tiny bias does not matter here.
        if bound == 0 { 0 } else { self.draw(bound - 1) % bound }
    }

    /// A number; those up to `highest` are asked for.
    fn draw(&self, highest: u64) -> u64 {
        match &mut *lock(&self.0) {
            Draws::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
            Draws::Bytes(bytes) => {
                let width = 8 - highest.leading_zeros() / 8;
                (0..width).fold(0, |number, _| number << 8 | u64::from(bytes.pop().unwrap_or(0)))
            }
        }
    }

    /// Between both, ends included.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True in so many of a thousand cases. Draws nothing for 0, so that a fault that is off costs no chance.
    pub(crate) fn permille(&self, cases: u64) -> bool {
        cases > 0 && self.below(1_000) < cases
    }

    /// An index of something with `length` elements.
    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_choose_and_then_there_are_zeros() {
        let random = Random::of_bytes(&[7, 1, 2, 200]);
        assert_eq!(random.below(1), 0);
        assert_eq!(random.below(5), 2);
        assert_eq!(random.below(257), 0x0102 % 257);
        assert!(random.has_more());
        assert_eq!(random.below(256), 200);
        assert!(!random.has_more());
        assert_eq!((random.below(10), random.next()), (0, 0));
        assert!(Random::new(0).has_more());
    }
}
