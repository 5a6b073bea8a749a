//! Members that come, wait, give up and go, in any order.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::Pin;

use futures::executor::block_on;

use super::super::shared_bucket::SharedBucket;
use super::*;
use crate::bucket::{DefinitionId, Generation};
use crate::bucket_store::{AppendBatch, Commit, Deploy};
use crate::memory::MemoryBucketStore;
use crate::operation::{NewOperation, OpId};

const MEMBERS: usize = 7;

fn bucket(number: usize) -> BucketId {
    BucketId { definition: DefinitionId(1), parameters: format!("[{number}]").into() }
}

/// Publishes a checkpoint that touches these buckets.
fn publish(store: &MemoryBucketStore, buckets: &[usize], deploy: Option<Deploy>) -> OpId {
    let operation = |number: &usize| NewOperation::put(bucket(*number), "t".into(), "i".into(), "".into(), "{}".into());
    let operations = buckets.iter().map(operation).collect();
    block_on(store.append(AppendBatch { operations, ..AppendBatch::default() })).unwrap();
    let commit = Commit { deploy, publish: true, ..Commit::default() };
    block_on(store.commit(commit)).unwrap().unwrap().op_id
}

fn store() -> MemoryBucketStore {
    let store = MemoryBucketStore::new();
    publish(&store, &[0], Some(Deploy { text: "".into(), forms: vec!["f".into()] }));
    store
}

/// Whether its task was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A task that follows checkpoints which touch one bucket.
struct Follower {
    bucket: usize,
    membership: Arc<Membership>,
    waiting: Option<Pin<Box<dyn Future<Output = Result<Notice>>>>>,
    woken: Arc<Flag>,
    seen: OpId,
    /// The newest checkpoint that it must see.
    due: OpId,
}

impl Follower {
    fn join(hub: &Arc<FanOut>, bucket_number: usize, latest: OpId) -> Self {
        let mut membership = hub.join();
        let client = ClientKey(bucket_number.to_string().into());
        membership.set_interest(interest(&[bucket_number]), &client);
        let membership = Arc::new(membership);
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        Self { bucket: bucket_number, membership, waiting: None, woken, seen: OpId::ZERO, due: latest }
    }

    fn poll(&mut self) {
        self.woken.0.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.woken));
        loop {
            let membership = Arc::clone(&self.membership);
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { membership.next().await }));
            match waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => return,
                Poll::Ready(notice) => {
                    self.waiting = None;
                    let Notice::Checkpoint { checkpoint, .. } = notice.unwrap() else { panic!("nobody closes") };
                    assert!(checkpoint.op_id >= self.seen);
                    self.seen = checkpoint.op_id;
                }
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Acquire)
    }

    fn cancel(&mut self) {
        self.waiting = None;
        // A task that stops waiting does something else, and comes back later.
        self.woken.0.store(false, Ordering::Release);
    }
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Polls whoever was woken, in any order, until nobody is.
fn run(followers: &mut [Follower], frozen: usize, random: &mut Random) {
    loop {
        let woken: Vec<_> = (frozen..followers.len()).filter(|&index| followers[index].is_woken()).collect();
        if woken.is_empty() {
            return;
        }
        followers[woken[random.below(woken.len())]].poll();
    }
}

#[test]
fn whatever_members_do_every_notice_is_taken_by_those_that_wait() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let store = store();
        let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
        let mut latest = OpId(1);
        let mut followers: Vec<_> = (0..MEMBERS).map(|number| Follower::join(&hub, number, latest)).collect();
        for _ in 0..120 {
            let index = random.below(MEMBERS);
            match random.below(10) {
                0..3 => {
                    let touched: Vec<_> = (0..MEMBERS).filter(|_| random.below(4) == 0).collect();
                    if touched.is_empty() {
                        continue;
                    }
                    latest = publish(&store, &touched, None);
                    for follower in followers.iter_mut().filter(|follower| touched.contains(&follower.bucket)) {
                        follower.due = latest;
                    }
                }
                3..6 if followers[index].is_woken() || followers[index].waiting.is_none() => followers[index].poll(),
                6..8 => followers[index].cancel(),
                8 => followers[index] = Follower::join(&hub, random.below(MEMBERS), latest),
                _ => run(&mut followers, 0, random),
            }
        }
        run(&mut followers, 0, random);
        for follower in followers.iter().filter(|follower| follower.waiting.is_some()) {
            assert!(follower.seen >= follower.due, "seed {seed}: {:?} of {:?}", follower.seen, follower.due);
        }
    }
}

