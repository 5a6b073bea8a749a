//! What is owed when the network breaks: every wait has an end (C5), and no break is taken for one.

use std::sync::Arc;

use super::listener::*;
use super::stage::*;
use super::wire::Network;
use crate::error::{ErrorKind, Result};
use crate::server::ServiceLimits;
use crate::testing::deadline::Deadline;

/// A server that cannot be reached is `Unavailable`, and that is soon known.
pub async fn an_absent_server_is_unavailable(network: Arc<dyn Network>) {
    let transport = network.connect_to_nobody().await;
    let deadline = Deadline::after(network.patience());
    let opened = deadline.wait("a failure", transport.open(&request(), &token("anna"))).await;
    assert_unavailable(opened, "a stream from nobody");
    let asked = deadline.wait("a failure", transport.write_checkpoint("device", &token("anna"))).await;
    assert_unavailable(asked, "a write checkpoint from nobody");
}

/// A connection that breaks in sight is an error at once, never an end; the server learns of it, and a new one can be made.
pub async fn a_broken_connection_is_an_error_and_no_end(network: Arc<dyn Network>) {
    let stage = Stage::new(&*network).await;
    stage.note("anna", "n1", "x").await;
    for round in 0..3 {
        let deadline = stage.deadline();
        let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
        listener.checkpoint(deadline).await;
        network.cut().await;
        let (lines, end) = listener.rest(deadline).await;
        match end {
            End::Failed(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            End::Clean => panic!("a broken connection was taken for the end of the stream, after {lines:?}"),
        }
        stage.streams_are(0).await;
        stage.note("anna", "n1", &round.to_string()).await;
    }
    let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), stage.deadline()).await;
    assert_eq!(ids(&listener.checkpoint(stage.deadline()).await).last().map(String::as_str), Some("n1"));
}

/// A server that falls silent, as behind a half-open connection, is given up: in a stream, and before any answer.
pub async fn a_silent_server_is_given_up(network: Arc<dyn Network>) {
    let (store, service) = Stage::service(ServiceLimits::default()).await;
    let transport = network.connect_impatiently(service.clone()).await;
    let stage = Stage::of(store, service, transport, network.patience());
    stage.note("anna", "n1", "x").await;
    let deadline = stage.deadline();
    let mut listener = Listener::open(&*stage.transport, &request(), &token("anna"), deadline).await;
    listener.checkpoint(deadline).await;
    network.stall().await;
    let (_, end) = listener.rest(deadline).await;
    match end {
        End::Failed(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        End::Clean => panic!("silence was taken for the end of the stream"),
    }
    let opened = deadline.wait("a silent server is given up", stage.transport.open(&request(), &token("anna"))).await;
    assert_unavailable(opened, "a stream from a silent server");
    let credentials = token("anna");
    let ask = stage.transport.write_checkpoint("device", &credentials);
    assert_unavailable(
        deadline.wait("a silent server is given up", ask).await,
        "a write checkpoint from a silent server",
    );
}

fn assert_unavailable<T>(answer: Result<T>, what: &str) {
    match answer {
        Ok(_) => panic!("{what} cannot be had"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}"),
    }
}
