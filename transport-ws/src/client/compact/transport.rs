//! How a client reaches a server by Syncline's own subprotocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use rustls::ClientConfig;
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Credentials, Error, LineStream, Result, Transport, WriteCheckpoint};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::super::endpoint::{Endpoint, public_authorities};
use super::link::{Answer, CallGuard, Command, Link, Unanswered};
use crate::compact::{NAME, Request};

/// What a client offers that takes compressed lines.
const OFFERED: &str = "syncline.v1.zstd, syncline.v1";

/// No message of a server is larger.
const MESSAGE_BYTES: usize = 256 << 10;

/// A server that is reached by the compact subprotocol over WebSocket, `syncline.v1`. Needs a tokio runtime.
///
/// All streams and write checkpoints go over one connection, which is made when it is needed, and again after it broke; only
/// more than eight at once get another. So other subscriptions, other parameters and new tokens need no new one: a stream is opened that says what is wanted now and
/// where the client stands, and the one before is given up. A handle: clones share their connections. Proxies of the environment
/// are not used.
#[derive(Clone)]
pub struct CompactTransport {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    idle_timeout: Duration,
    answer_timeout: Duration,
    compressed: bool,
    /// The connections that there are: one, unless there are more calls than it takes.
    kept: Arc<Mutex<Vec<Link>>>,
}

impl CompactTransport {
    /// A server at this URL, as the HTTP transport takes it: `https://sync.example.com`, or `wss://…`. It trusts the
    /// certificate authorities of Mozilla. Nothing is connected yet.
    ///
    /// # Errors
    /// `Invalid` if it is no such URL, or has a user, a query or a fragment.
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self {
            endpoint: Endpoint::parse(endpoint)?,
            tls: Arc::new(public_authorities()?),
            idle_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(15),
            compressed: false,
            kept: Arc::default(),
        })
    }

    /// Connects by this TLS configuration: other certificate authorities, or a certificate of the client. It may not offer
    /// HTTP/2.
    #[must_use]
    pub fn tls(mut self, config: ClientConfig) -> Self {
        self.tls = Arc::new(config);
        self
    }

    /// Lets the server compress lines with Zstandard; it does not unless changed.
    #[must_use]
    pub fn compressed(mut self, compressed: bool) -> Self {
        self.compressed = compressed;
        self
    }

    /// How long the server may be silent until the connection fails; 60 s unless changed. It is asked for a sign of life every
    /// 20 s, or three times in this time.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long it may take to connect, with TLS and handshake, and then to be answered; 15 s each unless changed.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Makes a call on a connection that is kept, or on a new one; and says which.
    async fn begin<M>(&self, make: &impl Fn(&Link) -> Option<M>) -> Result<(M, Age)> {
        let connecting = async {
            // Whoever comes meanwhile waits for the same connection.
            let mut kept = self.kept.lock().await;
            kept.retain(|link| !link.is_gone());
            if let Some(made) = kept.iter().find_map(make) {
                return Ok((made, Age::Kept));
            }
            let offered = if self.compressed { OFFERED } else { NAME };
            let socket = self.endpoint.connect(&self.tls, MESSAGE_BYTES, Some(offered)).await?;
            let link = Link::start(socket, self.idle_timeout);
            let made = make(&link).ok_or_else(|| Error::unavailable("the connection to the server broke"))?;
            kept.push(link);
            Ok((made, Age::New))
        };
        timeout(self.answer_timeout, connecting).await.map_err(|_| self.late())?
    }

    /// Makes a call and waits for its answer; one more time if the connection had been kept and turns out to be broken.
    /// Gives back what was made with it.
    async fn call<T, W>(&self, make: impl Fn(&Link) -> Option<(oneshot::Receiver<Answer<T>>, W)>) -> Result<(T, W)> {
        for _ in 0..2 {
            let ((answer, with), age) = self.begin(&make).await?;
            let answer = timeout(self.answer_timeout, answer).await.map_err(|_| self.late())?;
            let broken = || Unanswered::Broken(Error::unavailable("the connection to the server broke"));
            match answer.unwrap_or_else(|_| Err(broken())) {
                Ok(answer) => return Ok((answer, with)),
                Err(Unanswered::Refused(error)) => return Err(error),
                Err(Unanswered::Broken(error)) if age == Age::New => return Err(error),
                Err(Unanswered::Broken(error)) => tracing::debug!(%error, "a connection that was kept is of no use"),
            }
        }
        Err(Error::unavailable("two connections to the server broke"))
    }

    fn late(&self) -> Error {
        let limit = self.answer_timeout.as_secs_f64();
        Error::unavailable(format!("the server did not answer within {limit} s"))
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Kept,
    New,
}

#[async_trait]
impl Transport for CompactTransport {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        let request = Request::of(request)?;
        let open = |link: &Link| {
            let (lines, receiver) = mpsc::unbounded_channel();
            let (opened, is_open) = oneshot::channel();
            let (token, request) = (credentials.token.clone(), request.clone());
            let guard = link.call(|call| Command::Open { call, token, request, lines, opened })?;
            Some((is_open, bytes_of(receiver, guard)))
        };
        let ((), bytes) = self.call(open).await?;
        Ok(LineStream { framing: Framing::Compact, bytes })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        let ask = |link: &Link| {
            let (answered, answer) = oneshot::channel();
            let (token, client_id) = (credentials.token.clone(), client_id.to_owned());
            let guard = link.call(|call| Command::Ask { call, token, client_id, answered })?;
            Some((answer, guard))
        };
        Ok(self.call(ask).await?.0)
    }
}

/// What comes; what is taken is told to the connection, and dropping it gives the stream up.
fn bytes_of(lines: mpsc::UnboundedReceiver<Result<Bytes>>, guard: CallGuard) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold((lines, guard), |(mut lines, guard)| async move {
        let bytes: Result<Bytes> = lines.recv().await?;
        guard.taken(bytes.as_ref().map_or(0, Bytes::len));
        Some((bytes, (lines, guard)))
    })
    .boxed()
}

impl fmt::Debug for CompactTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactTransport").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
