//! What is owed to local writes until they were sent (C2, C7).

use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use serde_json::json;

use super::Subject;
use super::support::*;
use crate::client_store::PublishOutcome;
use crate::local_transaction::Uploaded;

fn refused(reason: &str) -> Uploaded {
    Uploaded::Rejected { reason: reason.to_owned() }
}

/// The application sees what it wrote, without waiting for anybody.
pub async fn a_local_write_is_seen_at_once(subject: Box<dyn Subject>) {
    let mut server = Server::default();
    server.put("a", "lists", "l1", &json!({ "name": "server", "rank": 1 }));
    server.put("a", "lists", "l2", &json!({ "name": "server" }));
    server.show(&subject.store()).await;
    subject.write(vec![update("lists", "l1", &json!({ "name": "mine" }))]).await;
    let l1 = json!({ "id": "l1", "name": "mine", "rank": 1 });
    assert_eq!(rows(&*subject, "lists").await, [l1.clone(), json!({ "id": "l2", "name": "server" })]);
    subject.write(vec![delete("lists", "l2"), insert("lists", "l3", &json!({ "name": "made" }))]).await;
    assert_eq!(rows(&*subject, "lists").await, [l1, json!({ "id": "l3", "name": "made" })]);
}

/// Both the row and its place in the queue: no acknowledged write is lost.
pub async fn local_writes_survive_reopening(mut subject: Box<dyn Subject>) {
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    subject.write(vec![update("lists", "l1", &json!({ "name": "two" }))]).await;
    subject.reopen().await;
    assert_eq!(names(&*subject).await, ["l1=two"]);
    assert_eq!(uploads(&subject.store()).await.queued, 2);
    for name in ["PUT lists/l1", "PATCH lists/l1"] {
        subject.reopen().await;
        assert_eq!(written(&finish(&subject.store(), &Uploaded::Applied).await), [name]);
    }
    assert_eq!(upload_all(&subject.store()).await, 0);
}

/// All writes of it, in order, with their values.
pub async fn a_local_transaction_is_uploaded_whole(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.put("a", "lists", "l2", &json!({ "name": "server" }));
    server.put("a", "lists", "l3", &json!({ "name": "server", "rank": 3 }));
    server.show(&store).await;
    let writes = vec![
        insert("lists", "l1", &json!({ "name": "one", "rank": 7 })),
        delete("lists", "l2"),
        insert("todos", "t1", &json!({ "list_id": "l1", "title": "milk" })),
        update("lists", "l3", &json!({ "name": null, "rank": 4 })),
    ];
    subject.write(writes).await;
    let Some(transaction) = next_upload(&store).await else { panic!("nothing is queued") };
    assert_eq!(written(&transaction), ["PUT lists/l1", "DELETE lists/l2", "PUT todos/t1", "PATCH lists/l3"]);
    let data: Vec<_> =
        transaction.crud.iter().map(|write| write.data.clone().map_or(json!(null), Into::into)).collect();
    assert_eq!(data[0], json!({ "name": "one", "rank": 7 }));
    assert_eq!(data[2], json!({ "list_id": "l1", "title": "milk" }));
    assert_eq!(data[3], json!({ "name": null, "rank": 4 }), "a value that was cleared is null");
    assert_eq!(transaction.client_id.as_deref(), Some(&*state(&store).await.client_id));
    assert_eq!(uploads(&store).await.queued, 1, "transactions are counted");
}

/// The order in which they were made, whatever they are about.
pub async fn uploads_are_offered_in_order(subject: Box<dyn Subject>) {
    let store = subject.store();
    for id in ["c", "a", "b"] {
        subject.write(vec![insert("lists", id, &json!({ "name": id }))]).await;
    }
    assert_eq!(uploads(&store).await.queued, 3);
    for (left, id) in [(2, "c"), (1, "a"), (0, "b")] {
        assert_eq!(written(&finish(&store, &Uploaded::Applied).await), [format!("PUT lists/{id}")]);
        assert_eq!(uploads(&store).await.queued, left);
    }
    assert_eq!(next_upload(&store).await, None);
}

/// An upload whose answer was lost is offered again: at least once, not at most.
pub async fn an_upload_is_offered_until_it_is_finished(mut subject: Box<dyn Subject>) {
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    subject.write(vec![insert("lists", "l2", &json!({ "name": "two" }))]).await;
    let first = next_upload(&subject.store()).await;
    assert!(first.is_some());
    assert_eq!(next_upload(&subject.store()).await, first);
    subject.reopen().await;
    assert_eq!(next_upload(&subject.store()).await, first, "the same numbers: they are what a backend knows it by");
}

/// What was sent is not sent again after a crash, and waits for its write checkpoint.
pub async fn a_finished_upload_survives_reopening(mut subject: Box<dyn Subject>) {
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    finish(&subject.store(), &Uploaded::Applied).await;
    let before = uploads(&subject.store()).await;
    assert!(before.uncovered.is_some());
    subject.reopen().await;
    assert_eq!(uploads(&subject.store()).await, before);
    assert_eq!(next_upload(&subject.store()).await, None);
    assert_eq!(names(&*subject).await, ["l1=one"], "the row is shown until the write has come back");
}

