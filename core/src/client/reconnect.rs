//! Delays between attempts: exponential, capped, and spread by chance so that a thousand clients do not return at once.

use std::time::Duration;

use crate::time::Time;

/// A small generator of pseudo-random numbers (splitmix64), seeded from outside: same seed, same session.
#[derive(Debug, Clone)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Takes in a name that differs from client to client.
    pub(super) fn mix(&mut self, name: &str) {
        for byte in name.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between half of `longest` and all of it, at least 1 ms.
    fn spread(&mut self, longest: Duration) -> Duration {
        let whole = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        let half = whole / 2;
        Duration::from_millis((half + self.next() % (whole - half + 1)).max(1))
    }
}

/// An exponential back-off with a cap.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// When to try again, after one more failure.
    pub(super) fn next(&mut self, now: Time, jitter: &mut Jitter) -> Time {
        let delay = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        now + jitter.spread(delay)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn delays_rise_to_the_cap_and_stay_within_half_of_it(seed: u64, failures in 0u32..60) {
            let mut jitter = Jitter::new(seed);
            let mut backoff = Backoff::new((Duration::from_millis(250), Duration::from_secs(20)));
            for index in 0..failures {
                let delay = backoff.next(Time(1000), &mut jitter).since(Time(1000));
                let whole = Duration::from_millis(250 << index.min(7)).min(Duration::from_secs(20));
                proptest::prop_assert!(delay <= whole && delay >= whole / 2, "{delay:?} after {index} failures");
            }
            backoff.reset();
            proptest::prop_assert!(backoff.next(Time(0), &mut jitter) <= Time(250));
        }
    }
}
