//! Partial publishes: priorities that are shown before the rest has come.

use std::sync::Arc;

use futures::executor::block_on;
use serde_json::json;
use syncline_core::protocol::SubscriptionReason;
use syncline_core::{BucketPriority, ClientStore, PublishOutcome, PublishRequest, StoredSubscription, WallTime};

use crate::feed::{Feed, execute, list, open, rows, upload_and_cover};

#[test]
fn a_priority_is_shown_before_the_rest() {
    let db = open();
    let mut feed = Feed::default();
    feed.bucket("urgent", 1);
    feed.bucket("rest", 3);
    feed.put("urgent", "lists", "l1", json!({ "name": "urgent" }));
    feed.put("rest", "lists", "l2", json!({ "name": "rest" }));
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(feed.publish(&db, Some(1)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "urgent")]);
    assert_eq!(block_on(db.resume(WallTime(0))).unwrap().last_synced_at, None, "only a full publish counts");
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "urgent"), list("l2", "rest")]);
}

#[test]
fn deletes_wait_for_the_full_publish_also_over_a_rebuild() {
    let db = open();
    let mut feed = Feed::default();
    feed.bucket("urgent", 1);
    feed.put("urgent", "lists", "l1", json!({ "name": "one" }));
    feed.put("urgent", "lists", "l2", json!({ "name": "two" }));
    feed.put("rest", "lists", "l2", json!({ "name": "the other copy" }));
    feed.sync(&db);
    feed.remove("urgent", "lists", "l1");
    feed.put("urgent", "lists", "l2", json!({ "name": "newer" }));
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(feed.publish(&db, Some(1)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "one"), list("l2", "newer")]);
    let changed = feed.clone();
    feed.clear("urgent");
    feed.put("urgent", "lists", "l3", json!({ "name": "three" }));
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(feed.publish(&db, Some(1)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "one"), list("l2", "newer"), list("l3", "three")]);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l2", "the other copy"), list("l3", "three")]);
    drop(changed);
}

#[test]
fn a_row_that_left_a_priority_is_not_shown_as_another_bucket_had_it_before() {
    let db = open();
    let mut feed = Feed::default();
    feed.bucket("urgent", 1);
    feed.bucket("second", 1);
    feed.put("second", "lists", "l1", json!({ "name": "oldest" }));
    feed.put("rest", "lists", "l1", json!({ "name": "old" }));
    feed.sync(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "old")]);
    let partial = |feed: &mut Feed| {
        feed.begin(&db);
        feed.stage(&db);
        assert_eq!(feed.publish(&db, Some(1)), PublishOutcome::Published);
        rows(&db, "lists")
    };
    // It moves from one bucket to another, which alone is shown.
    feed.put("urgent", "lists", "l1", json!({ "name": "new" }));
    feed.remove("rest", "lists", "l1");
    assert_eq!(partial(&mut feed), [list("l1", "new")]);
    feed.remove("urgent", "lists", "l1");
    assert_eq!(partial(&mut feed), [list("l1", "new")], "nothing newer takes its place");
    feed.remove("second", "lists", "l1");
    assert_eq!(partial(&mut feed), [list("l1", "new")]);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert!(rows(&db, "lists").is_empty());
}

#[test]
fn a_row_that_was_deleted_here_and_there_does_not_come_back_with_a_priority() {
    let db = open();
    let mut feed = Feed::default();
    feed.bucket("urgent", 0);
    feed.put("urgent", "lists", "l1", json!({ "name": "one" }));
    feed.sync(&db);
    execute(&db, "DELETE FROM lists WHERE id = 'l1'");
    upload_and_cover(&db, 1);
    execute(&db, "INSERT INTO todos (id) VALUES ('t1')");
    feed.remove("urgent", "lists", "l1");
    feed.write_checkpoint = Some(1);
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held);
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert!(rows(&db, "lists").is_empty());
}

#[test]
fn only_priority_zero_passes_local_writes_and_leaves_them_on_top() {
    let db = open();
    let mut feed = Feed::default();
    for (name, priority) in [("p0", 0), ("p1", 1), ("p3", 3)] {
        feed.bucket(name, priority);
        feed.put(name, "lists", name, json!({ "name": name, "rank": 1 }));
    }
    feed.sync(&db);
    execute(&db, "UPDATE lists SET name = 'mine' WHERE id = 'p0'");
    for name in ["p0", "p1", "p3"] {
        feed.put(name, "lists", name, json!({ "name": "server", "rank": 2 }));
    }
    feed.put("p0", "lists", "new", json!({ "name": "new" }));
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert_eq!(feed.publish(&db, Some(1)), PublishOutcome::Held);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held);
    let expected = [
        list("new", "new"),
        json!({ "id": "p0", "name": "mine", "rank": 2, "weight": null }),
        json!({ "id": "p1", "name": "p1", "rank": 1, "weight": null }),
        json!({ "id": "p3", "name": "p3", "rank": 1, "weight": null }),
    ];
    assert_eq!(rows(&db, "lists"), expected);
    upload_and_cover(&db, 1);
    feed.write_checkpoint = Some(1);
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    let names: Vec<_> = rows(&db, "lists").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["new", "server", "server", "server"]);
}

