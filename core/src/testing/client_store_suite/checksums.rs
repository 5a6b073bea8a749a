//! What is owed when the sum of a bucket differs from what the server says (C6).

use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome::{Mismatch, Published};

/// Two buckets, both shown; then both changed, and one operation of `a` damaged on its way.
async fn damaged(subject: &dyn Subject) -> Server {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "one" }));
    server.put("b", "lists", "l2", &json!({ "name": "two" }));
    server.show(&store).await;
    server.put("a", "lists", "l1", &json!({ "name": "changed" }));
    server.put("b", "lists", "l2", &json!({ "name": "changed" }));
    server.begin(&store).await;
    let mut lines = server.lines(1000, u8::MAX);
    lines[0].operations[0].checksum.0 ^= 1 << 31;
    ok(within(store.stage(&lines)).await);
    server
}

/// The bucket is named, and nothing of the checkpoint is shown.
pub async fn a_wrong_sum_is_told_and_shows_nothing(subject: Box<dyn Subject>) {
    let server = damaged(&*subject).await;
    let store = subject.store();
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["a".into()]));
    assert_eq!(names(&*subject).await, ["l1=one", "l2=two"], "what was shown stays");
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["a".into()]), "it is not taken for right later");
}

/// It is downloaded from its beginning, so that no damage stays.
pub async fn a_wrong_bucket_is_discarded(subject: Box<dyn Subject>) {
    let mut server = damaged(&*subject).await;
    let store = subject.store();
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["a".into()]));
    assert_eq!(position(&store, "a").await, 0);
    server.rewind("a");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=changed", "l2=changed"]);
}

/// No other bucket is downloaded again on its account.
pub async fn a_wrong_sum_costs_no_other_bucket(subject: Box<dyn Subject>) {
    let server = damaged(&*subject).await;
    let store = subject.store();
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["a".into()]));
    assert_eq!(position(&store, "b").await, 4);
    let mut server = server;
    server.rewind("a");
    ok(within(store.stage(&server.lines(1000, u8::MAX))).await);
    assert_eq!(server.publish(&store, None).await, Published);
}

/// A bucket of which nothing came has the sum zero, which is right if it is empty.
pub async fn a_bucket_that_never_came_counts_as_empty(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("empty", 3);
    server.put("a", "lists", "l1", &json!({ "name": "one" }));
    server.begin(&store).await;
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["a".into()]));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=one"]);
}
