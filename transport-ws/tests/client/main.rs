//! The client's transport against servers that are not ours: what they say, how they break, and what they leave out.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

mod fake_server;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use syncline_core::memory::{MemoryBucketStore, MemoryTransport};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{
    Authenticator, Credentials, Error, ErrorKind, Identity, LineStream, Result, SyncService, Transport, async_trait,
};
use syncline_transport_ws::WebSocketTransport;
use syncline_transport_ws::frame::{ErrorCode, Frame, Payload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::fake_server::{FakeServer, end, error, line};

const LIMIT: Duration = Duration::from_secs(20);

/// A transport over HTTP is not asked here.
fn transport(endpoint: &str) -> WebSocketTransport<MemoryTransport> {
    let nobody = MemoryTransport::new(SyncService::new(MemoryBucketStore::new(), Nobody));
    WebSocketTransport::new(endpoint, nobody).unwrap()
}

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _: &str) -> Result<Identity> {
        Err(Error::unauthorized("nobody is known"))
    }
}

async fn open(transport: &impl Transport) -> Result<LineStream> {
    let request = SyncRequest { raw_data: true, ..SyncRequest::default() };
    timeout(LIMIT, transport.open(&request, &Credentials::new("abc.def.ghi"))).await.expect("an answer in time")
}

async fn next(stream: &mut LineStream) -> Option<Result<Bytes>> {
    timeout(LIMIT, stream.bytes.next()).await.expect("an item in time")
}

/// Reads to the end: the lines, and what ended them.
async fn rest(stream: &mut LineStream) -> (Vec<Bytes>, Option<ErrorKind>) {
    let mut lines = Vec::new();
    loop {
        match next(stream).await {
            Some(Ok(sign_of_life)) if sign_of_life.is_empty() => {}
            Some(Ok(line)) => lines.push(line),
            Some(Err(error)) => {
                assert!(next(stream).await.is_none(), "nothing follows an error");
                return (lines, Some(error.kind()));
            }
            None => return (lines, None),
        }
    }
}

#[tokio::test]
async fn the_connection_begins_as_that_of_the_official_sdk() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint());
    let opening = tokio::spawn(async move { open(&transport).await });
    let mut connection = server.accept().await;
    assert_eq!(connection.path, "/sync/stream");
    let Frame::Setup(setup) = connection.hear().await else { panic!("no SETUP") };
    assert_eq!((setup.version, setup.keepalive, setup.lifetime), ((1, 0), 20_000, 90_000));
    assert_eq!((&*setup.metadata_type, &*setup.data_type), ("application/json", "application/json"));
    let metadata: serde_json::Value = serde_json::from_slice(&setup.payload.metadata.unwrap()).unwrap();
    assert_eq!(metadata["token"], "Token abc.def.ghi");
    let Frame::RequestStream { stream: 1, initial, payload, .. } = connection.hear().await else {
        panic!("no request")
    };
    assert!(initial > 0);
    assert_eq!(payload.metadata.as_deref(), Some(&b"{\"path\":\"/sync/stream\"}"[..]));
    let request: SyncRequest = serde_json::from_slice(&payload.data).unwrap();
    assert!(request.raw_data);
    connection.say(&line(1)).await;
    connection.say(&end()).await;
    let mut stream = opening.await.unwrap().unwrap();
    assert_eq!(stream.framing, Framing::Bson);
    assert_eq!(rest(&mut stream).await, (vec![fake_server::document(1)], None));
}

