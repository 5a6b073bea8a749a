//! Clients that break rules, or take their time: each is told so, or cut, and no other client notices.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

mod bench;

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use syncline_transport_ws::frame::{ErrorCode, Frame, MAX_31, Payload};
use syncline_transport_ws::{self as ws, WebSocketLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::bench::{Bench, LIMIT, keepalive, request, setup, setup_with};

fn limits() -> WebSocketLimits {
    WebSocketLimits { request_bytes: 64 << 10, ..WebSocketLimits::default() }
}

#[tokio::test]
async fn malformed_frames_close_their_connection() {
    let bench = Bench::start(limits()).await;
    let mut bystander = bench.bystander().await;
    for bytes in [
        &b""[..],
        b"\x00\x00\x00\x01",
        b"\x80\x00\x00\x01\x28\x40",             // the reserved bit
        b"\x00\x00\x00\x01\x20\x00\x00",         // a grant cut off
        b"\x00\x00\x00\x01\x29\x20\xff\xff\xff", // metadata that is not there
        b"\x00\x00\x00\x00\xfc\x00",             // an unknown type
    ] {
        let mut client = bench.streaming(1).await;
        client.line_with("checkpoint").await;
        client.send(Message::Binary(Bytes::from_static(bytes))).await;
        client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
        client.expect_close(Some(1002)).await;
        bench.streams_are(1).await;
    }
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn messages_that_are_no_frames_close_their_connection() {
    let bench = Bench::start(limits()).await;
    let mut bystander = bench.bystander().await;
    let mut client = bench.streaming(1).await;
    client.send(Message::Text("hello".into())).await;
    client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
    client.expect_close(Some(1003)).await;

    // A frame without a mask, which only servers may send.
    let mut client = bench.streaming(1).await;
    client.line_with("checkpoint").await;
    client.socket.get_mut().write_all(&[0x82, 0x01, 0x00]).await.unwrap();
    client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
    client.expect_close(Some(1002)).await;
    bench.streams_are(1).await;
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn messages_that_are_too_large_close_their_connection() {
    let bench = Bench::start(limits()).await;
    let mut bystander = bench.bystander().await;
    // In one message, of which the server reads the head alone.
    let mut client = bench.streaming(1).await;
    client.line_with("checkpoint").await;
    client.send(Message::Binary(vec![0; 65 << 10].into())).await;
    client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
    client.expect_close(Some(1009)).await;
    // Announced, and never sent.
    let mut client = bench.streaming(1).await;
    client.line_with("checkpoint").await;
    client.socket.get_mut().write_all(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
    client.socket.get_mut().write_all(&[0; 8]).await.unwrap();
    client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
    client.expect_close(Some(1009)).await;
    // In fragments of a request.
    let mut client = bench.client().await;
    client.say(&setup("Token good")).await;
    let part = || Payload::of(vec![b' '; 40 << 10].into());
    client.say(&Frame::RequestStream { stream: 1, initial: 1, follows: true, payload: part() }).await;
    client.say(&Frame::Payload { stream: 1, follows: true, complete: false, next: true, payload: part() }).await;
    client.expect_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001").await;
    client.expect_close(Some(1009)).await;
    bench.streams_are(1).await;
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn impossible_grants_end_their_stream_alone() {
    let bench = Bench::start(limits()).await;
    let mut bystander = bench.bystander().await;
    let mut client = bench.streaming(MAX_31).await;
    client.line_with("checkpoint_complete").await;
    for (stream, n) in [(3, 0), (5, MAX_31 + 1), (7, u32::MAX)] {
        client.say(&request(stream, 1)).await;
        client.say(&Frame::RequestN { stream, n }).await;
        client.expect_error(stream, ErrorCode::INVALID, "PSYNC_S2001").await;
        client.say(&request(stream, n)).await;
        client.expect_error(stream, ErrorCode::INVALID, "PSYNC_S2001").await;
    }
    // Grants that add up to more than a number holds are only many.
    for _ in 0..3 {
        client.say(&Frame::RequestN { stream: 1, n: MAX_31 }).await;
    }
    bench.source.put("lists", json!({ "id": "more", "name": "x" })).unwrap();
    client.line_with("more").await;
    bench.streams_are(2).await;
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn who_has_no_token_is_refused_with_a_code() {
    let bench = Bench::start(limits()).await;
    let mut bystander = bench.bystander().await;
    for (frame, psync) in [
        (setup_with(None), "PSYNC_S2101"),
        (setup_with(Some(Bytes::new())), "PSYNC_S2101"),
        (setup_with(Some(Bytes::from_static(b"{"))), "PSYNC_S2101"),
        (setup_with(Some(Bytes::from_static(b"{}"))), "PSYNC_S2106"),
        (setup_with(Some(Bytes::from_static(b"{\"token\":7}"))), "PSYNC_S2106"),
        (setup(""), "PSYNC_S2106"),
        (setup("good"), "PSYNC_S2106"),
        (setup("Token forged"), "PSYNC_S2101"),
    ] {
        let mut client = bench.client().await;
        client.say(&frame).await;
        // As SDKs do, without waiting for an answer.
        client.say(&request(1, 10)).await;
        client.expect_error(0, ErrorCode::REJECTED_SETUP, psync).await;
        client.expect_close(None).await;
    }
    let mut client = bench.client().await;
    client.say(&request(1, 10)).await;
    client.expect_error(0, ErrorCode::UNSUPPORTED_SETUP, "PSYNC_S2001").await;
    client.expect_close(None).await;
    bench.streams_are(1).await;
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn who_does_not_set_up_is_closed() {
    let setup_time = Duration::from_millis(400);
    let bench = Bench::start(WebSocketLimits { setup_time, ..limits() }).await;
    let mut bystander = bench.bystander().await;
    for head in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut slow = TcpStream::connect(bench.address).await.unwrap();
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        timeout(LIMIT, slow.read_to_end(&mut received)).await.expect("the server closes").unwrap();
        assert_eq!(received, b"");
    }
    let mut silent = bench.client().await;
    silent.expect_error(0, ErrorCode::REJECTED_SETUP, "PSYNC_S2003").await;
    silent.expect_close(Some(1008)).await;
    // Half a message is as good as none.
    let mut slow = bench.client().await;
    slow.socket.get_mut().write_all(&[0x82, 0xfe, 0x01]).await.unwrap();
    slow.expect_error(0, ErrorCode::REJECTED_SETUP, "PSYNC_S2003").await;
    slow.expect_close(Some(1008)).await;
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn too_many_connections_are_refused_with_a_code() {
    let bench = Bench::start(WebSocketLimits { connections: 2, ..limits() }).await;
    let mut bystander = bench.bystander().await;
    let second = bench.streaming(1).await;
    bench.streams_are(2).await;
    let mut third = bench.client().await;
    third.expect_error(0, ErrorCode::REJECTED_SETUP, "PSYNC_S2304").await;
    third.expect_close(None).await;
    drop(second);
    bench.streams_are(1).await;
    // The place is free soon after its stream is.
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let mut again = bench.client().await;
        // It may be closed before it has said anything.
        for frame in [setup("Token good"), request(1, 1)] {
            let _ = again.socket.feed(Message::Binary(frame.encode().unwrap())).await;
        }
        let _ = again.socket.flush().await;
        if let Some(Ok(Message::Binary(bytes))) = timeout(LIMIT, again.socket.next()).await.unwrap()
            && matches!(Frame::decode(bytes).unwrap(), Frame::Payload { .. })
        {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place stays taken");
    }
    bystander.is_unharmed().await;
}

#[tokio::test]
async fn signs_of_life_are_answered_at_once_while_nothing_is_granted() {
    let bench = Bench::start(limits()).await;
    let mut client = bench.streaming(1).await;
    client.line_with("checkpoint").await;
    for data in [&b"one"[..], b"two"] {
        client.say(&keepalive(data)).await;
        let answer = Frame::Keepalive { respond: false, position: 0, data: Bytes::from_static(data) };
        assert_eq!(client.hear().await, Ok(answer), "and no line before it");
    }
    client.say(&Frame::RequestN { stream: 1, n: 1 }).await;
    client.line_with("l1").await;
    client.say(&Frame::Cancel { stream: 1 }).await;
    bench.streams_are(0).await;
    client.say(&request(3, MAX_31)).await;
    client.line_with("checkpoint_complete").await;
}

#[tokio::test]
async fn who_grants_nothing_and_who_reads_nothing_is_cut() {
    let patience = Duration::from_millis(500);
    let bench = Bench::start(WebSocketLimits { patience, ..limits() }).await;
    // More than the buffers of two sockets hold.
    for number in 0..400 {
        bench.source.put("lists", json!({ "id": format!("big{number}"), "name": "x".repeat(100_000) })).unwrap();
    }
    let mut bystander = bench.bystander().await;
    bystander.is_unharmed().await;
    let mut stingy = bench.streaming(1).await;
    stingy.expect_error(1, ErrorCode::APPLICATION_ERROR, "PSYNC_S2003").await;
    stingy.expect_error(0, ErrorCode::CONNECTION_CLOSE, "PSYNC_S2003").await;
    stingy.expect_close(Some(1008)).await;
    let deaf = bench.streaming(MAX_31).await;
    bench.streams_are(2).await;
    bystander.is_unharmed().await;
    bench.streams_are(1).await; // it was cut
    bystander.is_unharmed().await;
    drop(deaf);
}

#[tokio::test]
async fn dropping_the_server_cuts_its_connections() {
    let bench = Bench::start(limits()).await;
    let mut client = bench.streaming(MAX_31).await;
    client.line_with("checkpoint_complete").await;
    bench.server.abort();
    let said = timeout(LIMIT, client.socket.next()).await.expect("the connection is cut");
    assert!(matches!(said, Some(Err(_)) | None), "{said:?}");
    bench.streams_are(0).await;
}

#[tokio::test]
async fn requests_that_are_no_handshake_are_answered_as_a_missing_route() {
    let service = Bench::start(limits()).await.service;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { ws::axum::serve(listener, ws::router::<()>(service)).await });
    let upgrade = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n";
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (headers, status) in [
        (String::new(), "404"),
        (format!("{upgrade}{key}"), "404"),
        (format!("{upgrade}{key}sec-websocket-version: 8\r\n"), "404"),
        (format!("{upgrade}sec-websocket-version: 13\r\n"), "404"),
        (format!("{key}sec-websocket-version: 13\r\n"), "404"),
        (format!("{upgrade}{key}sec-websocket-version: 13\r\n"), "101"),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /sync/stream HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(LIMIT, socket.read_u8()).await.unwrap().unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
        if status == "101" {
            // The answer to the key, as RFC 6455 states it.
            assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_is_drained_when_its_last_connection_has_gone() {
    let bench = Bench::start(limits()).await;
    timeout(LIMIT, bench.endpoint.drained()).await.unwrap();
    let mut client = bench.streaming(MAX_31).await;
    client.line_with("checkpoint_complete").await;
    let mut drained = std::pin::pin!(bench.endpoint.drained());
    assert!(futures::poll!(&mut drained).is_pending(), "a connection is open");
    bench.service.close().await;
    bench.streams_are(0).await;
    drop(client);
    timeout(LIMIT, drained).await.unwrap();
}
