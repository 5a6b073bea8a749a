//! How a client reaches a server over WebSocket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use rustls::ClientConfig;
use syncline_core::client::ClientLimits;
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Clock, Credentials, Error, LineStream, Result, SystemClock, Transport, WriteCheckpoint};
use tokio::time::timeout;

use super::conversation::Conversation;
use super::endpoint::{Endpoint, public_authorities};
use super::pump;

/// How long a stream is waited for before it is taken for open: a refusal comes sooner, and a store without a checkpoint has
/// no line yet.
const FIRST_LINE: Duration = Duration::from_secs(1);

/// A server whose sync streams are reached by RSocket over WebSocket. Needs a tokio runtime.
///
/// Write checkpoints are asked for by HTTP, also by the official SDKs: another transport does that, for the same server.
/// Each stream is a connection of its own. Proxies of the environment are not used.
#[derive(Clone)]
pub struct WebSocketTransport<W> {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    write_checkpoints: W,
    idle_timeout: Duration,
    answer_timeout: Duration,
    line_bytes: usize,
}

impl<W: Transport> WebSocketTransport<W> {
    /// A server at this URL, as the HTTP transport takes it: `https://sync.example.com`, or `wss://…`. It trusts the
    /// certificate authorities of Mozilla. `write_checkpoints` asks the same server for write checkpoints. Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// `Invalid` if it is no such URL, or has a user, a query or a fragment.
    pub fn new(endpoint: &str, write_checkpoints: W) -> Result<Self> {
        Ok(Self {
            endpoint: Endpoint::parse(endpoint)?,
            tls: Arc::new(public_authorities()?),
            write_checkpoints,
            idle_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(15),
            line_bytes: ClientLimits::default().line_bytes,
        })
    }

    /// Connects by this TLS configuration: other certificate authorities, or a certificate of the client. It may not offer
    /// HTTP/2.
    #[must_use]
    pub fn tls(mut self, config: ClientConfig) -> Self {
        self.tls = Arc::new(config);
        self
    }

    /// How long the server of a stream may be silent until the stream fails; 60 s unless changed. It is asked for a sign of
    /// life every 20 s, or three times in this time.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The largest line that is taken from the server, before it is held in memory; 256 MiB unless changed. Whoever raises
    /// `ClientLimits::line_bytes` raises this as well.
    #[must_use]
    pub fn line_bytes(mut self, bytes: usize) -> Self {
        self.line_bytes = bytes;
        self
    }

    /// How long it may take to connect, with TLS and handshake; 15 s unless changed.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }
}

#[async_trait]
impl<W: Transport> Transport for WebSocketTransport<W> {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        let request = serde_json::to_vec(request)
            .map_err(|error| Error::internal("the request cannot be written as JSON").caused_by(error))?;
        let socket = timeout(self.answer_timeout, self.endpoint.connect(&self.tls, self.line_bytes, None))
            .await
            .map_err(|_| {
                let limit = self.answer_timeout.as_secs_f64();
                Error::unavailable(format!("the server did not answer within {limit} s"))
            })??;
        let conversation =
            Conversation::new(SystemClock.now(), self.idle_timeout, self.line_bytes, &credentials.token, request);
        let mut lines = pump::start(socket, conversation, self.idle_timeout);
        let bytes = match timeout(FIRST_LINE, lines.next()).await {
            Ok(Some(Ok(first))) => stream::once(async { Ok(first) }).chain(lines).boxed(),
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => stream::empty().boxed(),
            Err(_) => lines,
        };
        Ok(LineStream { framing: Framing::Bson, bytes })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        self.write_checkpoints.write_checkpoint(client_id, credentials).await
    }
}

impl<W: fmt::Debug> fmt::Debug for WebSocketTransport<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, write_checkpoints, .. } = self;
        f.debug_struct("WebSocketTransport")
            .field("endpoint", endpoint)
            .field("write_checkpoints", write_checkpoints)
            .finish_non_exhaustive()
    }
}
