//! A connection that speaks Syncline's own subprotocol, as a state machine.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::{Error, Result, Time};

use super::super::limits::WebSocketLimits;
use super::super::refusal::{TOO_MANY, UNAVAILABLE, told_of};
use super::super::subprotocol::{Ask, Asked, Close, News, Output, Subprotocol, take};
use super::outgoing::Frame;
use super::window::Window;
use crate::compact::{ClientFrame, ServerFrame};

/// A client says something at least three times in this time, and is gone otherwise.
const SILENCE: Duration = Duration::from_secs(90);

#[derive(Debug)]
enum Call {
    /// Its token is being verified; so much is granted meanwhile.
    Opening { credit: u64 },
    /// A stream.
    Open(Window),
    /// A question that was not answered yet.
    Asked,
}

/// One connection and its calls: streams and questions, each under a token of its own.
#[derive(Debug)]
pub(in super::super) struct Calls {
    limits: WebSocketLimits,
    compress: bool,
    begun: Time,
    heard: Time,
    /// A token was accepted: whoever is at the other end may stay.
    accepted: bool,
    calls: BTreeMap<u32, Call>,
    /// The highest number that a call had.
    last: Option<u32>,
    /// Since when there is no call.
    idle: Time,
    closed: bool,
    outputs: VecDeque<Output<Frame>>,
}

