//! The task that owns the replication socket: it reads ahead within a bound and never stops answering the server.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::{Socket, frame_length};
use crate::error::{PgError, ServerError};
use crate::lsn::Lsn;

/// How much may be read ahead of the consumer.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// How much is asked of the socket at once.
const READ: usize = 256 * 1024;
/// How long between two answers to the server, at most.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(10);
/// How long between two confirmations of durable positions, at least.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer may take to leave.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// After this much silence the server is asked for a sign of life; it may be long in coming, since a server that decodes
/// changes of no interest to us is silent.
const PING_AFTER: Duration = Duration::from_secs(60);
/// After this much silence the connection counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(600);
/// How long a server that wants to shut down is kept waiting for a confirmation that does not come.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);

/// Microseconds from 1970 to 2000, where Postgres counts from.
pub(crate) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A running stream. Dropping it closes the connection, which frees the slot.
#[derive(Debug)]
pub(crate) struct WalStream {
    frames: mpsc::UnboundedReceiver<Result<WalFrames, PgError>>,
    task: JoinHandle<()>,
}

/// Whole frames as they arrived, back to back.
#[derive(Debug)]
pub(crate) struct WalFrames {
    bytes: Bytes,
    /// Gives the room in the queue back when the frames have been dealt with.
    _room: OwnedSemaphorePermit,
}

/// One frame of the stream.
#[derive(Debug, PartialEq)]
pub(crate) enum WalFrame {
    /// A message of the plugin.
    Data(Bytes),
    /// How far the server has read and sent, outside any data.
    Keepalive {
        /// Everything that committed before it has been sent.
        end: Lsn,
        /// Whether the server asked for an answer, which it has got.
        reply_requested: bool,
    },
}

impl WalFrames {
    /// Takes the next frame.
    pub(crate) fn next(&mut self) -> Result<Option<WalFrame>, PgError> {
        let Some(&[_, a, b, c, d]) = self.bytes.first_chunk() else { return Ok(None) };
        let length = frame_length([a, b, c, d])?;
        if self.bytes.len() <= length {
            return Err(PgError::Protocol("half a frame".into()));
        }
        let mut frame = self.bytes.split_to(length + 1);
        frame.advance(5);
        let short = || PgError::Protocol("a frame of the stream is too short".into());
        match frame.first() {
            Some(b'w') => {
                if frame.len() < 25 {
                    return Err(short());
                }
                frame.advance(25);
                Ok(Some(WalFrame::Data(frame)))
            }
            Some(b'k') => {
                let keepalive = Keepalive::parse(&frame).ok_or_else(short)?;
                Ok(Some(WalFrame::Keepalive { end: keepalive.end, reply_requested: keepalive.reply_requested }))
            }
            _ => Err(short()),
        }
    }
}

impl WalStream {
    pub(super) fn spawn(
        socket: Socket,
        input: BytesMut,
        start: Lsn,
        sender_timeout: Duration,
        durable: Arc<watch::Receiver<Lsn>>,
    ) -> Self {
        let (sender, frames) = mpsc::unbounded_channel();
        // A third of the server's patience; zero means that it waits for ever.
        let interval = match sender_timeout / 3 {
            Duration::ZERO => FEEDBACK_INTERVAL,
            third => third.min(FEEDBACK_INTERVAL),
        };
        let reader = Reader {
            socket,
            input,
            scanned: 0,
            durable: (*durable).clone(),
            received: start,
            confirmed: Lsn(0),
            interval,
            reply_now: false,
            last_read: Instant::now(),
            shutdown_asked: None,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = reader.run(&sender).await {
                // Nobody listens if the stream was dropped, and then nobody wants to know.
                let _ = sender.send(Err(error));
            }
        });
        Self { frames, task }
    }

    /// The next frames, waiting for them. Cancel safe. After an error there are none.
    pub(crate) async fn next(&mut self) -> Result<WalFrames, PgError> {
        self.frames.recv().await.unwrap_or_else(|| Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())))
    }

    /// The next frames, if they have arrived.
    pub(crate) fn try_next(&mut self) -> Option<Result<WalFrames, PgError>> {
        self.frames.try_recv().ok()
    }
}

