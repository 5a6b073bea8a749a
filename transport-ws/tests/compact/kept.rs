//! The transport of a client: everything on one connection, and another one after it broke.

use std::time::Duration;

use futures::StreamExt;
use syncline_core::protocol::{ClientLine, Framing, LineDecoder, RequestedStreams, SyncRequest};
use syncline_core::{Credentials, ErrorKind, LineStream, Transport};
use syncline_transport_ws::{CompactTransport, WebSocketLimits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::bench::{Bench, LIMIT};

/// What stands between, counts connections, and cuts the last one when it is told to.
async fn counting(bench: &Bench) -> (String, mpsc::UnboundedReceiver<tokio::task::AbortHandle>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, connections) = mpsc::unbounded_channel();
    let server = bench.address;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let passing = tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
            sender.send(passing.abort_handle()).unwrap();
        }
    });
    (endpoint, connections)
}

/// The ids of notes up to the end of a checkpoint.
async fn checkpoint(stream: &mut LineStream) -> Vec<String> {
    assert_eq!(stream.framing, Framing::Compact);
    let mut decoder = LineDecoder::new(Framing::Compact, LineDecoder::DEFAULT_LIMIT);
    let mut ids = Vec::new();
    loop {
        decoder.push(timeout(LIMIT, stream.bytes.next()).await.unwrap().unwrap().unwrap());
        while let Some(line) = decoder.next().unwrap() {
            match line {
                ClientLine::Data(line) => {
                    ids.extend(line.operations.iter().map(|operation| operation.object_id.to_string()));
                }
                ClientLine::CheckpointComplete { .. } => return ids,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn other_wishes_and_tokens_and_write_checkpoints_need_no_other_connection() {
    let bench = Bench::start(WebSocketLimits::default()).await;
    let (endpoint, mut connections) = counting(&bench).await;
    let transport = CompactTransport::new(&endpoint).unwrap();
    let (anna, ben) = (Credentials::new("good.anna"), Credentials::new("good.ben"));
    let mut first = transport.open(&SyncRequest::default(), &anna).await.unwrap();
    // Before the first store's checkpoint there is an empty one.
    while checkpoint(&mut first).await != ["a1"] {}
    let nothing = RequestedStreams { include_defaults: false, subscriptions: Vec::new() };
    let narrow = SyncRequest { streams: Some(nothing), ..SyncRequest::default() };
    let mut second = transport.clone().open(&narrow, &anna).await.unwrap();
    drop(first);
    assert_eq!(checkpoint(&mut second).await, Vec::<String>::new());
    bench.streams_are(1).await;
    let mut third = transport.open(&SyncRequest::default(), &ben).await.unwrap();
    while checkpoint(&mut third).await != ["b1"] {}
    let number = transport.write_checkpoint("device", &anna).await.unwrap();
    assert!(transport.write_checkpoint("device", &anna).await.unwrap() > number);
    connections.recv().await.unwrap();
    assert!(connections.try_recv().is_err(), "one connection carries all of it");
    drop((second, third, transport));
    timeout(LIMIT, bench.endpoint.drained()).await.expect("the connection is closed when nobody can use it");
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced_at_the_next_call() {
    let bench = Bench::start(WebSocketLimits::default()).await;
    let (endpoint, mut connections) = counting(&bench).await;
    let transport = CompactTransport::new(&endpoint).unwrap();
    let anna = Credentials::new("good.anna");
    for _ in 0..3 {
        let mut stream = transport.open(&SyncRequest::default(), &anna).await.unwrap();
        checkpoint(&mut stream).await;
        // The call that comes upon a broken connection is made again on a new one.
        connections.recv().await.unwrap().abort();
        transport.write_checkpoint("device", &anna).await.unwrap();
        loop {
            match timeout(LIMIT, stream.bytes.next()).await.unwrap() {
                Some(Ok(_)) => {}
                Some(Err(error)) => break assert_eq!(error.kind(), ErrorKind::Unavailable),
                None => panic!("a broken connection is no end"),
            }
        }
        connections.recv().await.unwrap().abort();
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_it_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = CompactTransport::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        // Accepts the handshake, and no subprotocol.
        let (stream, _) = listener.accept().await.unwrap();
        let _kept = tokio_tungstenite::accept_async(stream).await.unwrap();
        std::future::pending::<()>().await;
    });
    let opened = transport.open(&SyncRequest::default(), &Credentials::new("x")).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Protocol);

    // One that accepts connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = CompactTransport::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let transport = transport.answer_timeout(Duration::from_millis(300));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.flush().await;
        std::future::pending::<()>().await;
    });
    let opened = timeout(LIMIT, transport.open(&SyncRequest::default(), &Credentials::new("x"))).await.unwrap();
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up_although_it_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = CompactTransport::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let transport = transport.idle_timeout(Duration::from_secs(3));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the trait of tungstenite has it so")]
        let agree = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", "syncline.v1".parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, agree).await.unwrap();
        let mut pings = tokio::time::interval(Duration::from_millis(50));
        // An empty ping, as often as it can be written.
        while socket.get_mut().write_all(&[0x89, 0]).await.is_ok() {
            pings.tick().await;
        }
    });
    // More than the buffers of two sockets hold.
    let metadata = [("padding".to_owned(), "x".repeat(20 << 20))].into();
    let request = SyncRequest { app_metadata: metadata, ..SyncRequest::default() };
    let opened = timeout(LIMIT, transport.open(&request, &Credentials::new("x"))).await.unwrap();
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("takes nothing"), "{error}");
}
