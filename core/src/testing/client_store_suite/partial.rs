//! What is owed when some priorities of a checkpoint are published ahead of the rest.

use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome::{Held, Mismatch, Published};

/// What was asked for is shown, and nothing of other priorities.
pub async fn a_partial_publish_shows_its_priorities_alone(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    for (name, priority) in [("p0", 0), ("p1", 1), ("p2", 2), ("p3", 3)] {
        server.bucket(name, priority);
        server.put(name, "lists", name, &json!({ "name": "1" }));
    }
    server.stage(&store).await;
    assert_eq!(server.publish(&store, Some(1)).await, Published);
    assert_eq!(names(&*subject).await, ["p0=1", "p1=1"]);
    assert_eq!(server.publish(&store, Some(2)).await, Published);
    assert_eq!(names(&*subject).await, ["p0=1", "p1=1", "p2=1"]);
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(names(&*subject).await, ["p0=1", "p1=1", "p2=1", "p3=1"]);
}

/// Neither a REMOVE nor a CLEAR nor a bucket that left is seen before the whole checkpoint is (C1).
pub async fn a_partial_publish_never_deletes(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    for name in ["a", "b", "gone"] {
        server.bucket(name, 1);
    }
    server.put("a", "lists", "l1", &json!({ "name": "removed" }));
    server.put("a", "lists", "l2", &json!({ "name": "two" }));
    server.put("b", "lists", "l3", &json!({ "name": "cleared" }));
    server.put("gone", "lists", "l4", &json!({ "name": "of a bucket that leaves" }));
    server.show(&store).await;
    server.remove("a", "lists", "l1");
    server.put("a", "lists", "l2", &json!({ "name": "replaced" }));
    server.clear("b");
    server.put("b", "lists", "l5", &json!({ "name": "added" }));
    server.drop_bucket("gone");
    server.stage(&store).await;
    assert_eq!(server.publish(&store, Some(1)).await, Published);
    let all = ["l1=removed", "l2=replaced", "l3=cleared", "l4=of a bucket that leaves", "l5=added"];
    assert_eq!(names(&*subject).await, all);
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(names(&*subject).await, ["l2=replaced", "l5=added"]);
}

/// Rows of a part are shown until the next whole checkpoint, also of buckets that have left: they are named, so that no part
/// of another config is shown beside them (S8).
pub async fn a_bucket_that_left_is_named_while_a_part_shows_it(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("urgent", 0);
    server.put("urgent", "lists", "l1", &json!({ "name": "urgent" }));
    server.bucket("other", 3);
    server.put("other", "lists", "l2", &json!({ "name": "other" }));
    server.stage(&store).await;
    assert_eq!(server.publish(&store, Some(0)).await, Published);
    server.drop_bucket("urgent");
    server.drop_bucket("other");
    server.put("after", "lists", "l3", &json!({ "name": "after" }));
    server.stage(&store).await;
    let named = state(&store).await.buckets;
    assert!(named.iter().any(|(name, at)| *name == "urgent" && at.0 == 0), "{named:?}");
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(names(&*subject).await, ["l3=after"]);
    assert!(!state(&store).await.buckets.iter().any(|(name, _)| *name == "urgent"));
}

/// A checkpoint of which only some priorities are shown was not synced.
pub async fn only_a_whole_checkpoint_counts_as_synced(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server { now: 70, ..Server::default() };
    server.bucket("a", 1);
    server.put("a", "lists", "l1", &json!({ "name": "one" }));
    server.stage(&store).await;
    assert_eq!(server.publish(&store, Some(1)).await, Published);
    assert_eq!(state(&store).await.last_synced_at, None);
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(state(&store).await.last_synced_at.map(|at| at.0), Some(70));
}

/// The rest of the checkpoint need not have come.
pub async fn a_partial_publish_tests_no_other_sums(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("urgent", 1);
    server.put("urgent", "lists", "l1", &json!({ "name": "urgent" }));
    server.put("rest", "lists", "l2", &json!({ "name": "rest" }));
    server.begin(&store).await;
    ok(within(store.stage(&server.lines(1000, 1))).await);
    assert_eq!(server.publish(&store, Some(1)).await, Published);
    assert_eq!(names(&*subject).await, ["l1=urgent"]);
    assert_eq!(server.publish(&store, None).await, Mismatch(vec!["rest".into()]));
}

/// A local write holds every priority back but the highest (C3).
pub async fn a_local_write_holds_priorities_back(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("urgent", 1);
    server.put("urgent", "lists", "l1", &json!({ "name": "server" }));
    server.stage(&store).await;
    subject.write(vec![insert("lists", "mine", &json!({ "name": "mine" }))]).await;
    assert_eq!(server.publish(&store, Some(1)).await, Held);
    upload_all(&store).await;
    assert_eq!(server.publish(&store, Some(1)).await, Held, "sent, and not covered");
    cover(&store, 1).await;
    assert_eq!(server.publish(&store, Some(1)).await, Held, "covered, and not back");
    assert_eq!(names(&*subject).await, ["mine=mine"]);
    server.write_checkpoint = Some(1);
    assert_eq!(server.publish(&store, Some(1)).await, Published);
    assert!(names(&*subject).await.contains(&"l1=server".to_owned()));
}

/// The highest priority waits for nobody (C3), and local writes stay on top of it (C1).
pub async fn the_highest_priority_passes_local_writes(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("p0", 0);
    server.put("p0", "lists", "l1", &json!({ "name": "old", "rank": 1 }));
    server.put("p0", "lists", "l2", &json!({ "name": "old" }));
    server.show(&store).await;
    let mine = vec![update("lists", "l1", &json!({ "name": "mine" })), delete("lists", "l2")];
    subject.write(mine).await;
    server.put("p0", "lists", "l1", &json!({ "name": "server", "rank": 2 }));
    server.put("p0", "lists", "l2", &json!({ "name": "server" }));
    server.put("p0", "lists", "l3", &json!({ "name": "new" }));
    server.stage(&store).await;
    assert_eq!(server.publish(&store, Some(0)).await, Published);
    let seen = rows(&*subject, "lists").await;
    assert_eq!(seen, [json!({ "id": "l1", "name": "mine", "rank": 2 }), json!({ "id": "l3", "name": "new" })]);
    assert_eq!(server.publish(&store, None).await, Held, "a whole checkpoint waits, whatever is in it");
}
