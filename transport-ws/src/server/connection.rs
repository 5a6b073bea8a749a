//! A connection that speaks RSocket, as a state machine.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use syncline_core::protocol::SyncRequest;
use syncline_core::{Error, Result, Time};

use super::document::Encoding;
use super::limits::WebSocketLimits;
use super::lines::Lines;
use super::refusal::{MALFORMED, MEDIA_TYPE, NO_CREDENTIALS, NO_ROUTE, NO_TOKEN, TOO_MANY, UNAVAILABLE, text, text_of};
use super::subprotocol::{Close, News, Outgoing, Output, Subprotocol, take};
use crate::frame::{ErrorCode, Frame, FrameError, MAX_31, Payload, Reassembly, Setup};

/// The one path that there is.
const PATH: &str = "/sync/stream";

/// The largest part of a line in one frame: frames of RSocket have less than 16 MiB.
const LARGEST_PART: usize = 16_000_000;

/// Whatever a client states, it is given so long between two signs of life.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come.
    Setup,
    /// The token is being verified.
    Authenticating,
    Open,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    limits: WebSocketLimits,
    phase: Phase,
    begun: Time,
    encoding: Encoding,
    lifetime: Duration,
    heard: Time,
    /// When the token expires.
    expiry: Option<Time>,
    reassembly: Reassembly,
    streams: BTreeMap<u32, Lines>,
    /// Since when there is no stream.
    idle: Time,
    outputs: VecDeque<Output<Frame>>,
}

impl Connection {
    pub(super) fn new(now: Time, limits: WebSocketLimits) -> Self {
        Self {
            limits,
            phase: Phase::Setup,
            begun: now,
            encoding: Encoding::Json,
            lifetime: limits.lifetime,
            heard: now,
            expiry: None,
            reassembly: Reassembly::new(limits.request_bytes, limits.streams_per_connection),
            streams: BTreeMap::new(),
            idle: now,
            outputs: VecDeque::new(),
        }
    }

    fn deadline_of(&self, lines: &Lines) -> Option<Time> {
        lines.deadline(self.limits.patience, self.expiry)
    }

    /// A client that grants nothing has waited long enough, or its token has expired.
    fn give_up(&mut self, now: Time, stream: u32) {
        let expired = self.expiry.is_some_and(|expiry| now >= expiry);
        let missed = self.streams.get(&stream).is_some_and(Lines::has_lines);
        if expired && !missed {
            self.complete(now, stream);
        } else {
            tracing::info!("a client grants its stream nothing; the stream is cut");
            let reason = text(UNAVAILABLE, "the stream was granted nothing for too long");
            self.fail(now, stream, ErrorCode::APPLICATION_ERROR, reason);
        }
    }

    /// The client has broken the rules: says so and closes.
    fn breaks(&mut self, rule: &str, close: Close) {
        tracing::info!(rule, "a connection breaks the protocol and is closed");
        let code = if self.phase == Phase::Setup { ErrorCode::INVALID_SETUP } else { ErrorCode::CONNECTION_ERROR };
        self.close(code, text(MALFORMED, rule), close);
    }

    fn broken(&mut self, error: &FrameError) {
        let close = if *error == FrameError::TooLarge { Close::TooLarge } else { Close::Protocol };
        self.breaks(&error.to_string(), close);
    }

    // ---- setup ---------------------------------------------------------------------------------------------------

    fn set_up(&mut self, setup: Setup) {
        let refused = if setup.version.0 != 1 {
            Err((ErrorCode::UNSUPPORTED_SETUP, text(MALFORMED, "only version 1 of RSocket is spoken here")))
        } else if setup.lease {
            Err((ErrorCode::REJECTED_SETUP, text(MALFORMED, "leases are not given")))
        } else if setup.resume_token.is_some() {
            Err((ErrorCode::REJECTED_SETUP, text(MALFORMED, "connections cannot be resumed")))
        } else {
            self.token(&setup).map_err(|reason| (ErrorCode::REJECTED_SETUP, reason))
        };
        match refused {
            Ok(token) => {
                let lifetime = Duration::from_millis(u64::from(setup.lifetime));
                self.lifetime = lifetime.max(SHORTEST_LIFETIME).min(self.limits.lifetime);
                self.phase = Phase::Authenticating;
                self.outputs.push_back(Output::Authenticate(token));
            }
            Err((code, reason)) => {
                tracing::info!(reason, "a connection is refused");
                self.close(code, reason, Close::Silent);
            }
        }
    }

