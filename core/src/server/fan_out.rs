//! One stream of checkpoints for all sessions: each checkpoint is looked at once, and wakes only whom it concerns.
//!
//! There is no runtime here to drive the store's stream, so the sessions do, each whenever it is polled. When the store has
//! something new it wakes a few of those that wait, in turn, and whoever is polled first takes it for all. One that was
//! woken and goes away instead wakes another one; those that are woken and never polled are not chosen again. Every session
//! also has a timer of its own (the keepalive), so that nobody depends on another one being polled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::stream::BoxStream;

use super::event::Touched;
use super::interest::{Interest, InterestChange};
use crate::bucket::BucketId;
use crate::bucket_store::BucketStore;
use crate::checkpoint::{ChangeSet, Changes, Checkpoint, LookupKey, Published};
use crate::error::{Error, Result};
use crate::operation::OpId;
use crate::sorted_list::SortedList;
use crate::write_checkpoint::ClientKey;

/// Members that the store wakes at once: more than one, because one may never be polled again.
const WOKEN: usize = 4;
/// So much of an interest is entered at a time: nobody waits for the hub until a user of many buckets is done.
const SLICE: usize = 512;

/// Those whom something concerns: there are as many as streams, for each of their buckets.
type Members = SortedList<u32>;

/// The hub of all sessions of a service.
pub(super) struct FanOut {
    store: Arc<dyn BucketStore>,
    state: Mutex<State>,
    waiters: Arc<Waiters>,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    stream: Option<BoxStream<'static, Result<Published>>>,
    latest: Option<Checkpoint>,
    /// Where the search for an unused number begins.
    next_member: u32,
    members: BTreeMap<u32, Member>,
    by_bucket: BTreeMap<BucketId, Members>,
    by_lookup: BTreeMap<LookupKey, Members>,
    by_client: BTreeMap<ClientKey, Members>,
    /// Members that have not said yet what concerns them.
    undecided: BTreeSet<u32>,
}

#[derive(Default)]
struct Member {
    /// What happened since it last took an update.
    pending: Option<Pending>,
}

struct Pending {
    /// The checkpoint after which it happened.
    since: OpId,
    touched: Touched,
}

/// Members that wait. It has a lock of its own, since a stream may wake its poller from within `poll`.
#[derive(Default)]
struct Waiters(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<u32, Waker>,
    /// Whom to wake next, so that all have their turn.
    turn: u32,
    /// The store has something new, and nobody has looked since.
    owed: bool,
}

impl Waiting {
    /// Takes the wakers of so many.
    fn take_some(&mut self, count: usize) -> Vec<Waker> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = self.wakers.range(self.turn..).next().or_else(|| self.wakers.first_key_value());
            let Some((&number, _)) = next else { break };
            self.turn = number + 1;
            taken.extend(self.wakers.remove(&number));
        }
        taken
    }
}

impl Waiters {
    fn enter(&self, number: u32, waker: &Waker) {
        // Dropped without the lock: with it a task may go, and the memberships in it.
        let before = lock(&self.0).wakers.insert(number, waker.clone());
        drop(before);
    }

    /// A member does something else now; if it was to look at the store's stream, another one is.
    fn leave(&self, number: u32) {
        let (left, woken) = {
            let mut waiting = lock(&self.0);
            (waiting.wakers.remove(&number), if waiting.owed { waiting.take_some(1) } else { Vec::new() })
        };
        drop(left);
        woken.into_iter().for_each(Waker::wake);
    }

