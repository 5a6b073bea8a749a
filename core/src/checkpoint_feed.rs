//! Handing new checkpoints to subscribers, newest first and without queues.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::stream::{BoxStream, Stream, StreamExt};

use crate::changes::ChangeCollector;
use crate::checkpoint::{Changes, Checkpoint, LookupKey, Published};
use crate::error::Result;
use crate::operation::OpId;
use crate::recent_lookups::RecentLookups;
use crate::table::RowKey;

/// What a [`BucketStore`](crate::BucketStore) implements its `checkpoints()` with. A handle; clones are the same feed.
///
/// Each subscriber has room for one item: the newest checkpoint, with everything that changed since the item that it took
/// last. A slow one skips checkpoints and costs no more than [`ChangeCollector::LIMIT`] entries.
#[derive(Debug, Clone, Default)]
pub struct CheckpointFeed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    current: Option<Checkpoint>,
    /// Changes that are durable but not yet part of a checkpoint.
    unpublished: ChangeCollector,
    recent: RecentLookups,
    subscribers: BTreeMap<u64, Subscriber>,
    next_subscriber: u64,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    waiting: Waiting,
    waker: Option<Waker>,
}

/// What a subscriber has yet to take.
#[derive(Debug)]
enum Waiting {
    Nothing,
    One(Changes),
    Several(ChangeCollector),
}

impl CheckpointFeed {
    /// A feed that continues from a checkpoint, if there is one.
    pub fn new(current: Option<Checkpoint>) -> Self {
        let feed = Self::default();
        let since = current.as_ref().map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
        {
            let mut state = feed.state();
            state.current = current;
            state.recent = RecentLookups::after(since);
        }
        feed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint.
    pub fn current(&self) -> Option<Checkpoint> {
        self.state().current.clone()
    }

    /// Adds changes that became durable and will be part of the next checkpoint.
    pub fn record(&self, changes: ChangeCollector) {
        self.state().unpublished.merge(changes);
    }

    /// Makes this the newest checkpoint, with everything recorded since the last one. One that is not newer than the
    /// current is ignored: a feed never goes back.
    pub fn publish(&self, checkpoint: Checkpoint) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| checkpoint.op_id <= current.op_id) {
            return;
        }
        let rows = state.unpublished.take_rows();
        state.recent.push(checkpoint.op_id, rows);
        state.current = Some(checkpoint);
        let changes = state.unpublished.take();
        let wakers: Vec<Waker> =
            state.subscribers.values_mut().filter_map(|subscriber| subscriber.offer(&changes)).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// There is no checkpoint any more. Subscribers get the next one with unknown changes.
    pub fn reset(&self) {
        let mut state = self.state();
        state.current = None;
        state.unpublished = ChangeCollector::unknown();
        // Until the next checkpoint, which begins anew.
        state.recent = RecentLookups::after(OpId(u64::MAX));
        for subscriber in state.subscribers.values_mut() {
            // Taken only together with a checkpoint, so this waits for the next one.
            subscriber.waiting = Waiting::One(Changes::Unknown);
        }
    }

    /// The source rows that changed what a lookup key yields after the checkpoint `since`, up to the checkpoint `at`: what a
    /// store answers [`lookup_changes`](crate::BucketStore::lookup_changes) with. `None` if that is not known any more,
    /// since there were too many, or the store was opened anew.
    pub fn changed_rows(&self, key: &LookupKey, since: OpId, at: OpId) -> Option<BTreeSet<RowKey>> {
        self.state().recent.changed(key, since, at)
    }

    /// Ends all streams, and those that are opened later.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let wakers: Vec<Waker> = state.subscribers.values_mut().filter_map(|one| one.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The newest checkpoint now (if any), then newer ones. The first item says that anything may have changed.
    pub fn subscribe(&self) -> BoxStream<'static, Result<Published>> {
        let mut state = self.state();
        let id = state.next_subscriber;
        state.next_subscriber += 1;
        // The first item is Unknown, also if the first checkpoint comes only later.
        let waiting = Waiting::One(Changes::Unknown);
        state.subscribers.insert(id, Subscriber { waiting, waker: None });
        drop(state);
        Subscription { feed: self.clone(), id }.boxed()
    }
}

impl Subscriber {
    fn offer(&mut self, changes: &Changes) -> Option<Waker> {
        match &mut self.waiting {
            Waiting::Nothing => self.waiting = Waiting::One(changes.clone()),
            Waiting::One(Changes::Unknown) => {}
            Waiting::One(first) => {
                let mut collector = ChangeCollector::new();
                collector.merge_changes(first);
                collector.merge_changes(changes);
                self.waiting = Waiting::Several(collector);
            }
            Waiting::Several(collector) => collector.merge_changes(changes),
        }
        self.waker.take()
    }
}

/// One subscriber's stream.
#[derive(Debug)]
struct Subscription {
    feed: CheckpointFeed,
    id: u64,
}

impl Stream for Subscription {
    type Item = Result<Published>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.feed.state();
        if state.closed {
            return Poll::Ready(None);
        }
        let current = state.current.clone();
        let Some(subscriber) = state.subscribers.get_mut(&self.id) else {
            return Poll::Ready(None);
        };
        if let Some(checkpoint) = current {
            let changes = match std::mem::replace(&mut subscriber.waiting, Waiting::Nothing) {
                Waiting::Nothing => None,
                Waiting::One(changes) => Some(changes),
                Waiting::Several(mut collector) => Some(collector.take()),
            };
            if let Some(changes) = changes {
                return Poll::Ready(Some(Ok(Published { checkpoint, changes })));
            }
        }
        subscriber.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.state().subscribers.remove(&self.id);
    }
}
