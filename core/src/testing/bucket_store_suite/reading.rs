//! What is owed to reads of buckets.

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{BucketStore, Commit, ReadRequest};
use crate::checkpoint::BucketChecksum;
use crate::operation::OpId;

/// Count and sum at every checkpoint that was published, and zero for a bucket that nobody wrote.
pub async fn checksums_are_known_at_older_checkpoints(store: Arc<dyn BucketStore>) {
    let (definition, other) = deployed(&store).await;
    let (one, two) = (bucket(definition, "[1]"), bucket(other, "[1]"));
    let unknown = bucket(definition, "[\"nobody\"]");
    let mut wanted = Vec::new();
    let mut sums = [BucketChecksum::default(); 2];
    for round in 0..12 {
        let mut batch = Vec::new();
        for (number, (bucket, count)) in [(&one, round % 4), (&two, (round + 1) % 3)].into_iter().enumerate() {
            for row in 0..count {
                let operation = put(bucket, &format!("r{row}"), &round.to_string());
                sums[number].count += 1;
                sums[number].checksum += operation.checksum;
                batch.push(operation);
            }
        }
        ok(store.append(operations(batch)).await);
        if round % 2 == 1 {
            ok(store.commit(Commit::default()).await);
        } else {
            wanted.push((checkpoint(&store, publishing()).await.op_id, sums));
        }
    }
    for (at, [first, second]) in wanted {
        let buckets = [one.clone(), unknown.clone(), two.clone()];
        let answers = ok(store.checksums(at, &buckets).await);
        assert_eq!(answers, [first, BucketChecksum::default(), second], "at {at}");
    }
}

/// `(after, upto]`, for bounds at, between and beyond the ids of a bucket.
pub async fn a_read_is_cut_to_its_range(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let (bucket, other) = (bucket(definition, "[1]"), bucket(definition, "[2]"));
    let mut checkpoints = vec![OpId::ZERO];
    for round in 0..5 {
        let mut batch = Vec::new();
        for row in 0..4 {
            batch.push(put(&bucket, &format!("r{row}"), &round.to_string()));
            batch.push(put(&other, "x", "y"));
        }
        checkpoints.push(published(&store, operations(batch)).await.op_id);
    }
    let last = checkpoints[checkpoints.len() - 1];
    let all = read_all(&store, &bucket, last).await;
    assert_eq!(all.len(), 20);
    for upto in &checkpoints {
        for after in 0..=last.0 {
            let range = (OpId(after), *upto);
            for max_bytes in [1, 100, 1 << 20] {
                let (read, superseded) = read_in_steps(&store, &bucket, range, max_bytes).await;
                let wanted: Vec<_> =
                    all.iter().filter(|one| one.op_id.0 > after && one.op_id <= *upto).cloned().collect();
                assert_eq!(read, wanted, "in {range:?}");
                assert_eq!(superseded, None);
            }
        }
    }
}

/// About `max_bytes`, at least one operation, and `has_more` is exact.
pub async fn a_read_is_limited_in_bytes(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let data = "x".repeat(1000);
    let mut last = OpId::ZERO;
    for round in 0..10 {
        let rows = (0..round * 10).map(|row| put(&bucket, &format!("r{row}"), &data));
        let batch = operations(rows.chain([put(&bucket, "small", "")]));
        last = published(&store, batch).await.op_id;
    }
    let total = 450 + 10;
    for max_bytes in [0, 1, 5_000, 50_000, 400_000] {
        let mut request = ReadRequest { bucket: bucket.clone(), after: OpId::ZERO, upto: last, max_bytes };
        let (mut operations, mut answers) = (0, 0);
        loop {
            let answer = ok(store.read(std::slice::from_ref(&request)).await).remove(0);
            let ranges = answer.chunks.iter().map(|chunk| (chunk, chunk.range(request.after, answer.next_after)));
            let count: usize = ranges.clone().map(|(_, range)| range.len()).sum();
            let bytes: usize = ranges.map(|(chunk, range)| chunk.body_size(range)).sum();
            assert!(count >= 1, "at least one operation");
            assert!(count == 1 || bytes <= max_bytes, "{bytes} bytes where {max_bytes} were asked for");
            operations += count;
            answers += 1;
            if !answer.has_more {
                assert_eq!(answer.next_after, last, "everything up to the checkpoint was returned");
                break;
            }
            request.after = answer.next_after;
        }
        assert_eq!(operations, total);
        let least = if max_bytes <= 1 { total } else { 450_000 / max_bytes };
        assert!(
            answers >= least && (answers <= least * 3 + 12 || max_bytes <= 1),
            "{answers} reads of {max_bytes} bytes"
        );
    }
}

