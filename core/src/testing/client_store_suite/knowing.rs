//! What a client must know from before: subscriptions, and when it was synced (C9).

use serde_json::{Value as Json, json};

use super::Subject;
use super::support::*;
use crate::bucket::BucketPriority;
use crate::client_store::{ClientStore, PublishOutcome, StoredSubscription};
use crate::time::WallTime;

async fn subscribe(store: &dyn ClientStore, stream: &str, json: &Json, priority: Option<u8>, until: Option<i64>) {
    let priority = priority.map(BucketPriority);
    ok(within(store.subscribe(stream, &parameters(json), priority, until.map(WallTime))).await);
}

/// The subscriptions at a time, in order of stream and parameters.
async fn subscriptions(store: &dyn ClientStore, now: i64) -> Vec<StoredSubscription> {
    let mut stored = ok(within(store.resume(WallTime(now))).await).subscriptions;
    stored.sort_by_key(|one| (one.stream.clone(), Json::Object(one.parameters.clone()).to_string()));
    stored
}

fn streams(stored: &[StoredSubscription]) -> Vec<&str> {
    stored.iter().map(|one| one.stream.as_str()).collect()
}

/// A client whose clock is set back does not seem to be less up to date, nor after a crash.
pub async fn the_time_of_the_last_sync_never_goes_back(mut subject: Box<dyn Subject>) {
    let mut server = Server { now: 500, ..Server::default() };
    for (now, wanted) in [(500, 500), (300, 500), (-7, 500), (501, 501)] {
        server.now = now;
        server.put("a", "lists", "l1", &json!({ "name": now.to_string() }));
        server.show(&subject.store()).await;
        assert_eq!(state(&subject.store()).await.last_synced_at, Some(WallTime(wanted)));
        subject.reopen().await;
        assert_eq!(state(&subject.store()).await.last_synced_at, Some(WallTime(wanted)));
    }
}

/// A stream that was asked for is asked for again after a restart, in the same words.
pub async fn subscriptions_survive_reopening(mut subject: Box<dyn Subject>) {
    let words = json!({ "list": "l1", "n": [1, 2.5, null], "of": { "b": true } });
    subscribe(&subject.store(), "todos", &words, Some(1), Some(100)).await;
    subscribe(&subject.store(), "lists", &json!({}), None, Some(200)).await;
    subject.reopen().await;
    let one = |stream: &str, json: &Json, priority: Option<u8>, until| StoredSubscription {
        stream: stream.to_owned(),
        parameters: parameters(json),
        priority: priority.map(BucketPriority),
        expires_at: WallTime(until),
        last_synced_at: None,
    };
    let wanted = [one("lists", &json!({}), None, 200), one("todos", &words, Some(1), 100)];
    assert_eq!(subscriptions(&subject.store(), 0).await, wanted);
}

/// Stream and parameters are its name, whatever the order of the parameters.
pub async fn a_subscription_is_renewed_not_doubled(subject: Box<dyn Subject>) {
    let store = subject.store();
    let text = r#"{"b":{"z":1,"a":[2]},"a":"x"}"#;
    let reordered = r#"{"a":"x","b":{"a":[2],"z":1}}"#;
    let parsed = |text| serde_json::from_str(text).unwrap_or(json!(null));
    subscribe(&store, "s", &parsed(text), Some(1), Some(100)).await;
    subscribe(&store, "s", &json!({ "a": "other" }), Some(1), Some(100)).await;
    subscribe(&store, "s", &parsed(reordered), Some(2), Some(300)).await;
    let stored = subscriptions(&store, 0).await;
    let seen: Vec<_> = stored.iter().map(|one| (one.expires_at.0, one.priority)).collect();
    assert_eq!(seen, [(100, Some(BucketPriority(1))), (300, Some(BucketPriority(2)))]);
    assert_eq!(stored[1].parameters, parameters(&parsed(text)));
}

/// When its time is over, or when the application says so.
pub async fn a_subscription_ends(subject: Box<dyn Subject>) {
    let store = subject.store();
    for (stream, until) in [("early", 100), ("late", 200), ("over", 300)] {
        subscribe(&store, stream, &json!({ "p": 1 }), None, Some(until)).await;
    }
    assert_eq!(streams(&subscriptions(&store, 99).await), ["early", "late", "over"]);
    assert_eq!(streams(&subscriptions(&store, 150).await), ["late", "over"]);
    subscribe(&store, "over", &json!({ "p": 2 }), None, None).await;
    assert_eq!(streams(&subscriptions(&store, 150).await), ["late", "over"], "another one ended");
    subscribe(&store, "over", &json!({ "p": 1 }), None, None).await;
    assert_eq!(streams(&subscriptions(&store, 150).await), ["late"]);
    assert!(subscriptions(&store, 201).await.is_empty());
    assert!(subscriptions(&store, 0).await.is_empty(), "what was dropped does not come back");
}

/// Whoever waits for a stream's first sync learns of it, and of the last one after a restart.
pub async fn subscriptions_know_when_they_were_complete(mut subject: Box<dyn Subject>) {
    subscribe(&subject.store(), "one", &json!({}), None, Some(1000)).await;
    subscribe(&subject.store(), "two", &json!({ "p": 1 }), None, Some(1000)).await;
    let requested = subscriptions(&subject.store(), 0).await;
    let mut server = Server { requested, now: 60, ..Server::default() };
    server.bucket("a", 3);
    server.because_of("a", &[0, 1]);
    for (now, wanted) in [(60, 60), (40, 60), (70, 70)] {
        server.now = now;
        assert_eq!(server.sync(&subject.store()).await, PublishOutcome::Published);
        let seen: Vec<_> = subscriptions(&subject.store(), 0).await.iter().map(|one| one.last_synced_at).collect();
        assert_eq!(seen, [Some(WallTime(wanted)); 2]);
    }
    subscribe(&subject.store(), "late", &json!({}), None, Some(1000)).await;
    subscribe(&subject.store(), "two", &json!({ "p": 1 }), None, Some(2000)).await;
    subject.reopen().await;
    let seen: Vec<_> =
        subscriptions(&subject.store(), 0).await.into_iter().map(|one| (one.stream, one.last_synced_at)).collect();
    let at = Some(WallTime(70));
    assert_eq!(seen, [("late".to_owned(), None), ("one".to_owned(), at), ("two".to_owned(), at)]);
}
