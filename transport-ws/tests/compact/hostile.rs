//! Clients that break rules, or take their time: each is told so, or cut, and no other client notices.

use std::time::Duration;

use bytes::Bytes;
use syncline_transport_ws::WebSocketLimits;
use syncline_transport_ws::compact::{ClientFrame, ServerFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::bench::{Bench, LIMIT, ask, open};

fn limits() -> WebSocketLimits {
    WebSocketLimits { request_bytes: 64 << 10, ..WebSocketLimits::default() }
}

#[tokio::test]
async fn malformed_frames_close_their_connection() {
    let mut bench = Bench::start(limits()).await;
    let mut bystander = bench.streaming("anna").await;
    let cut = open(2, "good.anna", 1).encode().unwrap();
    // A frame of a server, a kind that this version does not have, one cut off, bytes after one, compressed ones.
    for bytes in [
        Bytes::new(),
        Bytes::from_static(&[7, 1]),
        Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]),
        cut.slice(..cut.len() - 1),
        [&cut[..], &[0]].concat().into(),
        zstd::bulk::compress(&vec![0; 50 << 20], 1).unwrap().into(),
    ] {
        let mut client = bench.streaming("anna").await;
        client.send(Message::Binary(bytes)).await;
        client.expect_close(1002, "a message is no frame of this version").await;
        bench.streams_are(1).await;
    }
    for (frame, reason) in [
        (open(1, "good.anna", 1), "the number of a call is not above those before"),
        (ClientFrame::Cancel { call: 9 }, "there never was such a call"),
        (ClientFrame::Credit { call: 1, bytes: 0 }, "a grant of nothing"),
    ] {
        let mut client = bench.streaming("anna").await;
        client.say(&frame).await;
        client.expect_close(1002, reason).await;
    }
    bench.streams_are(1).await;
    bench.is_unharmed(&mut bystander).await;
}

