//! Full publishes: what is shown, when it is held back, and what a wrong checksum costs.

use futures::executor::block_on;
use serde_json::{Value as Json, json};
use syncline_core::{ClientStore, OpId, PublishOutcome, Uploaded, WallTime};
use syncline_storage_sqlite::Database;

use crate::feed::{Feed, cover, execute, list, open, rows, upload, upload_and_cover};

fn positions(db: &Database) -> Vec<(String, u64)> {
    let state = block_on(db.resume(WallTime(0))).unwrap();
    state.buckets.into_iter().map(|(name, OpId(op))| (name.to_string(), op)).collect()
}

#[test]
fn a_checkpoint_is_shown_all_at_once_and_not_before() {
    let db = open();
    let mut feed = Feed { now: 5, ..Default::default() };
    feed.put("a", "lists", "l1", json!({ "id": "l1", "name": "one", "rank": 1, "weight": 2 }));
    feed.put("b", "todos", "t1", json!({ "id": "t1", "title": "milk", "done": false, "unknown": [1] }));
    feed.bucket("empty", 3);
    feed.begin(&db);
    feed.stage(&db);
    assert!(rows(&db, "lists").is_empty() && rows(&db, "todos").is_empty());
    assert_eq!(positions(&db), [("a".into(), 1), ("b".into(), 2)]);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [json!({ "id": "l1", "name": "one", "rank": 1, "weight": 2.0 })]);
    assert_eq!(rows(&db, "todos"), [json!({ "id": "t1", "list_id": null, "title": "milk", "done": 0 })]);
    assert_eq!(positions(&db), [("a".into(), 2), ("b".into(), 2), ("empty".into(), 2)]);
    let state = block_on(db.resume(WallTime(0))).unwrap();
    assert_eq!(state.last_synced_at, Some(WallTime(5)));
    assert_eq!(state.uploads.queued, 0, "publishing is not captured");
    feed.now = 3;
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(block_on(db.resume(WallTime(0))).unwrap().last_synced_at, Some(WallTime(5)), "it never goes back");
}

#[test]
fn updates_and_removes_follow() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "one", "rank": 1 }));
    feed.put("a", "lists", "l2", json!({ "name": "two" }));
    feed.sync(&db);
    feed.put("a", "lists", "l1", json!({ "name": "uno" }));
    feed.remove("a", "lists", "l2");
    feed.put("a", "lists", "l3", json!({ "name": "three" }));
    feed.put("a", "lists", "l3", json!({ "name": "drei" }));
    feed.put("a", "lists", "l4", json!({ "name": "never seen" }));
    feed.remove("a", "lists", "l4");
    feed.remove("a", "lists", "unknown");
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "uno"), list("l3", "drei")]);
    let looked = block_on(db.diagnostics()).unwrap();
    assert_eq!((looked.operations, looked.staged_operations), (2, 0), "what is superseded is gone");
}

#[test]
fn the_highest_operation_of_all_buckets_is_shown() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "from a" }));
    feed.put("b", "lists", "l1", json!({ "name": "from b" }));
    feed.sync(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "from b")]);
    feed.remove("b", "lists", "l1");
    feed.sync(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "from a")], "losing one copy shows the other");
    feed.put("b", "lists", "l1", json!({ "name": "b again" }));
    feed.sync(&db);
    feed.drop_bucket("b");
    feed.begin(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "b again")], "a dropped bucket leaves with the publish");
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "from a")]);
    feed.drop_bucket("a");
    feed.sync(&db);
    assert!(rows(&db, "lists").is_empty());
}

#[test]
fn subkeys_are_rows_of_their_own_until_they_are_shown() {
    let db = open();
    let mut feed = Feed::default();
    feed.put_as("a", "lists", "l1", "k1", r#"{"name":"one"}"#);
    feed.put_as("a", "lists", "l1", "k2", r#"{"name":"two"}"#);
    feed.sync(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "two")]);
    feed.remove_as("a", "lists", "l1", "k2");
    feed.sync(&db);
    assert_eq!(rows(&db, "lists"), [list("l1", "one")]);
}

