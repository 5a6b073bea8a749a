//! A server on a port of its own, and clients that say to it what they like.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource};
use syncline_core::{Authenticator, Error, Identity, Replicator, Result, SyncConfig, SyncService, async_trait};
use syncline_transport_ws::frame::{ErrorCode, Frame, MAX_31, Payload, Setup};
use syncline_transport_ws::{WebSocketEndpoint, WebSocketLimits};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = "
config: { edition: 3 }
streams:
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists
";

#[derive(Debug)]
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        match token {
            "good" => Ok(Identity::new("anna")),
            _ => Err(Error::unauthorized("this token was not made by us").with_code("PSYNC_S2101")),
        }
    }
}

pub(crate) struct Bench {
    pub(crate) source: MemorySource,
    pub(crate) service: SyncService,
    pub(crate) endpoint: WebSocketEndpoint,
    pub(crate) address: SocketAddr,
    pub(crate) server: JoinHandle<Infallible>,
}

impl Bench {
    pub(crate) async fn start(limits: WebSocketLimits) -> Self {
        let source = MemorySource::new().table("lists", ["id", "name"]);
        source.put("lists", json!({ "id": "l1", "name": "Groceries" })).unwrap();
        let store = MemoryBucketStore::new();
        tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone()).run());
        let service = SyncService::new(store, Tokens);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = WebSocketEndpoint::new(service.clone(), limits);
        let serving = endpoint.clone();
        let server = tokio::spawn(async move { serving.serve(listener).await });
        Self { source, service, endpoint, address, server }
    }

    /// A client whose handshake is done.
    pub(crate) async fn client(&self) -> Client {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = client_async(format!("ws://{}/anything", self.address), tcp).await.unwrap();
        Client { socket }
    }

    /// A client with an open stream that was granted so many lines.
    pub(crate) async fn streaming(&self, initial: u32) -> Client {
        let mut client = self.client().await;
        client.say(&setup("Token good")).await;
        client.say(&request(1, initial)).await;
        client
    }

    /// One that behaves: it must notice nothing of what others do.
    pub(crate) async fn bystander(&self) -> Bystander<'_> {
        let mut client = self.streaming(MAX_31).await;
        client.line_with("l1").await;
        Bystander { bench: self, client, changes: 0 }
    }

    /// Waits until so many streams are open.
    pub(crate) async fn streams_are(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while self.service.readiness().streams != count {
            assert!(tokio::time::Instant::now() < deadline, "{} streams are open", self.service.readiness().streams);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) struct Bystander<'a> {
    bench: &'a Bench,
    client: Client,
    changes: u32,
}

impl Bystander<'_> {
    /// A change still arrives.
    pub(crate) async fn is_unharmed(&mut self) {
        self.changes += 1;
        let id = format!("change{}", self.changes);
        self.bench.source.put("lists", json!({ "id": id, "name": "x" })).unwrap();
        self.client.line_with(&id).await;
    }
}

pub(crate) fn setup(token: &str) -> Frame {
    let metadata = json!({ "token": token, "user_agent": "sample/1.0" }).to_string();
    setup_with(Some(metadata.into()))
}

pub(crate) fn setup_with(metadata: Option<Bytes>) -> Frame {
    Frame::Setup(Setup {
        version: (1, 0),
        keepalive: 20_000,
        lifetime: 90_000,
        resume_token: None,
        lease: false,
        metadata_type: "application/json".to_owned(),
        data_type: "application/json".to_owned(),
        payload: Payload { metadata, data: Bytes::new() },
    })
}

pub(crate) fn request(stream: u32, initial: u32) -> Frame {
    let metadata = Some(Bytes::from_static(b"{\"path\":\"/sync/stream\"}"));
    let payload = Payload { metadata, data: Bytes::from_static(b"{\"raw_data\":true}") };
    Frame::RequestStream { stream, initial, follows: false, payload }
}

pub(crate) fn keepalive(data: &'static [u8]) -> Frame {
    Frame::Keepalive { respond: true, position: 0, data: Bytes::from_static(data) }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn say(&mut self, frame: &Frame) {
        self.send(Message::Binary(frame.encode().unwrap())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; `None` when the server has closed, with the code of that.
    pub(crate) async fn hear(&mut self) -> std::result::Result<Frame, Option<u16>> {
        loop {
            match timeout(LIMIT, self.socket.next()).await.expect("the server says something") {
                Some(Ok(Message::Binary(bytes))) => return Ok(Frame::decode(bytes).unwrap()),
                Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                Some(Ok(_)) => {}
                other => panic!("the connection broke: {other:?}"),
            }
        }
    }

    /// Reads up to an error, which must be this one.
    pub(crate) async fn expect_error(&mut self, stream: u32, code: ErrorCode, psync: &str) {
        loop {
            match self.hear().await.expect("an error before the close") {
                Frame::Error { stream: on, code: with, message } => {
                    assert_eq!((on, with), (stream, code), "{message}");
                    assert!(message.starts_with(&format!("[{psync}] ")), "{message}");
                    return;
                }
                Frame::Payload { .. } => {}
                frame => panic!("{frame:?}"),
            }
        }
    }

    /// The server closes with this code, and says nothing before.
    pub(crate) async fn expect_close(&mut self, code: Option<u16>) {
        assert_eq!(self.hear().await, Err(code));
    }

    /// Reads up to a line that holds this text.
    pub(crate) async fn line_with(&mut self, text: &str) {
        loop {
            match self.hear().await.expect("a line") {
                Frame::Payload { payload, .. } if contains(&payload.data, text) => return,
                Frame::Payload { .. } => {}
                frame => panic!("{frame:?}"),
            }
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