#[tokio::test]
async fn no_more_is_granted_than_is_taken_and_what_comes_unasked_arrives_too() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint());
    // The first server keeps to what it was granted, the second sends all it has.
    for honest in [true, false] {
        let opening = open(&transport);
        let serving = async {
            let mut connection = server.accept().await;
            let mut credit = connection.greeting().await;
            for number in 0..200 {
                while honest && credit == 0 {
                    if let Frame::RequestN { stream: 1, n } = connection.hear().await {
                        credit += n;
                    }
                }
                credit = credit.saturating_sub(1);
                connection.say(&line(number)).await;
            }
            connection.say(&end()).await;
            connection
        };
        let reading = async {
            let mut stream = opening.await.unwrap();
            rest(&mut stream).await
        };
        let ((lines, failed), _connection) = futures::join!(reading, serving);
        assert_eq!(failed, None);
        let expected: Vec<Bytes> = (0..200).map(fake_server::document).collect();
        assert_eq!(lines, expected, "honest: {honest}");
    }
    // One that takes nothing grants nothing.
    let opening = open(&transport);
    let (stream, (mut connection, credit)) = futures::join!(opening, async {
        let mut connection = server.accept().await;
        let credit = connection.greeting().await;
        for number in 0..credit {
            connection.say(&line(number)).await;
        }
        (connection, credit)
    });
    let mut stream = stream.unwrap();
    connection.say(&Frame::Keepalive { respond: true, position: 0, data: Bytes::from_static(b"ping") }).await;
    let answer = connection.hear().await;
    assert!(matches!(answer, Frame::Keepalive { respond: false, .. }), "an answer and no grant before it: {answer:?}");
    for number in 0..credit {
        assert_eq!(next(&mut stream).await.unwrap().unwrap(), fake_server::document(number));
    }
    let Frame::RequestN { stream: 1, n } = connection.hear().await else { panic!("no grant") };
    assert!(n <= credit);
    drop(stream);
    loop {
        match connection.hear().await {
            Frame::RequestN { .. } => {}
            frame => {
                assert_eq!(frame, Frame::Cancel { stream: 1 });
                break;
            }
        }
    }
    connection.expect_close().await;
}

#[tokio::test]
async fn refusals_are_errors_of_their_kind() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint());
    for (stream, code, text, kind) in [
        (0, ErrorCode::REJECTED_SETUP, "[PSYNC_S2101] no", ErrorKind::Unauthorized),
        (0, ErrorCode::REJECTED_SETUP, "[PSYNC_S2199] new", ErrorKind::Unauthorized),
        (0, ErrorCode::REJECTED_SETUP, "[PSYNC_S2304] full", ErrorKind::Unavailable),
        (0, ErrorCode::UNSUPPORTED_SETUP, "what?", ErrorKind::Protocol),
        (1, ErrorCode::APPLICATION_ERROR, "[PSYNC_S2003] closing", ErrorKind::Unavailable),
        (1, ErrorCode::APPLICATION_ERROR, "[PSYNC_S2305] too many buckets", ErrorKind::Protocol),
        (1, ErrorCode(0x999), "unheard of", ErrorKind::Unavailable),
    ] {
        let (opened, ()) = futures::join!(open(&transport), async {
            let mut connection = server.accept().await;
            connection.greeting().await;
            connection.say(&error(stream, code, text)).await;
        });
        assert_eq!(opened.expect_err(text).kind(), kind, "{text}");
        // After a line it is the stream that fails.
        let (opened, ()) = futures::join!(open(&transport), async {
            let mut connection = server.accept().await;
            connection.greeting().await;
            connection.say(&line(1)).await;
            connection.say(&error(stream, code, text)).await;
        });
        assert_eq!(rest(&mut opened.unwrap()).await, (vec![fake_server::document(1)], Some(kind)), "{text}");
    }
}

