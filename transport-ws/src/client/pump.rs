//! The task of one stream: it reads the socket and gives signs of life, also while the application is busy elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, SinkExt, StreamExt};
use syncline_core::{Clock, Error, Result, SystemClock};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::conversation::{CREDIT, Conversation, Heard};
use super::endpoint::{Socket, failed};
use super::watched::Arrived;

/// A server that keeps to what it was granted always finds room, and so do a sign of life and what ends the stream.
const ROOM: usize = CREDIT as usize + 3;

/// Saying goodbye takes no longer.
const GOODBYE: Duration = Duration::from_secs(2);

/// Lines that the application has taken, counted for the task.
#[derive(Debug, Default)]
struct Taken {
    lines: AtomicU32,
    changed: Notify,
}

/// Starts the task, and gives what comes; a sign of life is a piece without a byte. Dropping that cancels the stream at the server.
pub(super) fn start(
    socket: Socket,
    conversation: Conversation,
    patience: Duration,
) -> BoxStream<'static, Result<Bytes>> {
    let (lines, receiver) = mpsc::channel(ROOM);
    let taken = Arc::new(Taken::default());
    let arrived = socket.get_ref().arrived();
    let pump = Pump { socket, conversation, patience, lines, taken: Arc::clone(&taken), arrived, seen: 0 };
    tokio::spawn(pump.run());
    stream::unfold((receiver, taken), |(mut receiver, taken)| async move {
        let line: Result<Bytes> = receiver.recv().await?;
        if line.as_ref().is_ok_and(|line| !line.is_empty()) {
            taken.lines.fetch_add(1, Ordering::Relaxed);
            taken.changed.notify_one();
        }
        Some((line, (receiver, taken)))
    })
    .boxed()
}

struct Pump {
    socket: Socket,
    conversation: Conversation,
    patience: Duration,
    lines: mpsc::Sender<Result<Bytes>>,
    taken: Arc<Taken>,
    arrived: Arrived,
    /// How many bytes had arrived when this was looked at last.
    seen: u64,
}

/// What a step led to.
enum Step {
    Next,
    /// The server has ended the stream.
    Ended,
    /// The application has let go of the stream.
    Dropped,
}

impl Pump {
    async fn run(mut self) {
        let end = loop {
            match self.step().await {
                Ok(Step::Next) => {}
                end => break end,
            }
        };
        match end {
            Err(error) => {
                // Whoever does not take it is not interested any more.
                let _ = self.lines.send(Err(error)).await;
                return;
            }
            Ok(Step::Dropped) => self.conversation.cancel(),
            Ok(Step::Next | Step::Ended) => {}
        }
        drop(self.lines);
        // The server learns of it in any case, when the connection goes.
        let _ = timeout(GOODBYE, async {
            while let Some(frame) = self.conversation.next() {
                let Ok(bytes) = frame.encode() else { continue };
                self.socket.feed(Message::Binary(bytes)).await?;
            }
            self.socket.close(None).await
        })
        .await;
    }

    async fn step(&mut self) -> Result<Step> {
        if self.speak().await? {
            return Ok(Step::Dropped);
        }
        // What the server sends beyond its grant waits in the socket.
        let has_room = self.lines.capacity() > 1;
        if !has_room {
            self.conversation.alive(SystemClock.now());
        }
        let due = self.conversation.deadline().since(SystemClock.now());
        tokio::select! {
            () = self.lines.closed() => Ok(Step::Dropped),
            () = self.taken.changed.notified() => {
                self.conversation.taken(self.taken.lines.swap(0, Ordering::Relaxed));
                Ok(Step::Next)
            }
            message = self.socket.next(), if has_room => self.received(message).await,
            () = tokio::time::sleep(due) => {
                // What has come may still wait to be read, on a machine that was busy or asleep.
                let waiting = if has_room { self.socket.next().now_or_never() } else { None };
                let arrived = self.arrived.bytes();
                let step = match waiting {
                    Some(message) => self.received(message).await?,
                    // Part of a message that is still on its way.
                    None if has_room && arrived != self.seen => {
                        self.conversation.alive(SystemClock.now());
                        self.hear(Heard::Nothing).await
                    }
                    None => Step::Next,
                };
                self.seen = arrived;
                self.conversation.tick(SystemClock.now()).map(|()| step)
            }
        }
    }

    /// Sends what there is to say; true if the application has gone meanwhile.
    async fn speak(&mut self) -> Result<bool> {
        let Self { socket, conversation, lines, patience, .. } = self;
        let speak = async {
            let mut spoken = false;
            while let Some(frame) = conversation.next() {
                let bytes =
                    frame.encode().map_err(|error| Error::invalid("the request is too large").caused_by(error))?;
                socket.feed(Message::Binary(bytes)).await.map_err(failed)?;
                spoken = true;
            }
            if spoken { socket.flush().await.map_err(failed) } else { Ok(()) }
        };
        tokio::select! {
            spoken = timeout(*patience, speak) => {
                let silent = |_| Error::unavailable("the server takes nothing");
                spoken.map_err(silent)?.map(|()| false)
            }
            () = lines.closed() => Ok(true),
        }
    }

    async fn received(&mut self, message: Option<tokio_tungstenite::tungstenite::Result<Message>>) -> Result<Step> {
        self.seen = self.arrived.bytes();
        let broken = || Error::unavailable("the connection to the server broke");
        let heard = match message {
            Some(Ok(Message::Binary(message))) => self.conversation.received(SystemClock.now(), message)?,
            Some(Ok(Message::Text(_))) => return Err(Error::protocol("the server sent text, which no frame is")),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.conversation.alive(SystemClock.now());
                Heard::Nothing
            }
            Some(Ok(Message::Close(_))) | None => return Err(broken()),
            Some(Err(error)) => return Err(failed(error)),
        };
        Ok(self.hear(heard).await)
    }

    /// Passes on what was heard.
    async fn hear(&mut self, heard: Heard) -> Step {
        let (line, ended) = match heard {
            // Whoever has something to read knows that the server is there.
            Heard::Nothing => ((self.lines.capacity() == ROOM).then(Bytes::new), false),
            Heard::Line(line) => (Some(line), false),
            Heard::End(line) => (line, true),
        };
        if let Some(line) = line {
            // There is room for it.
            if self.lines.send(Ok(line)).await.is_err() {
                return Step::Dropped;
            }
        }
        if ended { Step::Ended } else { Step::Next }
    }
}
