//! What is owed when a commit publishes a checkpoint.

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit};
use crate::error::ErrorKind;
use crate::operation::OpId;
use crate::source::SourcePosition;
use crate::write_checkpoint::WriteCheckpointRequest;

/// Neither an empty commit nor a new position nor the same config again is a change.
pub async fn nothing_changed_makes_no_checkpoint(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    assert!(ok(store.commit(publishing()).await).is_none());
    let position = Some(SourcePosition("later".into()));
    assert!(ok(store.commit(Commit { position, ..publishing() }).await).is_none());
    assert!(ok(store.commit(deploying(&["form a", "form b"])).await).is_none());
    ok(store.append(AppendBatch::default()).await);
    assert!(ok(store.commit(publishing()).await).is_none());
    let bucket = bucket(definition, "[]");
    let at = published(&store, operations([put(&bucket, "r", "1")])).await;
    assert!(ok(store.commit(publishing()).await).is_none());
    assert_eq!(ok(store.resume().await).checkpoint, Some(at));
}

/// A commit without `publish` is durable and shown by nobody, until a later one publishes both.
pub async fn commits_that_are_not_published_stay_hidden(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let key = lookup_key(index, "[]");
    let first = published(&store, operations([put(&bucket, "r1", "1")])).await;
    let batch = AppendBatch {
        lookups: vec![lookup_entry(&row_key(1, "a"), &key, &["[1]"])],
        ..operations([put(&bucket, "r2", "2")])
    };
    ok(store.append(batch).await);
    assert!(ok(store.commit(Commit::default()).await).is_none());
    assert_eq!(ok(store.resume().await).checkpoint, Some(first.clone()));
    for at in [first.op_id, OpId(first.op_id.0 + 100)] {
        assert_eq!(names(&read_all(&store, &bucket, at).await), ["PUT r1"]);
        assert_eq!(checksum(&store, &bucket, at).await.count, 1);
        assert!(ok(store.lookup(at, std::slice::from_ref(&key)).await)[0].rows.is_empty());
    }
    let second = checkpoint(&store, publishing()).await;
    assert_eq!(names(&read_all(&store, &bucket, second.op_id).await), ["PUT r1", "PUT r2"]);
    assert_eq!(checksum(&store, &bucket, second.op_id).await.count, 2);
    assert_eq!(ok(store.lookup(second.op_id, &[key]).await)[0].rows, ["[1]"]);
}

/// Whatever a checkpoint results from, its id is its own and larger than all before.
pub async fn every_checkpoint_has_its_own_rising_id(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let mut ids = vec![ok(store.resume().await).checkpoint.map_or(OpId::ZERO, |checkpoint| checkpoint.op_id)];
    assert!(ids[0] > OpId::ZERO, "a deployed config alone makes a checkpoint");
    let bucket = bucket(definition, "[]");
    ids.push(published(&store, operations([put(&bucket, "r1", "1")])).await.op_id);
    ids.push(checkpoint(&store, deploying(&["form a"])).await.op_id);
    ids.push(checkpoint(&store, deploying(&["form a", "form b"])).await.op_id);
    let mut markers = store.pending_markers();
    ok(store.request_write_checkpoint(&client("c"), WriteCheckpointRequest::Next).await);
    let marker = next(&mut markers).await;
    ids.push(checkpoint(&store, with_markers(&[marker])).await.op_id);
    let entry = lookup_entry(&row_key(1, "a"), &lookup_key(index, "[]"), &["[1]"]);
    ids.push(published(&store, AppendBatch { lookups: vec![entry], ..AppendBatch::default() }).await.op_id);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?} must rise");
    let last = published(&store, operations([put(&bucket, "r2", "2")])).await;
    let read = read_all(&store, &bucket, last.op_id).await;
    assert!(read[1].op_id > ids[ids.len() - 1], "no operation lies at or below an earlier checkpoint");
}

/// A checkpoint names its config, so there is none before the first.
pub async fn a_checkpoint_needs_a_config(store: Arc<dyn BucketStore>) {
    let refused = store.commit(publishing()).await.map(|_| ());
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    assert!(ok(store.commit(Commit { publish: false, ..deploying(&["form a"]) }).await).is_none());
    let at = checkpoint(&store, publishing()).await;
    assert_eq!(at.config.definitions.len(), 1);
    assert_eq!(ok(store.resume().await).checkpoint, Some(at));
}