impl Drop for WalStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keepalive {
    end: Lsn,
    reply_requested: bool,
}

impl Keepalive {
    fn parse(body: &[u8]) -> Option<Self> {
        let end = Lsn(u64::from_be_bytes(*body.get(1..)?.first_chunk()?));
        Some(Self { end, reply_requested: *body.get(17)? != 0 })
    }
}

struct Reader {
    socket: Socket,
    input: BytesMut,
    /// Bytes of `input` that are whole frames.
    scanned: usize,
    durable: watch::Receiver<Lsn>,
    /// The highest position that the server has told us.
    received: Lsn,
    /// The highest position that we have confirmed.
    confirmed: Lsn,
    interval: Duration,
    reply_now: bool,
    last_read: Instant,
    /// Since when the server has been asking for the same position.
    shutdown_asked: Option<(Lsn, Instant)>,
}

impl Reader {
    async fn run(mut self, sender: &mpsc::UnboundedSender<Result<WalFrames, PgError>>) -> Result<(), PgError> {
        let queue = Arc::new(Semaphore::new(QUEUE_BYTES));
        let mut waiting: Option<Bytes> = self.scan()?;
        let mut feedback_at = Instant::now();
        let mut confirm_at: Option<Instant> = None;
        loop {
            if self.reply_now || feedback_at <= Instant::now() {
                self.feedback(waiting.is_some()).await?;
                feedback_at = Instant::now() + self.interval;
                confirm_at = None;
            }
            let wanted = waiting.as_ref().map_or(0, |bytes| bytes.len().min(QUEUE_BYTES));
            let timer = confirm_at.map_or(feedback_at, |at| at.min(feedback_at));
            tokio::select! {
                biased;
                () = sleep_until(timer) => feedback_at = Instant::now(),
                changed = self.durable.changed(), if confirm_at.is_none() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    confirm_at = Some(Instant::now() + CONFIRM_INTERVAL.min(self.interval));
                }
                room = queue.clone().acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX)),
                    if waiting.is_some() =>
                {
                    let (Ok(room), Some(bytes)) = (room, waiting.take()) else { return Ok(()) };
                    if sender.send(Ok(WalFrames { bytes, _room: room })).is_err() {
                        return Ok(());
                    }
                    // More may have been scanned past an earlier limit.
                    waiting = self.scan()?;
                }
                read = read(&mut self.socket, &mut self.input), if waiting.is_none() => {
                    if read? == 0 {
                        return Err(PgError::Io(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.last_read = Instant::now();
                    waiting = self.scan()?;
                }
            }
        }
    }

    /// Splits off the whole frames that have arrived, and looks into them for what must be answered at once.
    fn scan(&mut self) -> Result<Option<Bytes>, PgError> {
        let error = loop {
            let rest = &self.input[self.scanned..];
            let Some(&[tag, a, b, c, d]) = rest.first_chunk() else { break None };
            let length = frame_length([a, b, c, d])?;
            if rest.len() <= length {
                let missing = length + 1 - rest.len();
                self.input.reserve(missing);
                break None;
            }
            let body = &rest[5..=length];
            match (tag, body.first()) {
                (b'd', Some(b'w')) => {
                    if let Some(chunk) = body.get(1..).and_then(|body| body.first_chunk()) {
                        self.received = self.received.max(Lsn(u64::from_be_bytes(*chunk)));
                    }
                }
                (b'd', Some(b'k')) => {
                    if let Some(keepalive) = Keepalive::parse(body) {
                        self.received = self.received.max(keepalive.end);
                        self.reply_now |= keepalive.reply_requested;
                        self.watch_shutdown(&keepalive)?;
                    }
                }
                (b'E', _) => {
                    let error = ServerError::parse(&Bytes::copy_from_slice(body));
                    break Some(PgError::Server(Box::new(error)));
                }
                (b'N' | b'S', _) => {
                    // Cut out, so that only data is handed on. They are rare.
                    let tail = self.input.split_off(self.scanned + length + 1);
                    self.input.truncate(self.scanned);
                    self.input.unsplit(tail);
                    continue;
                }
                // The end of the stream and of its command: the server shuts down.
                (b'c' | b'C', _) => break Some(PgError::Io(io::ErrorKind::ConnectionAborted.into())),
                (tag, _) => {
                    let what = format!("a message `{}` in the stream", tag.escape_ascii());
                    break Some(PgError::Protocol(what));
                }
            }
            self.scanned += length + 1;
        };
        if self.scanned > 0 {
            // An error behind them is found again by the next scan.
            let frames = self.input.split_to(self.scanned).freeze();
            self.scanned = 0;
            return Ok(Some(frames));
        }
        error.map_or(Ok(None), Err)
    }

