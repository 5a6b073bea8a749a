//! What is owed between `append` and `commit`.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit};
use crate::operation::{NewOperation, OpId};
use crate::source::{SourcePosition, SourceState};
use crate::table::TableId;

/// Nobody sees operations, checksums or lookups of an append before its commit.
pub async fn what_is_appended_is_invisible_before_its_commit(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let bucket = bucket(definition, "[1]");
    let key = lookup_key(index, "[\"u\"]");
    let row = row_key(1, "r");
    let first = published(&store, operations([put(&bucket, "r1", "old")])).await;
    let mut checkpoints = store.checkpoints();
    next(&mut checkpoints).await;
    let batch = AppendBatch {
        lookups: vec![lookup_entry(&row, &key, &["[1]"])],
        ..operations([put(&bucket, "r2", "new"), put(&bucket, "r1", "new")])
    };
    ok(store.append(batch).await);
    for at in [first.op_id, OpId(u64::from(u32::MAX))] {
        assert_eq!(names(&read_all(&store, &bucket, at).await), ["PUT r1"]);
        assert_eq!(checksum(&store, &bucket, at).await.count, 1);
        assert!(ok(store.lookup(at, std::slice::from_ref(&key)).await)[0].rows.is_empty());
    }
    assert_quiet(&mut checkpoints);
    let second = checkpoint(&store, publishing()).await;
    assert_eq!(names(&read_all(&store, &bucket, second.op_id).await), ["PUT r1", "PUT r2", "PUT r1"]);
    assert_eq!(ok(store.lookup(second.op_id, &[key]).await)[0].rows, ["[1]"]);
}

/// A crash between append and commit, as `resume` stands for it, leaves nothing.
pub async fn what_was_not_committed_is_forgotten_by_resume(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let bucket = bucket(definition, "[1]");
    let (kept, lost) = (row_key(1, "kept"), row_key(1, "lost"));
    let key = lookup_key(index, "[1]");
    let batch = AppendBatch {
        rows: vec![(kept.clone(), Some(row("kept", &[(&bucket, "r1")], &[])))],
        ..operations([put(&bucket, "r1", "kept")])
    };
    let before = published(&store, batch).await;
    let batch = AppendBatch {
        truncate: vec![TableId(1)],
        rows: vec![(lost.clone(), Some(row("lost", &[(&bucket, "r2")], &[])))],
        lookups: vec![lookup_entry(&lost, &key, &["[1]"])],
        ..operations([put(&bucket, "r2", "lost")])
    };
    ok(store.append(batch).await);
    let resume = ok(store.resume().await);
    assert_eq!(resume.checkpoint.as_ref().map(|checkpoint| checkpoint.op_id), Some(before.op_id));
    let rows = ok(store.current_rows(&[kept, lost]).await);
    assert_eq!(rows[0].as_ref().map(|row| &*row.image), Some(&b"kept"[..]));
    assert_eq!(rows[1], None);
    assert!(ok(store.commit(publishing()).await).is_none(), "nothing is left to publish");
    let after = published(&store, operations([put(&bucket, "r3", "next")])).await;
    assert_eq!(names(&read_all(&store, &bucket, after.op_id).await), ["PUT r1", "PUT r3"]);
    assert!(ok(store.lookup(after.op_id, &[key]).await)[0].rows.is_empty());
}

/// Position and states are stored with the commit; what is `None` stays.
pub async fn a_commit_keeps_position_and_states(store: Arc<dyn BucketStore>) {
    let resume = ok(store.resume().await);
    assert!(resume.position.is_none() && resume.config.is_none() && resume.checkpoint.is_none());
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let commit = Commit {
        position: Some(SourcePosition(bytes("p1"))),
        source_state: Some(SourceState(bytes("s1"))),
        replicator_state: Some(bytes("r1")),
        ..deploying(&["form"])
    };
    let first = checkpoint(&store, commit).await;
    assert_eq!(first.generation, resume.generation);
    ok(store.commit(Commit { position: Some(SourcePosition(bytes("p2"))), ..Commit::default() }).await);
    ok(store.commit(Commit { replicator_state: Some(bytes("r2")), ..Commit::default() }).await);
    let resume = ok(store.resume().await);
    assert_eq!(resume.position, Some(SourcePosition(bytes("p2"))));
    assert_eq!(resume.source_state, Some(SourceState(bytes("s1"))));
    assert_eq!(resume.replicator_state, Some(bytes("r2")));
    assert_eq!(resume.config, Some(first.config.clone()));
    assert_eq!(resume.checkpoint, Some(first));
}

