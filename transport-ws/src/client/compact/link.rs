//! The tasks of one connection: one reads and gives signs of life, also while the application is busy elsewhere, and one
//! writes, so that what cannot be written yet does not keep the other from reading.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use syncline_core::{Clock, Error, ErrorKind, Result, SystemClock, WriteCheckpoint};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::endpoint::{Socket, failed};
use super::super::watched::Arrived;
use super::calls::{Calls, Due, Heard};
use crate::compact::{MOST_CALLS, Request};

/// Saying goodbye takes no longer.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The server says so.
    Refused(Error),
    /// The connection broke before anything was heard of the call: it may be made again on another one.
    Broken(Error),
}

pub(super) type Answer<T> = Result<T, Unanswered>;

/// What the application wants of a connection.
#[derive(Debug)]
pub(super) enum Command {
    Open {
        call: u32,
        token: String,
        request: Request,
        lines: mpsc::UnboundedSender<Result<Bytes>>,
        opened: oneshot::Sender<Answer<()>>,
    },
    Ask {
        call: u32,
        token: String,
        client_id: String,
        answered: oneshot::Sender<Answer<WriteCheckpoint>>,
    },
    /// So many bytes of a stream were taken.
    Taken(u32, u64),
    /// Nobody waits for this call any more.
    Gone(u32),
}

/// A connection. A handle: it is closed when the last clone is dropped, or when nobody has needed it for a while.
#[derive(Debug, Clone)]
pub(super) struct Link(Arc<Mutex<Outbox>>);

#[derive(Debug)]
struct Outbox {
    /// The number of the last call.
    last: u32,
    /// How many calls someone waits for.
    calls: usize,
    commands: mpsc::UnboundedSender<Command>,
}

