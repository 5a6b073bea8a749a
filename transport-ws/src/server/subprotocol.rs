//! What a socket asks of the state machine that it carries, and what that asks of it.

use std::collections::VecDeque;

use bytes::Bytes;
use syncline_core::protocol::SyncRequest;
use syncline_core::{Error, Result, Time, WriteCheckpoint};

/// With which code a connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// Without one, as the official service does after an error that it has told.
    Silent,
    /// 1001: the server goes away.
    Away,
    /// 1002: the rules of the protocol are broken.
    Protocol,
    /// 1003: a message that is not binary.
    Unsupported,
    /// 1008: a limit of time or number.
    Policy,
    /// 1009: too large.
    TooLarge,
    /// 1013: too many connections.
    Busy,
}

/// What the owner of the socket has to do, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Output<F> {
    /// Send this frame. A line in it counts against what the service may hold until the frame is let go.
    Send(F),
    /// Verify the token of the connection and report by [`Subprotocol::authenticated`]. No frame may be given before.
    Authenticate(String),
    /// Open this stream for whom the connection's token is of; report if that fails.
    Open(u32, Box<SyncRequest>),
    /// Verify a token, do what is asked for its identity, and report.
    Ask(u32, Box<Ask>),
    /// Verify a token, let the stream go on under it, and report.
    Renew(u32, String),
    /// Get the next piece of this stream and report.
    Pull(u32),
    /// Let go of this stream or question.
    Drop(u32),
    /// Close the connection, with a reason where the close has a code. Nothing follows.
    Close(Close, &'static str),
}

/// What is asked for under a token of its own.
#[derive(Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) token: String,
    pub(super) what: Asked,
}

#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    Stream(SyncRequest),
    /// For the database with this id.
    WriteCheckpoint(Option<String>),
}

/// What is reported of a stream or a question.
#[derive(Debug)]
pub(super) enum News {
    /// It is open, and ends with its token, then.
    Opened(Option<Time>),
    /// Its next piece: whole lines; or its end.
    Piece(Option<Result<Bytes>>),
    /// It goes on under its new token, which ends then.
    Renewed(Result<Option<Time>>),
    /// The answer.
    WriteCheckpoint(WriteCheckpoint),
    /// It cannot be opened or answered.
    Failed(Error),
}

/// A frame that a server sends.
pub(super) trait Outgoing {
    /// Its bytes, or what is wrong with it.
    fn bytes(&self) -> Result<Bytes, String>;
}

/// A connection as a state machine: messages and time in, frames and commands out. It knows no socket and no runtime.
pub(super) trait Subprotocol {
    type Frame: Outgoing;

    /// What is to be done next.
    fn next(&mut self) -> Option<Output<Self::Frame>>;

    /// When [`tick`](Self::tick) is to be called next.
    fn deadline(&self) -> Option<Time>;

    /// Time has passed.
    fn tick(&mut self, now: Time);

    /// A binary message has come.
    fn received(&mut self, now: Time, message: Bytes);

    /// A message has come that the WebSocket answers by itself.
    fn alive(&mut self, now: Time);

    /// The client has broken the rules: says so and closes.
    fn violated(&mut self, rule: &'static str, close: Close);

    /// There are too many connections.
    fn refuse_for_number(&mut self);

    /// The token of the connection was verified: when it expires, or why it is none.
    fn authenticated(&mut self, now: Time, verified: Result<Option<Time>>);

    /// Something happened to a stream or a question.
    fn told(&mut self, now: Time, call: u32, news: News);

    /// The service shuts down.
    fn leave(&mut self);
}

/// The next of what is to be done.
pub(super) fn take<T>(outputs: &mut VecDeque<T>) -> Option<T> {
    let next = outputs.pop_front();
    if next.is_none() {
        // Most connections are idle most of the time, and keep no room for more.
        *outputs = VecDeque::new();
    }
    next
}