#[test]
fn clear_and_move_change_no_more_than_they_say() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "one" }));
    feed.put("a", "lists", "l1", json!({ "name": "two" }));
    feed.put("a", "lists", "l2", json!({ "name": "stays" }));
    feed.compact("a", 0);
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "two"), list("l2", "stays")]);
    feed.clear("a");
    feed.put("a", "lists", "l2", json!({ "name": "back" }));
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(rows(&db, "lists").len(), 2, "a CLEAR is not seen before it is published");
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l2", "back")]);
}

#[test]
fn a_wrong_sum_discards_that_bucket_alone() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "a" }));
    feed.put("b", "lists", "l2", json!({ "name": "b" }));
    feed.sync(&db);
    let mut wrong = feed.clone();
    wrong.put("a", "lists", "l1", json!({ "name": "a2" }));
    wrong.put("b", "lists", "l2", json!({ "name": "b2" }));
    wrong.begin(&db);
    let mut lines = wrong.lines(1000, |_| true);
    lines[0].operations[0].checksum.0 ^= 1;
    block_on(db.stage(&lines)).unwrap();
    assert_eq!(wrong.publish(&db, None), PublishOutcome::Mismatch(vec!["a".into()]));
    assert_eq!(rows(&db, "lists"), [list("l1", "a"), list("l2", "b")], "what is shown stays");
    assert_eq!(positions(&db), [("a".into(), 0), ("b".into(), 4)], "the bad bucket is downloaded from the beginning");
    wrong.rewind("a");
    assert_eq!(wrong.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "a2"), list("l2", "b2")]);
    // A bucket of which nothing came counts as zero.
    let mut missing = wrong.clone();
    missing.put("c", "lists", "l3", json!({}));
    missing.begin(&db);
    assert_eq!(missing.publish(&db, None), PublishOutcome::Mismatch(vec!["c".into()]));
}

#[test]
fn a_local_write_holds_checkpoints_back_until_it_has_come_back() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "server" }));
    feed.sync(&db);
    execute(&db, "UPDATE lists SET name = 'mine'");
    feed.put("a", "lists", "l2", json!({ "name": "new" }));
    feed.write_checkpoint = Some(100);
    assert_eq!(feed.sync(&db), PublishOutcome::Held, "queued");
    assert_eq!(positions(&db), [("a".into(), 2)], "what was verified is not asked for again");
    upload(&db, &Uploaded::Applied);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held, "sent, but no number covers it");
    cover(&db, 101);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held, "an old number does not do");
    feed.write_checkpoint = None;
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held, "no number does not do");
    assert_eq!(rows(&db, "lists"), [list("l1", "mine")]);
    let awaited = block_on(db.upload_state()).unwrap();
    assert_eq!((awaited.queued, awaited.uncovered, awaited.awaited.map(|n| n.0)), (0, None, Some(101)));
    feed.write_checkpoint = Some(101);
    feed.put("a", "lists", "l1", json!({ "name": "mine, trimmed" }));
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "mine, trimmed"), list("l2", "new")]);
    assert_eq!(block_on(db.upload_state()).unwrap(), Default::default());
}

#[test]
fn a_write_during_the_upload_keeps_the_gate_shut() {
    let db = open();
    let mut feed = Feed { write_checkpoint: Some(1), ..Default::default() };
    feed.put("a", "lists", "l1", json!({ "name": "server" }));
    execute(&db, "INSERT INTO lists (id, name) VALUES ('mine', '1')");
    upload_and_cover(&db, 1);
    execute(&db, "UPDATE lists SET name = '2'");
    assert_eq!(feed.sync(&db), PublishOutcome::Held);
    upload(&db, &Uploaded::Applied);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Held, "the number is older than the second write");
    cover(&db, 2);
    feed.write_checkpoint = Some(2);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "server")]);
}

