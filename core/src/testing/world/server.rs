//! The server process: it accepts what the network brings, and pumps the bytes of a service's streams into it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::{BoxStream, StreamExt};

use super::executor::Spawner;
use super::ledger::{Fact, Ledger};
use super::link::Link;
use super::lock;
use super::pipe::Pipe;
use super::process::Process;
use super::virtual_time::ProcessClock;
use crate::bucket::BucketPriority;
use crate::clock::Clock;
use crate::config::StreamSubscription;
use crate::error::{Error, Result};
use crate::protocol::{ClientLine, Framing, LineDecoder, SyncRequest};
use crate::server::SyncService;
use crate::time::WallTime;
use crate::write_checkpoint::{WriteCheckpoint, WriteCheckpointRequest};

/// A client that takes nothing for so long loses its stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same once its token has ended, in milliseconds.
const AFTER_EXPIRY: u64 = 30_000;

/// Where the server listens. A handle; it outlives the processes that serve there.
#[derive(Clone)]
pub(super) struct Port {
    running: Arc<Mutex<Option<(SyncService, ProcessClock)>>>,
    spawner: Spawner,
    ledger: Ledger,
    streams: Arc<AtomicU64>,
}

impl Port {
    pub(super) fn new(spawner: Spawner, ledger: Ledger) -> Self {
        Self { running: Arc::default(), spawner, ledger, streams: Arc::default() }
    }

    pub(super) fn listen(&self, running: Option<(SyncService, ProcessClock)>) {
        let before = std::mem::replace(&mut *lock(&self.running), running);
        drop(before);
    }

    fn running(&self) -> Result<(SyncService, ProcessClock)> {
        lock(&self.running).clone().ok_or_else(|| Error::unavailable("nobody listens at the server's port"))
    }

    /// Starts a stream into `pipe`; the answer says whether it was accepted.
    pub(super) fn open(
        &self,
        client: usize,
        link: &Link,
        pipe: Pipe,
        (request, token): (SyncRequest, String),
        framing: Framing,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        let (service, clock) = self.running()?;
        let (answer, answered) = oneshot::channel();
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let pump = Pump {
            client,
            stream,
            link: link.clone(),
            pipe,
            ledger: self.ledger.clone(),
            clock,
            expiry: None,
            finished: false,
        };
        let subscriptions = request.streams.iter().flat_map(|streams| &streams.subscriptions);
        let subscriptions: Vec<StreamSubscription> = subscriptions
            .map(|requested| StreamSubscription {
                stream: requested.stream.clone(),
                parameters: requested.parameters.clone(),
                override_priority: requested.override_priority.map(BucketPriority),
            })
            .collect();
        self.spawner.spawn(Process::Server, async move {
            let opened = async {
                let identity = service.authenticate(&token).await?;
                let bytes = service.stream(identity.clone(), request, framing)?;
                Ok((identity, bytes))
            };
            match opened.await {
                Ok((identity, bytes)) => {
                    let mut pump = pump;
                    pump.expiry = identity.expiry();
                    let identity = Box::new(identity);
                    pump.ledger.record(Fact::StreamOpened { client, stream, identity, subscriptions });
                    drop(answer.send(Ok(())));
                    pump.run(bytes, framing).await;
                }
                Err(error) => {
                    let mut pump = pump;
                    pump.finished = true;
                    drop(answer.send(Err(error)));
                }
            }
        });
        Ok(answered)
    }

