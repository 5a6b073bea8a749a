//! What is owed of the lines of a stream.

use std::sync::Arc;

use super::listener::*;
use super::stage::*;
use super::wire::Wire;
use crate::protocol::{BucketPosition, ClientLine, RequestedStreams, RequestedSubscription, SyncRequest};

/// Lines arrive whole, in order, and are those that a client in the same process gets: of the first checkpoint and of later
/// ones.
pub async fn lines_are_those_of_the_service(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    for number in 0..40 {
        stage.note("anna", &format!("n{number}"), &"ünï ".repeat(number * 20)).await;
        stage.note("ben", &format!("n{number}"), "x").await;
    }
    let deadline = stage.deadline();
    let mut there = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
    let mut here = Listener::open(&stage.here, &request(), &token("anna"), deadline).await;
    for round in 0..6 {
        let (got, wanted) = (there.checkpoint(deadline).await, here.checkpoint(deadline).await);
        assert_same(&got, &wanted);
        assert!(!ids(&got).is_empty(), "rows have come");
        let text = "new ".repeat(round * 5_000);
        stage.note("anna", &format!("n{round}"), &text).await;
    }
}

/// Pieces may be cut anywhere; together they are the bytes that the service made for this framing, to the last one.
pub async fn bytes_join_to_those_of_the_service(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    for number in 0..10 {
        stage.note("anna", &format!("n{number}"), &"text ".repeat(number * 3_000)).await;
    }
    let deadline = stage.deadline();
    let mut there = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
    let identity = ok(stage.service.authenticate(&token("anna").token).await);
    let bytes = ok(stage.service.stream(identity, request(), there.framing));
    let mut here = Listener::of(crate::transport::LineStream { framing: there.framing, bytes });
    assert_same(&there.checkpoint(deadline).await, &here.checkpoint(deadline).await);
    stage.service.close().await;
    let (_, end) = there.rest(deadline).await;
    assert!(matches!(end, End::Clean), "the stream is ended by the service: {end:?}");
    here.rest(deadline).await;
    let differs = there.bytes.iter().zip(&here.bytes).position(|(there, here)| there != here);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(there.bytes.len(), here.bytes.len(), "so many bytes came");
}

/// A request arrives with all that it holds: positions, parameters, subscriptions.
pub async fn a_request_arrives_as_it_was_made(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    let row = |stream, parameter, id: &str| (stream, parameter, id.to_owned(), "x".to_owned());
    stage.publish(&[row("notes", "anna", "n1"), row("texts", "de", "de1"), row("texts", "fr", "fr1")]).await;
    stage.publish(&[row("topics", "a \"b\" & ü", "t1"), row("topics", "other", "t2")]).await;
    let deadline = stage.deadline();
    let mut first = Listener::open(&stage.here, &request(), &token("anna"), deadline).await;
    let lines = first.checkpoint(deadline).await;
    let [ClientLine::Checkpoint(checkpoint), ..] = &lines[..] else { panic!("a checkpoint comes first") };
    let position = |bucket: &crate::protocol::BucketDescription| BucketPosition {
        name: bucket.bucket.to_string(),
        after: checkpoint.last_op_id.to_string(),
    };
    let positions = checkpoint.buckets.iter().map(position).collect();
    let parameters = |name: &str, value: &str| serde_json::Map::from_iter([(name.to_owned(), value.into())]);
    let subscription = RequestedSubscription {
        stream: "topics".into(),
        parameters: Some(parameters("topic", "a \"b\" & ü")),
        override_priority: Some(1),
    };
    let only = RequestedStreams { include_defaults: false, subscriptions: vec![subscription.clone()] };
    let all = RequestedStreams { include_defaults: true, subscriptions: vec![subscription] };
    let requests: [(SyncRequest, &[&str]); 5] = [
        (request(), &["n1"]),
        (SyncRequest { buckets: positions, ..request() }, &[]),
        (SyncRequest { parameters: parameters("language", "fr"), ..request() }, &["fr1", "n1"]),
        (SyncRequest { streams: Some(only), ..request() }, &["t1"]),
        (SyncRequest { streams: Some(all), client_id: None, ..request() }, &["n1", "t1"]),
    ];
    for (request, wanted) in requests {
        let mut there = Listener::open(&*stage.transport, &request, &token("anna"), deadline).await;
        let mut here = Listener::open(&stage.here, &request, &token("anna"), deadline).await;
        let (lines, same) = (there.checkpoint(deadline).await, here.checkpoint(deadline).await);
        let mut found = ids(&lines);
        found.sort();
        assert_eq!(found, wanted, "what {request:?} yields");
        assert_same(&lines, &same);
    }
}