impl Link {
    /// Starts the tasks of a connection whose server may be silent for so long.
    pub(super) fn start(socket: Socket, patience: Duration) -> Self {
        let arrived = socket.get_ref().arrived();
        let (sink, messages) = socket.split();
        let (writes, to_write) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(sink, to_write, patience));
        let (commands, received) = mpsc::unbounded_channel();
        let calls = Calls::new(SystemClock.now(), patience);
        let (streams, questions) = (HashMap::new(), HashMap::new());
        let carrier =
            Carrier { messages, writes, writer, calls, commands: received, streams, questions, arrived, seen: 0 };
        tokio::spawn(carrier.run());
        Self(Arc::new(Mutex::new(Outbox { last: 0, calls: 0, commands })))
    }

    /// Whether no call will ever be made on it again.
    pub(super) fn is_gone(&self) -> bool {
        let outbox = self.outbox();
        outbox.commands.is_closed() || outbox.last == u32::MAX
    }

    /// Makes a call: numbers it, and sends what is made of that; `None` if there are as many as a connection has, or it is gone.
    /// Dropping what comes back gives the call up.
    pub(super) fn call(&self, command: impl FnOnce(u32) -> Command) -> Option<CallGuard> {
        // Numbers rise in the order in which they are sent.
        let mut outbox = self.outbox();
        if outbox.calls >= MOST_CALLS {
            return None;
        }
        let call = outbox.last.checked_add(1)?;
        outbox.commands.send(command(call)).ok()?;
        outbox.last = call;
        outbox.calls += 1;
        Some(CallGuard { link: self.clone(), call })
    }

    fn tell(&self, command: Command) {
        // A connection that is over has told all calls so.
        let _ = self.outbox().commands.send(command);
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that someone waits for.
#[derive(Debug)]
pub(super) struct CallGuard {
    link: Link,
    call: u32,
}

impl CallGuard {
    /// So many bytes of its lines were taken.
    pub(super) fn taken(&self, bytes: usize) {
        if bytes > 0 {
            self.link.tell(Command::Taken(self.call, bytes as u64));
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.link.tell(Command::Gone(self.call));
        self.link.outbox().calls -= 1;
    }
}

/// A stream that is open, or will be.
struct Stream {
    lines: mpsc::UnboundedSender<Result<Bytes>>,
    /// Until it is open.
    opened: Option<oneshot::Sender<Answer<()>>>,
}

struct Carrier {
    messages: SplitStream<Socket>,
    writes: mpsc::UnboundedSender<Message>,
    writer: JoinHandle<Result<()>>,
    calls: Calls,
    commands: mpsc::UnboundedReceiver<Command>,
    streams: HashMap<u32, Stream>,
    questions: HashMap<u32, oneshot::Sender<Answer<WriteCheckpoint>>>,
    arrived: Arrived,
    /// How many bytes had arrived when this was looked at last.
    seen: u64,
}

impl Carrier {
    async fn run(mut self) {
        let error = loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => break Error::unavailable("the connection to the server was closed"),
                Err(error) => break error,
            }
        };
        self.commands.close();
        // What was asked for meanwhile is asked for again on another connection.
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        // Whoever does not take it is not interested any more.
        for stream in std::mem::take(&mut self.streams).into_values() {
            let _ = match stream.opened {
                Some(opened) => opened.send(Err(Unanswered::Broken(error.clone()))).map_err(drop),
                None => stream.lines.send(Err(error.clone())).map_err(drop),
            };
        }
        for answered in std::mem::take(&mut self.questions).into_values() {
            let _ = answered.send(Err(Unanswered::Broken(error.clone())));
        }
        // The server learns of it in any case, when the connection goes.
        let _ = self.writes.send(Message::Close(None));
        drop(self.writes);
        // One that has ended may have been heard of already, and is not asked again.
        if !self.writer.is_finished() && timeout(GOODBYE, &mut self.writer).await.is_err() {
            self.writer.abort();
        }
    }

    /// Does the next thing; false if nobody needs the connection any more.
    async fn step(&mut self) -> Result<bool> {
        while let Some(frame) = self.calls.next() {
            let bytes =
                frame.encode().map_err(|error| Error::internal("a frame cannot be written").caused_by(error))?;
            // A writer that has ended says why, below.
            let _ = self.writes.send(Message::Binary(bytes));
        }
        let due = self.calls.deadline().since(SystemClock.now());
        tokio::select! {
            command = self.commands.recv() => match command {
                Some(command) => self.obey(command),
                None => return Ok(false),
            },
            message = self.messages.next() => self.received(message)?,
            written = &mut self.writer => {
                let broke = |error| Error::internal("the writer of a connection has failed").caused_by(error);
                written.map_err(broke)??;
                return Err(Error::unavailable("the connection to the server broke"));
            }
            () = tokio::time::sleep(due) => {
                // What has come may still wait to be read, on a machine that was busy or asleep.
                let waiting = self.messages.next().now_or_never();
                let arrived = self.arrived.bytes();
                match waiting {
                    Some(message) => self.received(message)?,
                    // Part of a message that is still on its way.
                    None if arrived != self.seen => self.calls.alive(SystemClock.now()),
                    None => {}
                }
                self.seen = arrived;
                match self.calls.tick(SystemClock.now())? {
                    Due::Nothing => {}
                    Due::Ping => drop(self.writes.send(Message::Ping(Bytes::new()))),
                    Due::Close => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { call, token, request, lines, opened } => {
                self.calls.open(call, token, request);
                self.streams.insert(call, Stream { lines, opened: Some(opened) });
            }
            Command::Ask { call, token, client_id, answered } => {
                self.calls.ask(call, token, client_id);
                self.questions.insert(call, answered);
            }
            Command::Taken(call, bytes) => self.calls.taken(call, bytes),
            Command::Gone(call) => {
                self.calls.cancel(SystemClock.now(), call);
                self.streams.remove(&call);
                self.questions.remove(&call);
            }
        }
    }

    fn received(&mut self, message: Option<tungstenite::Result<Message>>) -> Result<()> {
        self.seen = self.arrived.bytes();
        match message {
            Some(Ok(Message::Binary(message))) => {
                let heard = self.calls.received(SystemClock.now(), &message)?;
                self.hear(heard);
            }
            Some(Ok(Message::Text(_))) => return Err(Error::protocol("the server sent text, which no frame is")),
            Some(Ok(Message::Pong(_))) => {
                self.calls.alive(SystemClock.now());
                // Those who have nothing to read shall know that the server is there.
                for stream in self.streams.values().filter(|stream| stream.opened.is_none()) {
                    let _ = stream.lines.send(Ok(Bytes::new()));
                }
            }
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => self.calls.alive(SystemClock.now()),
            Some(Ok(Message::Close(close))) => return Err(closed(close)),
            None => return Err(Error::unavailable("the connection to the server broke")),
            Some(Err(error)) => return Err(failed(error)),
        }
        Ok(())
    }

    /// Passes on what was heard. Who does not take it is about to say so.
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Opened(call) => {
                if let Some(opened) = self.streams.get_mut(&call).and_then(|stream| stream.opened.take()) {
                    let _ = opened.send(Ok(()));
                }
            }
            Heard::Lines(call, bytes) => {
                if let Some(stream) = self.streams.get(&call) {
                    let _ = stream.lines.send(Ok(bytes));
                }
            }
            // Its lines end when there is nobody to send any.
            Heard::Ended(call) => drop(self.streams.remove(&call)),
            Heard::WriteCheckpoint(call, number) => {
                if let Some(answered) = self.questions.remove(&call) {
                    let _ = answered.send(Ok(number));
                }
            }
            Heard::Failed(call, error) => {
                if let Some(answered) = self.questions.remove(&call) {
                    let _ = answered.send(Err(Unanswered::Refused(error)));
                } else if let Some(stream) = self.streams.remove(&call) {
                    let _ = match stream.opened {
                        Some(opened) => opened.send(Err(Unanswered::Refused(error))).map_err(drop),
                        None => stream.lines.send(Err(error)).map_err(drop),
                    };
                }
            }
        }
    }
}

/// Writes what there is to write, each message within a time.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::UnboundedReceiver<Message>,
    patience: Duration,
) -> Result<()> {
    while let Some(message) = messages.recv().await {
        let silent = |_| Error::unavailable("the server takes nothing");
        timeout(patience, sink.send(message)).await.map_err(silent)?.map_err(failed)?;
    }
    Ok(())
}

/// Why a server has closed the connection.
fn closed(close: Option<CloseFrame>) -> Error {
    let Some(CloseFrame { code, reason }) = close else {
        return Error::unavailable("the server closed the connection");
    };
    let kind = match code {
        CloseCode::Protocol | CloseCode::Unsupported | CloseCode::Invalid | CloseCode::Size => ErrorKind::Protocol,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the server closed the connection with {code}: {reason}"))
}
