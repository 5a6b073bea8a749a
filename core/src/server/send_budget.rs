//! What all streams together may hold in memory for clients that have not taken it yet (S9).
//!
//! The bytes of a line are a stream's own from when they are encoded until its transport lets go of them, so a thousand
//! clients that do not read hold a thousand copies of a large row. A share of the budget is taken before a line is encoded
//! and travels with its bytes; who finds none waits in line, until others have read or are cut off by their transport.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

/// A waiting stream is told of when the first waits, and again a thousand waits later.
const TOLD_EVERY: u64 = 1_000;

/// A budget; a handle.
#[derive(Debug, Clone)]
pub(super) struct SendBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: usize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    used: usize,
    waiting: VecDeque<Waiting>,
    waits: u64,
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    grant: oneshot::Sender<Share>,
}

/// A part of the budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl SendBudget {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Budget { limit, ledger: Mutex::default() }))
    }

    /// A share of so many bytes, in order of asking. One that is larger than the whole budget waits until nobody else has
    /// any. May be dropped at any time.
    pub(super) async fn take(self, bytes: usize) -> Share {
        let granted = {
            let mut ledger = self.0.ledger();
            if ledger.waiting.is_empty() && ledger.fits(bytes, self.0.limit) {
                ledger.used += bytes;
                return Share { budget: Arc::clone(&self.0), bytes };
            }
            if ledger.waits.is_multiple_of(TOLD_EVERY) {
                tracing::warn!(
                    held_bytes = ledger.used,
                    limit = self.0.limit,
                    waited_before = ledger.waits,
                    "a stream waits, since clients that do not read hold all that `ServiceLimits::buffered_bytes` allows"
                );
            }
            ledger.waits += 1;
            let (grant, granted) = oneshot::channel();
            ledger.waiting.push_back(Waiting { bytes, grant });
            granted
        };
        match granted.await {
            Ok(share) => share,
            // Not reached: the budget is alive, and drops no grant of a stream that waits.
            Err(oneshot::Canceled) => Share { budget: self.0, bytes: 0 },
        }
    }
}

impl Budget {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `bytes` back, and grants what fits now.
    fn release(self: &Arc<Self>, bytes: usize) {
        self.ledger().used -= bytes;
        loop {
            // Sent without the lock: a share whose stream has gone is dropped there, and comes back here.
            let next = {
                let mut ledger = self.ledger();
                while ledger.waiting.front().is_some_and(|next| next.grant.is_canceled()) {
                    ledger.waiting.pop_front();
                }
                match ledger.waiting.front() {
                    Some(next) if ledger.fits(next.bytes, self.limit) => ledger.waiting.pop_front(),
                    _ => None,
                }
                .inspect(|next| ledger.used += next.bytes)
            };
            let Some(Waiting { bytes, grant }) = next else { return };
            drop(grant.send(Share { budget: Arc::clone(self), bytes }));
        }
    }
}

impl Ledger {
    fn fits(&self, bytes: usize, limit: usize) -> bool {
        self.used == 0 || self.used.saturating_add(bytes) <= limit
    }
}

impl Share {
    /// What was taken by an estimate is so many bytes.
    pub(super) fn settle(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.release(self.bytes - bytes);
        } else {
            self.budget.ledger().used += bytes - self.bytes;
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Bytes that hold a share until they are let go.
#[derive(Debug)]
pub(super) struct HeldBytes {
    pub(super) bytes: Vec<u8>,
    pub(super) _share: Share,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn shares_are_granted_in_order_and_come_back() {
        let budget = SendBudget::new(100);
        let used = || budget.0.ledger().used;
        let take = |bytes| Box::pin(budget.clone().take(bytes));
        let mut first = take(60).now_or_never().unwrap_or_else(|| unreachable!("it is free"));
        let (mut second, mut third, mut fourth) = (take(50), take(10), take(20));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none(), "it would fit, and does not jump the queue");
        assert!((&mut fourth).now_or_never().is_none());
        drop(third);
        first.settle(40);
        let second = second.now_or_never();
        assert!(second.is_some());
        assert_eq!(used(), 90, "who has gone gets none");
        drop(first);
        assert!(fourth.now_or_never().is_some());
        drop(second);
        assert_eq!(used(), 0);
        let mut large = take(1_000).now_or_never().unwrap_or_else(|| unreachable!("nobody has any"));
        large.settle(2_000);
        assert_eq!(used(), 2_000);
        assert!(take(1).now_or_never().is_none());
        drop(large);
        assert!(take(1).now_or_never().is_some());
    }
}
