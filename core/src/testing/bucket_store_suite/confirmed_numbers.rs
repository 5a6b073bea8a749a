//! What is owed to write checkpoints that the source itself confirms (S6).

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit};
use crate::checkpoint::Checkpoint;
use crate::identity::Identity;
use crate::operation::OpId;
use crate::write_checkpoint::{ClientKey, WriteCheckpoint, WriteCheckpointRequest};

fn numbers<'a>(numbers: impl IntoIterator<Item = (&'a ClientKey, i64)>) -> AppendBatch {
    let numbers = numbers.into_iter().map(|(client, number)| (client.clone(), WriteCheckpoint(number)));
    AppendBatch { write_checkpoints: numbers.collect(), ..AppendBatch::default() }
}

/// Appends this number and publishes the checkpoint that must result.
async fn confirm(store: &dyn BucketStore, client: &ClientKey, number: i64) -> Checkpoint {
    published(store, numbers([(client, number)])).await
}

/// Not before the commit of what was appended with it, and not at an older checkpoint.
pub async fn a_confirmed_number_is_shown_from_its_commit_on(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let (me, other) = (client("me"), client("other"));
    let before = published(&store, operations([put(&bucket, "r1", "1")])).await;
    let mut batch = numbers([(&me, 7)]);
    batch.operations.push(put(&bucket, "r2", "mine"));
    ok(store.append(batch).await);
    assert_eq!(shown(&store, before.op_id, &me).await, None, "what it is about is not there yet");
    assert_eq!(shown(&store, OpId(before.op_id.0 + 100), &me).await, None);
    // A transaction may be appended in parts.
    ok(store.append(operations([put(&bucket, "r3", "mine too")])).await);
    let at = checkpoint(&store, publishing()).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(7)));
    assert_eq!(shown(&store, before.op_id, &me).await, None, "an older checkpoint does not contain the writes");
    assert_eq!(shown(&store, at.op_id, &other).await, None);
    let later = confirm(&store, &me, 8).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(7)));
    assert_eq!(shown(&store, later.op_id, &me).await, Some(WriteCheckpoint(8)));
}

/// Streams are told, also if nothing else has changed.
pub async fn a_confirmed_number_is_a_change_by_itself(store: Arc<dyn BucketStore>) {
    let before = checkpoint(&store, deploying(&["form a"])).await.op_id;
    let mut checkpoints = store.checkpoints();
    next(&mut checkpoints).await;
    let (one, two) = (client("1"), client("2"));
    let at = published(&store, numbers([(&one, 1), (&two, 5)])).await;
    assert!(at.op_id > before, "a checkpoint of its own");
    let item = next(&mut checkpoints).await;
    assert_eq!(item.checkpoint, at);
    assert_eq!(these(&item).clients, [one.clone(), two.clone()]);
    let again = published(&store, numbers([(&one, 1), (&two, 6)])).await;
    assert!(again.op_id > at.op_id);
    assert_eq!(these(&next(&mut checkpoints).await).clients, [two], "the other one has not risen");
}

/// Whatever order they come in: replication may repeat them.
pub async fn a_confirmed_number_never_falls(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let me = client("me");
    let at = confirm(&store, &me, 7).await;
    for number in [7, 5, 1] {
        ok(store.append(numbers([(&me, number)])).await);
        assert!(ok(store.commit(publishing()).await).is_none(), "{number} is nothing new");
        assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(7)));
    }
    ok(store.append(numbers([(&me, 9)])).await);
    ok(store.append(numbers([(&me, 8)])).await);
    let at = checkpoint(&store, publishing()).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(9)));
    let largest = WriteCheckpointRequest::LARGEST;
    let at = confirm(&store, &me, largest.0).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(largest));
}

/// A client has one number, whoever confirms it.
pub async fn confirmed_numbers_and_requests_share_a_record(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (named, given) = (client("named"), client("given"));
    confirm(&store, &named, 7).await;
    assert_eq!(name(&store, &named, 3).await, 7);
    assert!(pending(&store).await.is_empty(), "what is confirmed needs no marker");
    // A larger number of the source stands for one that waits.
    assert_eq!(name(&store, &named, 8).await, 8);
    let marker = pending(&store).await;
    let at = confirm(&store, &named, 9).await;
    assert_eq!(shown(&store, at.op_id, &named).await, Some(WriteCheckpoint(9)));
    assert!(ok(store.commit(with_markers(&marker)).await).is_none(), "nothing waits for it any more");
    assert_eq!(name(&store, &named, 9).await, 9);
    // A smaller one does not.
    let large = request(&store, &given).await;
    let at = confirm(&store, &given, 4).await;
    assert_eq!(shown(&store, at.op_id, &given).await, Some(WriteCheckpoint(4)));
    let at = checkpoint(&store, with_markers(&pending(&store).await)).await;
    assert_eq!(shown(&store, at.op_id, &given).await, Some(large));
    assert!(request(&store, &given).await > large);
    // The next one is above every number that was confirmed.
    confirm(&store, &given, 1 << 61).await;
    assert!(request(&store, &given).await.0 > 1 << 61);
}

