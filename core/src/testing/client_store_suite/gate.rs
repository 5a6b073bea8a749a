//! What holds a publish back: local writes that it does not carry (C1, C3).

use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome::{Held, Published};
use crate::client_store::UploadSequence;
use crate::local_transaction::Uploaded;
use crate::write_checkpoint::WriteCheckpoint;

/// A row of the server, shown; a local write to it; and a checkpoint that the client has, and may not show.
async fn held(subject: &dyn Subject) -> Server {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "server" }));
    server.show(&store).await;
    subject.write(vec![update("lists", "l1", &json!({ "name": "mine" }))]).await;
    server.put("a", "lists", "l2", &json!({ "name": "new" }));
    server.stage(&store).await;
    server
}

/// Else the application would see its own write vanish.
pub async fn a_queued_write_holds_back(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    server.write_checkpoint = Some(1_000_000);
    assert_eq!(server.publish(&store, None).await, Held);
    assert_eq!(names(&*subject).await, ["l1=mine"]);
    assert_eq!(state(&store).await.last_synced_at, Some(crate::WallTime(0)), "what is held was not synced");
}

/// Sent is not yet back.
pub async fn a_sent_write_holds_back_until_it_is_covered(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    upload_all(&store).await;
    server.write_checkpoint = Some(1_000_000);
    assert_eq!(server.publish(&store, None).await, Held, "nobody knows which checkpoint carries it");
    assert_eq!(names(&*subject).await, ["l1=mine"]);
}

/// Only a checkpoint with the write checkpoint, or a larger one, carries the write.
pub async fn a_covered_write_holds_back_until_it_has_come(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    upload_all(&store).await;
    cover(&store, 101).await;
    for number in [None, Some(1), Some(100)] {
        server.write_checkpoint = number;
        assert_eq!(server.publish(&store, None).await, Held, "at {number:?}");
    }
    assert_eq!(names(&*subject).await, ["l1=mine"]);
    server.write_checkpoint = Some(102);
    assert_eq!(server.publish(&store, None).await, Published);
}

/// It is not downloaded again, and shown as soon as it may be.
pub async fn what_was_held_back_is_kept(mut subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    assert_eq!(server.publish(&subject.store(), None).await, Held);
    assert_eq!(position(&subject.store(), "a").await, 2);
    subject.reopen().await;
    assert_eq!(position(&subject.store(), "a").await, 2);
    upload_all(&subject.store()).await;
    cover(&subject.store(), 1).await;
    server.write_checkpoint = Some(1);
    assert_eq!(server.publish(&subject.store(), None).await, Published);
    assert_eq!(names(&*subject).await, ["l1=server", "l2=new"]);
}

/// The checkpoint that carries a write shows what the source made of it, and nothing is left of it here.
pub async fn a_carried_write_gives_way_to_the_server(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    for id in ["l1", "l2", "l3"] {
        server.put("a", "lists", id, &json!({ "name": "server" }));
    }
    server.show(&store).await;
    let writes = vec![
        update("lists", "l1", &json!({ "name": "mine", "rank": 1 })),
        delete("lists", "l2"),
        insert("lists", "l4", &json!({ "name": "mine" })),
        insert("todos", "t1", &json!({ "title": "of a table that the server never sent" })),
    ];
    subject.write(writes).await;
    upload_all(&store).await;
    cover(&store, 1).await;
    server.put("a", "lists", "l1", &json!({ "name": "mine, trimmed" }));
    server.write_checkpoint = Some(1);
    server.show(&store).await;
    let wanted = ["l1=mine, trimmed", "l2=server", "l3=server"];
    assert_eq!(names(&*subject).await, wanted, "all that it did not change as well");
    assert!(rows(&*subject, "todos").await.is_empty());
    assert_eq!(uploads(&store).await, Default::default());
}

/// A rejected write is undone, but not before the checkpoint that covers it, so that the application sees one step.
pub async fn a_rejected_write_is_undone_with_its_checkpoint(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    finish(&store, &Uploaded::Rejected { reason: "not yours".to_owned() }).await;
    assert_eq!(server.publish(&store, None).await, Held);
    assert_eq!(names(&*subject).await, ["l1=mine"]);
    cover(&store, 5).await;
    server.write_checkpoint = Some(5);
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(names(&*subject).await, ["l1=server", "l2=new"]);
}

/// A write while an older one is under way is in no checkpoint that the older one waits for.
pub async fn a_later_write_holds_back_again(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    upload_all(&store).await;
    cover(&store, 1).await;
    subject.write(vec![update("lists", "l1", &json!({ "name": "mine again" }))]).await;
    server.write_checkpoint = Some(1);
    assert_eq!(server.publish(&store, None).await, Held, "queued");
    upload_all(&store).await;
    assert_eq!(server.publish(&store, None).await, Held, "the number is older than the second write");
    assert_eq!(names(&*subject).await, ["l1=mine again"]);
    cover(&store, 2).await;
    assert_eq!(server.publish(&store, None).await, Held);
    server.write_checkpoint = Some(2);
    assert_eq!(server.publish(&store, None).await, Published);
}

