//! What is owed when a whole checkpoint is published (C1, C8).

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome;

/// Lets others have a turn.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One read sees one checkpoint, whenever it comes.
pub async fn a_publish_is_seen_all_at_once(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    for round in ["one", "two", "three"] {
        for row in 0..300 {
            let bucket = if row % 2 == 0 { "even" } else { "odd" };
            server.put(bucket, "lists", &format!("l{row}"), &json!({ "name": round }));
        }
        server.stage(&store).await;
        let done = Cell::new(false);
        let publish = async {
            assert_eq!(server.publish(&store, None).await, PublishOutcome::Published);
            done.set(true);
        };
        let read = async {
            while !done.get() {
                let seen = rows(&*subject, "lists").await;
                assert!(seen.is_empty() || seen.len() == 300, "{} rows of 300 were seen", seen.len());
                assert!(seen.windows(2).all(|pair| pair[0]["name"] == pair[1]["name"]), "two checkpoints in one read");
                pause().await;
            }
        };
        futures::join!(publish, read);
        let seen = rows(&*subject, "lists").await;
        assert!(seen.len() == 300 && seen.iter().all(|row| row["name"] == round));
    }
}

/// Every table, every bucket, every change.
pub async fn a_publish_is_complete(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("empty", 3);
    server.put("a", "lists", "l1", &json!({ "id": "l1", "name": "one", "rank": 1 }));
    server.put("a", "lists", "l2", &json!({ "name": "two", "rank": -9_007_199_254_740_993_i64 }));
    server.put("b", "todos", "t1", &json!({ "list_id": "l1", "title": "grün 🦀" }));
    server.show(&store).await;
    let two = json!({ "id": "l2", "name": "two", "rank": -9_007_199_254_740_993_i64 });
    assert_eq!(rows(&*subject, "lists").await, [json!({ "id": "l1", "name": "one", "rank": 1 }), two.clone()]);
    assert_eq!(rows(&*subject, "todos").await, [json!({ "id": "t1", "list_id": "l1", "title": "grün 🦀" })]);
    server.put("a", "lists", "l1", &json!({ "name": "without rank" }));
    server.put("b", "lists", "l3", &json!({ "name": "three" }));
    server.put("b", "todos", "t2", &json!({ "title": "never seen" }));
    server.remove("b", "todos", "t2");
    server.remove("b", "todos", "t1");
    server.remove("b", "todos", "of nothing");
    server.show(&store).await;
    let lists = [json!({ "id": "l1", "name": "without rank" }), two, json!({ "id": "l3", "name": "three" })];
    assert_eq!(rows(&*subject, "lists").await, lists);
    assert!(rows(&*subject, "todos").await.is_empty());
}

/// A row may be in several buckets; the copy with the highest operation id is the row, whichever came last.
pub async fn the_newest_copy_of_a_row_is_shown(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("b", "lists", "l1", &json!({ "name": "older, of b" }));
    server.put("a", "lists", "l1", &json!({ "name": "newer, of a" }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=newer, of a"]);
    server.put("b", "lists", "l1", &json!({ "name": "newest, of b" }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=newest, of b"]);
}

/// Whoever loses one copy of a row still has the other.
pub async fn a_removed_copy_gives_way_to_the_other(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "of a" }));
    server.put("b", "lists", "l1", &json!({ "name": "of b" }));
    server.show(&store).await;
    server.remove("b", "lists", "l1");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=of a"]);
    server.remove("a", "lists", "l1");
    server.show(&store).await;
    assert!(names(&*subject).await.is_empty());
}

/// A bucket that leaves takes its rows along, but not those that another one holds.
pub async fn a_bucket_that_left_takes_its_rows(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "both", &json!({ "name": "of a" }));
    server.put("b", "lists", "both", &json!({ "name": "of b" }));
    server.put("b", "lists", "alone", &json!({ "name": "of b" }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["alone=of b", "both=of b"]);
    server.drop_bucket("b");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["both=of a"]);
    server.drop_bucket("a");
    server.show(&store).await;
    assert!(names(&*subject).await.is_empty());
}

