//! What is owed to those who follow checkpoints.

use std::sync::Arc;

use futures::StreamExt;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit};
use crate::checkpoint::Changes;
use crate::operation::OpId;

/// First the newest with unknown changes, then each with exactly what changed.
pub async fn a_subscriber_gets_the_newest_checkpoint_then_what_changed(store: Arc<dyn BucketStore>) {
    let mut early = store.checkpoints();
    assert_quiet(&mut early);
    let (definition, index) = deployed(&store).await;
    let first = next(&mut early).await;
    assert!(matches!(first.changes, Changes::Unknown));
    let (one, two) = (bucket(definition, "[1]"), bucket(definition, "[2]"));
    let key = lookup_key(index, "[\"k\"]");
    let batch = AppendBatch {
        lookups: vec![lookup_entry(&row_key(1, "a"), &key, &["[1]"])],
        ..operations([put(&two, "r", "1"), put(&one, "r", "1"), put(&two, "r", "2")])
    };
    let at = published(&store, batch).await;
    let item = next(&mut early).await;
    assert_eq!(item.checkpoint, at);
    let mut buckets = these(&item).buckets.clone();
    buckets.sort();
    assert_eq!(buckets, [one.clone(), two]);
    assert_eq!(these(&item).lookups, [key]);
    assert!(these(&item).clients.is_empty());
    let mut late = store.checkpoints();
    let item = next(&mut late).await;
    assert!(matches!(item.changes, Changes::Unknown));
    assert_eq!(item.checkpoint, at);
    assert_quiet(&mut late);
    published(&store, operations([put(&one, "r", "3")])).await;
    for stream in [&mut early, &mut late] {
        assert_eq!(these(&next(stream).await).buckets, std::slice::from_ref(&one));
        assert_quiet(stream);
    }
}

/// One who does not look for a while gets one item with all changes, and never an older checkpoint.
pub async fn a_slow_subscriber_gets_merged_changes(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let mut stream = store.checkpoints();
    let mut last = next(&mut stream).await.checkpoint.op_id;
    let mut written = Vec::new();
    let mut named = Vec::new();
    for round in 0..20 {
        let bucket = bucket(definition, &format!("[{}]", round % 7));
        let at = published(&store, operations([put(&bucket, "r", &round.to_string())])).await;
        written.push(bucket);
        if round % 6 == 5 || round == 19 {
            let item = next(&mut stream).await;
            assert_eq!(item.checkpoint, at, "the newest");
            assert!(item.checkpoint.op_id > last, "never an older one");
            last = item.checkpoint.op_id;
            let mut buckets = these(&item).buckets.clone();
            buckets.sort();
            let mut wanted = std::mem::take(&mut written);
            wanted.sort();
            wanted.dedup();
            assert_eq!(buckets, wanted);
            named.extend(buckets);
            assert_quiet(&mut stream);
        }
    }
    assert!(named.len() > 7, "buckets were named in several items");
}

/// A subscriber that waits is woken by each publication, also from another thread.
pub async fn a_waiting_subscriber_is_woken(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let rounds = 60;
    let mut stream = store.checkpoints();
    let mut last = next(&mut stream).await.checkpoint.op_id;
    #[allow(clippy::disallowed_methods, reason = "the case is about wake-ups from another thread")]
    let writer = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            futures::executor::block_on(async {
                let mut last = OpId::ZERO;
                for round in 0..rounds {
                    let bucket = bucket(definition, &format!("[{}]", round % 3));
                    last = published(&store, operations([put(&bucket, "r", &round.to_string())])).await.op_id;
                }
                last
            })
        })
    };
    let target = writer.join().unwrap_or_else(|_| panic!("the writer failed"));
    while last < target {
        let item = next(&mut stream).await;
        assert!(item.checkpoint.op_id > last);
        last = item.checkpoint.op_id;
    }
    // Now one that certainly waits while the checkpoint is made.
    let bucket = bucket(definition, "[]");
    let waiting = next(&mut stream);
    let publishing = published(&store, operations([put(&bucket, "r", "last")]));
    let (item, at) = futures::join!(waiting, publishing);
    assert_eq!(item.checkpoint, at);
}

/// What was committed without being published counts as changed once it is.
pub async fn changes_of_hidden_commits_are_named_when_published(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let mut stream = store.checkpoints();
    next(&mut stream).await;
    let (one, two) = (bucket(definition, "[1]"), bucket(definition, "[2]"));
    let key = lookup_key(index, "[]");
    ok(store.append(operations([put(&one, "r", "1")])).await);
    ok(store.commit(Commit::default()).await);
    let entry = lookup_entry(&row_key(1, "a"), &key, &["[1]"]);
    ok(store.append(AppendBatch { lookups: vec![entry], ..AppendBatch::default() }).await);
    ok(store.commit(Commit::default()).await);
    // What is rolled back did not change.
    ok(store.append(operations([put(&bucket(definition, "[3]"), "r", "1")])).await);
    ok(store.resume().await);
    assert_quiet(&mut stream);
    published(&store, operations([put(&two, "r", "1")])).await;
    let item = next(&mut stream).await;
    let mut buckets = these(&item).buckets.clone();
    buckets.sort();
    assert_eq!(buckets, [one, two]);
    assert_eq!(these(&item).lookups, [key]);
}

/// A reset does not end the stream; the next checkpoint says that everything may have changed.
pub async fn after_a_reset_everything_may_have_changed(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let mut taken = store.checkpoints();
    let old = next(&mut taken).await.checkpoint;
    let mut untaken = store.checkpoints();
    published(&store, operations([put(&bucket(definition, "[]"), "r", "1")])).await;
    ok(store.reset().await);
    assert_quiet(&mut taken);
    assert_quiet(&mut untaken);
    deployed(&store).await;
    for stream in [&mut taken, &mut untaken] {
        let item = next(stream).await;
        assert_ne!(item.checkpoint.generation, old.generation);
        assert!(item.checkpoint.op_id > old.op_id);
        assert!(matches!(item.changes, Changes::Unknown));
    }
    drop(store);
    assert!(taken.next().await.is_none(), "the stream ends with the store");
}
