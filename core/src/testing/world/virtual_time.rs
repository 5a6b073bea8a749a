//! Virtual time: it stands still while anything is left to do, then jumps to the next timer. Each process has a clock of
//! its own, with its own origin and its own idea of the time of day.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;

use super::lock;
use crate::clock::Clock;
use crate::time::{Time, WallTime};

/// The time of day when a world begins, in Unix milliseconds.
const BEGINNING: i64 = 1_700_000_000_000;

/// The time of a world, in milliseconds from its beginning. A handle.
#[derive(Clone, Default)]
pub(super) struct VirtualTime(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: u64,
    timers: BTreeMap<(u64, u64), Timer>,
    next_timer: u64,
    /// Timers of the world's own ends: something is on its way.
    under_way: usize,
}

struct Timer {
    waker: Waker,
    /// Of one of the world's ends, not of the code under test.
    work: bool,
}

impl VirtualTime {
    pub(super) fn now(&self) -> u64 {
        lock(&self.0).now
    }

    /// A delay of the world's own: while it runs, something is on its way.
    pub(super) fn delay(&self, milliseconds: u64) -> Sleep {
        Sleep { time: self.clone(), until: self.now() + milliseconds, number: None, work: true }
    }

    /// When the next timer goes off.
    pub(super) fn next(&self) -> Option<u64> {
        lock(&self.0).timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether nothing of the world's own is on its way.
    pub(super) fn is_calm(&self) -> bool {
        lock(&self.0).under_way == 0
    }

    /// Moves on to `time` and wakes who slept until then.
    pub(super) fn advance(&self, time: u64) {
        let mut woken = Vec::new();
        {
            let mut state = lock(&self.0);
            state.now = state.now.max(time);
            while let Some(entry) = state.timers.first_entry() {
                if entry.key().0 > time {
                    break;
                }
                let timer = entry.remove();
                state.under_way -= usize::from(timer.work);
                woken.push(timer.waker);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for VirtualTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VirtualTime").field(&self.now()).finish()
    }
}

/// Ready at a time; dropping it cancels it.
pub(super) struct Sleep {
    time: VirtualTime,
    until: u64,
    number: Option<u64>,
    work: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let time = self.time.clone();
        let mut state = lock(&time.0);
        if state.now >= self.until
            && self.number.is_some_and(|number| !state.timers.contains_key(&(self.until, number)))
        {
            return Poll::Ready(());
        }
        // Even a delay of nothing is a step of its own: whatever else is ready may come first.
        let number = match self.number {
            Some(number) => number,
            None => {
                state.next_timer += 1;
                state.next_timer
            }
        };
        let timer = Timer { waker: cx.waker().clone(), work: self.work };
        if state.timers.insert((self.until, number), timer).is_none() {
            state.under_way += usize::from(self.work);
        }
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = lock(&self.time.0);
            if let Some(timer) = state.timers.remove(&(self.until, number)) {
                state.under_way -= usize::from(timer.work);
            }
        }
    }
}

/// The time of day of a machine, as far as it differs from the true one. A handle: it outlives the processes there.
#[derive(Debug, Clone, Default)]
pub(super) struct WallOffset(Arc<AtomicI64>);

impl WallOffset {
    /// Sets how many milliseconds the clock is ahead.
    pub(super) fn set(&self, milliseconds: i64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clock of one run of a process.
#[derive(Debug, Clone)]
pub(super) struct ProcessClock {
    time: VirtualTime,
    /// The monotonic clock's origin means nothing, and another run has another.
    origin: u64,
    wall: WallOffset,
}

impl ProcessClock {
    pub(super) fn new(time: VirtualTime, origin: u64, wall: WallOffset) -> Self {
        Self { time, origin, wall }
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Time {
        Time(self.time.now() + self.origin)
    }

    fn wall(&self) -> WallTime {
        let since = i64::try_from(self.time.now()).unwrap_or(i64::MAX);
        WallTime(BEGINNING + since + self.wall.get())
    }

    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        let until = time.0.saturating_sub(self.origin);
        Box::pin(Sleep { time: self.time.clone(), until, number: None, work: false })
    }
}
