//! What is special of the server that is made for idle streams: how it takes a connection from hyper, and how it ends.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, TokenIsUser};
use syncline_core::{Replicator, SyncConfig, SyncService};
use syncline_transport_http::{self as http, axum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

const CONFIG: &str = "
config: { edition: 3 }
streams:
  lists: { auto_subscribe: true, query: SELECT * FROM lists }
";

struct Server {
    address: String,
    service: SyncService,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn start() -> Server {
    let source = MemorySource::new().table("lists", ["id", "name"]);
    source.put("lists", json!({ "id": "l1", "name": "Groceries" })).unwrap();
    let store = MemoryBucketStore::new();
    tokio::spawn(Replicator::new(source, SyncConfig::parse(CONFIG).unwrap(), store.clone()).run());
    let service = SyncService::new(store, TokenIsUser);
    let listener = http::Listener::bind("127.0.0.1:0").await.unwrap();
    let address = axum::serve::Listener::local_addr(&listener).unwrap().to_string();
    let (stop, stopped) = oneshot::channel();
    let app = http::router::<()>(service.clone());
    let serving = tokio::spawn(http::serve(listener, app, async { stopped.await.unwrap() }));
    Server { address, service, stop, serving }
}

/// A client that sees each byte.
struct Client(TcpStream);

impl Client {
    async fn connect(server: &Server) -> Self {
        Self(TcpStream::connect(&server.address).await.unwrap())
    }

    async fn ask(&mut self, line: &str) {
        let head = format!("{line}\r\nhost: x\r\norigin: https://app.example\r\nauthorization: Token anna\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    /// What comes until there is such a text in it.
    async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&seen).contains(text) {
                assert_ne!(self.0.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
            }
        };
        timeout(LIMIT, read).await.unwrap();
        String::from_utf8(seen).unwrap()
    }

    async fn rest(mut self) -> String {
        let mut seen = String::new();
        timeout(LIMIT, self.0.read_to_string(&mut seen)).await.unwrap().unwrap();
        seen
    }
}

#[tokio::test]
async fn a_stream_has_the_head_that_the_router_made_also_after_other_answers() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    for _ in 0..2 {
        client.ask("GET /probes/liveness HTTP/1.1").await;
        assert!(client.until("touched_at").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    client.ask("POST /sync/stream HTTP/1.1").await;
    let seen = client.until("checkpoint_complete").await;
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    assert_eq!(lines.len(), head.split("\r\n").count() - 1, "there is a date: {head}");
    lines.sort_unstable();
    for line in [
        "HTTP/1.1 200 OK",
        "access-control-allow-origin: *",
        "connection: close",
        "content-type: application/x-ndjson",
        "transfer-encoding: chunked",
    ] {
        assert_eq!(lines.iter().filter(|found| **found == line).count(), 1, "{line}: {head}");
    }
    let (length, chunk) = body.split_once("\r\n").unwrap();
    assert!(usize::from_str_radix(length, 16).unwrap() > 0);
    assert!(chunk.starts_with("{\"checkpoint\":"), "{chunk}");
}

#[tokio::test]
async fn two_requests_at_once_are_answered_one_after_the_other() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    let request = |line: &str| format!("{line}\r\nhost: x\r\nauthorization: Token anna\r\n\r\n");
    let both = request("GET /probes/liveness HTTP/1.1") + &request("POST /sync/stream HTTP/1.1");
    client.0.write_all(both.as_bytes()).await.unwrap();
    let seen = client.until("checkpoint_complete").await;
    assert!(seen.find("touched_at").unwrap() < seen.find("transfer-encoding: chunked").unwrap(), "{seen}");
}

#[tokio::test]
async fn a_stream_ends_with_its_service_and_the_server_with_its_last_connection() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    client.ask("POST /sync/stream HTTP/1.1").await;
    client.until("checkpoint_complete").await;
    server.stop.send(()).unwrap();
    // It no longer accepts, and still serves.
    let refused = async { while TcpStream::connect(&server.address).await.is_ok() {} };
    timeout(LIMIT, refused).await.unwrap();
    assert!(!server.serving.is_finished());
    server.service.close().await;
    let rest = client.rest().await;
    assert!(rest.ends_with("0\r\n\r\n"), "an orderly end has the last chunk: {rest:?}");
    timeout(LIMIT, server.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_is_cut_has_no_end() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    client.ask("POST /sync/stream HTTP/1.1").await;
    client.until("checkpoint_complete").await;
    server.serving.abort();
    let mut seen = Vec::new();
    // Reset or closed: both are a cut.
    let _ = timeout(LIMIT, client.0.read_to_end(&mut seen)).await.unwrap();
    assert!(!seen.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    client.ask("POST /sync/stream HTTP/1.0").await;
    let seen = client.until("checkpoint_complete").await;
    assert!(!seen.contains("transfer-encoding"), "{seen}");
    assert!(seen.contains("\r\n\r\n{\"checkpoint\":"), "{seen}");
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_before_there_is_something_to_send() {
    let server = start().await;
    let mut client = Client::connect(&server).await;
    client.ask("POST /sync/stream HTTP/1.1").await;
    client.until("checkpoint_complete").await;
    assert_eq!(server.service.readiness().streams, 1);
    drop(client);
    let gone = async {
        while server.service.readiness().streams > 0 {
            tokio::task::yield_now().await;
        }
    };
    // Sooner than the next sign of life, which is due after 20 s.
    timeout(Duration::from_secs(15), gone).await.unwrap();
}
