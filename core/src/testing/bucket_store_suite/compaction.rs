//! What is owed by compaction (S5).

use std::future::Future;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Subject;
use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit, CompactLimits, Compacted};
use crate::error::ErrorKind;
use crate::operation::{OpId, OperationKind};

const ALL: CompactLimits = CompactLimits { max_operations: 1_000_000 };

/// Compacts until there is no more to do.
async fn compact(store: &dyn BucketStore, limits: CompactLimits) -> Compacted {
    let mut total = Compacted::default();
    for _ in 0..100_000 {
        let done = ok(within(store.compact(limits)).await);
        total.operations += done.operations;
        total.bytes_freed += done.bytes_freed;
        if !done.more {
            return total;
        }
    }
    panic!("compaction never came to an end")
}

/// A session at an older checkpoint, from which compaction took something, must not complete it.
pub async fn compaction_names_the_checkpoint_that_it_requires(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let first = published(&store, operations([put(&bucket, "keep", "1"), put(&bucket, "r", "1")])).await.op_id;
    let between = published(&store, operations([put(&bucket, "s", "1")])).await.op_id;
    let second = published(&store, operations([put(&bucket, "r", "2")])).await.op_id;
    let mut last = second;
    for round in 0..30 {
        last = published(&store, operations([put(&bucket, "t", &round.to_string())])).await.op_id;
    }
    compact(&store, ALL).await;
    for at in [first, between] {
        let (_, superseded) = read_in_steps(&store, &bucket, (OpId::ZERO, at), 1).await;
        let target = superseded.unwrap_or_else(|| panic!("row r is missing at {at}"));
        assert!(target > at && target <= last);
        let (read, superseded) = read_in_steps(&store, &bucket, (OpId::ZERO, target), 1 << 20).await;
        if superseded.is_none() {
            assert_eq!(Reduced::of(&read).checksum(), checksum(&store, &bucket, target).await.checksum);
        }
    }
    let (read, superseded) = read_in_steps(&store, &bucket, (OpId::ZERO, last), 1).await;
    assert_eq!(superseded, None, "the newest checkpoint can be completed");
    assert_eq!(Reduced::of(&read).checksum(), checksum(&store, &bucket, last).await.checksum);
}

/// What lies above the published checkpoint, committed or not, is not touched, and goes on as if nothing had been.
pub async fn compaction_leaves_the_present_alone(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let rows = || (0..20).map(|row| put(&bucket, &format!("r{}", row % 4), &row.to_string()));
    let at = published(&store, operations(rows())).await.op_id;
    ok(store.append(operations(rows())).await);
    ok(store.commit(Commit::default()).await);
    ok(store.append(operations(rows())).await);
    let before = checksum(&store, &bucket, at).await;
    compact(&store, ALL).await;
    assert_eq!(checksum(&store, &bucket, at).await.checksum, before.checksum);
    assert_eq!(read_in_steps(&store, &bucket, (OpId::ZERO, at), 1 << 20).await.1, None);
    let after = checkpoint(&store, publishing()).await.op_id;
    let (new, superseded) = read_in_steps(&store, &bucket, (at, after), 1 << 20).await;
    assert_eq!(new.len(), 40);
    assert!(new.iter().all(|one| one.kind == OperationKind::Put));
    assert_eq!(superseded, None);
    let all = read_all(&store, &bucket, after).await;
    let sum = checksum(&store, &bucket, after).await;
    assert_eq!(sum.count, all.len() as u64);
    assert_eq!(sum.checksum, Reduced::of(&all).checksum());
}

/// Old versions of rows and old lookup entries go; the newest stay.
pub async fn compaction_drops_what_is_superseded(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let key = lookup_key(index, "[]");
    let (kept, gone) = (row_key(1, "kept"), row_key(1, "gone"));
    let data = "some text that takes place ".repeat(20);
    let mut first = None;
    let mut at = OpId::ZERO;
    for round in 0..50 {
        let entries = vec![
            lookup_entry(&kept, &key, &[&format!("[{round}]")]),
            lookup_entry(&gone, &key, if round < 49 { &["[1]"] } else { &[] }),
        ];
        let batch =
            AppendBatch { lookups: entries, ..operations([put(&bucket, "r", &data), put(&bucket, "s", &data)]) };
        at = published(&store, batch).await.op_id;
        first = first.or(Some(at));
    }
    at = published(&store, operations([operation(&bucket, "s", None)])).await.op_id.max(at);
    let before = read_all(&store, &bucket, at).await;
    let sum = checksum(&store, &bucket, at).await.checksum;
    let done = compact(&store, ALL).await;
    assert!(done.operations >= 100 && done.bytes_freed > 90 * 500, "{done:?}");
    let after = read_all(&store, &bucket, at).await;
    assert_eq!(names(&after), ["CLEAR ", "PUT r", "MOVE ", "REMOVE s"]);
    assert_eq!(Reduced::of(&after).checksum(), sum);
    assert_eq!(Reduced::of(&before), Reduced::of(&after));
    assert_eq!(checksum(&store, &bucket, at).await.count, 4);
    assert_eq!(ok(store.lookup(at, std::slice::from_ref(&key)).await)[0].rows, ["[49]"]);
    // What is gone is not answered wrongly.
    let first = first.unwrap_or_default();
    if let Err(error) = store.checksums(first, std::slice::from_ref(&bucket)).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    match store.lookup(first, &[key]).await {
        Ok(rows) => assert_eq!(rows[0].rows.len(), 2),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
    }
    assert_eq!(compact(&store, ALL).await.operations, 0, "nothing is left to do");
}

