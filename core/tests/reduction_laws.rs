//! Laws of operations: what a client makes of them does not depend on how they arrive, nor on what compaction did to them,
//! wherever the client stands; and sums are sums.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::executor::block_on;
use proptest::prelude::*;
use syncline_core::memory::{MemoryBucketStore, MemoryClientStore};
use syncline_core::protocol::DataLine;
use syncline_core::{
    AppendBatch, BucketId, BucketPriority, BucketStore, Bytes, Checksum, Chunk, ChunkBuilder, ClientStore, Commit,
    CompactLimits, Compactor, DefinitionId, Deploy, ErrorKind, LeadingRun, NewOperation, OpId, Operation,
    OperationKind, PublishOutcome, PublishRequest, ReadRequest, TargetBucket, TargetCheckpoint, WallTime,
};

/// 256 unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    ProptestConfig::default().cases
}

/// A bucket as operations say it is: one after the other, applied to a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    rows: BTreeMap<String, (OpId, String)>,
    /// The exact sum of what counts.
    sum: u128,
}

impl Model {
    fn of<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Self {
        let mut model = Self::default();
        model.apply(operations);
        model
    }

    fn apply<'a>(&mut self, operations: impl IntoIterator<Item = &'a Operation>) {
        for operation in operations {
            let id = operation.object_id.to_string();
            match operation.kind {
                OperationKind::Put => {
                    self.rows.insert(id, (operation.op_id, operation.data.as_deref().unwrap_or_default().to_owned()));
                }
                OperationKind::Remove => {
                    self.rows.remove(&id);
                }
                OperationKind::Move => {}
                OperationKind::Clear => *self = Self::default(),
            }
            self.sum += u128::from(operation.checksum.0);
        }
    }

    fn checksum(&self) -> Checksum {
        Checksum((self.sum % (1 << 32)) as u32)
    }

    /// What can be compared after compaction: it replaces sums by their remainder.
    fn seen(&self) -> (BTreeMap<String, (OpId, String)>, Checksum) {
        (self.rows.clone(), self.checksum())
    }
}

fn operation(op_id: u64, kind: OperationKind, row: u8, checksum: u32) -> Operation {
    let of_a_row = matches!(kind, OperationKind::Put | OperationKind::Remove);
    Operation {
        op_id: OpId(op_id),
        kind,
        object_type: if of_a_row { "items".into() } else { "".into() },
        object_id: if of_a_row { format!("r{row}").into() } else { "".into() },
        subkey: of_a_row.then(|| "k".into()),
        data: (kind == OperationKind::Put).then(|| format!("{{\"v\":{op_id}}}").into()),
        checksum: Checksum(checksum),
    }
}

fn kind() -> impl Strategy<Value = OperationKind> {
    prop_oneof![
        6 => Just(OperationKind::Put),
        3 => Just(OperationKind::Remove),
        1 => Just(OperationKind::Move),
        1 => Just(OperationKind::Clear),
    ]
}

const BUCKETS: usize = 3;

fn bucket_name(bucket: usize) -> String {
    format!("1.{bucket}[]")
}