    /// A server that shuts down asks again and again for the confirmation of all it has sent.
    fn watch_shutdown(&mut self, keepalive: &Keepalive) -> Result<(), PgError> {
        if !keepalive.reply_requested || self.confirmed >= keepalive.end {
            self.shutdown_asked = None;
            return Ok(());
        }
        match self.shutdown_asked {
            Some((end, since)) if end == keepalive.end => {
                if since.elapsed() > SHUTDOWN_PATIENCE {
                    return Err(PgError::Io(io::Error::other(
                        "the server waits for a confirmation that cannot be given yet; it seems to be shutting down",
                    )));
                }
            }
            _ => self.shutdown_asked = Some((keepalive.end, Instant::now())),
        }
        Ok(())
    }

    /// Tells the server what has been received and what is durable.
    async fn feedback(&mut self, blocked: bool) -> Result<(), PgError> {
        let silent = self.last_read.elapsed();
        if !blocked && silent > DEAD_AFTER {
            return Err(PgError::Timeout(DEAD_AFTER));
        }
        // The server believes anything: a position that it never sent would lose all that lies before it.
        let durable = (*self.durable.borrow_and_update()).min(self.received);
        self.confirmed = self.confirmed.max(durable);
        let mut packet = BytesMut::with_capacity(39);
        packet.put_u8(b'd');
        packet.put_u32(38);
        packet.put_u8(b'r');
        packet.put_u64(self.received.0);
        packet.put_u64(self.confirmed.0);
        packet.put_u64(self.confirmed.0);
        packet.put_i64(now_micros());
        packet.put_u8(u8::from(!blocked && silent > PING_AFTER));
        let write = async {
            self.socket.write_all(&packet).await?;
            self.socket.flush().await
        };
        timeout(WRITE_LIMIT, write).await.map_err(|_| PgError::Timeout(WRITE_LIMIT))??;
        self.reply_now = false;
        Ok(())
    }
}

/// Appends what has arrived. Cancel safe: nothing is lost if it is dropped.
async fn read(socket: &mut Socket, input: &mut BytesMut) -> io::Result<usize> {
    if input.capacity() - input.len() < 16 * 1024 {
        input.reserve(READ);
    }
    socket.read_buf(input).await
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_MICROS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn frames(bytes: Vec<u8>) -> WalFrames {
        let queue = Arc::new(Semaphore::new(1));
        WalFrames { bytes: bytes.into(), _room: queue.try_acquire_owned().unwrap() }
    }

    #[test]
    fn frames_are_taken_one_by_one() {
        let mut bytes = vec![b'd', 0, 0, 0, 4 + 26, b'w'];
        bytes.extend([0; 24]);
        bytes.extend(*b"C");
        bytes.extend([b'd', 0, 0, 0, 4 + 18, b'k', 0, 0, 0, 0, 0, 0, 1, 2]);
        bytes.extend([0; 8]);
        bytes.push(1);
        let mut frames = frames(bytes);
        assert_eq!(frames.next().unwrap(), Some(WalFrame::Data(Bytes::from_static(b"C"))));
        assert_eq!(frames.next().unwrap(), Some(WalFrame::Keepalive { end: Lsn(0x102), reply_requested: true }));
        assert_eq!(frames.next().unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut frames = frames(bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