#[test]
fn one_that_is_never_polled_again_holds_up_no_other_that_is() {
    let store = store();
    let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
    let mut followers: Vec<_> = (0..MEMBERS).map(|number| Follower::join(&hub, number, OpId(1))).collect();
    followers.iter_mut().for_each(Follower::poll);
    // The first few were polled first, and lead if anybody does.
    let frozen = MEMBERS - 1;
    let due = publish(&store, &[frozen], None);
    followers[frozen].poll(); // its timer, at the latest
    assert_eq!(followers[frozen].seen, due);
}

#[test]
fn a_member_that_is_woken_and_goes_wakes_another_one() {
    let store = store();
    let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
    let mut followers: Vec<_> = (0..MEMBERS).map(|number| Follower::join(&hub, number, OpId(1))).collect();
    followers.iter_mut().for_each(Follower::poll);
    let due = publish(&store, &[0, 1, 2, 3, 4, 5, 6], None);
    while let Some(index) = followers.iter().position(Follower::is_woken).filter(|_| followers.len() > 1) {
        followers.remove(index);
    }
    run(&mut followers, 0, &mut Random(1));
    assert_eq!((followers.len(), followers[0].seen), (1, due));
}

/// The buckets with these numbers, and no others.
fn interest(buckets: &[usize]) -> InterestChange {
    let shared = |number: &usize| SharedBucket::new(&bucket(*number), Generation(1));
    let gone = (0..8).filter(|number| !buckets.contains(number)).map(bucket).collect();
    InterestChange { come: buckets.iter().map(shared).collect(), gone, lookups: Vec::new() }
}

fn client() -> ClientKey {
    ClientKey("c".into())
}

/// What a member is told now: of which checkpoint, and of which buckets; `None` are all.
fn told(member: &Membership) -> Option<(OpId, Option<BTreeSet<BucketId>>)> {
    match member.look(true).unwrap()? {
        Notice::Checkpoint { checkpoint, touched: Touched::These { buckets, .. }, .. } => {
            Some((checkpoint.op_id, Some(buckets)))
        }
        Notice::Checkpoint { checkpoint, touched: Touched::Unknown, .. } => Some((checkpoint.op_id, None)),
        Notice::Closing => panic!("nobody closes"),
    }
}

#[test]
fn a_checkpoint_between_a_notice_and_its_resolution_concerns_the_member() {
    let store = store();
    let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
    let (mut member, other) = (hub.join(), hub.join());
    member.set_interest(interest(&[0]), &client());
    told(&member);
    let first = publish(&store, &[0], None);
    assert_eq!(told(&member), Some((first, Some([bucket(0)].into()))));
    // Another one takes the next checkpoint for all before the member says that it looks for its buckets anew.
    let next = publish(&store, &[3], None);
    told(&other);
    assert_eq!(told(&member), None);
    member.set_undecided(first);
    assert_eq!(told(&member), Some((next, None)));
    member.set_undecided(next);
    assert_eq!(told(&member), None);
    // What comes while it looks for them is told as it is: a stream that looks again and again must not begin anew each time.
    let later = publish(&store, &[5], None);
    told(&other);
    assert_eq!(told(&member), Some((later, Some([bucket(5)].into()))));
}

#[test]
fn what_has_changed_is_told_since_the_checkpoint_up_to_which_all_was_known() {
    let store = store();
    let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
    let (mut member, other) = (hub.join(), hub.join());
    member.set_interest(interest(&[0]), &client());
    told(&member);
    // The first does not concern it, so that what it knows is so at that one too; then there are two that do.
    let known = publish(&store, &[3], None);
    told(&other);
    publish(&store, &[0], None);
    told(&other);
    let newest = publish(&store, &[0], None);
    let Some(Notice::Checkpoint { checkpoint, since, .. }) = member.look(true).unwrap() else { panic!("it is told") };
    assert_eq!((since, checkpoint.op_id), (known, newest));
}

#[test]
fn another_interest_is_told_of_what_is_new_in_it_and_not_of_what_left_it() {
    let store = store();
    let hub = Arc::new(FanOut::new(Arc::new(store.clone())));
    let mut member = hub.join();
    member.set_interest(interest(&[0, 1]), &client());
    told(&member);
    member.set_interest(interest(&[1, 2, 4]), &client());
    publish(&store, &[0], None);
    assert_eq!(told(&member), None);
    for number in [1, 2, 4] {
        let at = publish(&store, &[number], None);
        assert_eq!(told(&member), Some((at, Some([bucket(number)].into()))));
    }
    drop(member);
    let state = lock(&hub.state);
    assert!(state.by_bucket.is_empty() && state.by_client.is_empty() && state.members.is_empty());
}
