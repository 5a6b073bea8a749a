//! Connections as sync streams need them: small lines leave at once, and a peer that takes nothing, or asks for nothing,
//! is cut.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A TCP listener for [`serve`](crate::serve) and `axum::serve`, which should stand in place of a plain one wherever clients
/// are not trusted.
///
/// The router stops the work for a client that does not read, but only the owner of a connection can close it: without
/// this, such a connection stays open until the client closes it. It also switches Nagle's algorithm off, which would
/// hold back small lines.
///
/// ```no_run
/// # async fn example(app: axum::Router) -> std::io::Result<()> {
/// use std::time::Duration;
/// use syncline_transport_http::{Listener, axum};
///
/// let listener = Listener::bind("0.0.0.0:8080").await?.patience(Duration::from_secs(30));
/// syncline_transport_http::serve(listener, app, std::future::pending()).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    patience: Duration,
    idle: Duration,
}

impl Listener {
    /// Listens at this address (`host:port`).
    ///
    /// # Errors
    /// If the address is malformed or taken.
    pub async fn bind(address: &str) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?))
    }

    /// Takes connections from a listener that is open already.
    pub fn new(inner: TcpListener) -> Self {
        Self { inner, patience: Duration::from_secs(75), idle: Duration::from_secs(300) }
    }

    /// How long a connection may stay open while nothing is sent to the peer: the time for a request, head and body, and
    /// for its answer, and the time between two requests. An open sync stream sends a sign of life every 20 s. Default:
    /// 5 min.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How long a peer may take nothing while there is something to send. Default: 75 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Handles errors of accepting itself, for instance too many open files.
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "Nagle's algorithm stays on for a connection");
        }
        let (patience, idle, sent) = (self.patience, self.idle, Instant::now());
        let (silence, unsent) = (Box::pin(sleep(idle)), Unsent::default());
        (Connection { stream, patience, blocked: None, unsent, idle, sent, silence }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection of a [`Listener`].
pub struct Connection {
    stream: TcpStream,
    patience: Duration,
    /// Runs while the peer takes nothing.
    blocked: Option<Pin<Box<Sleep>>>,
    unsent: Unsent,
    idle: Duration,
    /// When something was sent last.
    sent: Instant,
    /// Goes off when nothing was sent for too long, or earlier.
    silence: Pin<Box<Sleep>>,
}

/// Whether a [`Connection`] could not write what it was given last.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsent(Arc<AtomicBool>);

impl Unsent {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Tells what is not yet sent also while another one has the connection.
    pub(super) fn unsent(&self) -> Unsent {
        self.unsent.clone()
    }

    /// Watches an attempt to write: one that cannot go on starts the clock, one that can stops it.
    fn watch<T>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.unsent.0.store(attempt.is_pending(), Ordering::Relaxed);
        if attempt.is_ready() {
            self.blocked = None;
            self.sent = Instant::now();
            return attempt;
        }
        let deadline = Instant::now() + self.patience;
        let sleep = self.blocked.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        while self.silence.as_mut().poll(context).is_ready() {
            let (now, due) = (Instant::now(), self.sent.checked_add(self.idle));
            match due {
                Some(due) if due > now => self.silence.as_mut().reset(due),
                _ => return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection is idle"))),
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.stream.peer_addr().ok()).finish_non_exhaustive()
    }
}
