//! The trait of time, and the clock of the system: the one place in this crate that knows real time.

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;

use crate::time::{Time, WallTime};

/// What time it is, and how to wait.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time that only goes forward.
    fn now(&self) -> Time;

    /// Time of day.
    fn wall(&self) -> WallTime;

    /// Ready at or after that time. Dropping it cancels it.
    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()>;
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now(&self) -> Time {
        (**self).now()
    }
    fn wall(&self) -> WallTime {
        (**self).wall()
    }
    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        (**self).sleep_until(time)
    }
}

/// The clock of the system. Needs no runtime: its timers have a thread of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "the one exempted place that knows real time")]
impl Clock for SystemClock {
    fn now(&self) -> Time {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let origin = ORIGIN.get_or_init(std::time::Instant::now);
        Time(u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> WallTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        WallTime(since.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)))
    }

    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        let left = time.since(self.now());
        Box::pin(futures_timer::Delay::new(left))
    }
}