    /// Asks the service for a write checkpoint.
    pub(super) fn write_checkpoint(
        &self,
        client_id: &str,
        token: &str,
    ) -> Result<oneshot::Receiver<Result<WriteCheckpoint>>> {
        let (service, _) = self.running()?;
        let (answer, answered) = oneshot::channel();
        let (client_id, token) = (client_id.to_owned(), token.to_owned());
        self.spawner.spawn(Process::Server, async move {
            let asked = async {
                let identity = service.authenticate(&token).await?;
                service.request_write_checkpoint(&identity, Some(&client_id), WriteCheckpointRequest::Next).await
            };
            drop(answer.send(asked.await));
        });
        Ok(answered)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

/// The server's end of one stream.
struct Pump {
    client: usize,
    stream: u64,
    link: Link,
    pipe: Pipe,
    ledger: Ledger,
    clock: ProcessClock,
    /// When the stream's token ends.
    expiry: Option<WallTime>,
    finished: bool,
}

impl Pump {
    async fn run(mut self, mut bytes: BoxStream<'static, Result<Bytes>>, framing: Framing) {
        let mut decoder = LineDecoder::new(framing, LineDecoder::DEFAULT_LIMIT);
        loop {
            let next = {
                let closed = std::pin::pin!(self.pipe.closed(&self.link));
                match select(bytes.next(), closed).await {
                    Either::Left((next, _)) => next,
                    Either::Right(_) => break,
                }
            };
            match next {
                Some(Ok(piece)) => {
                    let damaged = self.witness(&mut decoder, &piece);
                    let stuck = {
                        let patience = self.clock.sleep_until(self.clock.now() + self.patience());
                        let closed = std::pin::pin!(self.pipe.closed(&self.link));
                        let room = std::pin::pin!(self.pipe.room());
                        matches!(select(room, select(closed, patience)).await, Either::Right(_))
                    };
                    if stuck {
                        self.pipe.finish(Err(Error::unavailable("the client read nothing for too long")));
                        break;
                    }
                    self.pipe.push(&self.link, damaged.unwrap_or(piece));
                }
                Some(Err(error)) => {
                    self.ledger.note(format!("server: stream {} fails: {error}", self.stream));
                    self.pipe.finish(Err(error));
                    break;
                }
                None => {
                    self.pipe.finish(Ok(()));
                    break;
                }
            }
        }
        self.finished = true;
    }

    /// How long a client may take for one piece: as the HTTP server has it.
    fn patience(&self) -> Duration {
        let Some(expiry) = self.expiry else { return PATIENCE };
        let end = expiry.0.saturating_add_unsigned(AFTER_EXPIRY);
        PATIENCE.min(Duration::from_millis(u64::try_from(end.saturating_sub(self.clock.wall().0)).unwrap_or(0)))
    }

    /// Records the lines of a piece. Returns the piece as the network damages it, if it is to do that.
    fn witness(&self, decoder: &mut LineDecoder, piece: &Bytes) -> Option<Bytes> {
        let (client, stream) = (self.client, self.stream);
        decoder.push(piece.clone());
        let mut bucket = None;
        loop {
            match decoder.next() {
                Ok(Some(line)) => {
                    if let ClientLine::Data(data) = &line {
                        bucket.get_or_insert_with(|| data.bucket.to_string());
                    }
                    self.ledger.record(Fact::Sent { client, stream, line: Box::new(line) });
                }
                Ok(None) => break,
                Err(error) => {
                    self.ledger.record(Fact::Garbled { client, stream, why: error.to_string() });
                    break;
                }
            }
        }
        let bucket = bucket?;
        let damages = self.link.lock().damages;
        if !self.link.random.permille(damages) {
            return None;
        }
        let damaged = damage(piece, self.link.random.permille(500))?;
        self.ledger.record(Fact::Corrupted { client, bucket });
        Some(damaged)
    }
}

/// The piece without its first data line, or with a digit of the first operation's checksum changed; only of lines of text.
fn damage(piece: &Bytes, leave_out: bool) -> Option<Bytes> {
    let find = |from: usize, text: &[u8]| {
        let at = piece.get(from..)?.windows(text.len()).position(|window| window == text)?;
        Some(from + at + text.len())
    };
    let begins = b"{\"data\":{";
    let data = find(0, begins)?;
    let mut bytes = piece.to_vec();
    if leave_out {
        drop(bytes.drain(data - begins.len()..find(data, b"\n")?));
        return Some(bytes.into());
    }
    let digit = find(data, b"\"checksum\":")?;
    let place = bytes.get_mut(digit)?;
    if !place.is_ascii_digit() {
        return None;
    }
    *place = if *place == b'1' { b'2' } else { b'1' };
    Some(bytes.into())
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.ledger.record(Fact::StreamEnded { client: self.client, stream: self.stream });
        // A crash: the machine may tell the client that nobody is there any more, or not.
        if !self.finished {
            if self.link.random.permille(500) { self.pipe.reset() } else { self.pipe.kill() }
        }
    }
}
