//! A connection over a socket: does what the state machine says, and tells it what happens.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::channel::mpsc;
use futures::{FutureExt, SinkExt, StreamExt};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Clock, Error, Identity, SyncService, SystemClock, Time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::limits::WebSocketLimits;
use super::subprotocol::{Close, News, Outgoing, Output, Subprotocol};
use super::task::{Pieces, Task, Teller, Times, Told, What};

/// After the close, the client may take so long to read what it was told. A socket that is closed with something unread in
/// it takes back what it has sent.
const LINGER: Duration = Duration::from_secs(2);

/// How much is read and thrown away meanwhile.
const LINGER_BYTES: u64 = 4 << 20;

/// Frames from this size on are counted by the service until they are sent.
const LARGE: usize = 16 << 10;

/// Smaller ones go out together, so many bytes at a time.
const TOGETHER: usize = 32 << 10;

/// The first byte of a WebSocket frame that is a whole binary message (RFC 6455, section 5.2).
const BINARY: u8 = 0x82;

/// The WebSocket limits that go with these: a small buffer to read into, since it is kept and there may be many connections;
/// and none to write from but for pongs.
pub(super) fn config(limits: &WebSocketLimits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(1 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(limits.request_bytes))
        .max_frame_size(Some(limits.request_bytes))
}

/// The connection is over; there is nobody to tell.
struct Gone;

