//! What is owed to write checkpoints (S6).

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{BucketStore, Commit};
use crate::error::ErrorKind;
use crate::identity::Identity;
use crate::operation::OpId;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// The store's own numbers begin at the time of day, so that they do not fall over a new store.
pub async fn write_checkpoint_numbers_never_fall(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (one, two) = (client("u1/c1"), client("u1/c2"));
    let mut last = request(&store, &one).await;
    assert!(last.0 > 1_500_000_000_000, "Unix milliseconds");
    assert!(request(&store, &two).await.0 > 1_500_000_000_000);
    for _ in 0..20 {
        let number = request(&store, &one).await;
        assert!(number > last);
        last = number;
    }
    let tokens = pending(&store).await;
    checkpoint(&store, with_markers(&tokens)).await;
    assert!(request(&store, &one).await > last);
}

/// A number that a client names counts if it is larger than the stored one; else the stored one is the answer.
pub async fn a_named_write_checkpoint_keeps_the_larger_number(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (one, two) = (client("u/1"), client("u/2"));
    assert_eq!(name(&store, &one, 5).await, 5);
    assert_eq!(name(&store, &one, 3).await, 5);
    assert_eq!(name(&store, &one, 5).await, 5);
    let largest = WriteCheckpointRequest::LARGEST.0;
    assert_eq!(name(&store, &one, largest).await, largest);
    assert_eq!(name(&store, &two, 1).await, 1, "each client has its own");
    for number in [0, -1, i64::MIN, largest + 1, i64::MAX] {
        let refused = WriteCheckpointRequest::AtLeast(WriteCheckpoint(number));
        let answer = store.request_write_checkpoint(&two, refused).await;
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    }
    let at = checkpoint(&store, with_markers(&pending(&store).await)).await;
    assert_eq!(shown(&store, at.op_id, &one).await, Some(WriteCheckpoint(largest)));
    assert_eq!(shown(&store, at.op_id, &two).await, Some(WriteCheckpoint(1)));
    // A number that was confirmed needs no marker.
    assert_eq!(name(&store, &two, 1).await, 1);
    assert!(pending(&store).await.is_empty());
    assert!(request(&store, &one).await.0 > largest, "there is always a larger one");
}

/// However many databases a user makes, a bounded number is remembered; who waits is never forgotten.
pub async fn a_user_has_a_bounded_number_of_clients(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let user = Identity::new("a/b");
    let clients: Vec<_> =
        (0..ClientKey::PER_USER).map(|number| ClientKey::new(&user, Some(&number.to_string()))).collect();
    let all = clients.iter().map(|client| store.request_write_checkpoint(client, WriteCheckpointRequest::Next));
    let numbers: Vec<_> = within(futures::future::join_all(all)).await.into_iter().map(ok).collect();
    let one_more = ClientKey::new(&user, Some("one more"));
    let refused = store.request_write_checkpoint(&one_more, WriteCheckpointRequest::Next).await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    request(&store, &ClientKey::new(&Identity::new("a"), Some("b/0"))).await;
    request(&store, &clients[7]).await;
    let tokens = pending(&store).await;
    let at = checkpoint(&store, with_markers(&tokens)).await;
    let largest = request(&store, &one_more).await;
    let shown = ok(store.write_checkpoints(at.op_id, &clients).await);
    let remembered = shown.iter().flatten().count();
    assert!(remembered < clients.len() && remembered >= clients.len() * 3 / 4, "{remembered}");
    let forgotten = shown.iter().position(Option::is_none).map(|index| (&clients[index], numbers[index]));
    let Some((client, before)) = forgotten else { panic!("none was forgotten") };
    let again = request(&store, client).await;
    assert!(again > before && again.0 >= largest.0 - 60_000, "numbers never fall");
}

/// Not before the commit that carries its marker, and not at an older checkpoint.
pub async fn a_write_checkpoint_is_shown_from_its_marker_on(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let bucket = bucket(definition, "[]");
    let (me, other) = (client("me"), client("other"));
    let mut checkpoints = store.checkpoints();
    let mut markers = store.pending_markers();
    let number = request(&store, &me).await;
    let marker = next(&mut markers).await;
    let before = published(&store, operations([put(&bucket, "r1", "1")])).await;
    next(&mut checkpoints).await;
    assert_eq!(shown(&store, before.op_id, &me).await, None);
    ok(store.append(operations([put(&bucket, "r2", "mine")])).await);
    assert_eq!(shown(&store, before.op_id, &me).await, None);
    let at = checkpoint(&store, with_markers(&[marker])).await;
    let item = next(&mut checkpoints).await;
    assert_eq!(these(&item).clients, std::slice::from_ref(&me));
    assert_eq!(shown(&store, at.op_id, &me).await, Some(number));
    assert_eq!(shown(&store, before.op_id, &me).await, None, "an older checkpoint does not contain the writes");
    assert_eq!(ok(store.write_checkpoints(at.op_id, &[other, me.clone()]).await), [None, Some(number)]);
    // A later request does not take away what was shown.
    request(&store, &me).await;
    let later = published(&store, operations([put(&bucket, "r3", "1")])).await;
    assert_eq!(shown(&store, later.op_id, &me).await, Some(number));
    assert_eq!(shown(&store, at.op_id, &me).await, Some(number));
    assert_eq!(shown(&store, before.op_id, &me).await, None);
}