/// Every field of an operation is kept, and their order over several appends.
pub async fn operations_come_back_as_they_were_appended(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[\"ä\",7]");
    let appended = [
        put(&bucket, "r1", "first"),
        put(&bucket, "größe", "🦀 \\u0000"),
        operation(&bucket, "r1", None),
        put(&bucket, "", &"long ".repeat(60_000)),
        put(&bucket, "r1", ""),
    ];
    for one in &appended[..2] {
        ok(store.append(operations([one.clone()])).await);
    }
    ok(store.append(operations(appended[2..].to_vec())).await);
    let at = checkpoint(&store, publishing()).await;
    let read = read_all(&store, &bucket, at.op_id).await;
    assert_eq!(read.len(), appended.len());
    for (read, appended) in read.iter().zip(&appended) {
        assert_eq!(read.object_type, appended.object_type);
        assert_eq!(read.object_id, appended.object_id);
        assert_eq!(read.subkey.as_ref(), Some(&appended.subkey));
        assert_eq!(read.data.as_ref().map(|data| &data.as_bytes()[..]), appended.data.as_ref().map(|data| &data[..]));
        assert_eq!(read.checksum, appended.checksum);
    }
}

/// S1, over commits that are published, not published and lost.
pub async fn operation_ids_rise_and_are_never_given_twice(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let mut floor = OpId::ZERO;
    for round in 0..6 {
        let id = format!("r{round}");
        ok(store.append(operations([put(&bucket, &id, "a"), put(&bucket, &id, "b")])).await);
        match round % 3 {
            0 => drop(ok(store.resume().await)),
            1 => drop(ok(store.commit(Commit::default()).await)),
            _ => {
                let at = checkpoint(&store, publishing()).await;
                let read = read_all(&store, &bucket, at.op_id).await;
                let new: Vec<OpId> = read.iter().map(|one| one.op_id).filter(|id| *id > floor).collect();
                assert_eq!(new.len(), 4, "two commits of two operations lie above the last checkpoint");
                assert!(new.iter().all(|id| *id <= at.op_id));
                floor = at.op_id;
            }
        }
    }
}

/// A replicator that sees a row twice in one transaction must find what it stored the first time.
pub async fn current_rows_see_what_is_not_committed(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[1]");
    let keys = [row_key(1, "a"), row_key(1, "b"), row_key(2, "a"), row_key(1, "c")];
    // One of them has the id that is the key of a row.
    let value = |image: &str| Some(row(image, &[(&bucket, "x"), (&bucket, "a")], &[lookup_key(9, "[2]")]));
    let rows = |rows: Vec<(usize, Option<_>)>| AppendBatch {
        rows: rows.into_iter().map(|(index, row)| (keys[index].clone(), row)).collect(),
        ..AppendBatch::default()
    };
    ok(store.append(rows(vec![(0, value("a1")), (1, value("b1"))])).await);
    assert_eq!(ok(store.current_rows(&keys).await), [value("a1"), value("b1"), None, None]);
    ok(store.commit(Commit::default()).await);
    ok(store.append(rows(vec![(0, value("a2")), (1, None), (2, value("other table"))])).await);
    assert_eq!(ok(store.current_rows(&keys).await), [value("a2"), None, value("other table"), None]);
    ok(store.append(AppendBatch { truncate: vec![TableId(1)], ..rows(vec![(3, value("c1"))]) }).await);
    let wanted = [None, None, value("other table"), value("c1")];
    assert_eq!(ok(store.current_rows(&keys).await), wanted);
    ok(store.commit(Commit::default()).await);
    assert_eq!(ok(store.current_rows(&keys).await), wanted);
    let reversed: Vec<_> = keys.iter().rev().cloned().collect();
    let answers = ok(store.current_rows(&reversed).await);
    assert_eq!(answers.into_iter().rev().collect::<Vec<_>>(), wanted, "one answer per key, in the order of the keys");
    // Also where they are many, some of them behind the last row of their table, or of a table without rows.
    let asked: Vec<_> = keys.iter().cloned().chain([row_key(1, "d"), row_key(3, "a")]).cycle().take(300).collect();
    let answers = ok(store.current_rows(&asked).await);
    let wanted = wanted.into_iter().chain([None, None]).cycle().take(300);
    assert!(answers.into_iter().eq(wanted), "the same answers whoever is asked for beside them");
}