/// A form keeps its number while it is deployed; one that was removed comes back under another.
pub async fn a_definition_number_is_never_used_again(store: Arc<dyn BucketStore>) {
    let mut seen = Vec::new();
    for forms in [&["a", "b"][..], &["b", "c"], &["c", "b", "a"], &[], &["a", "b", "c", "a"]] {
        let checkpoint = checkpoint(&store, deploying(forms)).await;
        let config = checkpoint.config;
        assert_eq!(config.definitions.iter().map(|one| &*one.form).collect::<Vec<_>>(), forms);
        assert_eq!(ok(store.resume().await).config, Some(config.clone()));
        seen.push(config.definitions.iter().map(|one| one.id.0).collect::<Vec<_>>());
    }
    let (first, second, third, last) = (&seen[0], &seen[1], &seen[2], &seen[4]);
    assert_eq!(second[0], first[1], "b stayed deployed");
    assert_eq!(third[..2], [second[1], second[0]], "c and b stayed deployed");
    assert_eq!(last[0], last[3], "one form has one number");
    let mut given = vec![first[0], first[1], second[1], third[2], last[0], last[1], last[2]];
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 7, "a form that was removed and added again has a new number: {seen:?}");
}

/// After a reset nothing is left, under another generation; ids go on rising, and old checkpoints are void.
pub async fn a_reset_forgets_everything_but_order(store: Arc<dyn BucketStore>) {
    let (definition, index) = deployed(&store).await;
    let bucket_before = bucket(definition, "[]");
    let key = lookup_key(index, "[]");
    let row_before = row_key(1, "a");
    let batch = AppendBatch {
        rows: vec![(row_before.clone(), Some(row("", &[(&bucket_before, "r1")], &[])))],
        lookups: vec![lookup_entry(&row_before, &key, &["[1]"])],
        ..operations([put(&bucket_before, "r1", "1")])
    };
    let old = published(&store, batch).await;
    ok(store.append(operations([put(&bucket_before, "r2", "not committed")])).await);
    ok(store.reset().await);
    let resume = ok(store.resume().await);
    assert_ne!(resume.generation, old.generation);
    assert!(resume.position.is_none() && resume.config.is_none() && resume.checkpoint.is_none());
    assert_eq!(ok(store.current_rows(&[row_before]).await), [None]);
    let (_, superseded) = read_in_steps(&store, &bucket_before, (OpId::ZERO, old.op_id), 1000).await;
    assert!(superseded.is_some_and(|target| target > old.op_id), "no checkpoint of before can be completed");

    let (definition, index) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let new = published(&store, operations([put(&bucket, "r3", "3")])).await;
    assert!(new.op_id > old.op_id);
    assert_ne!(bucket.wire_name(new.generation), bucket_before.wire_name(old.generation));
    assert_eq!(names(&read_all(&store, &bucket, new.op_id).await), ["PUT r3"]);
    assert_eq!(checksum(&store, &bucket, new.op_id).await.count, 1);
    assert!(ok(store.lookup(new.op_id, &[lookup_key(index, "[]")]).await)[0].rows.is_empty());
    let (_, superseded) = read_in_steps(&store, &bucket, (OpId::ZERO, old.op_id), 1000).await;
    assert!(superseded.is_some_and(|target| target > old.op_id && target <= new.op_id));
}

/// The first checkpoint after a reset has an id of its own, also if it has no operations, and can be described.
pub async fn a_checkpoint_after_a_reset_is_none_of_before(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let old = published(&store, operations([put(&bucket(definition, "[]"), "r1", "1")])).await;
    ok(store.reset().await);
    let new = checkpoint(&store, deploying(&["form a"])).await;
    assert!(new.op_id > old.op_id, "{} after {}", new.op_id, old.op_id);
    let definition = new.config.definitions[0].id.0;
    assert_eq!(checksum(&store, &bucket(definition, "[]"), new.op_id).await.count, 0);
}
