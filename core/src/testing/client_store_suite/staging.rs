//! What is owed to the sync engine before it publishes: the lease, and what is downloaded.

use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome;
use crate::error::ErrorKind;

/// Two sync engines would upload the same writes, so that the second one is refused until the first has ended.
pub async fn a_lease_is_exclusive(subject: Box<dyn Subject>) {
    let store = subject.store();
    let first = ok(within(store.lease()).await);
    for other in [&store, &subject.store()] {
        let refused = within(other.lease()).await.map(drop);
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Unavailable), "two engines have it");
    }
    drop(first);
    drop(ok(within(store.lease()).await));
    drop(ok(within(store.lease()).await));
}

/// A client has one random id for ever, and no two stores have the same data before the first sync.
pub async fn a_new_store_is_empty_and_keeps_its_id(mut subject: Box<dyn Subject>) {
    let first = state(&subject.store()).await;
    assert!(!first.client_id.is_empty());
    assert!(first.buckets.is_empty() && first.subscriptions.is_empty() && first.last_synced_at.is_none());
    assert_eq!(first.uploads, Default::default());
    assert_eq!(next_upload(&subject.store()).await, None);
    assert!(rows(&*subject, "lists").await.is_empty() && subject.rejected().await.is_empty());
    Server::default().show(&subject.store()).await;
    subject.reopen().await;
    assert_eq!(state(&subject.store()).await.client_id, first.client_id);
}

/// The application sees nothing of a download before its publish (C1).
pub async fn what_is_staged_is_invisible(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "old" }));
    server.put("a", "lists", "l2", &json!({ "name": "removed" }));
    server.show(&store).await;
    server.put("a", "lists", "l1", &json!({ "name": "new" }));
    server.remove("a", "lists", "l2");
    server.put("b", "lists", "l3", &json!({ "name": "more" }));
    server.stage(&store).await;
    assert_eq!(names(&*subject).await, ["l1=old", "l2=removed"]);
    server.clear("a");
    server.stage(&store).await;
    assert_eq!(names(&*subject).await, ["l1=old", "l2=removed"], "a CLEAR is invisible as well");
    assert_eq!(server.publish(&store, None).await, PublishOutcome::Published);
    assert_eq!(names(&*subject).await, ["l3=more"]);
}

/// A request names what is stored, so that exactly the rest is sent.
pub async fn positions_say_what_is_stored(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    for row in 0..6 {
        server.put("a", "lists", &format!("l{row}"), &json!({ "name": "a" }));
    }
    server.put("b", "lists", "l9", &json!({ "name": "b" }));
    server.begin(&store).await;
    for (line, (a, b)) in server.lines(2, u8::MAX).iter().zip([(2, 0), (4, 0), (6, 0), (6, 7)]) {
        ok(within(store.stage(std::slice::from_ref(line))).await);
        assert_eq!((position(&store, "a").await, position(&store, "b").await), (a, b));
    }
    assert_eq!(server.publish(&store, None).await, PublishOutcome::Published);
    assert!((6..=7).contains(&position(&store, "a").await), "not above the checkpoint");
    assert_eq!(position(&store, "b").await, 7);
}

/// A download goes on where it was after a crash, and nothing of it is lost or counted twice.
pub async fn what_was_staged_survives_reopening(mut subject: Box<dyn Subject>) {
    let mut server = Server::default();
    for row in 0..6 {
        server.put("a", "lists", &format!("l{row}"), &json!({ "name": row.to_string() }));
    }
    server.begin(&subject.store()).await;
    let lines = server.lines(2, u8::MAX);
    for (number, line) in lines.iter().enumerate() {
        ok(within(subject.store().stage(std::slice::from_ref(line))).await);
        subject.reopen().await;
        assert_eq!(position(&subject.store(), "a").await, 2 * (number as u64 + 1));
        assert!(rows(&*subject, "lists").await.is_empty());
    }
    assert_eq!(server.publish(&subject.store(), None).await, PublishOutcome::Published);
    assert_eq!(names(&*subject).await, ["l0=0", "l1=1", "l2=2", "l3=3", "l4=4", "l5=5"]);
}

/// A bucket that a checkpoint does not name is forgotten, so that it is sent from its beginning when it comes back.
pub async fn a_bucket_that_left_starts_from_the_beginning(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "a" }));
    server.put("b", "lists", "l2", &json!({ "name": "b" }));
    server.show(&store).await;
    let mut without = server.clone();
    without.drop_bucket("b");
    without.begin(&store).await;
    assert_eq!(position(&store, "b").await, 0);
    assert!(position(&store, "a").await >= 1, "the others stay");
    assert_eq!(names(&*subject).await, ["l1=a", "l2=b"], "the rows leave with the publish");
    server.rewind("b");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=a", "l2=b"]);
}

/// Rows of a bucket that left are shown until the next whole checkpoint: until then it is named, so that the server knows that
/// something else is shown (S8).
pub async fn a_bucket_that_left_is_named_while_its_rows_are_shown(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("before", "lists", "l1", &json!({ "name": "before" }));
    server.show(&store).await;
    server.drop_bucket("before");
    server.put("after", "lists", "l2", &json!({ "name": "after" }));
    server.stage(&store).await;
    let named = state(&store).await.buckets;
    assert!(named.iter().any(|(name, at)| *name == "before" && at.0 == 0), "{named:?}");
    assert_eq!(server.publish(&store, None).await, PublishOutcome::Published);
    assert_eq!(names(&*subject).await, ["l2=after"]);
}