/// The state of the queue says what to ask the server for.
pub async fn the_queue_says_what_waits_for_what(subject: Box<dyn Subject>) {
    let store = subject.store();
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    let queued = uploads(&store).await;
    assert_eq!((queued.queued, queued.uncovered, queued.covered, queued.awaited), (1, None, None, None));
    upload_all(&store).await;
    let sent = uploads(&store).await;
    assert_eq!((sent.queued, sent.covered, sent.awaited), (0, None, None));
    let first = cover(&store, 7).await;
    let covered = uploads(&store).await;
    assert_eq!((covered.uncovered, covered.covered), (None, Some(first)));
    assert_eq!(covered.awaited, Some(WriteCheckpoint(7)));
    subject.write(vec![insert("lists", "l2", &json!({ "name": "two" }))]).await;
    upload_all(&store).await;
    let both = uploads(&store).await;
    assert!(both.uncovered > Some(first), "{both:?}");
    assert_eq!((both.covered, both.awaited), (Some(first), Some(WriteCheckpoint(7))));
    let second = cover(&store, 8).await;
    let covered = uploads(&store).await;
    assert_eq!((covered.uncovered, covered.covered), (None, Some(second)));
    assert_eq!(covered.awaited, Some(WriteCheckpoint(8)));
}

/// What was not sent is in no checkpoint, whatever number somebody has for it.
pub async fn a_cover_is_for_what_was_sent(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    let Some(transaction) = next_upload(&store).await else { panic!("nothing is queued") };
    let upto = UploadSequence(transaction.crud.iter().map(|write| write.op_id).max().unwrap_or_default());
    // It may be refused, or change nothing.
    let _ = within(store.cover(upto, WriteCheckpoint(1))).await;
    server.write_checkpoint = Some(1);
    assert_eq!(server.publish(&store, None).await, Held);
    upload_all(&store).await;
    assert_eq!(uploads(&store).await.uncovered, Some(upto));
    assert_eq!(server.publish(&store, None).await, Held, "it was asked for before the write was sent");
}

/// An answer that comes late says nothing about what was sent after its question.
pub async fn a_late_cover_leaves_later_writes_alone(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    upload_all(&store).await;
    let Some(first) = uploads(&store).await.uncovered else { panic!("nothing waits to be covered") };
    subject.write(vec![insert("lists", "l3", &json!({ "name": "mine" }))]).await;
    upload_all(&store).await;
    ok(within(store.cover(first, WriteCheckpoint(6))).await);
    assert!(uploads(&store).await.uncovered > Some(first), "the second write is not covered");
    server.write_checkpoint = Some(6);
    assert_eq!(server.publish(&store, None).await, Held);
    let second = cover(&store, 7).await;
    ok(within(store.cover(first, WriteCheckpoint(6))).await);
    let state = uploads(&store).await;
    assert_eq!((state.uncovered, state.covered, state.awaited), (None, Some(second), Some(WriteCheckpoint(7))));
    assert_eq!(server.publish(&store, None).await, Held, "the second write waits for its own number");
    server.write_checkpoint = Some(7);
    assert_eq!(server.publish(&store, None).await, Published);
}

/// A server that has lost its numbers begins anew: the number that a client waits for will never come.
pub async fn a_smaller_write_checkpoint_replaces_a_lost_one(subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    let store = subject.store();
    upload_all(&store).await;
    let upto = cover(&store, 100).await;
    server.write_checkpoint = Some(5);
    assert_eq!(server.publish(&store, None).await, Held);
    ok(within(store.cover(upto, WriteCheckpoint(5))).await);
    assert_eq!(uploads(&store).await.awaited, Some(WriteCheckpoint(5)));
    assert_eq!(server.publish(&store, None).await, Published);
    assert_eq!(names(&*subject).await, ["l1=server", "l2=new"]);
    // What was shown waits for nothing any more.
    ok(within(store.cover(upto, WriteCheckpoint(9))).await);
    assert_eq!(uploads(&store).await, Default::default());
}

/// Else the client would ask for a write checkpoint anew, or show too early.
pub async fn covers_survive_reopening(mut subject: Box<dyn Subject>) {
    let mut server = held(&*subject).await;
    upload_all(&subject.store()).await;
    cover(&subject.store(), 3).await;
    let before = uploads(&subject.store()).await;
    subject.reopen().await;
    assert_eq!(uploads(&subject.store()).await, before);
    server.write_checkpoint = Some(2);
    assert_eq!(server.publish(&subject.store(), None).await, Held);
    server.write_checkpoint = Some(3);
    assert_eq!(server.publish(&subject.store(), None).await, Published);
    subject.reopen().await;
    assert_eq!(names(&*subject).await, ["l1=server", "l2=new"]);
    assert_eq!(uploads(&subject.store()).await, Default::default());
}