#[test]
fn a_rejected_write_is_undone_in_one_step_and_recorded() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "server" }));
    feed.put("a", "lists", "l2", json!({ "name": "also" }));
    feed.sync(&db);
    block_on(db.write(|tx| {
        tx.execute("UPDATE lists SET name = 'mine' WHERE id = 'l1'", [])?;
        tx.execute("DELETE FROM lists WHERE id = 'l2'", [])?;
        tx.execute("INSERT INTO lists (id, name) VALUES ('l3', 'made')", [])?;
        tx.execute("INSERT INTO todos (id) VALUES ('of a table that the server never mentioned')", [])?;
        Ok(())
    }))
    .unwrap();
    upload(&db, &Uploaded::Rejected { reason: "not yours".into() });
    assert_eq!(rows(&db, "lists"), [list("l1", "mine"), list("l3", "made")], "not before the checkpoint");
    let rejected = block_on(db.rejected()).unwrap();
    assert_eq!((rejected[0].reason.as_str(), rejected[0].transaction.crud.len()), ("not yours", 4));
    cover(&db, 9);
    feed.write_checkpoint = Some(9);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "server"), list("l2", "also")]);
    assert!(rows(&db, "todos").is_empty());
    assert!(block_on(db.dismiss_rejected(rejected[0].id)).unwrap());
    assert!(block_on(db.rejected()).unwrap().is_empty());
}

#[test]
fn nothing_a_server_sends_blocks_a_publish_or_reaches_another_table() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "syncline_queue", "1", json!({ "op": "PUT" }));
    feed.put("a", "sqlite_master", "1", json!({ "type": "table" }));
    feed.put("a", "drafts", "d1", json!({ "body": "a local-only table is not synced" }));
    feed.put("a", "Lists", "l0", json!({ "name": "another name" }));
    feed.put("a", "lists\"; DROP TABLE todos; --", "x", json!({}));
    feed.put_as("a", "lists", "l1", "s", "[1,2]");
    feed.put_as("a", "lists", "l2", "s", "{\"name\": \"cut");
    feed.put("a", "lists", "l3", json!({ "name": 5, "rank": "text", "weight": true, "id": "other", "x\"y": 1 }));
    feed.put_as("a", "lists", "", "s", r#"{"rank":18446744073709551615,"name":{"b":1}}"#);
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    let expected = [
        json!({ "id": "", "name": "{\"b\":1}", "rank": 18446744073709551615_u64 as f64, "weight": null }),
        list_of_nulls("l1"),
        json!({ "id": "l2", "name": null, "rank": null, "weight": null }),
        json!({ "id": "l3", "name": "5", "rank": "text", "weight": 1.0 }),
    ];
    assert_eq!(rows(&db, "lists"), expected);
    assert!(rows(&db, "drafts").is_empty());
    let undeclared = block_on(db.diagnostics()).unwrap().undeclared_tables;
    assert_eq!(undeclared, ["Lists", "lists\"; DROP TABLE todos; --", "sqlite_master", "syncline_queue"]);
}