fn publish(store: &MemoryClientStore, sums: &[Checksum], last_op_id: OpId) -> PublishOutcome {
    let buckets = sums.iter().enumerate().map(|(bucket, checksum)| {
        let target = TargetBucket {
            checksum: *checksum,
            priority: BucketPriority::DEFAULT,
            count: None,
            subscriptions: Vec::new(),
        };
        (bucket_name(bucket).into(), target)
    });
    let target = TargetCheckpoint { last_op_id, buckets: buckets.collect(), ..TargetCheckpoint::default() };
    let request = PublishRequest { target: Arc::new(target), partial: None, requested: [].into(), now: WallTime(0) };
    block_on(store.publish(&request)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8 * cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_come_to_the_same_however_they_are_cut_and_mixed(
        history in prop::collection::vec((0..BUCKETS, kind(), 0u8..5, any::<u32>()), 0..60),
        turns in prop::collection::vec((0..BUCKETS, 1usize..6), 0..40),
        wrong in prop::option::of((0..BUCKETS, 1u32..)),
    ) {
        let mut waiting: Vec<Vec<Operation>> = vec![Vec::new(); BUCKETS];
        for (index, (bucket, kind, row, checksum)) in history.iter().enumerate() {
            waiting[*bucket].push(operation(index as u64 + 1, *kind, *row, *checksum));
        }
        let models: Vec<Model> = waiting.iter().map(Model::of).collect();
        let store = MemoryClientStore::new("device");
        let rest = (0..BUCKETS).map(|bucket| (bucket, usize::MAX));
        for (bucket, count) in turns.into_iter().chain(rest) {
            let count = count.min(waiting[bucket].len());
            let operations: Vec<_> = waiting[bucket].drain(..count).collect();
            let last = operations.last().map(|operation| operation.op_id);
            let line = DataLine { bucket: bucket_name(bucket).into(), operations, size: 0 };
            block_on(store.stage(&[line])).unwrap();
            // A download that is broken off goes on behind the last operation that was staged.
            let state = block_on(store.resume(WallTime(0))).unwrap();
            let name = bucket_name(bucket);
            let position = state.buckets.iter().find(|(known, _)| *known == *name).map(|(_, after)| *after);
            prop_assert!(last.is_none() || position == last);
        }
        let sums: Vec<_> = models.iter().map(Model::checksum).collect();
        let last_op_id = OpId(history.len() as u64);
        if let Some((bucket, off)) = wrong {
            let mut sums = sums;
            sums[bucket] += Checksum(off);
            prop_assert_eq!(publish(&store, &sums, last_op_id), PublishOutcome::Mismatch(vec![bucket_name(bucket).into()]));
            prop_assert!(store.rows("items").is_empty());
            return Ok(());
        }
        prop_assert_eq!(publish(&store, &sums, last_op_id), PublishOutcome::Published);
        // Of copies in several buckets the newest is the row.
        let mut expected: BTreeMap<&String, &(OpId, String)> = BTreeMap::new();
        for (id, row) in models.iter().flat_map(|model| &model.rows) {
            let newest = expected.entry(id).or_insert(row);
            *newest = (*newest).max(row);
        }
        let expected: Vec<_> = expected.into_iter().map(|(id, (op_id, _))| (id.clone(), op_id.0)).collect();
        let shown: Vec<_> = (store.rows("items").iter())
            .map(|row| (row["id"].as_str().unwrap().to_owned(), row["v"].as_u64().unwrap()))
            .collect();
        prop_assert_eq!(shown, expected);
    }

    #[test]
    fn sums_do_not_depend_on_order_or_grouping(
        sums in prop::collection::vec((any::<u32>(), any::<u64>()), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let exact = sums.iter().map(|(sum, _)| u64::from(*sum)).sum::<u64>() as u32;
        let add = |sums: &[(u32, u64)]| sums.iter().fold(Checksum::default(), |sum, (one, _)| sum + Checksum(*one));
        prop_assert_eq!(add(&sums), Checksum(exact));
        let mut shuffled = sums.clone();
        shuffled.sort_by_key(|(_, key)| *key);
        prop_assert_eq!(add(&shuffled), Checksum(exact));
        let (head, tail) = sums.split_at(cut.index(sums.len() + 1));
        prop_assert_eq!(add(head) + add(tail), add(&sums));
        prop_assert_eq!(add(&sums) - add(tail), add(head));
        // One by one, as a bucket grows, or looked up in its chunk.
        let operations: Vec<_> =
            sums.iter().zip(1..).map(|((sum, _), id)| operation(id, OperationKind::Put, 0, *sum)).collect();
        let chunk = chunk(&operations);
        let mut grown = Checksum::default();
        for operation in &operations {
            grown += operation.checksum;
            prop_assert_eq!(chunk.sum_upto(operation.op_id), (operation.op_id.0, grown));
        }
        for (sum, _) in sums {
            let signed = Checksum(sum).signed();
            prop_assert_eq!(Checksum::from_wire(i64::from(sum)), Checksum(sum));
            prop_assert_eq!(Checksum::from_wire(i64::from(signed)), Checksum(sum));
        }
    }
}

fn chunk(operations: &[Operation]) -> Chunk {
    let mut builder = ChunkBuilder::new();
    for operation in operations {
        let text = |text: &'static str| text;
        builder
            .push(syncline_core::OperationRef {
                op_id: operation.op_id,
                kind: operation.kind,
                checksum: operation.checksum,
                object_type: &operation.object_type,
                object_id: &operation.object_id,
                subkey: operation.subkey.as_deref().unwrap_or(text("")),
                data: operation.data.as_deref().unwrap_or(text("")),
            })
            .unwrap();
    }
    builder.finish()
}

/// The operations of chunks that lie in `(after, upto]`.
fn between(chunks: &[Chunk], after: OpId, upto: OpId) -> Vec<Operation> {
    let parts = chunks.iter().flat_map(|chunk| chunk.operations(chunk.range(after, upto)));
    parts.map(|operation| operation.to_owned()).collect()
}

/// A bucket whose chunks were compacted once, as a store does it: each chunk with what superseded it.
fn compacted(chunks: &[Chunk], max_rows: usize) -> (Vec<Chunk>, Vec<OpId>, OpId) {
    let mut compactor = Compactor::new(max_rows);
    let mut revised: Vec<_> = chunks.iter().rev().map(|chunk| compactor.revise(chunk).unwrap()).collect();
    revised.reverse();
    let mut targets: Vec<_> = revised.iter().map(|revised| revised.target).collect();
    let mut chunks: Vec<_> = revised.into_iter().map(|revised| revised.chunk).collect();
    let oldest = compactor.oldest_put();
    let boundary = match oldest {
        Some(put) => chunks.iter().position(|chunk| chunk.last_op() >= Some(put)).unwrap(),
        None => chunks.len() - 1,
    };
    let totals = chunks[..=boundary].iter().map(|chunk| chunk.sum_upto(OpId(u64::MAX)));
    let totals = totals.fold((0, Checksum::default()), |(count, sum), (more, added)| (count + more, sum + added));
    let before = boundary.checked_sub(1).and_then(|before| chunks[before].last_op());
    let Some(run) = LeadingRun::find(&chunks[boundary], oldest, totals, before) else {
        return (chunks, targets, OpId::ZERO);
    };
    let target = targets[..=boundary].iter().max().copied().unwrap_or_default();
    let cleared = run.clear(&chunks[boundary]).unwrap();
    chunks.splice(..=boundary, [cleared]);
    targets.splice(..=boundary, [target]);
    (chunks, targets, run.last_op)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever a client stands, and whichever state it is on the way to.
    #[test]
    fn a_compacted_bucket_comes_to_the_same_from_every_point_or_says_that_it_does_not(
        history in prop::collection::vec((prop::bool::weighted(0.7), 0u8..5, any::<u32>(), prop::bool::weighted(0.3)), 1..32),
        max_rows in prop_oneof![Just(usize::MAX), 0usize..5],
        rounds in 1usize..3,
    ) {
        let mut operations = Vec::new();
        let mut parts: Vec<Vec<Operation>> = vec![Vec::new()];
        for (index, (put, row, checksum, cut)) in history.iter().enumerate() {
            let kind = if *put { OperationKind::Put } else { OperationKind::Remove };
            let one = operation(index as u64 + 1, kind, *row, *checksum);
            operations.push(one.clone());
            parts.last_mut().unwrap().push(one);
            if *cut {
                parts.push(Vec::new());
            }
        }
        let mut chunks: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(|part| chunk(part)).collect();
        let (mut targets, mut cleared) = (vec![OpId::ZERO; chunks.len()], OpId::ZERO);
        for _ in 0..rounds {
            let earlier: Vec<_> = chunks.iter().map(|chunk| chunk.last_op()).zip(targets).collect();
            let (after, found, clear) = compacted(&chunks, max_rows);
            targets = (after.iter().zip(found))
                .map(|(chunk, target)| {
                    let kept = earlier.iter().filter(|(last, _)| *last <= chunk.last_op()).map(|(_, target)| *target);
                    kept.max().unwrap_or_default().max(target)
                })
                .collect();
            (chunks, cleared) = (after, cleared.max(clear));
        }
        let raw = |upto: OpId| Model::of(operations.iter().filter(|operation| operation.op_id <= upto));
        let end = OpId(operations.len() as u64);
        let whole = raw(end);
        let mut told = BTreeSet::new();
        for stands in 0..=end.0 {
            for upto in stands..=end.0 {
                let mut client = raw(OpId(stands));
                client.apply(&between(&chunks, OpId(stands), OpId(upto)));
                let read = chunks.iter().zip(&targets).filter(|(chunk, _)| !chunk.range(OpId(stands), OpId(upto)).is_empty());
                let superseded = OpId(upto) < cleared || read.map(|(_, target)| *target).max() > Some(OpId(upto));
                if superseded {
                    told.insert(upto);
                } else {
                    prop_assert_eq!(client.seen(), raw(OpId(upto)).seen(), "from {} to {}", stands, upto);
                }
                // Told or not, it ends up right.
                client.apply(&between(&chunks, OpId(upto), end));
                prop_assert_eq!(client.seen(), whole.seen(), "from {} by {}", stands, upto);
            }
        }
        prop_assert!(!told.contains(&end.0), "the newest state can be completed");
    }
}

/// What happens to a store.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, u8, bool),
    Publish,
    Compact(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0usize..2, 0u8..5, prop::bool::weighted(0.7)).prop_map(|(bucket, row, put)| Step::Write(bucket, row, put)),
        4 => Just(Step::Publish),
        2 => (1u64..30).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 1..50)
}

