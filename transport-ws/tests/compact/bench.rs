//! A server on a port of its own, and clients that say to it what they like, by the compact subprotocol.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource};
use syncline_core::protocol::{ClientLine, Framing, LineDecoder};
use syncline_core::{
    Authenticator, Clock, Error, Identity, Replicator, Result, SyncConfig, SyncService, SystemClock, WallTime,
    async_trait,
};
use syncline_transport_ws::compact::{ClientFrame, Request, ServerFrame};
use syncline_transport_ws::{WebSocketEndpoint, WebSocketLimits};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT id, text FROM notes WHERE owner_id = auth.user_id()
";

/// Knows `good.<user>` and `until.<milliseconds>.<user>`.
#[derive(Debug)]
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        if let Some(user) = token.strip_prefix("good.") {
            return Ok(Identity::new(user));
        }
        let (end, user) = token
            .strip_prefix("until.")
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(|| Error::unauthorized("this token was not made by us").with_code("PSYNC_S2101"))?;
        Ok(Identity::new(user).expires_at(WallTime(end.parse().unwrap())))
    }
}

/// A token that is good for so long.
pub(crate) fn short_lived(user: &str, life: Duration) -> String {
    format!("until.{}.{user}", SystemClock.wall().0 + i64::try_from(life.as_millis()).unwrap())
}

pub(crate) struct Bench {
    pub(crate) source: MemorySource,
    pub(crate) service: SyncService,
    pub(crate) endpoint: WebSocketEndpoint,
    pub(crate) address: SocketAddr,
    changes: u32,
}

impl Bench {
    pub(crate) async fn start(limits: WebSocketLimits) -> Self {
        let source = MemorySource::new().table("notes", ["id", "owner_id", "text"]);
        let store = MemoryBucketStore::new();
        tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone()).run());
        let service = SyncService::new(store, Tokens);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = WebSocketEndpoint::new(service.clone(), limits);
        let serving = endpoint.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let bench = Self { source, service, endpoint, address, changes: 0 };
        bench.note("anna", "a1", "x");
        bench.note("ben", "b1", "x");
        bench
    }

    pub(crate) fn note(&self, user: &str, id: &str, text: &str) {
        self.source.put("notes", json!({ "id": id, "owner_id": user, "text": text })).unwrap();
    }

    /// A note of this user, as no other has been.
    pub(crate) fn change(&mut self, user: &str) -> String {
        self.changes += 1;
        let id = format!("change{}", self.changes);
        self.note(user, &id, "x");
        id
    }

    /// A client whose handshake is done.
    pub(crate) async fn client(&self) -> Client {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/sync/stream", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "syncline.v1".parse().unwrap());
        let (socket, response) = client_async(request, tcp).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "syncline.v1");
        Client { socket, decoders: HashMap::new(), bytes: 0 }
    }

    /// A client with an open stream, call 1, that has got its first note.
    pub(crate) async fn streaming(&self, user: &str) -> Client {
        let mut client = self.client().await;
        client.say(&open(1, &format!("good.{user}"), u64::MAX)).await;
        let first = if user == "anna" { "a1" } else { "b1" };
        client.note(1, first).await;
        client
    }

    /// What others do harms nobody: a change still arrives.
    pub(crate) async fn is_unharmed(&mut self, bystander: &mut Client) {
        let id = self.change("anna");
        bystander.note(1, &id).await;
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

pub(crate) fn open(call: u32, token: &str, credit: u64) -> ClientFrame {
    let request = Request {
        positions: Vec::new(),
        client_id: Some("device".to_owned()),
        parameters: "{}".to_owned(),
        metadata: BTreeMap::new(),
        streams: None,
    };
    ClientFrame::Open { call, token: token.to_owned(), credit, request }
}

pub(crate) fn ask(call: u32, token: &str) -> ClientFrame {
    ClientFrame::WriteCheckpoint { call, token: token.to_owned(), client_id: Some("device".to_owned()) }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    decoders: HashMap<u32, LineDecoder>,
    /// Of lines, in all streams.
    pub(crate) bytes: usize,
}

impl Client {
    pub(crate) async fn say(&mut self, frame: &ClientFrame) {
        self.send(Message::Binary(frame.encode().unwrap())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; when the server has closed, the code and the reason of that.
    pub(crate) async fn hear(&mut self) -> std::result::Result<ServerFrame, (u16, String)> {
        loop {
            match timeout(LIMIT, self.socket.next()).await.expect("the server says something") {
                Some(Ok(Message::Binary(bytes))) => {
                    let frame = ServerFrame::decode(&bytes).unwrap();
                    if let ServerFrame::Lines { bytes, .. } = &frame {
                        self.bytes += bytes.len();
                    }
                    return Ok(frame);
                }
                Some(Ok(Message::Close(close))) => {
                    let close = close.expect("a close has a code");
                    return Err((close.code.into(), close.reason.to_string()));
                }
                Some(Ok(_)) => {}
                other => panic!("the connection broke: {other:?}"),
            }
        }
    }

    /// Reads what is said of a call up to a note with this id; gives the ids of all notes that came.
    pub(crate) async fn note(&mut self, call: u32, id: &str) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.last().is_none_or(|last| last != id) {
            match self.hear().await.expect("a note") {
                ServerFrame::Lines { call: of, bytes } => {
                    let new = || LineDecoder::new(Framing::Compact, LineDecoder::DEFAULT_LIMIT);
                    let decoder = self.decoders.entry(of).or_insert_with(new);
                    decoder.push(bytes);
                    while let Some(line) = decoder.next().unwrap() {
                        let ClientLine::Data(line) = line else { continue };
                        if of == call {
                            ids.extend(line.operations.iter().map(|operation| operation.object_id.to_string()));
                        }
                    }
                }
                ServerFrame::Opened { .. } | ServerFrame::Renewed { .. } => {}
                frame => panic!("{frame:?}"),
            }
        }
        ids
    }

    /// Reads up to the end or failure of this call; lines may come before.
    pub(crate) async fn end(&mut self, call: u32) -> ServerFrame {
        loop {
            match self.hear().await.expect("the end of a call") {
                ServerFrame::Lines { .. } | ServerFrame::Opened { .. } | ServerFrame::Renewed { .. } => {}
                frame => {
                    let (ServerFrame::Ended { call: of } | ServerFrame::Failed { call: of, .. }) = &frame else {
                        panic!("{frame:?}")
                    };
                    assert_eq!(*of, call, "{frame:?}");
                    return frame;
                }
            }
        }
    }

    /// A call fails with this code.
    pub(crate) async fn expect_failure(&mut self, call: u32, psync: &str) {
        match self.end(call).await {
            ServerFrame::Failed { code, message, .. } => assert_eq!(code, psync, "{message}"),
            frame => panic!("{frame:?} is no failure"),
        }
    }

    /// The server closes with this code and a reason like this. Lines may come before.
    pub(crate) async fn expect_close(&mut self, code: u16, like: &str) {
        loop {
            match self.hear().await {
                Ok(ServerFrame::Lines { .. } | ServerFrame::Opened { .. }) => {}
                Ok(frame) => panic!("{frame:?}"),
                Err((with, reason)) => {
                    assert_eq!(with, code, "{reason}");
                    assert!(reason.contains(like), "{reason}");
                    return;
                }
            }
        }
    }
}
