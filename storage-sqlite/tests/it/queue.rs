//! The upload queue as a driver uses it.

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, ErrorKind, PublishOutcome, UploadSequence, UploadState, Uploaded, WriteCheckpoint};

use crate::feed::{Feed, execute, list, open, rows, upload};

#[test]
fn transactions_come_in_order_until_they_are_finished() {
    let db = open();
    execute(&db, "INSERT INTO lists (id, name) VALUES ('a', 'x')");
    execute(&db, "INSERT INTO lists (id, name) VALUES ('b', 'x'), ('c', 'x')");
    assert_eq!(block_on(db.upload_state()).unwrap().queued, 2);
    let first = block_on(db.next_upload()).unwrap().unwrap();
    assert_eq!(block_on(db.next_upload()).unwrap().unwrap(), first, "offered until it is finished");
    let json = serde_json::to_value(&first).unwrap();
    let crud = json!([{ "op_id": 1, "op": "PUT", "type": "lists", "id": "a", "tx_id": 1, "data": { "name": "x" } }]);
    assert_eq!((&json["transaction_id"], &json["crud"]), (&json!(1), &crud));
    block_on(db.finish_upload(&first, &Uploaded::Applied)).unwrap();
    block_on(db.finish_upload(&first, &Uploaded::Applied)).expect("a second report changes nothing");
    let second = block_on(db.next_upload()).unwrap().unwrap();
    assert_eq!((second.transaction_id, second.crud.len()), (Some(2), 2));
    execute(&db, "INSERT INTO lists (id, name) VALUES ('d', 'x')");
    let mut third = second.clone();
    third.crud.remove(0);
    let refused = block_on(db.finish_upload(&third, &Uploaded::Applied)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(block_on(db.upload_state()).unwrap().queued, 2);
    assert_eq!(upload(&db, &Uploaded::Applied).len(), 2);
    assert!(block_on(db.next_upload()).unwrap().is_none());
}

#[test]
fn what_was_sent_waits_for_its_number() {
    let db = open();
    execute(&db, "INSERT INTO lists (id) VALUES ('a')");
    let refused = block_on(db.cover(UploadSequence(1), WriteCheckpoint(5))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "it was not sent");
    upload(&db, &Uploaded::Applied);
    let state = block_on(db.upload_state()).unwrap();
    assert_eq!((state.queued, state.uncovered, state.awaited), (0, Some(UploadSequence(1)), None));
    execute(&db, "INSERT INTO lists (id) VALUES ('b')");
    upload(&db, &Uploaded::Applied);
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(5))).unwrap();
    let state = block_on(db.upload_state()).unwrap();
    assert_eq!((state.uncovered, state.awaited), (Some(UploadSequence(2)), Some(WriteCheckpoint(5))));
    block_on(db.cover(UploadSequence(2), WriteCheckpoint(6))).unwrap();
    let state = block_on(db.upload_state()).unwrap();
    assert_eq!((state.uncovered, state.awaited), (None, Some(WriteCheckpoint(6))));
}

#[test]
fn a_later_number_replaces_the_one_awaited_also_if_it_is_smaller() {
    let db = open();
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "server" }));
    execute(&db, "INSERT INTO lists (id) VALUES ('a')");
    crate::feed::upload_and_cover(&db, 100);
    // The server has lost its numbers: 100 will not come.
    feed.write_checkpoint = Some(5);
    assert_eq!(feed.sync(&db), PublishOutcome::Held);
    let state = block_on(db.upload_state()).unwrap();
    assert_eq!((state.covered, state.awaited), (Some(UploadSequence(1)), Some(WriteCheckpoint(100))));
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(5))).unwrap();
    assert_eq!(block_on(db.upload_state()).unwrap().awaited, Some(WriteCheckpoint(5)));
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(5))).expect("a second report changes nothing");
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("l1", "server")]);
    assert_eq!(block_on(db.upload_state()).unwrap(), UploadState::default());
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(6))).expect("what was shown waits for nothing");
    assert_eq!(block_on(db.upload_state()).unwrap(), UploadState::default());
}

#[test]
fn a_late_answer_does_not_uncover_or_release_newer_entries() {
    let db = open();
    let mut feed = Feed { write_checkpoint: Some(6), ..Default::default() };
    feed.bucket("p0", 0);
    for id in ["a", "b"] {
        feed.put("p0", "lists", id, json!({ "name": "server" }));
    }
    execute(&db, "INSERT INTO lists (id, name) VALUES ('a', 'mine')");
    upload(&db, &Uploaded::Applied);
    execute(&db, "INSERT INTO lists (id, name) VALUES ('b', 'mine')");
    upload(&db, &Uploaded::Applied);
    block_on(db.cover(UploadSequence(2), WriteCheckpoint(7))).unwrap();
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(6))).unwrap();
    let state = block_on(db.upload_state()).unwrap();
    let expected = (None, Some(UploadSequence(2)), Some(WriteCheckpoint(7)));
    assert_eq!((state.uncovered, state.covered, state.awaited), expected);
    assert_eq!(feed.sync(&db), PublishOutcome::Held);
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("a", "server"), list("b", "mine")]);
    // The other way round: the first entry waits for the larger number, so nothing of what follows is released.
    block_on(db.cover(UploadSequence(1), WriteCheckpoint(8))).unwrap();
    feed.write_checkpoint = Some(7);
    for id in ["a", "b"] {
        feed.put("p0", "lists", id, json!({ "name": "later" }));
    }
    assert_eq!(feed.sync(&db), PublishOutcome::Held);
    assert_eq!(feed.publish(&db, Some(0)), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("a", "mine"), list("b", "mine")]);
    feed.write_checkpoint = Some(8);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [list("a", "later"), list("b", "later")]);
}

#[test]
fn changes_of_the_queue_are_told() {
    let db = open();
    let mut changes = db.upload_changes();
    let mut told = || futures::FutureExt::now_or_never(futures::StreamExt::next(&mut changes)).is_some();
    assert!(!told());
    execute(&db, "INSERT INTO drafts (id) VALUES ('local')");
    assert!(!told());
    execute(&db, "INSERT INTO lists (id) VALUES ('a')");
    assert!(told() && !told());
    upload(&db, &Uploaded::Applied);
    assert!(told() && !told());
    crate::feed::cover(&db, 1);
    assert!(told());
    let mut feed = Feed { write_checkpoint: Some(1), ..Default::default() };
    feed.sync(&db);
    assert!(told(), "published, so the entries are gone");
}

#[test]
fn an_entry_that_no_parser_reads_does_not_wedge_the_queue() {
    let db = open();
    execute(&db, "INSERT INTO lists (id, name) VALUES ('a', 'x')");
    block_on(db.write(|tx| {
        let bad = "{\"weight\":9.0e+999,\"rank\":1,\"name\":\"x\"}";
        tx.execute("UPDATE syncline_queue SET data = ?1, row_id = CAST(x'ff61' AS TEXT)", [bad])?;
        Ok(())
    }))
    .unwrap();
    let sent = upload(&db, &Uploaded::Applied);
    assert_eq!(sent[0]["crud"][0]["data"], json!({ "weight": null, "rank": 1, "name": "x" }));
    assert_eq!(sent[0]["crud"][0]["id"], "\u{fffd}a");
}