/// It is shown with the first checkpoint at or after the commit.
pub async fn a_confirmed_number_in_a_hidden_commit_waits_for_the_checkpoint(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let me = client("me");
    let before = published(&store, operations([put(&bucket(definition, "[]"), "r", "1")])).await;
    let mut checkpoints = store.checkpoints();
    next(&mut checkpoints).await;
    for number in [3, 4] {
        ok(store.append(numbers([(&me, number)])).await);
        assert!(ok(store.commit(Commit::default()).await).is_none());
        assert_eq!(shown(&store, before.op_id, &me).await, None);
        assert_eq!(shown(&store, OpId(before.op_id.0 + 100), &me).await, None);
    }
    let after = checkpoint(&store, publishing()).await;
    assert_eq!(shown(&store, after.op_id, &me).await, Some(WriteCheckpoint(4)));
    assert_eq!(these(&next(&mut checkpoints).await).clients, [me]);
}

/// What was rolled back did not happen; replication brings it again.
pub async fn a_confirmed_number_is_forgotten_with_what_was_appended(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let (me, other) = (client("me"), client("other"));
    confirm(&store, &me, 1).await;
    ok(store.append(numbers([(&me, 2), (&other, 2)])).await);
    ok(store.resume().await);
    let at = published(&store, operations([put(&bucket(definition, "[]"), "r", "1")])).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(1)));
    assert_eq!(shown(&store, at.op_id, &other).await, None);
    let at = published(&store, numbers([(&me, 2), (&other, 2)])).await;
    assert_eq!(ok(store.write_checkpoints(at.op_id, &[me, other]).await), [Some(WriteCheckpoint(2)); 2]);
}

/// The database of an application decides which clients there are: they are bounded, but none is refused.
pub async fn confirmed_numbers_of_a_user_are_bounded_and_not_refused(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let key = |user: &str, number: u32| ClientKey::new(&Identity::new(user), Some(&number.to_string()));
    let limit = ClientKey::PER_USER;
    let clients: Vec<_> = (0..3 * limit).map(|number| key("many", number)).collect();
    confirm(&store, &key("man", 0), 5).await;
    let mut at = OpId::ZERO;
    for some in clients.chunks(limit as usize / 2) {
        // Numbers above the time of day, as an application may have them.
        at = published(&store, numbers(some.iter().map(|client| (client, 1 << 60)))).await.op_id;
        let newest = ok(store.write_checkpoints(at, some).await);
        assert!(newest.iter().all(Option::is_some), "those of this commit were confirmed last");
    }
    let remembered = ok(store.write_checkpoints(at, &clients).await).into_iter().flatten().count();
    assert!(remembered <= limit as usize && remembered >= limit as usize / 2, "{remembered}");
    assert!(shown(&store, at, &key("man", 0)).await.is_some(), "another user");
    // Beside clients that all wait, which must not be forgotten.
    let waiting: Vec<_> = (0..limit).map(|number| key("waiting", number)).collect();
    let all = waiting.iter().map(|client| store.request_write_checkpoint(client, WriteCheckpointRequest::Next));
    let requested: Vec<_> = within(futures::future::join_all(all)).await.into_iter().map(ok).collect();
    for number in [limit, limit + 1] {
        let one_more = key("waiting", number);
        let at = confirm(&store, &one_more, 1).await;
        assert_eq!(shown(&store, at.op_id, &one_more).await, Some(WriteCheckpoint(1)));
    }
    let at = checkpoint(&store, with_markers(&pending(&store).await)).await;
    let shown = ok(store.write_checkpoints(at.op_id, &waiting).await);
    assert!(shown.into_iter().eq(requested.into_iter().map(Some)), "nobody who waits is forgotten");
}

/// What was confirmed of a history that is lost must be confirmed anew, by a marker or by the source.
pub async fn a_reset_lets_confirmed_numbers_wait(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (one, two) = (client("1"), client("2"));
    published(&store, numbers([(&one, 7), (&two, 7)])).await;
    ok(store.reset().await);
    deployed(&store).await;
    let now = ok(store.resume().await).checkpoint.map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
    assert_eq!(ok(store.write_checkpoints(now, &[one.clone(), two.clone()]).await), [None, None]);
    let at = confirm(&store, &one, 7).await;
    assert_eq!(shown(&store, at.op_id, &one).await, Some(WriteCheckpoint(7)), "found again in the source");
    assert_eq!(shown(&store, at.op_id, &two).await, None);
    let at = checkpoint(&store, with_markers(&pending(&store).await)).await;
    assert_eq!(shown(&store, at.op_id, &two).await, Some(WriteCheckpoint(7)));
    assert!(request(&store, &one).await.0 > 7);
}
