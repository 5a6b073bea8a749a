//! What is owed when a request is refused, and when a stream ends.

use std::sync::Arc;
use std::time::Duration;

use super::listener::*;
use super::stage::*;
use super::wire::Wire;
use crate::error::ErrorKind;
use crate::protocol::ClientLine;
use crate::server::ServiceLimits;
use crate::testing::deadline::dropped_after;

/// Credentials that the service refuses are `Unauthorized`, and leave nothing behind.
pub async fn refused_credentials_are_unauthorized(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    for _ in 0..3 {
        let opened = stage.deadline().wait("a refusal", stage.transport.open(&request(), &forged())).await;
        let error = opened.err().unwrap_or_else(|| panic!("a forged token opens a stream"));
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        let asked = stage.deadline().wait("a refusal", stage.transport.write_checkpoint("device", &forged())).await;
        let error = asked.err().unwrap_or_else(|| panic!("a forged token gets a write checkpoint"));
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    }
    stage.streams_are(0).await;
    stage.note("anna", "n1", "x").await;
    let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), stage.deadline()).await;
    assert_eq!(ids(&listener.checkpoint(stage.deadline()).await), ["n1"]);
}

/// A stream that fails at the server is an error: it is refused, or fails; it never ends as if all was well.
pub async fn a_stream_that_fails_is_no_end(wire: Arc<dyn Wire>) {
    let limits = ServiceLimits { buckets_per_stream: 0, ..ServiceLimits::default() };
    let stage = Stage::with(&*wire, limits).await;
    stage.note("anna", "n1", "x").await;
    let deadline = stage.deadline();
    if let Ok(stream) = deadline.wait("an answer", stage.transport.open(&request(), &token("anna"))).await {
        let (lines, end) = Listener::of(stream).rest(deadline).await;
        assert!(matches!(end, End::Failed(_)), "a stream that failed ended as if all was well, after {lines:?}");
    }
    stage.streams_are(0).await;
}

/// A stream that is dropped, before it began, while much of it is on its way or while it is idle, is soon gone at the server.
pub async fn dropping_a_stream_frees_its_session(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    for number in 0..40 {
        stage.note("anna", &format!("n{number}"), &"x".repeat(100_000)).await;
    }
    for round in 0..6 {
        let deadline = stage.deadline();
        let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
        assert!(stage.service.readiness().streams <= 1, "the stream before is gone");
        match round % 3 {
            0 => {}
            1 => listener.take_piece(deadline).await,
            _ => drop(listener.checkpoint(deadline).await),
        }
        drop(listener);
        stage.streams_are(0).await;
    }
}

/// A call that opens a stream may be dropped at any point: nothing stays behind, and the next call works.
pub async fn a_cancelled_open_leaves_nothing(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    stage.note("anna", "n1", "x").await;
    for polls in 0..12 {
        let (request, credentials) = (request(), token("anna"));
        let open = stage.transport.open(&request, &credentials);
        drop(dropped_after(polls, open, stage.deadline()).await);
        stage.streams_are(0).await;
        let mut listener = Listener::open(&*stage.transport, &request, &credentials, stage.deadline()).await;
        assert_eq!(ids(&listener.checkpoint(stage.deadline()).await), ["n1"]);
        drop(listener);
        stage.streams_are(0).await;
    }
}

/// A stream says when its token ends and ends with it, as the server wants it: that is no error.
pub async fn a_stream_ends_with_its_token(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    stage.note("anna", "n1", "x").await;
    let deadline = stage.deadline();
    // Long enough for a busy machine to send the rows.
    let credentials = short_lived("anna", Duration::from_secs(4));
    let mut listener = Listener::open(&*stage.transport, &request(), &credentials, deadline).await;
    assert_eq!(ids(&listener.checkpoint(deadline).await), ["n1"]);
    let (lines, end) = listener.rest(deadline).await;
    assert!(matches!(end, End::Clean), "an ended token ends its stream without an error, but {end:?}");
    let told = lines.iter().any(|line| matches!(line, ClientLine::TokenExpiresIn(left) if *left <= 0));
    assert!(told, "the last line says that the token has ended: {lines:?}");
    stage.streams_are(0).await;
}

/// A service that closes ends all streams after a whole line and without an error, also one of which much is still on its
/// way; then it is `Unavailable`.
pub async fn closing_the_service_ends_its_streams(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    stage.note("anna", "n1", "x").await;
    for number in 0..40 {
        stage.note("ben", &format!("n{number}"), &"x".repeat(100_000)).await;
    }
    let mut busy = Listener::open(&*stage.transport, &request(), &token("ben"), stage.deadline()).await;
    busy.take_piece(stage.deadline()).await;
    let mut listeners = vec![busy];
    for _ in 0..3 {
        let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), stage.deadline()).await;
        listener.checkpoint(stage.deadline()).await;
        listeners.push(listener);
    }
    stage.streams_are(4).await;
    stage.service.close().await;
    for mut listener in listeners {
        let (_, end) = listener.rest(stage.deadline()).await;
        assert!(matches!(end, End::Clean), "a service that closes ends its streams without an error, but {end:?}");
    }
    stage.streams_are(0).await;
    let opened = stage.deadline().wait("a refusal", stage.transport.open(&request(), &token("anna"))).await;
    let error = opened.err().unwrap_or_else(|| panic!("a closed service opens a stream"));
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
