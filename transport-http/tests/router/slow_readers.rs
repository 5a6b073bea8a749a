//! Clients that do not read, or do not send.

use std::future::IntoFuture;
use std::time::Duration;

use serde_json::json;
use syncline_core::ServiceLimits;
use syncline_transport_http::{HttpLimits, Listener, axum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Bench, LIMIT, SECRET, claims, lines_until, token};

/// A bench with much to send, whose patience is short.
async fn impatient() -> Bench {
    let limits = HttpLimits {
        patience: Duration::from_millis(500),
        request_time: Duration::from_millis(500),
        ..HttpLimits::default()
    };
    let bench = Bench::with(limits, ServiceLimits::default()).await;
    // More than the buffers of two sockets hold.
    for number in 0..400 {
        bench.source.put("lists", json!({ "id": format!("big{number}"), "name": "x".repeat(100_000) })).unwrap();
    }
    bench
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_holds_up_nobody() {
    let bench = impatient().await;
    // Wait until everything is replicated, so that there is much to send.
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let lines = lines_until(bench.stream().send().await.unwrap(), "checkpoint").await;
        let count = lines[0]["checkpoint"]["buckets"][0]["count"].as_u64().unwrap_or(0);
        if count >= 401 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {count} rows are replicated");
    }
    bench.streams_are(0).await;
    let mut silent = TcpStream::connect(bench.address).await.unwrap();
    let token = token("HS256", Some("sample-kid"), SECRET, &claims());
    let request =
        format!("POST /sync/stream HTTP/1.1\r\nhost: x\r\nauthorization: Token {token}\r\ncontent-length: 0\r\n\r\n");
    silent.write_all(request.as_bytes()).await.unwrap();
    bench.streams_are(1).await;
    // Another client gets everything meanwhile.
    let lines = lines_until(bench.stream().send().await.unwrap(), "checkpoint_complete").await;
    assert!(lines.len() > 3);
    bench.streams_are(0).await; // both are gone: one because it left, one because it was cut
    let mut received = Vec::new();
    let rest = tokio::time::timeout(LIMIT, silent.read_to_end(&mut received)).await.unwrap();
    assert!(rest.is_err() || !received.ends_with(b"0\r\n\r\n"), "the stream was cut, not ended");
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap().idle(Duration::from_millis(200));
    let address = axum::serve::Listener::local_addr(&listener).unwrap();
    tokio::spawn(axum::serve(listener, axum::Router::new()).into_future());
    for head in ["", "GET / HTTP/1.1\r\nhost: x\r\n", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let closed = tokio::time::timeout(LIMIT, idle.read_to_end(&mut received)).await;
        assert!(closed.is_ok(), "after {head:?}");
        assert_eq!(head.ends_with("\r\n\r\n"), received.starts_with(b"HTTP/1.1 404"), "after {head:?}");
    }
}

#[tokio::test]
async fn a_request_body_that_does_not_arrive_is_not_waited_for() {
    let bench = impatient().await;
    let mut slow = TcpStream::connect(bench.address).await.unwrap();
    let head =
        "POST /sync/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, slow.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}