    /// The token that SETUP carries; otherwise the reason of the refusal.
    fn token(&mut self, setup: &Setup) -> Result<String, String> {
        for mime_type in [&setup.metadata_type, &setup.data_type] {
            let unknown = || format!("requests are application/json or application/bson here, not {mime_type}");
            self.encoding = Encoding::of(mime_type).ok_or_else(|| text(MEDIA_TYPE, &unknown()))?;
        }
        // Metadata and data of all SDKs are of one type.
        let encoding = Encoding::of(&setup.metadata_type).unwrap_or(self.encoding);
        if encoding != self.encoding {
            return Err(text(MEDIA_TYPE, "metadata and data are of different MIME types"));
        }
        let metadata = setup.payload.metadata.as_ref().filter(|metadata| !metadata.is_empty());
        let metadata = metadata.ok_or_else(|| text(NO_CREDENTIALS, "SETUP has no metadata"))?;
        let metadata = encoding
            .read(metadata)
            .map_err(|error| text(NO_CREDENTIALS, &format!("the metadata of SETUP cannot be read: {error}")))?;
        let token = metadata.get("token").and_then(Value::as_str).and_then(token_of);
        token.map(str::to_owned).ok_or_else(|| text(NO_TOKEN, "`token` in SETUP is missing, or is not `Token <token>`"))
    }

    // ---- frames --------------------------------------------------------------------------------------------------

    fn handle(&mut self, now: Time, frame: Frame) {
        match frame {
            Frame::Setup(_) => self.breaks("a second SETUP", Close::Protocol),
            Frame::Keepalive { respond: true, data, .. } => {
                self.send(Frame::Keepalive { respond: false, position: 0, data });
            }
            Frame::RequestStream { stream, initial, payload, .. } => self.open(now, stream, initial, &payload),
            Frame::RequestN { stream, n } => self.grant(now, stream, n),
            Frame::Cancel { stream } => self.forget(now, stream),
            Frame::Error { stream: 0, .. } => self.finish(Close::Silent),
            Frame::Error { stream, .. } => self.forget(now, stream),
            Frame::Other { stream, .. } if stream != 0 && frame.is_other_request() => {
                let reason = text(MALFORMED, "there are streams here, and nothing else");
                self.send(Frame::Error { stream, code: ErrorCode::REJECTED, message: reason });
            }
            Frame::Other { ignorable: true, .. } => {}
            // Neither has an answer: a request without one, and metadata of the connection.
            Frame::Other { kind: 0x05 | 0x0c, .. } => {}
            Frame::Other { .. } => self.breaks("a frame of a type that is not known here", Close::Protocol),
            // Clients have no items to send; one may be on its way to a stream that has ended.
            Frame::Keepalive { .. } | Frame::Payload { .. } => {}
        }
    }

    fn open(&mut self, now: Time, stream: u32, initial: u32, payload: &Payload) {
        if self.streams.contains_key(&stream) {
            return self.breaks("a stream has the id of another", Close::Protocol);
        }
        let error = |code, reason| Frame::Error { stream, code, message: reason };
        if stream.is_multiple_of(2) {
            return self.send(error(ErrorCode::INVALID, text(MALFORMED, "a client's streams have odd ids")));
        }
        if !is_grant(initial) {
            return self.send(error(ErrorCode::INVALID, text(MALFORMED, NO_GRANT)));
        }
        if self.streams.len() >= self.limits.streams_per_connection {
            let reason = "there are too many streams already (`WebSocketLimits::streams_per_connection`)";
            return self.send(error(ErrorCode::REJECTED, text(TOO_MANY, reason)));
        }
        match self.request(payload) {
            Ok(request) => {
                self.streams.insert(stream, Lines::new(initial));
                self.outputs.push_back(Output::Open(stream, Box::new(request)));
                self.advance(now, stream);
            }
            Err(reason) => self.send(error(ErrorCode::APPLICATION_ERROR, reason)),
        }
    }