/// A marker that may already be in the source can precede what a later request is about.
pub async fn a_request_never_joins_a_marker_that_was_taken(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let mut markers = store.pending_markers();
    let (one, two) = (client("1"), client("2"));
    let first = request(&store, &one).await;
    let taken = next(&mut markers).await;
    let second = request(&store, &two).await;
    let third = request(&store, &one).await;
    let at = checkpoint(&store, with_markers(&[taken])).await;
    assert_eq!(shown(&store, at.op_id, &one).await, Some(first));
    assert_eq!(shown(&store, at.op_id, &two).await, None);
    let mut left = vec![next(&mut markers).await];
    left.extend(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut markers)).flatten().map(ok));
    let at = checkpoint(&store, with_markers(&left)).await;
    assert_eq!(shown(&store, at.op_id, &one).await, Some(third));
    assert_eq!(shown(&store, at.op_id, &two).await, Some(second));
}

/// A client that asks again gets another marker on its way, and the first still counts.
pub async fn an_unconfirmed_request_gets_a_new_marker(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let me = client("me");
    for again in [7, 6] {
        let mut markers = store.pending_markers();
        assert_eq!(name(&store, &me, 7).await, 7);
        let lost = next(&mut markers).await;
        assert_eq!(name(&store, &me, again).await, 7);
        let second = next(&mut markers).await;
        assert_ne!(lost, second);
        if again == 7 {
            let at = checkpoint(&store, with_markers(&[second])).await;
            assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(7)));
            assert!(ok(store.commit(with_markers(&[lost])).await).is_none(), "nothing waits for it any more");
            // From here on 8 is the number that waits.
            assert_eq!(name(&store, &me, 8).await, 8);
            let at = checkpoint(&store, with_markers(&pending(&store).await)).await;
            assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(8)));
            break;
        }
    }
    let mut markers = store.pending_markers();
    assert_eq!(name(&store, &me, 9).await, 9);
    let slow = next(&mut markers).await;
    assert_eq!(name(&store, &me, 4).await, 9, "also if a smaller number is named");
    next(&mut markers).await;
    let at = checkpoint(&store, with_markers(&[slow])).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(WriteCheckpoint(9)), "the first marker still counts");
}

/// Markers come back in the order of the source; a later one stands for those before it.
pub async fn a_marker_confirms_smaller_numbers_of_its_client_alone(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (me, other) = (client("me"), client("other"));
    let mut markers = store.pending_markers();
    request(&store, &me).await;
    request(&store, &other).await;
    let mut first = vec![next(&mut markers).await];
    first.extend(futures::FutureExt::now_or_never(futures::StreamExt::next(&mut markers)).flatten().map(ok));
    let second = request(&store, &me).await;
    let later = next(&mut markers).await;
    let at = checkpoint(&store, with_markers(&[later])).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(second));
    assert_eq!(shown(&store, at.op_id, &other).await, None);
    let last = checkpoint(&store, with_markers(&first)).await;
    assert_eq!(shown(&store, last.op_id, &me).await, Some(second), "an older marker does not make it fall");
    assert!(shown(&store, last.op_id, &other).await.is_some());
    assert!(pending(&store).await.is_empty());
}

/// A replicator that starts anew sends what is pending again; a token comes once to each subscriber.
pub async fn pending_markers_come_again_to_a_new_subscriber(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let mut first = store.pending_markers();
    assert_quiet(&mut first);
    request(&store, &client("1")).await;
    let one = next(&mut first).await;
    request(&store, &client("2")).await;
    let two = next(&mut first).await;
    assert_quiet(&mut first);
    let mut second = store.pending_markers();
    assert_eq!([next(&mut second).await, next(&mut second).await], [one.clone(), two.clone()]);
    assert_quiet(&mut second);
    checkpoint(&store, with_markers(&[one])).await;
    assert_eq!(pending(&store).await, [two]);
    assert_quiet(&mut first);
    let third = client("3");
    let (woken, _) = futures::join!(next(&mut first), request(&store, &third));
    assert_eq!(next(&mut second).await, woken);
}