/// What an application may put on a synced table, all of it in the way of rows that the server sends (C8).
#[test]
fn nothing_that_an_application_made_blocks_a_publish() {
    for (obstacle, stays) in [
        ("CREATE UNIQUE INDEX app ON lists (name)", false),
        ("CREATE UNIQUE INDEX app ON lists (lower(name)) WHERE rank IS NULL", false),
        ("CREATE INDEX app ON lists (json_extract(name, '$.a'))", false),
        ("CREATE TRIGGER app BEFORE INSERT ON lists BEGIN SELECT RAISE(ABORT, 'no'); END", true),
        ("CREATE TRIGGER app AFTER INSERT ON lists BEGIN SELECT RAISE(FAIL, 'no'); END", true),
        ("CREATE TRIGGER app BEFORE INSERT ON lists BEGIN SELECT RAISE(IGNORE); END", true),
        ("CREATE TRIGGER app BEFORE UPDATE ON lists BEGIN SELECT RAISE(IGNORE); END", true),
        ("CREATE TRIGGER app BEFORE DELETE ON lists BEGIN SELECT RAISE(IGNORE); END", true),
        ("CREATE TRIGGER app AFTER DELETE ON lists BEGIN SELECT RAISE(ABORT, 'no'); END", true),
        ("CREATE TRIGGER app AFTER INSERT ON lists BEGIN SELECT RAISE(ROLLBACK, 'no'); END", false),
        ("CREATE TRIGGER app AFTER INSERT ON lists BEGIN INSERT INTO once VALUES (1); END", true),
        ("CREATE TRIGGER app AFTER INSERT ON lists BEGIN INSERT INTO missing VALUES (1); END", true),
    ] {
        let db = open();
        execute(&db, "CREATE TABLE once (x INTEGER PRIMARY KEY)");
        let mut feed = Feed::default();
        feed.put("a", "lists", "l0", json!({ "name": "0" }));
        feed.put("a", "lists", "l1", json!({ "name": "1" }));
        assert_eq!(feed.sync(&db), PublishOutcome::Published);
        execute(&db, obstacle);
        feed.put("a", "lists", "l2", json!({ "name": "{same" }));
        feed.put("a", "lists", "l3", json!({ "name": "{same" }));
        feed.put("a", "lists", "l1", json!({ "name": "{same" }));
        feed.remove("a", "lists", "l0");
        // Not even understood when its first row comes.
        execute(&db, "CREATE TRIGGER broken AFTER INSERT ON todos BEGIN INSERT INTO missing VALUES (1); END");
        feed.put("a", "todos", "t1", json!({ "title": "t" }));
        assert_eq!(feed.sync(&db), PublishOutcome::Published, "{obstacle}");
        assert_eq!(rows(&db, "lists"), ["l1", "l2", "l3"].map(|id| list(id, "{same")), "{obstacle}");
        assert_eq!(rows(&db, "todos").len(), 1);
        let left: i64 = block_on(db.query("SELECT count(*) FROM sqlite_master WHERE name = 'app'").one()).unwrap();
        assert_eq!(left == 1, stays, "{obstacle}");
        assert_eq!(block_on(db.upload_state()).unwrap().queued, 0, "{obstacle}");
        // The library's own triggers are at work again.
        execute(&db, "UPDATE lists SET rank = 1 WHERE id = 'none'");
        execute(&db, "DELETE FROM todos");
        assert_eq!(block_on(db.upload_state()).unwrap().queued, 1, "{obstacle}");
    }
}

fn list_of_nulls(id: &str) -> Json {
    json!({ "id": id, "name": null, "rank": null, "weight": null })
}

#[test]
fn clear_forgets_everything_but_the_client() {
    let db = open();
    let before = block_on(db.resume(WallTime(0))).unwrap();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "server" }));
    feed.sync(&db);
    execute(&db, "INSERT INTO lists (id) VALUES ('mine')");
    execute(&db, "INSERT INTO drafts (id) VALUES ('kept')");
    let clear = syncline_storage_sqlite::Clear::new();
    let refused = block_on(db.clear(clear)).unwrap_err().to_string();
    assert!(refused.contains("1 local transactions were not uploaded"), "{refused}");
    assert_eq!(rows(&db, "lists").len(), 2);
    assert_eq!(block_on(db.clear(clear.discard_unsent())).unwrap().discarded_transactions, 1);
    assert!(rows(&db, "lists").is_empty());
    assert_eq!(rows(&db, "drafts").len(), 1);
    let after = block_on(db.resume(WallTime(0))).unwrap();
    assert_eq!((after.client_id, after.uploads), (before.client_id, before.uploads));
    assert!(after.buckets.is_empty());
    execute(&db, "INSERT INTO lists (id) VALUES ('again')");
    let transaction = block_on(db.next_upload()).unwrap().unwrap();
    assert_eq!(transaction.transaction_id, Some(2), "numbers are never used again");
    upload_and_cover(&db, 1);
    let mut feed = Feed { write_checkpoint: Some(1), ..Default::default() };
    feed.put("a", "lists", "l1", json!({ "name": "of another user" }));
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "of another user")]);
}
