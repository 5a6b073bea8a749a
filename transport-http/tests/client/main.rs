//! The transport of a client against servers that answer well, badly, late and never.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

mod fake_server;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use fake_server::{FakeServer, Step, end, piece, plain, stream_head};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value as Json, json};
use syncline_core::protocol::{ClientLine, Framing, LineDecoder, SyncRequest};
use syncline_core::{Credentials, Error, ErrorKind, LineStream, OpId, Result, Transport, WriteCheckpoint};
use syncline_transport_http::HttpTransport;

const NDJSON: &str = "content-type: application/x-ndjson\r\n";
const BSON: &str = "content-type: application/vnd.powersync.bson-stream\r\n";

pub(crate) fn credentials() -> Credentials {
    Credentials::new("a.b.c")
}

pub(crate) fn request() -> SyncRequest {
    SyncRequest { raw_data: true, include_checksum: true, client_id: Some("c1".into()), ..SyncRequest::default() }
}

/// A client that soon gives up.
fn impatient(server: &FakeServer, timeout: Duration) -> HttpTransport {
    patient(server).idle_timeout(timeout).answer_timeout(timeout)
}

fn patient(server: &FakeServer) -> HttpTransport {
    HttpTransport::new(&server.endpoint).unwrap()
}

/// Waits for a result that must come within the limits of the transport, not within those of this test.
async fn bounded<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), call).await.unwrap()
}

pub(crate) async fn lines(stream: LineStream) -> Result<Vec<ClientLine>> {
    let mut decoder = LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT);
    let mut bytes = stream.bytes;
    let mut lines = Vec::new();
    while let Some(piece) = bounded(bytes.next()).await {
        decoder.push(piece?);
        while let Some(line) = decoder.next()? {
            lines.push(line);
        }
    }
    lines.extend(decoder.finish()?);
    Ok(lines)
}

