//! One stream of checkpoints for all sessions: each checkpoint is looked at once, and wakes only whom it concerns.
//!
//! There is no runtime here to drive the store's stream, so one of the waiting sessions does: the *leader*. A session leads
//! only while it waits; when it stops waiting, or is dropped, another one is woken to lead. Every session also has a timer
//! of its own (the keepalive), so that a leader that is never polled delays others by that at most.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::stream::BoxStream;

use super::event::Touched;
use crate::bucket::BucketId;
use crate::bucket_store::BucketStore;
use crate::checkpoint::{ChangeSet, Changes, Checkpoint, Published};
use crate::error::{Error, Result};
use crate::write_checkpoint::ClientKey;

/// The hub of all sessions of a service.
pub(super) struct FanOut {
    store: Arc<dyn BucketStore>,
    state: Mutex<State>,
    leader_waker: Arc<LeaderWaker>,
}

#[derive(Default)]
struct State {
    stream: Option<BoxStream<'static, Result<Published>>>,
    latest: Option<Checkpoint>,
    next_member: u64,
    members: BTreeMap<u64, Member>,
    by_bucket: HashMap<BucketId, BTreeSet<u64>>,
    by_client: HashMap<ClientKey, BTreeSet<u64>>,
    /// Members that wait, by number: candidates for leadership.
    waiting: BTreeSet<u64>,
    leader: Option<u64>,
    closed: bool,
}

#[derive(Default)]
struct Member {
    waker: Option<Waker>,
    /// What happened since it last took an update.
    pending: Option<Touched>,
    /// `None` until it has said what concerns it: everything, so far.
    interest: Option<Interest>,
}

struct Interest {
    buckets: Vec<BucketId>,
    client: ClientKey,
}

/// Wakes whoever leads; it has a lock of its own, since a stream may wake its poller from within `poll`.
#[derive(Default)]
struct LeaderWaker(Mutex<Option<Waker>>);