/// A row of several megabytes arrives in its line.
pub async fn a_large_line_arrives(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    let text: String =
        (0..600_000).map(|number: u32| format!("{:08x} ü ", number.wrapping_mul(2_654_435_761))).collect();
    stage.note("anna", "large", &text).await;
    stage.note("anna", "small", "x").await;
    let deadline = stage.deadline();
    let mut there = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
    let mut here = Listener::open(&stage.here, &request(), &token("anna"), deadline).await;
    assert_same(&there.checkpoint(deadline).await, &here.checkpoint(deadline).await);
    assert!(there.bytes.len() > text.len(), "all of it has come");
}

/// Who takes nothing of a stream holds up nobody else, and still gets everything in the end.
pub async fn a_slow_reader_gets_everything_and_holds_up_nobody(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    // More than the buffers on the way hold, and not to be made smaller.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 29))
    };
    for number in 0..80 {
        let text: String = (0..12_000).map(|_| noise()).collect();
        stage.note("anna", &format!("n{number}"), &text).await;
    }
    let deadline = stage.deadline();
    let mut slow = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
    slow.take_piece(deadline).await;
    let mut quick = Listener::open(&*stage.transport, &request(), &token("anna"), stage.deadline()).await;
    let wanted = quick.checkpoint(stage.deadline()).await;
    assert_eq!(ids(&wanted).len(), 80);
    stage.note("anna", "after all", "x").await;
    quick.checkpoint(stage.deadline()).await;
    drop(quick);
    // The first checkpoint may have been left for the second.
    let mut got = Vec::new();
    while ids(&got).last().is_none_or(|last| last != "after all") {
        got.extend(slow.checkpoint(stage.deadline()).await);
    }
    let rows = ids(&got);
    assert!((0..80).all(|number| rows.contains(&format!("n{number}"))), "the slow one has everything");
}

/// Many streams are open at once, and each gets its own lines.
pub async fn many_streams_are_open_at_once(wire: Arc<dyn Wire>) {
    const STREAMS: usize = 60;
    let stage = Stage::new(&*wire).await;
    let users: Vec<String> = (0..STREAMS).map(|number| format!("user{number}")).collect();
    let publish = async |round: &str| {
        let rows: Vec<_> =
            users.iter().map(|user| ("notes", user.as_str(), format!("{round} of {user}"), "x".to_owned())).collect();
        stage.publish(&rows).await;
    };
    publish("first").await;
    let deadline = stage.deadline();
    let open = users.iter().map(async |user| {
        let mut listener = Listener::open(&*stage.transport, &request(), &token(user), deadline).await;
        let lines = listener.checkpoint(deadline).await;
        assert_eq!(ids(&lines), [format!("first of {user}")], "each gets what its own token allows");
        listener
    });
    let mut listeners = futures::future::join_all(open).await;
    assert_eq!(stage.service.readiness().streams, STREAMS);
    publish("second").await;
    let more = listeners.iter_mut().zip(&users).map(async |(listener, user)| {
        let lines = listener.checkpoint(deadline).await;
        assert_eq!(ids(&lines), [format!("second of {user}")]);
    });
    futures::future::join_all(more).await;
    drop(listeners);
    stage.streams_are(0).await;
}
