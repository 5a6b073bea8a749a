//! A clock that stands still until a test moves it.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use syncline_core::{Clock, Time, WallTime};

#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Time,
    sleepers: Vec<(Time, Waker)>,
}

impl VirtualClock {
    /// Moves on, and wakes who slept until then.
    pub(crate) fn advance(&self, time: Duration) {
        let mut state = self.0.lock().unwrap();
        state.now = state.now + time;
        let now = state.now;
        let (due, rest) = state.sleepers.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= now);
        state.sleepers = rest;
        drop(state);
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        self.0.lock().unwrap().now
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + i64::try_from(self.now().0).unwrap())
    }

    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = clock.0.lock().unwrap();
            if state.now >= time {
                return Poll::Ready(());
            }
            state.sleepers.push((time, cx.waker().clone()));
            Poll::Pending
        }))
    }
}
