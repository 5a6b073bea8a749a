//! A clock that stands still until a test moves it, and an executor that moves it when nothing else is left to do.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::executor::LocalPool;
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
    /// Moves to `time` and wakes who slept until then.
    fn set(&self, time: Time) {
        let mut state = self.0.lock().unwrap();
        state.now = state.now.max(time);
        let now = state.now;
        let (due, rest) = state.sleepers.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= now);
        state.sleepers = rest;
        drop(state);
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn next(&self) -> Option<Time> {
        self.0.lock().unwrap().sleepers.iter().map(|(at, _)| *at).min()
    }

    /// Runs the tasks of `pool` until `done`, or panics after `limit` of virtual time. Returns how long it took.
    pub(crate) fn run_until(&self, pool: &mut LocalPool, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
        let start = self.now();
        loop {
            pool.run_until_stalled();
            if done() {
                return self.now().since(start);
            }
            let next = self.next().expect("nothing is left to do, and no timer is set");
            assert!(next <= start + limit, "not done after {limit:?}");
            self.set(next);
        }
    }

    /// Runs the tasks of `pool` for so long.
    pub(crate) fn run_for(&self, pool: &mut LocalPool, time: Duration) {
        let end = self.now() + time;
        loop {
            pool.run_until_stalled();
            match self.next() {
                Some(next) if next <= end => self.set(next),
                _ => break self.set(end),
            }
        }
        pool.run_until_stalled();
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
            // One entry per poll is enough for a test; stale ones only wake in vain.
            state.sleepers.retain(|(at, waker)| *at != time || !waker.will_wake(cx.waker()));
            state.sleepers.push((time, cx.waker().clone()));
            Poll::Pending
        }))
    }
}