/// A round looks at about as many operations as it may, and the next goes on.
pub async fn compaction_stays_within_its_limit(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let buckets: Vec<_> = (0..20).map(|number| bucket(definition, &format!("[{number}]"))).collect();
    let rows = (0..2000).map(|row| put(&buckets[row % 20], &format!("r{}", row % 60), "data"));
    let at = published(&store, operations(rows)).await.op_id;
    let mut sums = Vec::new();
    for bucket in &buckets {
        sums.push(checksum(&store, bucket, at).await.checksum);
    }
    let mut rounds = 0;
    let mut total = 0;
    loop {
        let done = ok(store.compact(CompactLimits { max_operations: 150 }).await);
        assert!(done.operations <= 150 + 100, "at most one chunk more than asked for");
        total += done.operations;
        rounds += 1;
        assert!(rounds < 1000, "it comes to an end");
        if !done.more {
            break;
        }
    }
    assert!(rounds > 5 && total >= 2000, "{rounds} rounds, {total} operations");
    for (bucket, sum) in buckets.iter().zip(sums) {
        let read = read_all(&store, bucket, at).await;
        assert_eq!(Reduced::of(&read).checksum(), sum);
        assert_eq!(checksum(&store, bucket, at).await.count, read.len() as u64);
    }
}

/// What a random history does next.
#[derive(Debug, Clone)]
enum Step {
    /// Writes to row `.1` of bucket `.0`, or removes it.
    Write(usize, u8, bool),
    Publish,
    Compact(u64),
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0usize..2, 0u8..6, any::<bool>()).prop_map(|(bucket, row, put)| Step::Write(bucket, row, put)),
        2 => Just(Step::Publish),
        1 => (1u64..40).prop_map(Step::Compact),
    ];
    proptest::collection::vec(step, 1..80)
}

/// S5 as a law over random histories: a client that stopped anywhere, before or after any compaction, ends up with the
/// same rows and the same checksum as one that saw every operation.
///
/// # Panics
/// If the store breaks the law.
pub fn compaction_keeps_every_reduction<S, M>(make: impl Fn() -> M)
where
    S: Into<Subject>,
    M: Future<Output = S>,
{
    let config = Config { cases: 24, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&history(), |steps| {
        super::run(&make, |store| async move { follow(&store, &steps).await });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

async fn follow(store: &dyn BucketStore, steps: &[Step]) {
    let (definition, _) = deployed(store).await;
    let buckets = [bucket(definition, "[1]"), bucket(definition, "[2]")];
    // Clients that stopped at some checkpoint: where, and what they hold of each bucket.
    let mut clients = vec![(OpId::ZERO, [Reduced::default(), Reduced::default()])];
    let mut open = false;
    for (number, step) in steps.iter().chain([&Step::Publish, &Step::Compact(1000)]).enumerate() {
        match step {
            Step::Write(bucket, row, put) => {
                let data = number.to_string();
                let one = operation(&buckets[*bucket], &format!("r{row}"), put.then_some(&data));
                ok(store.append(operations([one])).await);
                open = true;
            }
            Step::Compact(limit) => {
                compact(store, CompactLimits { max_operations: *limit }).await;
                let at = ok_checkpoint(store).await;
                agree(store, &buckets, &clients, at, open).await;
            }
            Step::Publish => {
                let Some(at) = ok(store.commit(publishing()).await) else { continue };
                open = false;
                agree(store, &buckets, &clients, at.op_id, open).await;
                let mut held = [Reduced::default(), Reduced::default()];
                for (bucket, held) in buckets.iter().zip(&mut held) {
                    held.apply(&read_all(store, bucket, at.op_id).await);
                }
                clients.push((at.op_id, held));
            }
        }
    }
}

async fn ok_checkpoint(store: &dyn BucketStore) -> OpId {
    let mut stream = store.checkpoints();
    next(&mut stream).await.checkpoint.op_id
}

/// Every client that goes on to `at` ends up with what a new one gets.
async fn agree(
    store: &dyn BucketStore,
    buckets: &[crate::BucketId; 2],
    clients: &[(OpId, [Reduced; 2])],
    at: OpId,
    open: bool,
) {
    for (number, bucket) in buckets.iter().enumerate() {
        let sum = checksum(store, bucket, at).await;
        let (all, superseded) = read_in_steps(store, bucket, (OpId::ZERO, at), 60).await;
        assert_eq!(superseded, None, "the newest checkpoint can be completed (open append: {open})");
        assert_eq!(sum.count, all.len() as u64);
        let whole = Reduced::of(&all);
        assert_eq!(whole.checksum(), sum.checksum);
        for (stopped, held) in clients {
            let mut held = held[number].clone();
            let (rest, superseded) = read_in_steps(store, bucket, (*stopped, at), 60).await;
            assert_eq!(superseded, None);
            held.apply(&rest);
            assert_eq!(held, whole, "a client that stopped at {stopped}");
        }
    }
}