    /// What a stream is asked for; otherwise the reason of the refusal.
    fn request(&self, payload: &Payload) -> Result<SyncRequest, String> {
        let malformed = |what: &str, error: &str| text(MALFORMED, &format!("{what} is malformed: {error}"));
        let metadata = payload.metadata.as_deref().unwrap_or_default();
        let metadata = self.encoding.read(metadata).map_err(|error| malformed("the request's metadata", &error))?;
        match metadata.get("path").and_then(Value::as_str) {
            Some(PATH) => {}
            path => {
                let path: String = path.unwrap_or_default().chars().take(100).collect();
                return Err(text(NO_ROUTE, &format!("there is no path {path:?}, only {PATH:?}")));
            }
        }
        let request = self.encoding.read(&payload.data).map_err(|error| malformed("the request", &error))?;
        serde_json::from_value(request).map_err(|error| malformed("the request", &error.to_string()))
    }

    fn grant(&mut self, now: Time, stream: u32, n: u32) {
        // It may have ended while the grant was on its way.
        let Some(lines) = self.streams.get_mut(&stream) else { return };
        if is_grant(n) {
            lines.grant(n);
            self.advance(now, stream);
        } else {
            self.fail(now, stream, ErrorCode::INVALID, text(MALFORMED, NO_GRANT));
        }
    }

    // ---- lines ---------------------------------------------------------------------------------------------------

    fn failed(&mut self, now: Time, stream: u32, error: &Error) {
        self.fail(now, stream, ErrorCode::APPLICATION_ERROR, text_of(error));
    }

    /// Sends what is granted, and asks for more when that is granted as well.
    fn advance(&mut self, now: Time, stream: u32) {
        let Some(lines) = self.streams.get_mut(&stream) else { return };
        loop {
            match lines.next(now) {
                Ok(Some(line)) => {
                    push_line(&mut self.outputs, stream, line);
                }
                Ok(None) => break,
                Err(error) => return self.failed(now, stream, &error),
            }
        }
        if lines.wants_piece() {
            lines.pulling = true;
            self.outputs.push_back(Output::Pull(stream));
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------

    fn complete(&mut self, now: Time, stream: u32) {
        let end = Frame::Payload { stream, follows: false, complete: true, next: false, payload: Payload::default() };
        self.send(end);
        self.forget(now, stream);
    }

    fn fail(&mut self, now: Time, stream: u32, code: ErrorCode, message: String) {
        self.send(Frame::Error { stream, code, message });
        self.forget(now, stream);
    }

    fn forget(&mut self, now: Time, stream: u32) {
        if self.streams.remove(&stream).is_some() {
            self.idle = now;
            self.outputs.push_back(Output::Drop(stream));
        }
    }

    fn close(&mut self, code: ErrorCode, message: String, close: Close) {
        self.send(Frame::Error { stream: 0, code, message });
        self.finish(close);
    }

    fn finish(&mut self, close: Close) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.outputs.extend(std::mem::take(&mut self.streams).into_keys().map(Output::Drop));
            self.outputs.push_back(Output::Close(close, ""));
        }
    }

    fn send(&mut self, frame: Frame) {
        if self.phase != Phase::Closed {
            self.outputs.push_back(Output::Send(frame));
        }
    }
}

impl Subprotocol for Connection {
    type Frame = Frame;

    fn next(&mut self) -> Option<Output<Frame>> {
        take(&mut self.outputs)
    }

    fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Setup | Phase::Authenticating => Some(self.begun + self.limits.setup_time),
            Phase::Open => {
                let idle = self.streams.is_empty().then_some(self.idle + self.limits.patience);
                let blocked = self.streams.values().filter_map(|lines| self.deadline_of(lines));
                blocked.chain(idle).chain([self.heard + self.lifetime]).min()
            }
            Phase::Closed => None,
        }
    }

    fn tick(&mut self, now: Time) {
        match self.phase {
            Phase::Setup | Phase::Authenticating if now >= self.begun + self.limits.setup_time => {
                let reason = text(UNAVAILABLE, "the connection was not set up in time");
                self.close(ErrorCode::REJECTED_SETUP, reason, Close::Policy);
            }
            Phase::Open if now >= self.heard + self.lifetime => {
                let reason = text(UNAVAILABLE, "there was no sign of life for longer than SETUP states");
                self.close(ErrorCode::CONNECTION_ERROR, reason, Close::Policy);
            }
            Phase::Open if self.streams.is_empty() && now >= self.idle + self.limits.patience => {
                let reason = text(UNAVAILABLE, "there was no stream for too long");
                self.close(ErrorCode::CONNECTION_CLOSE, reason, Close::Policy);
            }
            Phase::Open => {
                let late = |lines: &Lines| self.deadline_of(lines).is_some_and(|deadline| now >= deadline);
                let late: Vec<_> = self.streams.iter().filter(|(_, lines)| late(lines)).map(|(id, _)| *id).collect();
                for stream in late {
                    self.give_up(now, stream);
                }
            }
            Phase::Setup | Phase::Authenticating | Phase::Closed => {}
        }
    }

    fn received(&mut self, now: Time, message: Bytes) {
        if self.phase == Phase::Closed {
            return;
        }
        let frame = match Frame::decode(message) {
            Ok(frame) => frame,
            Err(error) => return self.broken(&error),
        };
        match (self.phase, frame) {
            (Phase::Setup, Frame::Setup(setup)) => self.set_up(setup),
            (Phase::Setup, _) => {
                let reason = text(MALFORMED, "the first frame is not SETUP");
                self.close(ErrorCode::UNSUPPORTED_SETUP, reason, Close::Silent);
            }
            (Phase::Open, frame) => {
                self.heard = now;
                match self.reassembly.push(frame) {
                    Ok(Some(whole)) => self.handle(now, whole),
                    Ok(None) => {}
                    Err(error) => self.broken(&error),
                }
            }
            (Phase::Authenticating | Phase::Closed, _) => {
                self.breaks("a frame was read before the token was verified", Close::Protocol);
            }
        }
    }

    fn alive(&mut self, _: Time) {
        // Signs of life are frames here.
    }

    fn violated(&mut self, rule: &'static str, close: Close) {
        self.breaks(rule, close);
    }

    fn refuse_for_number(&mut self) {
        let reason = text(TOO_MANY, "there are too many connections already (`WebSocketLimits::connections`)");
        self.close(ErrorCode::REJECTED_SETUP, reason, Close::Silent);
    }

    fn authenticated(&mut self, now: Time, verified: Result<Option<Time>>) {
        if self.phase != Phase::Authenticating {
            return;
        }
        match verified {
            Ok(expiry) => {
                self.phase = Phase::Open;
                (self.heard, self.idle, self.expiry) = (now, now, expiry);
            }
            Err(error) => self.close(ErrorCode::REJECTED_SETUP, text_of(&error), Close::Silent),
        }
    }

    fn told(&mut self, now: Time, stream: u32, news: News) {
        match news {
            News::Piece(Some(Ok(piece))) => {
                // It may have been cancelled meanwhile.
                let Some(lines) = self.streams.get_mut(&stream) else { return };
                lines.hold(piece);
                self.advance(now, stream);
            }
            News::Piece(None) if self.streams.contains_key(&stream) => self.complete(now, stream),
            News::Piece(Some(Err(error))) | News::Failed(error) if self.streams.contains_key(&stream) => {
                self.failed(now, stream, &error);
            }
            // Streams are open at once, under the token of the connection; and there are no questions.
            News::Piece(_) | News::Failed(_) | News::Opened(_) | News::Renewed(_) | News::WriteCheckpoint(_) => {}
        }
    }

    fn leave(&mut self) {
        // Clients close what has no stream.
    }
}

impl Outgoing for Frame {
    fn bytes(&self) -> Result<Bytes, String> {
        self.encode().map_err(|error| error.to_string())
    }
}

/// The frames of one line: a single one, unless RSocket has none that is so large.
fn push_line(outputs: &mut VecDeque<Output<Frame>>, stream: u32, mut line: Bytes) {
    loop {
        let part = line.split_to(line.len().min(LARGEST_PART));
        let follows = !line.is_empty();
        let payload = Payload::of(part);
        outputs.push_back(Output::Send(Frame::Payload { stream, follows, complete: false, next: true, payload }));
        if !follows {
            return;
        }
    }
}

const NO_GRANT: &str = "a grant is a number from 1 to 2147483647";

fn is_grant(n: u32) -> bool {
    (1..=MAX_31).contains(&n)
}

/// The token with its scheme taken off, which is case-sensitive.
fn token_of(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    let sound = matches!(scheme, "Token" | "Bearer") && !token.is_empty() && !token.contains(char::is_whitespace);
    sound.then_some(token)
}