/// One connection.
pub(super) struct Socket<S, P> {
    socket: WebSocketStream<S>,
    /// Messages that go out together, as WebSocket frames them. The socket's own buffer would stay as large as it was once,
    /// while most connections are idle.
    outgoing: Vec<u8>,
    connection: P,
    service: SyncService,
    limits: WebSocketLimits,
    identity: Option<Identity>,
    /// When the connection began.
    begun: Time,
    tasks: HashMap<u32, Task>,
    serial: u64,
    teller: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Subprotocol> Socket<S, P> {
    /// A connection whose handshake is done; it began at this time.
    pub(super) fn new(
        socket: WebSocketStream<S>,
        connection: P,
        service: SyncService,
        limits: WebSocketLimits,
        begun: Time,
    ) -> Self {
        // Each task has one thing on its way at most, or two where a token is verified beside it.
        let (teller, told) = mpsc::channel(limits.streams_per_connection.max(1));
        let (identity, tasks, serial) = (None, HashMap::new(), 0);
        let outgoing = Vec::new();
        Self { socket, outgoing, connection, service, limits, identity, begun, tasks, serial, teller, told }
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
                            let task = Task::of_stream(lines, self.next_teller(stream));
                            self.tasks.insert(stream, task);
                            let user = self.identity.as_ref().map(Identity::user_id);
                            tracing::info!(user, client_id, buckets, "a sync stream opens over WebSocket");
                        }
                        Err(error) => self.connection.told(SystemClock.now(), stream, News::Failed(error)),
                    }
                }
                Output::Ask(call, ask) => {
                    let (service, times) = (self.service.clone(), self.times());
                    let task = Task::of_ask(*ask, service, times, self.next_teller(call));
                    self.tasks.insert(call, task);
                }
                Output::Renew(call, token) => {
                    let (service, times) = (self.service.clone(), self.times());
                    if let Some(task) = self.tasks.get_mut(&call) {
                        let teller = Teller { call, serial: task.serial, told: self.teller.clone() };
                        task.verify(token, service, times, teller);
                    }
                }
                Output::Pull(stream) => {
                    if let Some(task) = self.tasks.get_mut(&stream) {
                        task.pull();
                    }
                }
                Output::Drop(call) => drop(self.tasks.remove(&call)),
                Output::Close(close, reason) => {
                    self.close(close, reason).await;
                    return Err(Gone);
                }
            }
        }
        self.flush().await
    }

    fn next_teller(&mut self, call: u32) -> Teller {
        self.serial += 1;
        Teller { call, serial: self.serial, told: self.teller.clone() }
    }

    fn times(&self) -> Times {
        Times { token: self.limits.setup_time, answer: self.limits.patience }
    }

    async fn send(&mut self, frame: &P::Frame) -> Result<(), Gone> {
        let bytes = frame.bytes().map_err(|error| {
            // Only metadata can be too large, and no frame of a server has any.
            tracing::error!(error, "a frame cannot be written");
            Gone
        })?;
        if self.outgoing.len() + bytes.len() > TOGETHER {
            self.flush().await?;
        }
        put_head(&mut self.outgoing, bytes.len());
        if bytes.len() < LARGE {
            self.outgoing.put_slice(&bytes);
            return Ok(());
        }
        // The frame is let go after this call, and until then what it holds is counted.
        self.flush_with(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.flush_with(Bytes::new()).await
    }

    /// Sends what goes out together, and this after it.
    async fn flush_with(&mut self, last: Bytes) -> Result<(), Gone> {
        let patience = self.limits.patience;
        let mut outgoing = Bytes::from(std::mem::take(&mut self.outgoing)).chain(last);
        let sent = async {
            // A pong may not have gone out as a whole; nothing may come between its bytes.
            self.socket.flush().await?;
            let socket = self.socket.get_mut();
            socket.write_all_buf(&mut outgoing).await?;
            Ok::<_, tungstenite::Error>(socket.flush().await?)
        };
        within(patience, sent).await
    }

    async fn authenticate(&mut self, token: &str) {
        let left = (self.begun + self.limits.setup_time).since(SystemClock.now());
        let verified = match timeout(left, self.service.authenticate(token)).await {
            Ok(Ok(identity)) => {
                let expiry = expiry_of(&identity);
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
            Some(told) = self.told.next() => {
                self.hear(told);
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

    /// Passes on what happened in a task.
    fn hear(&mut self, told: Told) {
        let Some(task) = self.tasks.get_mut(&told.call).filter(|task| task.serial == told.serial) else { return };
        let news = match told.what {
            What::Opened(identity, renewal) => {
                task.renewal = Some(renewal);
                News::Opened(expiry_of(&identity))
            }
            What::Piece(piece) => News::Piece(piece),
            What::Verified(verified) => News::Renewed(verified.and_then(|identity| match &task.renewal {
                Some(renewal) => renewal.renew(&identity).map(|()| expiry_of(&identity)),
                None => Err(Error::internal("a token was verified for what is no open stream")),
            })),
            What::Answered(Ok(number)) => News::WriteCheckpoint(number),
            What::Answered(Err(error)) | What::Failed(error) => News::Failed(error),
        };
        let ended = matches!(news, News::Piece(None));
        self.connection.told(SystemClock.now(), told.call, news);
        if ended && !self.service.readiness().ready {
            self.connection.leave();
        }
    }

    fn received(&mut self, message: Option<tungstenite::Result<Message>>) -> Result<(), Gone> {
        match message {
            Some(Ok(Message::Binary(message))) => self.connection.received(SystemClock.now(), message),
            Some(Ok(Message::Text(_))) => self.connection.violated("a message is text", Close::Unsupported),
            // Answered by the WebSocket itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.connection.alive(SystemClock.now());
            }
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
    async fn close(&mut self, close: Close, reason: &'static str) {
        let code = match close {
            Close::Silent => None,
            Close::Away => Some(CloseCode::Away),
            Close::Protocol => Some(CloseCode::Protocol),
            Close::Unsupported => Some(CloseCode::Unsupported),
            Close::Policy => Some(CloseCode::Policy),
            Close::TooLarge => Some(CloseCode::Size),
            Close::Busy => Some(CloseCode::Again),
        };
        let frame = code.map(|code| CloseFrame { code, reason: reason.into() });
        let Ok(Ok(())) = timeout(LINGER, self.flush()).await else { return };
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

impl<S, P> Drop for Socket<S, P> {
    fn drop(&mut self) {
        tracing::debug!(streams = self.tasks.len(), "a WebSocket connection ends");
    }
}

/// What stands before a message of so many bytes.
fn put_head(out: &mut Vec<u8>, length: usize) {
    out.put_u8(BINARY);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => out.put_u8(length),
        (_, Ok(length)) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        (..) => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

/// When a token of this identity expires.
fn expiry_of(identity: &Identity) -> Option<Time> {
    let expiry = identity.expiry()?;
    let left = expiry.0.saturating_sub(SystemClock.wall().0);
    Some(SystemClock.now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
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