    fn wake_these(&self, numbers: &[u32]) {
        if numbers.is_empty() {
            return;
        }
        let woken: Vec<Waker> = {
            let mut waiting = lock(&self.0);
            numbers.iter().filter_map(|number| waiting.wakers.remove(number)).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut lock(&self.0).wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    fn set_owed(&self, owed: bool) {
        lock(&self.0).owed = owed;
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        let woken = {
            let mut waiting = lock(&self.0);
            waiting.owed = true;
            waiting.take_some(WOKEN)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

/// What a waiting session learns.
#[derive(Debug)]
pub(super) enum Notice {
    Checkpoint {
        checkpoint: Checkpoint,
        /// What the member knew last was so up to this checkpoint; what has changed since is `touched`.
        since: OpId,
        touched: Touched,
    },
    Closing,
}

impl FanOut {
    pub(super) fn new(store: Arc<dyn BucketStore>) -> Self {
        Self { store, state: Mutex::default(), waiters: Arc::default(), closed: AtomicBool::new(false) }
    }

    /// Joins as a member that is concerned by everything until it says otherwise.
    pub(super) fn join(self: &Arc<Self>) -> Membership {
        let mut state = lock(&self.state);
        let number = state.unused_number();
        let pending = state.latest.as_ref().map(|_| Pending { since: OpId::ZERO, touched: Touched::Unknown });
        state.members.insert(number, Member { pending });
        state.undecided.insert(number);
        Membership { hub: Arc::clone(self), number, interest: None }
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let stream = lock(&self.state).stream.take();
        drop(stream);
        self.waiters.wake_all();
    }

    /// Takes what is new from the store, for all, and the notice of this member.
    fn look(&self, number: u32) -> Result<Option<Notice>> {
        let mut noted = Vec::new();
        let mut state = lock(&self.state);
        if self.closed.load(Ordering::Acquire) {
            return Ok(Some(Notice::Closing));
        }
        let driven = self.drive(&mut state, &mut noted);
        let notice = state.take_notice(number);
        drop(state);
        noted.retain(|noted| *noted != number);
        self.waiters.wake_these(&noted);
        match notice {
            Some(notice) => Ok(Some(notice)),
            None => driven.map(|()| None),
        }
    }

    fn drive(&self, state: &mut State, noted: &mut Vec<u32>) -> Result<()> {
        // What comes from here on is owed anew.
        self.waiters.set_owed(false);
        let waker = Waker::from(Arc::clone(&self.waiters));
        let mut cx = Context::from_waker(&waker);
        let error = loop {
            let stream = state.stream.get_or_insert_with(|| self.store.checkpoints());
            match stream.as_mut().poll_next(&mut cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(published))) => state.distribute(published, noted),
                Poll::Ready(Some(Err(error))) => break error,
                Poll::Ready(None) => break Error::unavailable("the store ended its stream of checkpoints"),
            }
        };
        state.stream = None;
        // Nobody listens to the store now; whoever waits must begin anew.
        self.waiters.set_owed(true);
        Err(error)
    }
}

impl State {
    /// A number that no member has.
    fn unused_number(&mut self) -> u32 {
        while self.members.contains_key(&self.next_member) {
            self.next_member = self.next_member.wrapping_add(1);
        }
        let number = self.next_member;
        self.next_member = number.wrapping_add(1);
        number
    }

    fn take_notice(&mut self, number: u32) -> Option<Notice> {
        let checkpoint = self.latest.clone()?;
        let Pending { since, touched } = self.members.get_mut(&number)?.pending.take()?;
        Some(Notice::Checkpoint { checkpoint, since, touched })
    }

    /// Notes a checkpoint for whom it concerns.
    fn distribute(&mut self, published: Published, noted: &mut Vec<u32>) {
        let config_changed =
            self.latest.as_ref().is_none_or(|latest| !Arc::ptr_eq(&latest.config, &published.checkpoint.config))
                || self.latest.as_ref().is_some_and(|latest| latest.generation != published.checkpoint.generation);
        let before = self.latest.replace(published.checkpoint);
        let since = before.map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
        match published.changes {
            Changes::These(changes) if !config_changed => self.distribute_changes(since, &changes, noted),
            _ => {
                for (number, member) in &mut self.members {
                    member.note(since, Touched::Unknown);
                    noted.push(*number);
                }
            }
        }
    }

    fn distribute_changes(&mut self, since: OpId, changes: &ChangeSet, noted: &mut Vec<u32>) {
        let mut touched: BTreeMap<u32, (BTreeSet<BucketId>, BTreeSet<LookupKey>, bool)> = BTreeMap::new();
        for bucket in &changes.buckets {
            for number in self.by_bucket.get(bucket).into_iter().flat_map(Members::iter) {
                touched.entry(*number).or_default().0.insert(bucket.clone());
            }
        }
        for lookup in &changes.lookups {
            for number in self.by_lookup.get(lookup).into_iter().flat_map(Members::iter) {
                touched.entry(*number).or_default().1.insert(lookup.clone());
            }
        }
        for client in &changes.clients {
            for number in self.by_client.get(client).into_iter().flat_map(Members::iter) {
                touched.entry(*number).or_default().2 = true;
            }
        }
        for (number, (buckets, lookups, write_checkpoint)) in touched {
            if let Some(member) = self.members.get_mut(&number) {
                member.note(since, Touched::These { buckets, lookups, write_checkpoint });
                noted.push(number);
            }
        }
        if self.undecided.is_empty() {
            return;
        }
        // Which of it concerns them they find out by themselves.
        let all = Touched::all(changes);
        for number in &self.undecided {
            if let Some(member) = self.members.get_mut(number) {
                member.note(since, all.clone());
                noted.push(*number);
            }
        }
    }
}

impl Member {
    fn note(&mut self, since: OpId, touched: Touched) {
        match &mut self.pending {
            None => self.pending = Some(Pending { since, touched }),
            Some(pending) => pending.touched.merge(touched),
        }
    }
}

fn add_to<K: Ord + Clone>(index: &mut BTreeMap<K, Members>, key: &K, number: u32) {
    let members = index.entry(key.clone()).or_default();
    if let Err(place) = members.find(&number) {
        members.insert(place, number);
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, Members>, key: &K, number: u32) {
    if let Some(members) = index.get_mut(key) {
        let _ = members.find(&number).map(|place| members.remove(place));
        if members.is_empty() {
            index.remove(key);
        }
    }
}

/// The lookups that have come, or that have gone.
fn chosen(lookups: &[(LookupKey, bool)], come: bool) -> impl Iterator<Item = &LookupKey> {
    lookups.iter().filter(move |(_, is_in)| *is_in == come).map(|(key, _)| key)
}

/// A member's place in the hub; dropping it leaves.
pub(super) struct Membership {
    hub: Arc<FanOut>,
    number: u32,
    /// `None` until it has said what concerns it: everything, so far.
    interest: Option<(Interest, ClientKey)>,
}

impl Membership {
    /// From now on only checkpoints that touch its interest concern it, which has changed by this. What it has not taken yet
    /// stays noted.
    pub(super) fn set_interest(&mut self, mut change: InterestChange, client: &ClientKey) {
        let mut interest = self.interest.take().map_or_else(Interest::default, |(interest, _)| interest);
        interest.apply(&mut change);
        let InterestChange { come, gone, lookups } = change;
        // It is undecided until all that is new is entered, so that nothing falls in between.
        self.change(|state| &mut state.by_bucket, come.iter().map(|bucket| bucket.id()), add_to);
        self.change(|state| &mut state.by_lookup, chosen(&lookups, true), add_to);
        let mut state = lock(&self.hub.state);
        add_to(&mut state.by_client, client, self.number);
        state.undecided.remove(&self.number);
        drop(state);
        self.change(|state| &mut state.by_bucket, gone.iter(), remove_from);
        self.change(|state| &mut state.by_lookup, chosen(&lookups, false), remove_from);
        self.interest = Some((interest, client.clone()));
    }

    /// Changes an index of the hub, with room for others in between.
    fn change<'a, K: 'a>(
        &self,
        index: impl Fn(&mut State) -> &mut BTreeMap<K, Members>,
        keys: impl Iterator<Item = &'a K>,
        change: impl Fn(&mut BTreeMap<K, Members>, &K, u32),
    ) {
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let mut state = lock(&self.hub.state);
            let index = index(&mut state);
            keys.by_ref().take(SLICE).for_each(|key| change(index, key, self.number));
        }
    }

    /// From now on everything concerns it, until it sets its interest again: it is about to find out what does at this
    /// checkpoint. If there is a newer one already, it may have been told less than concerns it of that one.
    pub(super) fn set_undecided(&self, at: OpId) {
        let mut state = lock(&self.hub.state);
        state.undecided.insert(self.number);
        let newer = state.latest.as_ref().is_some_and(|latest| latest.op_id > at);
        if newer && let Some(member) = state.members.get_mut(&self.number) {
            member.note(at, Touched::Unknown);
        }
    }

    /// What [`next`](Self::next) would give at once. For one that does not want a checkpoint now there is only the end.
    pub(super) fn look(&self, wants_checkpoint: bool) -> Result<Option<Notice>> {
        if !wants_checkpoint {
            return Ok(self.hub.closed.load(Ordering::Acquire).then_some(Notice::Closing));
        }
        self.hub.look(self.number)
    }

    /// The next checkpoint that concerns this member.
    ///
    /// Cancel safe: what was noted stays noted, and another one looks at the store instead.
    pub(super) fn next(&self) -> NextNotice<'_> {
        NextNotice { membership: self }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let interest = self.interest.take();
        if let Some((interest, _)) = &interest {
            let buckets = interest.buckets.iter().map(|bucket| bucket.id());
            self.change(|state| &mut state.by_bucket, buckets, remove_from);
            self.change(|state| &mut state.by_lookup, interest.lookups.iter(), remove_from);
        }
        // Before its number is free for another one.
        self.hub.waiters.leave(self.number);
        let mut state = lock(&self.hub.state);
        if let Some((_, client)) = &interest {
            remove_from(&mut state.by_client, client, self.number);
        }
        state.undecided.remove(&self.number);
        state.members.remove(&self.number);
        // If nobody is left to read it; the next member begins anew, with `Unknown`.
        let unread = if state.members.is_empty() { (state.stream.take(), state.latest.take()) } else { (None, None) };
        drop(state);
        drop(unread);
    }
}

/// See [`Membership::next`].
pub(super) struct NextNotice<'a> {
    membership: &'a Membership,
}

impl std::future::Future for NextNotice<'_> {
    type Output = Result<Notice>;
    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Membership { hub, number, .. } = self.membership;
        // Before looking, so that nothing is missed that comes in between.
        hub.waiters.enter(*number, cx.waker());
        match hub.look(*number).transpose() {
            None => Poll::Pending,
            Some(found) => {
                hub.waiters.leave(*number);
                Poll::Ready(found)
            }
        }
    }
}

impl Drop for NextNotice<'_> {
    fn drop(&mut self) {
        self.membership.hub.waiters.leave(self.membership.number);
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

#[cfg(test)]
mod tests;
