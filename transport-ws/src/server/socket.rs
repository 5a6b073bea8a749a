//! A connection over a socket: does what the state machine says, and tells it what happens.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Clock, Error, Identity, SyncService, SystemClock, Time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::connection::{Close, Connection, Output};
use super::limits::WebSocketLimits;
use super::stream_task::{Pieces, Pulled, StreamTask};
use crate::frame::Frame;

/// After the close, the client may take so long to read what it was told. A socket that is closed with something unread in
/// it takes back what it has sent.
const LINGER: Duration = Duration::from_secs(2);

/// How much is read and thrown away meanwhile.
const LINGER_BYTES: u64 = 4 << 20;

/// Frames from this size on are counted by the service until they are sent.
const LARGE: usize = 16 << 10;

/// The WebSocket limits that go with these: small buffers, since there may be many connections.
pub(super) fn config(limits: &WebSocketLimits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(32 << 10)
        .max_message_size(Some(limits.request_bytes))
        .max_frame_size(Some(limits.request_bytes))
}

/// The connection is over; there is nobody to tell.
struct Gone;

/// One connection.
pub(super) struct Socket<S> {
    socket: WebSocketStream<S>,
    connection: Connection,
    service: SyncService,
    limits: WebSocketLimits,
    identity: Option<Identity>,
    /// When the connection began.
    begun: Time,
    streams: HashMap<u32, StreamTask>,
    serial: u64,
    pieces: mpsc::Sender<Pulled>,
    pulled: mpsc::Receiver<Pulled>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A connection whose handshake is done; it began at this time.
    pub(super) fn new(socket: WebSocketStream<S>, service: SyncService, limits: WebSocketLimits, begun: Time) -> Self {
        // Each stream has one piece on its way at most.
        let (pieces, pulled) = mpsc::channel(limits.streams_per_connection.max(1));
        let connection = Connection::new(begun, limits);
        let (identity, streams, serial) = (None, HashMap::new(), 0);
        Self { socket, connection, service, limits, identity, begun, streams, serial, pieces, pulled }
    }

    /// Serves it until it is over.
    pub(super) async fn run(mut self) {
        while let Ok(()) = self.work().await {
            if self.wait().await.is_err() {
                return;
            }
        }
    }

    /// Tells the client that there are too many.
    pub(super) async fn refuse(mut self) {
        self.connection.refuse_for_number();
        // Over in any case.
        let _ = self.work().await;
    }

    /// Does all that is to be done now.
    async fn work(&mut self) -> Result<(), Gone> {
        while let Some(output) = self.connection.next() {
            match output {
                Output::Send(frame) => self.send(&frame).await?,
                Output::Authenticate(token) => self.authenticate(&token).await,
                Output::Open(stream, request) => {
                    let (client_id, buckets) = (request.client_id.clone(), request.buckets.len());
                    match self.open(*request) {
                        Ok(lines) => {
                            self.serial += 1;
                            let task = StreamTask::start(stream, self.serial, lines, self.pieces.clone());
                            self.streams.insert(stream, task);
                            let user = self.identity.as_ref().map(Identity::user_id);
                            tracing::info!(user, client_id, buckets, "a sync stream opens over WebSocket");
                        }
                        Err(error) => self.connection.failed(SystemClock.now(), stream, &error),
                    }
                }
                Output::Pull(stream) => {
                    if let Some(task) = self.streams.get(&stream) {
                        task.pull();
                    }
                }
                Output::Drop(stream) => drop(self.streams.remove(&stream)),
                Output::Close(close) => {
                    self.close(close).await;
                    return Err(Gone);
                }
            }
        }
        within(self.limits.patience, self.socket.flush()).await
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), Gone> {
        let bytes = frame.encode().map_err(|error| {
            // Only metadata can be too large, and no frame of a server has any.
            tracing::error!(%error, "a frame cannot be written");
            Gone
        })?;
        let large = bytes.len() >= LARGE;
        let patience = self.limits.patience;
        within(patience, self.socket.feed(Message::Binary(bytes))).await?;
        // The frame is let go after this call, and until then what it holds is counted.
        if large { within(patience, self.socket.flush()).await } else { Ok(()) }
    }