/// One answer per request, for known, unknown and repeated buckets.
pub async fn reads_are_answered_in_order(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let (one, two) = (bucket(definition, "[1]"), bucket(definition, "[2]"));
    let at = published(&store, operations([put(&one, "a", "1"), put(&two, "b", "1")])).await.op_id;
    let request =
        |bucket: &crate::BucketId, after| ReadRequest { bucket: bucket.clone(), after, upto: at, max_bytes: 1 };
    let unknown = bucket(definition, "[3]");
    let requests =
        [request(&two, OpId::ZERO), request(&unknown, OpId::ZERO), request(&one, OpId::ZERO), request(&two, at)];
    let answers = ok(store.read(&requests).await);
    let found: Vec<Vec<String>> = answers
        .iter()
        .map(|answer| {
            assert!(!answer.has_more && answer.next_after == at && answer.superseded.is_none());
            answer
                .chunks
                .iter()
                .flat_map(|chunk| chunk.operations(0..chunk.len()))
                .map(|one| one.object_id.into())
                .collect()
        })
        .collect();
    assert_eq!(found, [vec!["b"], vec![], vec!["a"], vec![]]);
    assert!(ok(store.read(&[]).await).is_empty());
    assert!(ok(store.checksums(at, &[]).await).is_empty());
}

/// Operations of later commits, published or not, are not returned.
pub async fn nothing_above_the_checkpoint_is_read(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let first = published(&store, operations([put(&bucket, "r1", "1")])).await;
    let second = published(&store, operations([put(&bucket, "r2", "1"), put(&bucket, "r3", "1")])).await;
    ok(store.append(operations([put(&bucket, "r4", "hidden")])).await);
    ok(store.commit(Commit::default()).await);
    ok(store.append(operations([put(&bucket, "r5", "open")])).await);
    for (upto, wanted) in [(first.op_id, &["PUT r1"][..]), (second.op_id, &["PUT r1", "PUT r2", "PUT r3"])] {
        assert_eq!(names(&read_all(&store, &bucket, upto).await), wanted);
        let far = ReadRequest { bucket: bucket.clone(), after: upto, upto: OpId(u64::from(u32::MAX)), max_bytes: 1000 };
        let answer = ok(store.read(&[far]).await).remove(0);
        let beyond = answer.chunks.iter().map(|chunk| chunk.range(upto, answer.next_after).len()).sum::<usize>();
        assert_eq!(beyond, 3 - wanted.len(), "nothing above the newest checkpoint, whatever is asked for");
    }
}

/// Parameters that look alike are different buckets.
pub async fn many_buckets_of_one_commit_are_kept_apart(store: Arc<dyn BucketStore>) {
    let (definition, other) = deployed(&store).await;
    let mut buckets: Vec<_> = (0..300).map(|number| bucket(definition, &format!("[{number}]"))).collect();
    let alike = ["[]", "[\"1\"]", "[ 1]", "[\"A\"]", "[\"a\"]", "[\"a \"]", "[\"\\u0000\"]", "[null]"];
    buckets.extend(alike.iter().map(|parameters| bucket(definition, parameters)));
    buckets.extend(alike.iter().map(|parameters| bucket(other, parameters)));
    let rows = buckets.iter().enumerate().map(|(number, bucket)| put(bucket, &format!("r{number}"), "1"));
    let at = published(&store, operations(rows)).await;
    let requests: Vec<_> = buckets
        .iter()
        .map(|bucket| ReadRequest { bucket: bucket.clone(), after: OpId::ZERO, upto: at.op_id, max_bytes: 100 })
        .collect();
    for (number, answer) in ok(store.read(&requests).await).into_iter().enumerate() {
        let ids: Vec<_> = answer.chunks.iter().flat_map(|chunk| chunk.operations(0..chunk.len())).collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(ids[0].object_id, format!("r{number}"));
    }
    let sums = ok(store.checksums(at.op_id, &buckets).await);
    assert!(sums.iter().all(|sum| sum.count == 1));
}