/// All operations of a bucket in `(after, upto]`, in small reads, and whether the checkpoint must not be completed.
fn read(store: &MemoryBucketStore, bucket: &BucketId, after: OpId, upto: OpId) -> (Vec<Operation>, bool) {
    let mut request = ReadRequest { bucket: bucket.clone(), after, upto, max_bytes: 40 };
    let (mut found, mut superseded) = (Vec::new(), false);
    loop {
        let answer = block_on(store.read(std::slice::from_ref(&request))).unwrap().remove(0);
        found.extend(between(&answer.chunks, request.after, answer.next_after));
        superseded |= answer.superseded.is_some_and(|target| target > upto);
        if !answer.has_more {
            return (found, superseded);
        }
        assert!(answer.next_after > request.after);
        request.after = answer.next_after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 2, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same of a store, with appends, publications and compactions in any order.
    #[test]
    fn a_compacted_store_is_completed_rightly_or_not_at_all(steps in steps()) {
        let store = MemoryBucketStore::new();
        let buckets = [1, 2].map(|number| BucketId { definition: DefinitionId(1), parameters: format!("[{number}]").into() });
        let deploy = Deploy { text: "streams: {}".into(), forms: vec!["form".into()] };
        block_on(store.commit(Commit { deploy: Some(deploy), publish: true, ..Commit::default() })).unwrap();
        let mut published = Vec::new();
        // What each bucket was told before any compaction: the store's own reading, when it was new.
        let mut raw: [Vec<Operation>; 2] = [Vec::new(), Vec::new()];
        for (number, step) in steps.iter().chain([&Step::Publish, &Step::Compact(1_000)]).enumerate() {
            match step {
                Step::Write(bucket, row, put) => {
                    let (bucket, id) = (buckets[*bucket].clone(), format!("r{row}"));
                    let data = Bytes::from(format!("{{\"v\":{number}}}"));
                    let one = if *put {
                        NewOperation::put(bucket, "items".into(), id.into(), "k".into(), data)
                    } else {
                        NewOperation::remove(bucket, "items".into(), id.into(), "k".into())
                    };
                    block_on(store.append(AppendBatch { operations: vec![one], ..AppendBatch::default() })).unwrap();
                }
                Step::Publish => {
                    let commit = Commit { publish: true, ..Commit::default() };
                    let Some(checkpoint) = block_on(store.commit(commit)).unwrap() else { continue };
                    let before = published.last().copied().unwrap_or_default();
                    for (bucket, raw) in buckets.iter().zip(&mut raw) {
                        let (new, superseded) = read(&store, bucket, before, checkpoint.op_id);
                        prop_assert!(!superseded);
                        raw.extend(new);
                    }
                    published.push(checkpoint.op_id);
                }
                Step::Compact(limit) => {
                    block_on(store.compact(CompactLimits { max_operations: *limit })).unwrap();
                    let Some(&newest) = published.last() else { continue };
                    for (bucket, raw) in buckets.iter().zip(&raw) {
                        let model = |upto: OpId| Model::of(raw.iter().filter(|operation| operation.op_id <= upto));
                        for &upto in &published {
                            let right = model(upto);
                            match block_on(store.checksums(upto, std::slice::from_ref(bucket))) {
                                Ok(sums) => prop_assert_eq!(sums[0].checksum, right.checksum()),
                                Err(error) => prop_assert!(error.kind() == ErrorKind::Unavailable && upto < newest),
                            }
                            for stands in 0..=upto.0 {
                                let mut client = model(OpId(stands));
                                let (new, superseded) = read(&store, bucket, OpId(stands), upto);
                                client.apply(&new);
                                prop_assert!(!superseded || upto < newest);
                                if !superseded {
                                    prop_assert_eq!(client.seen(), right.seen(), "from {} to {}", stands, upto);
                                }
                                client.apply(&read(&store, bucket, upto, newest).0);
                                prop_assert_eq!(client.seen(), model(newest).seen(), "from {} by {}", stands, upto);
                            }
                        }
                    }
                }
            }
        }
    }
}