#[tokio::test]
async fn whatever_is_no_stream_is_an_error() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint()).line_bytes(1_000);
    let too_much = || {
        let payload = Payload::of(vec![0; 600].into());
        let part = Frame::Payload { stream: 1, follows: true, complete: false, next: true, payload };
        Message::Binary(part.encode().unwrap())
    };
    for (messages, kind) in [
        (vec![Message::Binary(Bytes::from_static(b"abc"))], ErrorKind::Protocol),
        (vec![Message::Text("{}".into())], ErrorKind::Protocol),
        (vec![Message::Close(None)], ErrorKind::Unavailable),
        (vec![too_much(), too_much()], ErrorKind::Protocol),
        (vec![Message::Binary(vec![0; 1_001].into())], ErrorKind::Protocol),
        (vec![], ErrorKind::Unavailable),
    ] {
        let (opened, ()) = futures::join!(open(&transport), async {
            let mut connection = server.accept().await;
            connection.greeting().await;
            connection.say(&line(1)).await;
            for message in messages {
                // The client may have had enough before all of it is sent.
                let _ = connection.send(message).await;
            }
        });
        let (lines, failed) = rest(&mut opened.unwrap()).await;
        assert_eq!((lines.len(), failed), (1, Some(kind)));
    }
}

#[tokio::test]
async fn answers_that_are_no_handshake_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = transport(&format!("http://{}", listener.local_addr().unwrap()));
    for (status, kind) in [
        ("401 Unauthorized", ErrorKind::Unauthorized),
        ("404 Not Found", ErrorKind::Protocol),
        ("301 Moved Permanently", ErrorKind::Protocol),
        ("429 Too Many Requests", ErrorKind::Unavailable),
        ("503 Service Unavailable", ErrorKind::Unavailable),
    ] {
        let (opened, ()) = futures::join!(open(&transport), async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            assert!(!String::from_utf8(head).unwrap().contains("abc.def"), "the token is in SETUP alone");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(opened.expect_err(status).kind(), kind, "{status}");
    }
    // Somebody listens and says nothing.
    let impatient = transport.answer_timeout(Duration::from_millis(300));
    let opened = open(&impatient).await;
    assert_eq!(opened.expect_err("silence").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_gives_no_sign_of_life_is_given_up_and_one_that_does_is_not() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint()).idle_timeout(Duration::from_millis(900));
    let (opened, mut connection) = futures::join!(open(&transport), async {
        let mut connection = server.accept().await;
        connection.greeting().await;
        connection.say(&line(1)).await;
        connection
    });
    let mut stream = opened.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    // Longer than the limit, nothing comes but what was asked for.
    for _ in 0..6 {
        let asked = connection.hear().await;
        assert!(matches!(asked, Frame::Keepalive { respond: true, .. }), "{asked:?}");
        connection.say(&Frame::Keepalive { respond: false, position: 0, data: Bytes::new() }).await;
        // The client behind the transport must hear of it, or it gives an idle stream up: the official service has no lines
        // for that over WebSocket.
        assert_eq!(next(&mut stream).await.unwrap().unwrap(), Bytes::new());
    }
    connection.say(&line(2)).await;
    assert_eq!(next(&mut stream).await.unwrap().unwrap(), fake_server::document(2));
    assert_eq!(rest(&mut stream).await, (vec![], Some(ErrorKind::Unavailable)));
}

#[tokio::test]
async fn a_line_that_comes_slowly_is_waited_for() {
    let server = FakeServer::start().await;
    let transport = transport(&server.endpoint()).idle_timeout(Duration::from_millis(600));
    let (opened, mut connection) = futures::join!(open(&transport), async {
        let mut connection = server.accept().await;
        connection.greeting().await;
        connection.say(&line(1)).await;
        connection
    });
    let mut stream = opened.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    // Byte by byte, for longer than the server may be silent.
    let frame = line(2).encode().unwrap();
    let mut message = vec![0x82, u8::try_from(frame.len()).unwrap()];
    message.extend_from_slice(&frame);
    let mut pace = tokio::time::interval(Duration::from_millis(80));
    for byte in message {
        pace.tick().await;
        connection.raw().write_all(&[byte]).await.unwrap();
    }
    let line = loop {
        let piece = next(&mut stream).await.unwrap().unwrap();
        if !piece.is_empty() {
            break piece;
        }
    };
    assert_eq!(line, fake_server::document(2));
}