/// Rows of a truncated table leave their buckets and lookups, whether they were committed or not; what the same batch
/// appends comes after it.
pub async fn a_truncation_removes_every_membership_and_lookup(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let (one, two) = (bucket(definition, "[1]"), bucket(definition, "[2]"));
    let key = lookup_key(index, "[\"k\"]");
    let old = row_key(7, "old");
    let new = row_key(7, "new");
    let member = |key: &crate::RowKey, bucket: &crate::BucketId, id: &str| {
        let data = Bytes::from(format!("{{\"id\":\"{id}\"}}"));
        NewOperation::put(bucket.clone(), "items".into(), id.into(), key.subkey(id), data)
    };
    let batch = AppendBatch {
        rows: vec![(old.clone(), Some(row("", &[(&one, "old"), (&two, "x")], std::slice::from_ref(&key))))],
        lookups: vec![lookup_entry(&old, &key, &["[1]", "[2]"])],
        ..operations([member(&old, &one, "old"), member(&old, &two, "x")])
    };
    let before = published(&store, batch).await;
    let batch = AppendBatch {
        rows: vec![(new.clone(), Some(row("", &[(&one, "new")], &[])))],
        ..operations([member(&new, &one, "new")])
    };
    ok(store.append(batch).await);
    let batch = AppendBatch {
        truncate: vec![TableId(7)],
        rows: vec![(old.clone(), Some(row("", &[(&one, "old")], &[])))],
        ..operations([member(&old, &one, "old")])
    };
    let after = published(&store, batch).await;
    let read = read_all(&store, &one, after.op_id).await;
    assert_eq!(read.len(), 5, "{:?}", names(&read));
    let mut removed = names(&read[2..4]);
    removed.sort();
    assert_eq!(removed, ["REMOVE new", "REMOVE old"]);
    assert_eq!(names(&read[4..]), ["PUT old"], "what is appended with the truncation comes after it");
    let read = read_all(&store, &two, after.op_id).await;
    assert_eq!(names(&read), ["PUT x", "REMOVE x"]);
    assert_eq!(read[0].subkey, read[1].subkey);
    assert_eq!(read[1].checksum, crate::Checksum::of_remove(&old.subkey("x")));
    let lookups = |at| store.lookup(at, std::slice::from_ref(&key));
    assert_eq!(ok(lookups(before.op_id).await)[0].rows.len(), 2);
    assert!(ok(lookups(after.op_id).await)[0].rows.is_empty());
}

/// A truncation stops at its table.
pub async fn a_truncation_leaves_other_tables_alone(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let keys = [row_key(1, "a"), row_key(2, ""), row_key(2, "\u{ff}\u{ff}"), row_key(3, "a")];
    let rows = keys.iter().map(|key| (key.clone(), Some(row("", &[(&bucket, "x")], &[]))));
    published(&store, AppendBatch { rows: rows.collect(), ..operations([put(&bucket, "x", "1")]) }).await;
    let batch = AppendBatch { truncate: vec![TableId(2), TableId(9)], ..AppendBatch::default() };
    let after = published(&store, batch).await;
    let kept: Vec<bool> = ok(store.current_rows(&keys).await).iter().map(Option::is_some).collect();
    assert_eq!(kept, [true, false, false, true]);
    assert_eq!(names(&read_all(&store, &bucket, after.op_id).await), ["PUT x", "REMOVE x", "REMOVE x"]);
}

/// An append that was refused may have been staged in part, so nothing may be committed before `resume`.
pub async fn an_append_that_fails_spoils_the_commit(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let mut refused = put(&bucket, "r2", "too long a name");
    refused.object_type = "x".repeat(300).into();
    assert!(store.append(operations([put(&bucket, "r1", "first"), refused])).await.is_err());
    assert!(store.append(operations([put(&bucket, "r3", "later")])).await.is_err());
    assert!(store.commit(publishing()).await.is_err());
    ok(store.resume().await);
    let at = published(&store, operations([put(&bucket, "r4", "again")])).await;
    assert_eq!(names(&read_all(&store, &bucket, at.op_id).await), ["PUT r4"]);
}

/// Sessions read while a large source transaction comes in piece by piece.
pub async fn readers_are_not_disturbed_by_a_large_open_append(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let buckets: Vec<_> = (0..5).map(|number| bucket(definition, &format!("[{number}]"))).collect();
    let before = published(&store, operations([put(&buckets[0], "r", "before")])).await;
    let filler = "filler ".repeat(40);
    let mut checkpoints = store.checkpoints();
    next(&mut checkpoints).await;
    for round in 0..12 {
        let batch = (0..1000).map(|row| put(&buckets[row % 5], &format!("r{round}-{row}"), &filler));
        let append = store.append(operations(batch));
        let reads = async {
            assert_eq!(names(&read_all(&store, &buckets[0], before.op_id).await), ["PUT r"]);
            assert_eq!(checksum(&store, &buckets[1], before.op_id).await.count, 0);
        };
        let (appended, ()) = futures::join!(append, reads);
        ok(appended);
    }
    assert!(checkpoints_quiet(&mut checkpoints));
    let after = checkpoint(&store, publishing()).await;
    for (number, bucket) in buckets.iter().enumerate() {
        let wanted = 2400 + usize::from(number == 0);
        let sum = checksum(&store, bucket, after.op_id).await;
        assert_eq!(sum.count, wanted as u64);
        let (read, _) = read_in_steps(&store, bucket, (OpId::ZERO, after.op_id), 100_000).await;
        assert_eq!(read.len(), wanted);
        assert_eq!(Reduced::of(&read).checksum(), sum.checksum);
    }
}

fn checkpoints_quiet<T>(stream: &mut futures::stream::BoxStream<'static, T>) -> bool {
    futures::StreamExt::next(stream).now_or_never().is_none()
}