impl Wake for LeaderWaker {
    fn wake(self: Arc<Self>) {
        let waker = lock(&self.0).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What a waiting session learns.
#[derive(Debug)]
pub(super) enum Notice {
    Checkpoint { checkpoint: Checkpoint, touched: Touched },
    Closing,
}

impl FanOut {
    pub(super) fn new(store: Arc<dyn BucketStore>) -> Self {
        Self { store, state: Mutex::default(), leader_waker: Arc::default() }
    }

    /// Joins as a member that is concerned by everything until it says otherwise.
    pub(super) fn join(self: &Arc<Self>) -> Membership {
        let mut state = lock(&self.state);
        let number = state.next_member;
        state.next_member += 1;
        let pending = state.latest.is_some().then_some(Touched::Unknown);
        state.members.insert(number, Member { pending, ..Member::default() });
        Membership { hub: Arc::clone(self), number }
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        let wakers: Vec<Waker> = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.stream = None;
            state.members.values_mut().filter_map(|member| member.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_notice(&self, number: u64, cx: &mut Context<'_>) -> Poll<Result<Notice>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Poll::Ready(Ok(Notice::Closing));
        }
        let mut to_wake = Vec::new();
        let outcome = loop {
            if let Some(notice) = state.take_notice(number) {
                break Poll::Ready(Ok(notice));
            }
            if state.leader.is_some_and(|leader| leader != number) {
                break Poll::Pending;
            }
            state.leader = Some(number);
            *lock(&self.leader_waker.0) = Some(cx.waker().clone());
            let waker = Waker::from(Arc::clone(&self.leader_waker));
            let mut leader_cx = Context::from_waker(&waker);
            let stream = state.stream.get_or_insert_with(|| self.store.checkpoints());
            match stream.as_mut().poll_next(&mut leader_cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Some(Ok(published))) => state.distribute(published, &mut to_wake),
                Poll::Ready(Some(Err(error))) => {
                    state.stream = None;
                    break Poll::Ready(Err(error));
                }
                Poll::Ready(None) => {
                    state.stream = None;
                    break Poll::Ready(Err(Error::unavailable("the store ended its stream of checkpoints")));
                }
            }
        };
        if outcome.is_pending() {
            state.waiting.insert(number);
            if let Some(member) = state.members.get_mut(&number) {
                member.waker = Some(cx.waker().clone());
            }
        } else {
            to_wake.extend(state.stop_waiting(number));
        }
        drop(state);
        to_wake.into_iter().for_each(Waker::wake);
        outcome
    }
}

impl State {
    fn take_notice(&mut self, number: u64) -> Option<Notice> {
        let checkpoint = self.latest.clone()?;
        let touched = self.members.get_mut(&number)?.pending.take()?;
        Some(Notice::Checkpoint { checkpoint, touched })
    }

    /// Notes a checkpoint for whom it concerns.
    fn distribute(&mut self, published: Published, to_wake: &mut Vec<Waker>) {
        let config_changed =
            self.latest.as_ref().is_none_or(|latest| !Arc::ptr_eq(&latest.config, &published.checkpoint.config))
                || self.latest.as_ref().is_some_and(|latest| latest.generation != published.checkpoint.generation);
        self.latest = Some(published.checkpoint);
        match published.changes {
            Changes::These(changes) if !config_changed => self.distribute_changes(&changes, to_wake),
            _ => {
                for member in self.members.values_mut() {
                    member.note(Touched::Unknown, to_wake);
                }
            }
        }
    }

    fn distribute_changes(&mut self, changes: &ChangeSet, to_wake: &mut Vec<Waker>) {
        let mut touched: BTreeMap<u64, (Vec<BucketId>, bool)> = BTreeMap::new();
        for bucket in &changes.buckets {
            for number in self.by_bucket.get(bucket).into_iter().flatten() {
                touched.entry(*number).or_default().0.push(bucket.clone());
            }
        }
        for client in &changes.clients {
            for number in self.by_client.get(client).into_iter().flatten() {
                touched.entry(*number).or_default().1 = true;
            }
        }
        for (number, (buckets, write_checkpoint)) in touched {
            if let Some(member) = self.members.get_mut(&number) {
                member.note(Touched::These { buckets, write_checkpoint }, to_wake);
            }
        }
        for member in self.members.values_mut().filter(|member| member.interest.is_none()) {
            member.note(Touched::Unknown, to_wake);
        }
    }

    /// A member does something else now. Returns the waker of the one that is to lead instead.
    fn stop_waiting(&mut self, number: u64) -> Option<Waker> {
        self.waiting.remove(&number);
        if let Some(member) = self.members.get_mut(&number) {
            member.waker = None;
        }
        if self.leader != Some(number) {
            return None;
        }
        self.leader = None;
        // One without a waker has been woken already and will wait, and lead, again, or go; it must not be counted on.
        self.waiting.iter().find_map(|number| self.members.get(number)?.waker.clone())
    }

    fn forget_interest(&mut self, number: u64) {
        let Some(interest) = self.members.get_mut(&number).and_then(|member| member.interest.take()) else { return };
        for bucket in &interest.buckets {
            remove_from(&mut self.by_bucket, bucket, number);
        }
        remove_from(&mut self.by_client, &interest.client, number);
    }
}

impl Member {
    fn note(&mut self, touched: Touched, to_wake: &mut Vec<Waker>) {
        match &mut self.pending {
            None => self.pending = Some(touched),
            Some(pending) => pending.merge(touched),
        }
        to_wake.extend(self.waker.take());
    }
}

fn remove_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(members) = index.get_mut(key) {
        members.remove(&number);
        if members.is_empty() {
            index.remove(key);
        }
    }
}

/// A member's place in the hub; dropping it leaves.
pub(super) struct Membership {
    hub: Arc<FanOut>,
    number: u64,
}

impl Membership {
    /// From now on only checkpoints that touch these concern it. What it has not taken yet stays noted.
    pub(super) fn set_interest(&self, buckets: Vec<BucketId>, client: ClientKey) {
        let mut state = lock(&self.hub.state);
        state.forget_interest(self.number);
        for bucket in &buckets {
            state.by_bucket.entry(bucket.clone()).or_default().insert(self.number);
        }
        state.by_client.entry(client.clone()).or_default().insert(self.number);
        if let Some(member) = state.members.get_mut(&self.number) {
            member.interest = Some(Interest { buckets, client });
        }
    }

    /// The next checkpoint that concerns this member.
    ///
    /// Cancel safe: what was noted stays noted, and leadership passes on.
    pub(super) fn next(&self) -> NextNotice<'_> {
        NextNotice { membership: self }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.hub.state);
            state.forget_interest(self.number);
            let waker = state.stop_waiting(self.number);
            state.members.remove(&self.number);
            if state.members.is_empty() {
                // Nobody is left to read it; the next member begins anew, with `Unknown`.
                state.stream = None;
                state.latest = None;
            }
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// See [`Membership::next`].
pub(super) struct NextNotice<'a> {
    membership: &'a Membership,
}

impl std::future::Future for NextNotice<'_> {
    type Output = Result<Notice>;
    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.membership.hub.poll_notice(self.membership.number, cx)
    }
}

impl Drop for NextNotice<'_> {
    fn drop(&mut self) {
        let waker = lock(&self.membership.hub.state).stop_waiting(self.membership.number);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOut").field("store", &self.store).finish_non_exhaustive()
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("number", &self.number).finish_non_exhaustive()
    }
}