#[tokio::test]
async fn messages_that_are_no_frames_or_too_large_close_their_connection() {
    let mut bench = Bench::start(limits()).await;
    let mut bystander = bench.streaming("anna").await;
    let mut client = bench.streaming("anna").await;
    client.send(Message::Text("hello".into())).await;
    client.expect_close(1003, "a message is text").await;
    let mut client = bench.streaming("anna").await;
    client.send(Message::Binary(vec![0; 65 << 10].into())).await;
    client.expect_close(1009, "request_bytes").await;
    // Announced, and never sent: nothing is held for it.
    let mut client = bench.streaming("anna").await;
    client.socket.get_mut().write_all(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
    client.socket.get_mut().write_all(&[0; 8]).await.unwrap();
    client.expect_close(1009, "request_bytes").await;
    // Compressed by an extension that nobody has agreed to.
    let mut client = bench.streaming("anna").await;
    client.socket.get_mut().write_all(&[0xc2, 0x81, 0, 0, 0, 0, 0]).await.unwrap();
    client.expect_close(1002, "the rules of WebSocket").await;
    bench.streams_are(1).await;
    bench.is_unharmed(&mut bystander).await;
}

#[tokio::test]
async fn who_has_no_token_is_refused_and_soon_closed() {
    let setup_time = Duration::from_millis(700);
    let mut bench = Bench::start(WebSocketLimits { setup_time, ..limits() }).await;
    let mut bystander = bench.streaming("anna").await;
    // Slower than a handshake may be.
    let mut slow = TcpStream::connect(bench.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(LIMIT, slow.read_to_end(&mut received)).await.expect("the server closes").unwrap();
    assert_eq!(received, b"");
    let mut silent = bench.client().await;
    silent.expect_close(1008, "no token was accepted in time").await;
    // Half a message is as good as none.
    let mut slow = bench.client().await;
    slow.socket.get_mut().write_all(&[0x82, 0xfe, 0x01]).await.unwrap();
    slow.expect_close(1008, "no token was accepted in time").await;
    let mut guesser = bench.client().await;
    for call in 1..=3 {
        guesser.say(&open(call, "forged", 1)).await;
        guesser.expect_failure(call, "PSYNC_S2101").await;
    }
    guesser.say(&ask(4, "forged")).await;
    guesser.expect_failure(4, "PSYNC_S2101").await;
    guesser.expect_close(1008, "no token was accepted in time").await;
    bench.streams_are(1).await;
    bench.is_unharmed(&mut bystander).await;
}

#[tokio::test]
async fn half_open_connections_are_closed_and_pings_keep_one_open() {
    let lifetime = Duration::from_millis(800);
    let bench = Bench::start(WebSocketLimits { lifetime, ..limits() }).await;
    let mut gone = bench.streaming("anna").await;
    let mut alive = bench.streaming("ben").await;
    // It is gone long before the other would be, had it not given signs of life.
    let mut closing = std::pin::pin!(gone.expect_close(1008, "there was no sign of life for too long"));
    let mut pings = tokio::time::interval(lifetime / 8);
    let deadline = tokio::time::Instant::now() + lifetime * 2;
    let mut closed = false;
    while !closed || tokio::time::Instant::now() < deadline {
        tokio::select! {
            () = &mut closing, if !closed => closed = true,
            _ = pings.tick() => alive.send(Message::Ping(Bytes::new())).await,
        }
    }
    bench.note("ben", "b2", "x");
    alive.note(1, "b2").await;
}

#[tokio::test]
async fn exactly_what_is_granted_is_sent_and_who_grants_or_reads_nothing_is_cut() {
    let patience = Duration::from_millis(700);
    let mut bench = Bench::start(WebSocketLimits { patience, ..limits() }).await;
    // More than the buffers of two sockets hold.
    for number in 0..400 {
        bench.note("ben", &format!("big{number}"), &"x".repeat(100_000));
    }
    let mut bystander = bench.streaming("anna").await;
    let mut stingy = bench.client().await;
    stingy.say(&open(1, "good.ben", 100_000)).await;
    stingy.say(&ClientFrame::Credit { call: 1, bytes: 23_456 }).await;
    stingy.expect_failure(1, "PSYNC_S2003").await;
    assert_eq!(stingy.bytes, 123_456);
    // Its connection is as good as before.
    stingy.say(&ask(2, "good.ben")).await;
    assert!(matches!(stingy.hear().await, Ok(ServerFrame::WriteCheckpoint { call: 2, .. })));
    stingy.expect_close(1008, "there was no call for too long").await;
    let mut deaf = bench.client().await;
    deaf.say(&open(1, "good.ben", u64::MAX)).await;
    bench.streams_are(2).await;
    bench.is_unharmed(&mut bystander).await;
    bench.streams_are(1).await; // it was cut
    bench.is_unharmed(&mut bystander).await;
    drop(deaf);
}

#[tokio::test]
async fn too_many_calls_and_too_many_connections_are_refused() {
    let mut bench = Bench::start(WebSocketLimits { connections: 2, ..limits() }).await;
    let mut bystander = bench.streaming("anna").await;
    let mut many = bench.client().await;
    for call in 1..=8 {
        many.say(&open(call, "good.ben", u64::MAX)).await;
        many.note(call, "b1").await;
    }
    many.say(&open(9, "good.ben", u64::MAX)).await;
    many.expect_failure(9, "PSYNC_S2304").await;
    many.say(&ClientFrame::Cancel { call: 4 }).await;
    many.say(&open(10, "good.ben", u64::MAX)).await;
    many.note(10, "b1").await;
    bench.streams_are(9).await;
    let mut third = bench.client().await;
    third.expect_close(1013, "too many connections").await;
    drop(many);
    bench.streams_are(1).await;
    bench.is_unharmed(&mut bystander).await;
}

#[tokio::test]
async fn a_service_that_closes_ends_streams_and_their_connections_in_order() {
    let bench = Bench::start(limits()).await;
    let mut client = bench.streaming("anna").await;
    client.say(&open(2, "good.ben", u64::MAX)).await;
    client.note(2, "b1").await;
    bench.service.close().await;
    let mut ended = Vec::new();
    while ended.len() < 2 {
        match client.hear().await.unwrap() {
            ServerFrame::Ended { call } => ended.push(call),
            ServerFrame::Lines { .. } => {}
            frame => panic!("{frame:?}"),
        }
    }
    client.expect_close(1001, "the service shuts down").await;
    drop(client);
    timeout(LIMIT, bench.endpoint.drained()).await.unwrap();
}