impl Calls {
    pub(in super::super) fn new(now: Time, limits: WebSocketLimits, compress: bool) -> Self {
        Self {
            limits,
            compress,
            begun: now,
            heard: now,
            accepted: false,
            calls: BTreeMap::new(),
            last: None,
            idle: now,
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    fn silence(&self) -> Duration {
        SILENCE.min(self.limits.lifetime)
    }

    // ---- frames --------------------------------------------------------------------------------------------------

    fn handle(&mut self, now: Time, frame: ClientFrame) {
        match frame {
            ClientFrame::Open { call, token, credit, request } => {
                self.begin(now, call, Call::Opening { credit }, |calls| match request.read() {
                    Ok(request) => calls.ask(call, token, Asked::Stream(request)),
                    Err(error) => calls.fail(now, call, &error),
                });
            }
            ClientFrame::WriteCheckpoint { call, token, client_id } => {
                self.begin(now, call, Call::Asked, |calls| calls.ask(call, token, Asked::WriteCheckpoint(client_id)));
            }
            ClientFrame::Credit { bytes: 0, .. } => self.violated("a grant of nothing", Close::Protocol),
            ClientFrame::Credit { call, bytes } => match self.calls.get_mut(&call) {
                Some(Call::Opening { credit }) => *credit = credit.saturating_add(bytes),
                Some(Call::Open(window)) => {
                    window.grant(bytes);
                    self.advance(now, call);
                }
                Some(Call::Asked) => self.violated("a question is granted bytes", Close::Protocol),
                None => self.was_there(call),
            },
            ClientFrame::Token { call, token } => match self.calls.get_mut(&call) {
                Some(Call::Open(window)) if !window.renewing => {
                    window.renewing = true;
                    self.outputs.push_back(Output::Renew(call, token));
                }
                Some(_) => self.violated("a token for what has no token that was verified", Close::Protocol),
                None => self.was_there(call),
            },
            ClientFrame::Cancel { call } if self.calls.contains_key(&call) => self.forget(now, call),
            ClientFrame::Cancel { call } => self.was_there(call),
        }
    }

    /// A new call, unless it breaks the rules or there are too many.
    fn begin(&mut self, now: Time, number: u32, call: Call, begin: impl FnOnce(&mut Self)) {
        if self.last.is_some_and(|last| number <= last) {
            return self.violated("the number of a call is not above those before", Close::Protocol);
        }
        self.last = Some(number);
        if self.calls.len() >= self.limits.streams_per_connection {
            let message = "there are too many calls already (`WebSocketLimits::streams_per_connection`)".to_owned();
            return self.send(ServerFrame::Failed { call: number, code: TOO_MANY.to_owned(), message });
        }
        self.calls.insert(number, call);
        self.idle = now;
        begin(self);
    }

    fn ask(&mut self, call: u32, token: String, what: Asked) {
        self.outputs.push_back(Output::Ask(call, Box::new(Ask { token, what })));
    }

    /// What is said of a call may cross its end; of one that never was it breaks the rules.
    fn was_there(&mut self, call: u32) {
        if self.last.is_none_or(|last| call > last) {
            self.violated("there never was such a call", Close::Protocol);
        }
    }

    // ---- lines ---------------------------------------------------------------------------------------------------

    /// Sends what is granted, and asks for more when that is granted as well.
    fn advance(&mut self, now: Time, call: u32) {
        let Some(Call::Open(window)) = self.calls.get_mut(&call) else { return };
        while let Some(bytes) = window.next(now) {
            let frame = ServerFrame::Lines { call, bytes };
            self.outputs.push_back(Output::Send(Frame { frame, compress: self.compress }));
        }
        if window.wants_piece() {
            window.pulling = true;
            self.outputs.push_back(Output::Pull(call));
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------

    /// A client that grants nothing has waited long enough, or its token has expired.
    fn give_up(&mut self, now: Time, call: u32) {
        let Some(Call::Open(window)) = self.calls.get(&call) else { return };
        if window.expiry.is_some_and(|expiry| now >= expiry) && !window.has_bytes() {
            self.end(now, call);
        } else {
            tracing::info!("a client grants its stream nothing; the stream is cut");
            let message = "the stream was granted nothing for too long".to_owned();
            self.send(ServerFrame::Failed { call, code: UNAVAILABLE.to_owned(), message });
            self.forget(now, call);
        }
    }

    fn end(&mut self, now: Time, call: u32) {
        self.send(ServerFrame::Ended { call });
        self.forget(now, call);
    }

    fn fail(&mut self, now: Time, call: u32, error: &Error) {
        let (code, message) = told_of(error);
        self.send(ServerFrame::Failed { call, code: code.to_owned(), message });
        self.forget(now, call);
    }

    fn forget(&mut self, now: Time, call: u32) {
        if self.calls.remove(&call).is_some() {
            self.idle = now;
            self.outputs.push_back(Output::Drop(call));
        }
    }

    fn close(&mut self, close: Close, reason: &'static str) {
        if !self.closed {
            self.closed = true;
            self.outputs.extend(std::mem::take(&mut self.calls).into_keys().map(Output::Drop));
            self.outputs.push_back(Output::Close(close, reason));
        }
    }

    fn send(&mut self, frame: ServerFrame) {
        if !self.closed {
            self.outputs.push_back(Output::Send(Frame { frame, compress: false }));
        }
    }

    fn deadline_of(&self, call: &Call) -> Option<Time> {
        match call {
            Call::Open(window) => window.deadline(self.limits.patience),
            Call::Opening { .. } | Call::Asked => None,
        }
    }
}

impl Subprotocol for Calls {
    type Frame = Frame;

    fn next(&mut self) -> Option<Output<Frame>> {
        take(&mut self.outputs)
    }

    fn deadline(&self) -> Option<Time> {
        if self.closed {
            return None;
        }
        let strange = (!self.accepted).then_some(self.begun + self.limits.setup_time);
        let idle = self.calls.is_empty().then_some(self.idle + self.limits.patience);
        let blocked = self.calls.values().filter_map(|call| self.deadline_of(call));
        blocked.chain(strange).chain(idle).chain([self.heard + self.silence()]).min()
    }

    fn tick(&mut self, now: Time) {
        if self.closed {
            return;
        }
        if !self.accepted && now >= self.begun + self.limits.setup_time {
            return self.close(Close::Policy, "no token was accepted in time");
        }
        if now >= self.heard + self.silence() {
            return self.close(Close::Policy, "there was no sign of life for too long");
        }
        if self.calls.is_empty() && now >= self.idle + self.limits.patience {
            return self.close(Close::Policy, "there was no call for too long");
        }
        let late = |call: &Call| self.deadline_of(call).is_some_and(|deadline| now >= deadline);
        let late: Vec<_> = self.calls.iter().filter(|(_, call)| late(call)).map(|(call, _)| *call).collect();
        for call in late {
            self.give_up(now, call);
        }
    }

    fn received(&mut self, now: Time, message: Bytes) {
        if self.closed {
            return;
        }
        self.heard = now;
        match ClientFrame::decode(&message) {
            Ok(frame) => self.handle(now, frame),
            Err(error) => {
                tracing::debug!(%error, "a message cannot be read");
                self.violated("a message is no frame of this version", Close::Protocol);
            }
        }
    }

    fn alive(&mut self, now: Time) {
        self.heard = now;
    }

    fn violated(&mut self, rule: &'static str, close: Close) {
        tracing::info!(rule, "a connection breaks the protocol and is closed");
        self.close(close, rule);
    }

    fn refuse_for_number(&mut self) {
        self.close(Close::Busy, "there are too many connections already (`WebSocketLimits::connections`)");
    }

    fn authenticated(&mut self, _: Time, _: Result<Option<Time>>) {
        // Each call has a token of its own, and the connection none.
    }

    fn told(&mut self, now: Time, call: u32, news: News) {
        // It may have been given up meanwhile.
        let Some(known) = self.calls.get_mut(&call) else { return };
        match (news, known) {
            (News::Opened(expiry), Call::Opening { credit }) => {
                let window = Window::new(*credit, expiry);
                self.calls.insert(call, Call::Open(window));
                self.accepted = true;
                self.send(ServerFrame::Opened { call });
                self.advance(now, call);
            }
            (News::Piece(Some(Ok(piece))), Call::Open(window)) => {
                window.hold(piece);
                self.advance(now, call);
            }
            (News::Piece(None), Call::Open(_)) => self.end(now, call),
            (News::Renewed(Ok(expiry)), Call::Open(window)) => {
                (window.expiry, window.renewing) = (expiry, false);
                self.send(ServerFrame::Renewed { call });
            }
            (News::WriteCheckpoint(number), Call::Asked) => {
                self.accepted = true;
                self.send(ServerFrame::WriteCheckpoint { call, number: number.0 });
                self.forget(now, call);
            }
            (News::Piece(Some(Err(error))) | News::Renewed(Err(error)) | News::Failed(error), _) => {
                self.fail(now, call, &error);
            }
            (news, known) => {
                tracing::error!(?news, ?known, "a call is told of what it did not ask for");
                self.fail(now, call, &Error::internal("a call is told of what it did not ask for"));
            }
        }
    }

    fn leave(&mut self) {
        if self.calls.is_empty() {
            self.close(Close::Away, "the service shuts down");
        }
    }
}