/// A marker of somebody else, or one that was confirmed, is no change.
pub async fn an_unknown_marker_changes_nothing(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    assert!(ok(store.commit(with_markers(&[MarkerToken("stranger".into())])).await).is_none());
    request(&store, &client("me")).await;
    let tokens = pending(&store).await;
    checkpoint(&store, with_markers(&tokens)).await;
    assert!(ok(store.commit(with_markers(&tokens)).await).is_none(), "the same again");
}

/// It is shown with the first checkpoint at or after the commit.
pub async fn a_marker_in_a_hidden_commit_waits_for_the_checkpoint(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let me = client("me");
    let before = published(&store, operations([put(&bucket(definition, "[]"), "r", "1")])).await;
    let mut checkpoints = store.checkpoints();
    next(&mut checkpoints).await;
    let number = request(&store, &me).await;
    let tokens = pending(&store).await;
    assert!(ok(store.commit(Commit { publish: false, ..with_markers(&tokens) }).await).is_none());
    assert_eq!(shown(&store, before.op_id, &me).await, None);
    assert_eq!(shown(&store, OpId(before.op_id.0 + 100), &me).await, None);
    let after = checkpoint(&store, publishing()).await;
    assert_eq!(shown(&store, after.op_id, &me).await, Some(number));
    assert_eq!(these(&next(&mut checkpoints).await).clients, [me]);
}

/// Numbers survive a reset; what was confirmed before must be confirmed again, by a new marker.
pub async fn a_reset_keeps_write_checkpoints_rising_and_waiting(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let (confirmed, waiting) = (client("confirmed"), client("waiting"));
    let first = request(&store, &confirmed).await;
    let old = pending(&store).await;
    checkpoint(&store, with_markers(&old)).await;
    assert_eq!(name(&store, &waiting, (1 << 62) - 5).await, (1 << 62) - 5);
    let lost = pending(&store).await;
    ok(store.reset().await);
    deployed(&store).await;
    let at = ok(store.commit(with_markers(&lost)).await);
    assert!(at.is_none(), "a marker of before the reset proves nothing about the new state");
    let now = ok(store.resume().await).checkpoint.map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
    assert_eq!(shown(&store, now, &confirmed).await, None);
    assert_eq!(shown(&store, now, &waiting).await, None);
    let fresh = pending(&store).await;
    assert!(!fresh.is_empty() && fresh.iter().all(|token| !lost.contains(token) && !old.contains(token)));
    let at = checkpoint(&store, with_markers(&fresh)).await;
    assert_eq!(shown(&store, at.op_id, &confirmed).await, Some(first));
    assert_eq!(shown(&store, at.op_id, &waiting).await, Some(WriteCheckpoint((1 << 62) - 5)));
    assert!(request(&store, &confirmed).await > first);
    assert_eq!(name(&store, &waiting, 1).await, (1 << 62) - 5);
}

/// A large source transaction does not keep clients waiting.
pub async fn write_checkpoints_are_requested_while_an_append_is_open(store: Arc<dyn BucketStore>) {
    let (definition, _) = deployed(&store).await;
    let me = client("me");
    let mut markers = store.pending_markers();
    ok(store.append(operations([put(&bucket(definition, "[]"), "r", "open")])).await);
    let number = request(&store, &me).await;
    let marker = next(&mut markers).await;
    let at = checkpoint(&store, publishing()).await;
    assert_eq!(shown(&store, at.op_id, &me).await, None, "the open transaction did not carry the marker");
    // What was rolled back does not take the request with it.
    ok(store.append(operations([put(&bucket(definition, "[]"), "r", "lost")])).await);
    request(&store, &client("other")).await;
    ok(store.resume().await);
    let other = next(&mut markers).await;
    let at = checkpoint(&store, with_markers(&[marker, other])).await;
    assert_eq!(shown(&store, at.op_id, &me).await, Some(number));
    assert!(shown(&store, at.op_id, &client("other")).await.is_some());
}

/// A client that asks without end, while markers are slow, is neither forgotten nor allowed to fill the store.
pub async fn endless_requests_are_answered_in_the_end(store: Arc<dyn BucketStore>) {
    deployed(&store).await;
    let me = client("me");
    let mut markers = store.pending_markers();
    let mut tokens = Vec::new();
    for _ in 0..700 {
        request(&store, &me).await;
        tokens.push(next(&mut markers).await);
    }
    let mut last = None;
    // Whichever markers come back in the end, some of the recent ones still count.
    for recent in tokens[tokens.len() - 300..].chunks(100) {
        let at = checkpoint(&store, with_markers(recent)).await;
        let number = shown(&store, at.op_id, &me).await;
        assert!(number > last, "it rises while markers come back");
        last = number;
    }
}