#[test]
fn a_mismatch_in_another_priority_does_not_matter_yet() {
    let db = open();
    let mut feed = Feed::default();
    feed.bucket("urgent", 0);
    feed.put("urgent", "lists", "l1", json!({ "name": "urgent" }));
    feed.put("rest", "lists", "l2", json!({ "name": "rest" }));
    feed.begin(&db);
    let lines = feed.lines(1000, |priority| priority == 0);
    block_on(db.stage(&lines)).unwrap();
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "urgent")]);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Mismatch(vec!["rest".into()]));
}

#[test]
fn subscriptions_know_when_their_rows_are_complete() {
    let db = open();
    let mut parameters = serde_json::Map::new();
    parameters.insert("b".into(), json!({ "z": 1, "a": [2] }));
    parameters.insert("a".into(), json!("x"));
    for (stream, expires_at) in [("early", 100), ("late", 100), ("expired", 10)] {
        block_on(db.subscribe(stream, &parameters, Some(BucketPriority(2)), Some(WallTime(expires_at)))).unwrap();
    }
    let mut reordered = serde_json::Map::new();
    reordered.insert("a".into(), json!("x"));
    reordered.insert("b".into(), json!({ "a": [2], "z": 1 }));
    block_on(db.subscribe("late", &reordered, None, Some(WallTime(200)))).unwrap();
    let requested: Arc<[StoredSubscription]> = block_on(db.resume(WallTime(50))).unwrap().subscriptions.into();
    let seen: Vec<_> = requested.iter().map(|s| (s.stream.as_str(), s.priority, s.expires_at.0)).collect();
    assert_eq!(seen, [("early", Some(BucketPriority(2)), 100), ("late", None, 200)], "renewed, not doubled");

    let mut feed = Feed::default();
    feed.bucket("e", 1);
    feed.bucket("l", 3);
    feed.reasons.insert("e".into(), vec![SubscriptionReason::Subscription(0), SubscriptionReason::Subscription(1)]);
    feed.reasons.insert("l".into(), vec![SubscriptionReason::Subscription(1), SubscriptionReason::Default(0)]);
    feed.begin(&db);
    let publish = |partial: Option<u8>, now: i64| {
        let request = PublishRequest {
            target: feed.target(),
            partial: partial.map(BucketPriority),
            requested: Arc::clone(&requested),
            now: WallTime(now),
        };
        assert_eq!(block_on(db.publish(&request)).unwrap(), PublishOutcome::Published);
        let state = block_on(db.resume(WallTime(50))).unwrap();
        state.subscriptions.iter().map(|s| s.last_synced_at.map(|at| at.0)).collect::<Vec<_>>()
    };
    assert_eq!(publish(Some(1), 60), [Some(60), None]);
    assert_eq!(publish(None, 70), [Some(70), Some(70)]);
    assert_eq!(publish(None, 65), [Some(70), Some(70)], "it never goes back");
    block_on(db.subscribe("early", &reordered, None, None)).unwrap();
    assert_eq!(block_on(db.resume(WallTime(50))).unwrap().subscriptions.len(), 1);
}

#[test]
fn a_bucket_that_left_is_named_at_zero_until_a_whole_checkpoint_has_taken_its_rows_away() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("before", "lists", "l1", json!({ "name": "of the config before" }));
    feed.sync(&db);
    let positions = || {
        let buckets = block_on(db.resume(WallTime(0))).unwrap().buckets;
        buckets.into_iter().map(|(name, at)| (name.to_string(), at.0)).collect::<Vec<_>>()
    };
    assert_eq!(positions(), [("before".to_owned(), 1)]);

    feed.drop_bucket("before");
    feed.put("after", "lists", "l2", json!({ "name": "of the config after" }));
    feed.begin(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "of the config before")]);
    assert_eq!(positions(), [("before".to_owned(), 0)], "whoever asks again must say that it shows something else");
    feed.stage(&db);
    assert_eq!(positions(), [("after".to_owned(), 2), ("before".to_owned(), 0)]);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    // What was shown is removed in the background.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while positions() != [("after".to_owned(), 2)] {
        assert!(std::time::Instant::now() < deadline, "{:?}", positions());
        std::thread::yield_now();
    }
    // One that was never shown leaves no trace.
    feed.put("brief", "lists", "l3", json!({ "name": "staged, and no more" }));
    feed.begin(&db);
    feed.stage(&db);
    feed.drop_bucket("brief");
    feed.begin(&db);
    assert_eq!(positions(), [("after".to_owned(), 2)]);
}