    async fn authenticate(&mut self, token: &str) {
        let left = (self.begun + self.limits.setup_time).since(SystemClock.now());
        let verified = match timeout(left, self.service.authenticate(token)).await {
            Ok(Ok(identity)) => {
                let expiry = identity.expiry().map(|expiry| {
                    let left = expiry.0.saturating_sub(SystemClock.wall().0);
                    SystemClock.now() + Duration::from_millis(u64::try_from(left).unwrap_or(0))
                });
                self.identity = Some(identity);
                Ok(expiry)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::unavailable("the token could not be verified in time")),
        };
        self.connection.authenticated(SystemClock.now(), verified);
    }

    fn open(&self, request: SyncRequest) -> syncline_core::Result<Pieces> {
        let identity = self.identity.clone().ok_or_else(|| Error::internal("a stream was opened before its token"))?;
        self.service.stream(identity, request, Framing::Bson)
    }

    /// Waits until something happens, and tells the connection of it.
    async fn wait(&mut self) -> Result<(), Gone> {
        let deadline = self.connection.deadline();
        let until = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.since(SystemClock.now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.socket.next() => self.received(message),
            // The channel cannot close: this end holds a sender.
            Some(pulled) = self.pulled.recv() => {
                if self.streams.get(&pulled.stream).is_some_and(|task| task.serial == pulled.serial) {
                    self.connection.pulled(SystemClock.now(), pulled.stream, pulled.piece);
                }
                Ok(())
            }
            () = until => {
                // What has come in time may still wait to be read, while a slow client took a large line.
                if let Some(message) = self.socket.next().now_or_never() {
                    self.received(message)?;
                }
                self.connection.tick(SystemClock.now());
                Ok(())
            }
        }
    }

    fn received(&mut self, message: Option<tungstenite::Result<Message>>) -> Result<(), Gone> {
        match message {
            Some(Ok(Message::Binary(message))) => self.connection.received(SystemClock.now(), message),
            Some(Ok(Message::Text(_))) => self.connection.violated("a message is text", Close::Unsupported),
            // Answered by the WebSocket itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(tungstenite::Error::Capacity(_))) => {
                let rule = "a message is larger than `WebSocketLimits::request_bytes`";
                self.connection.violated(rule, Close::TooLarge);
            }
            Some(Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ))) => {
                return Err(Gone);
            }
            Some(Err(tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_))) => {
                self.connection.violated("the rules of WebSocket are broken", Close::Protocol);
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
        }
        Ok(())
    }

    /// Says why, and waits until the client has read it.
    async fn close(&mut self, close: Close) {
        let code = match close {
            Close::Silent => None,
            Close::Protocol => Some(CloseCode::Protocol),
            Close::Unsupported => Some(CloseCode::Unsupported),
            Close::Policy => Some(CloseCode::Policy),
            Close::TooLarge => Some(CloseCode::Size),
        };
        let frame = code.map(|code| CloseFrame { code, reason: "".into() });
        let told = async {
            self.socket.feed(Message::Close(frame)).await?;
            self.socket.flush().await
        };
        if within(LINGER, told).await.is_err() {
            return;
        }
        let mut unread = self.socket.get_mut().take(LINGER_BYTES);
        // Whatever still comes is too late, and so is whatever goes wrong.
        let _ = timeout(LINGER, tokio::io::copy(&mut unread, &mut tokio::io::sink())).await;
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        tracing::debug!(streams = self.streams.len(), "a WebSocket connection ends");
    }
}

async fn within<T, E: std::fmt::Display>(time: Duration, call: impl Future<Output = Result<T, E>>) -> Result<T, Gone> {
    match timeout(time, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a WebSocket connection broke");
            Err(Gone)
        }
        Err(_) => {
            tracing::info!(?time, "a client reads nothing; its connection is cut");
            Err(Gone)
        }
    }
}
