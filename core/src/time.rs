//! Two kinds of time, which are never mixed: time that only goes forward, and time of day.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds on a clock that only goes forward, from an origin without meaning.
///
/// Every delay and deadline is in this time, so that a change of the wall clock delays nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch. Only for what others state in it: the expiry of a token, the time of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub i64);

impl WallTime {
    /// Whole seconds since the Unix epoch, as tokens state them.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}