fn vectors() -> Json {
    serde_json::from_str(include_str!("../../../core/tests/data/vectors/http_sessions.json")).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_is_asked_for_like_official_clients_do() {
    let mut server = FakeServer::start(vec![stream_head(NDJSON), end()]).await;
    let transport = HttpTransport::new(&format!("{}/base/", server.endpoint)).unwrap();
    let stream = bounded(transport.open(&request(), &credentials())).await.unwrap();
    assert_eq!(stream.framing, Framing::Ndjson);
    assert_eq!(lines(stream).await.unwrap(), []);
    let received = server.request().await;
    assert!(received.head.starts_with("POST /base/sync/stream HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!(received.header("authorization"), Some("Token a.b.c"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    let accept = "application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8";
    assert_eq!(received.header("accept"), Some(accept));
    let encodings = received.header("accept-encoding").unwrap();
    assert!(encodings.contains("gzip") && encodings.contains("zstd"), "{encodings}");
    assert_eq!(serde_json::from_str::<SyncRequest>(&received.body).unwrap(), request());
    let transport = patient(&server).prefer_ndjson();
    bounded(transport.open(&request(), &credentials())).await.unwrap();
    let accept = "application/x-ndjson;q=0.9,application/vnd.powersync.bson-stream;q=0.8";
    assert_eq!(server.request().await.header("accept"), Some(accept));
}

#[tokio::test]
async fn a_stream_is_read_wherever_it_is_cut() {
    let recorded = vectors();
    let session = &recorded["sessions"][1]["response"];
    let documents: Vec<u8> =
        session["documents"].as_array().unwrap().iter().flat_map(|one| unhex(one["hex"].as_str().unwrap())).collect();
    let mut decoder = LineDecoder::new(Framing::Bson, LineDecoder::DEFAULT_LIMIT);
    decoder.push(Bytes::from(documents.clone()));
    let wanted: Vec<ClientLine> = std::iter::from_fn(|| decoder.next().unwrap()).collect();
    assert_eq!(wanted.len(), 5);
    for size in [1, 7, 100, documents.len()] {
        let mut steps = vec![stream_head(BSON)];
        steps.extend(documents.chunks(size).map(piece));
        steps.push(end());
        let server = FakeServer::start(steps).await;
        let stream = bounded(patient(&server).open(&request(), &credentials())).await.unwrap();
        assert_eq!(stream.framing, Framing::Bson);
        assert_eq!(lines(stream).await.unwrap(), wanted);
    }
}

#[tokio::test]
async fn compressed_streams_are_read_as_they_arrive() {
    let recorded = vectors();
    let sessions = recorded["sessions"].as_array().unwrap();
    for (name, encoding) in [("gzip", "gzip"), ("gzip_and_zstd", "zstd")] {
        let session = &sessions.iter().find(|session| session["name"] == name).unwrap()["response"];
        let compressed = unhex(session["compressed_hex"].as_str().unwrap());
        let head = stream_head(&format!("{NDJSON}content-encoding: {encoding}\r\n"));
        // What was flushed is there although the stream goes on.
        let mut steps = vec![head.clone()];
        steps.extend(compressed.chunks(11).map(piece));
        steps.push(Step::Hang);
        let server = FakeServer::start(steps).await;
        let mut stream = bounded(patient(&server).open(&request(), &credentials())).await.unwrap();
        let mut decoder = LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT);
        let mut seen = Vec::new();
        while seen.len() < session["lines"].as_array().unwrap().len() {
            decoder.push(bounded(stream.bytes.next()).await.unwrap().unwrap());
            seen.extend(std::iter::from_fn(|| decoder.next().unwrap()));
        }
        assert!(matches!(seen[0], ClientLine::Checkpoint(_)));
        assert_eq!(seen[seen.len() - 1], ClientLine::CheckpointComplete { last_op_id: OpId(6) });
        // One that is cut or damaged is an error, not an end.
        for body in [&compressed[..], b"not compressed at all"] {
            let server = FakeServer::start(vec![head.clone(), piece(body), end()]).await;
            let stream = bounded(patient(&server).open(&request(), &credentials())).await.unwrap();
            let read = bounded(stream.bytes.try_collect::<Vec<_>>()).await;
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }
}

#[tokio::test]
async fn a_half_open_connection_is_given_up() {
    let short = Duration::from_millis(200);
    let silent = FakeServer::start(vec![Step::Hang]).await;
    let error = bounded(impatient(&silent, short).open(&request(), &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let head = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"data\"".to_vec());
    for steps in [vec![Step::Hang], vec![head, Step::Hang]] {
        let server = FakeServer::start(steps).await;
        let error = bounded(impatient(&server, short).write_checkpoint("c1", &credentials())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up() {
    let line = b"{\"checkpoint_complete\":{\"last_op_id\":\"1\"}}\n";
    let server = FakeServer::start(vec![stream_head(NDJSON), piece(line), Step::Hang]).await;
    // Long enough for a busy machine to answer within.
    let transport = impatient(&server, Duration::from_secs(2));
    let mut stream = bounded(transport.open(&request(), &credentials())).await.unwrap();
    assert_eq!(bounded(stream.bytes.next()).await.unwrap().unwrap(), &line[..]);
    let error = bounded(stream.bytes.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(bounded(stream.bytes.next()).await.is_none(), "a stream ends after its error");
}

#[tokio::test]
async fn a_broken_connection_is_no_end() {
    for steps in [vec![], vec![stream_head("")], vec![stream_head(NDJSON), piece(b"{\"checkpoint_complete\"")]] {
        let server = FakeServer::start(steps).await;
        let opened = bounded(patient(&server).open(&request(), &credentials())).await;
        let error = match opened {
            Err(error) => error,
            Ok(stream) => bounded(stream.bytes.try_collect::<Vec<_>>()).await.unwrap_err(),
        };
        assert!(error.is_transient(), "{error:?}");
    }
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let transport = HttpTransport::new(&nobody).unwrap();
    let error = bounded(transport.open(&request(), &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = bounded(transport.write_checkpoint("c1", &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

async fn refusal(steps: Vec<Step>) -> Error {
    let server = FakeServer::start(steps).await;
    let of_stream = bounded(patient(&server).open(&request(), &credentials())).await.unwrap_err();
    let of_checkpoint = bounded(patient(&server).write_checkpoint("c1", &credentials())).await.unwrap_err();
    assert_eq!((of_stream.kind(), of_stream.code()), (of_checkpoint.kind(), of_checkpoint.code()));
    of_stream
}

#[tokio::test]
async fn refusals_tell_what_to_do() {
    for (status, kind) in [
        ("401 Unauthorized", ErrorKind::Unauthorized),
        ("400 Bad Request", ErrorKind::Protocol),
        ("403 Forbidden", ErrorKind::Protocol),
        ("404 Not Found", ErrorKind::Protocol),
        ("413 Payload Too Large", ErrorKind::Protocol),
        ("408 Request Timeout", ErrorKind::Unavailable),
        ("429 Too Many Requests", ErrorKind::Unavailable),
        ("500 Internal Server Error", ErrorKind::Unavailable),
        ("502 Bad Gateway", ErrorKind::Unavailable),
        ("503 Service Unavailable", ErrorKind::Unavailable),
    ] {
        for body in ["", "<html>oops</html>", "{\"error\":7}"] {
            assert_eq!(refusal(plain(status, "text/html", body)).await.kind(), kind, "{status}");
        }
    }
    let body = json!({ "error": { "name": "AuthorizationError", "code": "PSYNC_S2103", "status": 401, "description": "JWT has expired" }});
    let error = refusal(plain("401 Unauthorized", "application/json", &body.to_string())).await;
    assert_eq!(error.code(), Some("PSYNC_S2103"));
    assert!(error.message().contains("JWT has expired"), "{error}");
    // A code of a later version is still shown.
    let body = json!({ "error": { "code": "PSYNC_S9999" } });
    let error = refusal(plain("500 Internal Server Error", "application/json", &body.to_string())).await;
    assert_eq!((error.code(), error.message().contains("PSYNC_S9999")), (None, true));
    // A body that is longer than any explanation, and one that never comes.
    let error = refusal(plain("401 Unauthorized", "text/html", &"x".repeat(1 << 20))).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let head = Step::Send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 50\r\n\r\n".to_vec());
    let server = FakeServer::start(vec![head]).await;
    let error = bounded(patient(&server).open(&request(), &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut elsewhere = FakeServer::start(plain("200 OK", "text/html", "")).await;
    let moved = |status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nlocation: {}/x\r\ncontent-length: 0\r\n\r\n", elsewhere.endpoint);
        vec![Step::Send(head.into_bytes())]
    };
    for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
        let error = refusal(moved(status)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.message().contains(&elsewhere.endpoint), "{error}");
    }
    // The next request that the other server sees is the first that it sees.
    let error = bounded(patient(&elsewhere).open(&request(), &Credentials::new("last"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "a page is no stream");
    assert_eq!(elsewhere.request().await.header("authorization"), Some("Token last"));
}

#[tokio::test]
async fn the_content_type_decides() {
    for (content_type, framing) in [
        ("application/x-ndjson; charset=utf-8", Some(Framing::Ndjson)),
        ("Application/X-NDJSON", Some(Framing::Ndjson)),
        ("application/vnd.powersync.bson-stream", Some(Framing::Bson)),
        ("application/json", None),
        ("", None),
    ] {
        let server = FakeServer::start(plain("200 OK", content_type, "")).await;
        let opened = bounded(patient(&server).open(&request(), &credentials())).await;
        match framing {
            Some(framing) => assert_eq!(opened.unwrap().framing, framing),
            None => assert_eq!(opened.unwrap_err().kind(), ErrorKind::Protocol),
        }
    }
}

#[tokio::test]
async fn write_checkpoints_are_asked_for() {
    let body = "{\"data\":{\"write_checkpoint\":\"9007199254740993\"}}";
    let mut server = FakeServer::start(plain("200 OK", "application/json; charset=utf-8", body)).await;
    let number = bounded(patient(&server).write_checkpoint("a b&c", &credentials())).await.unwrap();
    assert_eq!(number, WriteCheckpoint(9_007_199_254_740_993));
    let received = server.request().await;
    assert!(
        received.head.starts_with("GET /write-checkpoint2.json?client_id=a+b%26c HTTP/1.1\r\n"),
        "{}",
        received.head
    );
    assert_eq!(received.header("authorization"), Some("Token a.b.c"));
    for body in ["", "{}", "{\"data\":{\"write_checkpoint\":5}}", "{\"data\":{\"write_checkpoint\":\"x\"}}"] {
        let server = FakeServer::start(plain("200 OK", "application/json", body)).await;
        let error = bounded(patient(&server).write_checkpoint("c1", &credentials())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}");
    }
    let server = FakeServer::start(plain("200 OK", "application/json", &"x".repeat(1 << 20))).await;
    let error = bounded(patient(&server).write_checkpoint("c1", &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    for endpoint in
        ["", "localhost:8080", "ftp://a", "/sync", "http://user@a", "http://:pass@a", "http://a?b", "https://a/#b"]
    {
        assert_eq!(HttpTransport::new(endpoint).unwrap_err().kind(), ErrorKind::Invalid, "{endpoint}");
    }
    let server = FakeServer::start(vec![Step::Hang]).await;
    let wrong = Credentials::new("a\nb");
    let error = bounded(patient(&server).open(&request(), &wrong)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!format!("{:?} {error:?}", patient(&server)).contains("a\nb"));
}

#[tokio::test]
async fn a_dropped_stream_ends_its_request() {
    let mut line = Vec::new();
    Framing::Ndjson.complete(&mut line, OpId(1));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = HttpTransport::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (sender, _requests) = tokio::sync::mpsc::unbounded_channel();
    // The connection is seen to close: `answer` returns only then.
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        fake_server::answer(stream, vec![stream_head(NDJSON), piece(&line), Step::Hang], sender).await;
    };
    let client = async {
        let mut stream = transport.open(&request(), &credentials()).await.unwrap();
        assert_eq!(stream.bytes.next().await.unwrap().unwrap(), line);
    };
    bounded(futures::future::join(server, client)).await;
}