/// A second report of the same upload changes nothing, and one of none is refused.
pub async fn an_upload_is_finished_once(subject: Box<dyn Subject>) {
    let store = subject.store();
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    subject.write(vec![insert("lists", "l2", &json!({ "name": "two" }))]).await;
    let first = finish(&store, &refused("no")).await;
    ok(within(store.finish_upload(&first, &refused("no"))).await);
    assert_eq!(uploads(&store).await.queued, 1, "the second transaction still waits");
    assert_eq!(subject.rejected().await.len(), 1);
    let Some(mut stranger) = next_upload(&store).await else { panic!("the second one is not offered") };
    stranger.transaction_id = Some(1 << 40);
    stranger.crud.iter_mut().for_each(|write| write.op_id = 1 << 40);
    assert!(store.finish_upload(&stranger, &Uploaded::Applied).await.is_err(), "it was never in the queue");
    assert_eq!(uploads(&store).await.queued, 1);
}

/// With the reason of the backend, for ever, and only those.
pub async fn a_rejected_upload_is_recorded(mut subject: Box<dyn Subject>) {
    for id in ["l1", "l2", "l3"] {
        subject.write(vec![insert("lists", id, &json!({ "name": id }))]).await;
    }
    let first = finish(&subject.store(), &refused("not yours")).await;
    finish(&subject.store(), &Uploaded::Applied).await;
    let third = finish(&subject.store(), &refused("too long")).await;
    let wanted = [(first, "not yours".to_owned()), (third, "too long".to_owned())];
    assert_eq!(subject.rejected().await, wanted);
    cover(&subject.store(), 1).await;
    let mut server = Server { write_checkpoint: Some(1), ..Server::default() };
    server.show(&subject.store()).await;
    subject.reopen().await;
    assert_eq!(subject.rejected().await, wanted);
}

/// The numbers of writes are what a backend knows them by, so that none is given twice: not when the queue was empty, and not
/// after a crash (C9).
pub async fn numbers_of_writes_never_go_back(mut subject: Box<dyn Subject>) {
    let mut server = Server::default();
    let (mut last_write, mut last_transaction) = (0, 0);
    for round in 0..6 {
        subject.write(vec![insert("lists", "l1", &json!({ "name": "1" })), delete("lists", "l1")]).await;
        let sent = finish(&subject.store(), &Uploaded::Applied).await;
        for write in &sent.crud {
            assert!(write.op_id > last_write, "{} after {last_write}", write.op_id);
            last_write = write.op_id;
        }
        assert!(sent.transaction_id > Some(last_transaction), "{sent:?} after {last_transaction}");
        last_transaction = sent.transaction_id.unwrap_or_default();
        if round % 2 == 0 {
            cover(&subject.store(), round + 1).await;
            server.write_checkpoint = Some(round + 1);
            server.show(&subject.store()).await;
        }
        if round % 3 == 0 {
            subject.reopen().await;
        }
    }
}

/// What sync writes is no write of the application (C7).
pub async fn nothing_that_sync_does_is_uploaded(subject: Box<dyn Subject>) {
    let store = subject.store();
    let mut server = Server::default();
    server.bucket("a", 1);
    for round in 0..3 {
        server.put("a", "lists", "l1", &json!({ "name": round.to_string() }));
        server.put("b", "todos", &format!("t{round}"), &json!({ "title": "x" }));
        server.stage(&store).await;
        assert_eq!(server.publish(&store, Some(1)).await, PublishOutcome::Published);
        assert_eq!(server.publish(&store, None).await, PublishOutcome::Published);
    }
    server.clear("a");
    server.put("a", "lists", "l2", &json!({ "name": "rebuilt" }));
    server.drop_bucket("b");
    server.show(&store).await;
    assert_eq!(uploads(&store).await, Default::default());
    assert_eq!(next_upload(&store).await, None);
    // Nor is what gives way to the server's rows.
    subject.write(vec![update("lists", "l2", &json!({ "name": "mine" }))]).await;
    upload_all(&store).await;
    cover(&store, 1).await;
    server.write_checkpoint = Some(1);
    server.show(&store).await;
    assert_eq!(names(&*subject).await, ["l2=rebuilt"]);
    assert_eq!(uploads(&store).await, Default::default());
}

/// Whoever waits for changes of the queue is woken by each, also by those of others.
pub async fn changes_of_the_queue_are_told(subject: Box<dyn Subject>) {
    fn forget(changes: &mut BoxStream<'static, ()>) {
        while changes.next().now_or_never().flatten().is_some() {}
    }
    async fn told(changes: &mut BoxStream<'static, ()>, what: &str) {
        assert!(within(changes.next()).await.is_some(), "the stream ended before it told that {what}");
        forget(changes);
    }
    let store = subject.store();
    let mut changes = store.upload_changes();
    forget(&mut changes);
    subject.write(vec![insert("lists", "l1", &json!({ "name": "one" }))]).await;
    told(&mut changes, "something was written").await;
    finish(&store, &Uploaded::Applied).await;
    told(&mut changes, "it was sent").await;
    cover(&store, 1).await;
    told(&mut changes, "it was covered").await;
    let mut server = Server { write_checkpoint: Some(1), ..Server::default() };
    server.show(&store).await;
    told(&mut changes, "it has come back").await;
    // One who waits while it happens, and one who came later.
    let mut late = store.upload_changes();
    forget(&mut late);
    let write = subject.write(vec![insert("lists", "l2", &json!({ "name": "two" }))]);
    let ((), (), ()) = futures::join!(told(&mut changes, "it waited"), told(&mut late, "it came late"), write);
}