/// Several source rows of one bucket may be one row of the client: subkeys tell them apart.
pub async fn source_rows_of_one_row_are_told_apart(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put_text("a", "lists", "l1", "first", r#"{"name":"one"}"#);
    server.put_text("a", "lists", "l1", "second", r#"{"name":"two"}"#);
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=two"]);
    server.remove_of("a", "lists", "l1", "second");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=one"]);
}

/// A CLEAR replaces everything before it, and its checksum that of all of it.
pub async fn a_clear_forgets_what_came_before(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "gone" }));
    server.put("a", "lists", "l2", &json!({ "name": "old" }));
    server.put("b", "lists", "l3", &json!({ "name": "of another" }));
    server.show(&store).await;
    server.clear("a");
    server.put("a", "lists", "l2", &json!({ "name": "back" }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l2=back", "l3=of another"]);
}

/// Of an operation that was superseded only its checksum comes.
pub async fn a_moved_operation_is_only_a_sum(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "superseded" }));
    server.put("a", "lists", "l1", &json!({ "name": "one" }));
    server.put("a", "lists", "l2", &json!({ "name": "two" }));
    server.compact_first("a");
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=one", "l2=two"]);
}

/// Neither the rows nor the positions of what was shown are lost.
pub async fn what_was_published_survives_reopening(mut subject: Box<dyn Subject>) {
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "one" }));
    server.put("b", "lists", "l2", &json!({ "name": "two" }));
    server.show(&subject.store()).await;
    let before = state(&subject.store()).await;
    subject.reopen().await;
    let after = state(&subject.store()).await;
    assert_eq!(after.buckets, before.buckets);
    assert_eq!(names(&*subject).await, ["l1=one", "l2=two"]);
    server.put("a", "lists", "l1", &json!({ "name": "changed" }));
    server.show(&subject.store()).await;
    subject.reopen().await;
    assert_eq!(names(&*subject).await, ["l1=changed", "l2=two"]);
}

/// A client may be older than what its server sends: tables and columns that it does not know block nothing (C8).
pub async fn unknown_tables_and_columns_block_nothing(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "unheard_of", "x", &json!({ "name": "x" }));
    server.put("a", "lists\"; DROP TABLE lists; --", "x", &json!({ "name": "x" }));
    server.put("a", "Lists", "x", &json!({ "name": "of another table" }));
    server.put("a", "sqlite_master", "x", &json!({ "type": "table" }));
    server.put("a", "lists", "l1", &json!({ "name": "one", "color": "red", "x\"y": [1] }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=one"]);
    server.remove("a", "unheard_of", "x");
    server.put("a", "lists", "l1", &json!({ "name": "two", "color": "blue" }));
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l1=two"]);
}

/// Whatever comes as a row is a row, if need be one without values (C8).
pub async fn values_that_fit_no_type_block_nothing(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    let texts = [
        r#"{"name":5,"rank":"text"}"#,
        r#"{"name":{"a":[1,null]},"rank":18446744073709551615}"#,
        r#"{"name":true,"rank":1.5e300}"#,
        r#"{"id":"another","name":"one"}"#,
        r"[1,2]",
        r#"{"name":"cut"#,
        "",
        "null",
    ];
    for (number, text) in texts.iter().enumerate() {
        server.put_text("a", "lists", &format!("l{number}"), "s", text);
    }
    server.put("a", "lists", "", &json!({ "name": "no id" }));
    server.show(&store).await;
    let seen = rows(&*subject, "lists").await;
    let ids: Vec<_> = seen.iter().map(|row| row["id"].as_str().unwrap_or("none")).collect();
    assert_eq!(ids, ["", "l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"], "a row has the id that the server gave it");
    assert_eq!((&seen[0]["name"], &seen[4]["name"]), (&json!("no id"), &json!("one")));
}
