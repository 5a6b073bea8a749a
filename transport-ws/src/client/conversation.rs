//! What a client says and hears on a connection with one stream. It knows no socket and no runtime.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::{Error, ErrorKind, Result, Time};

use super::refusal::refused;
use crate::frame::{ErrorCode, Frame, Payload, Reassembly, Setup};

/// How many lines the server may send ahead of what was taken.
pub(super) const CREDIT: u32 = 16;

/// The one stream.
const STREAM: u32 = 1;

/// Signs of life are this far apart, as those of the official SDKs.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// After so long without one the server may take this client for gone.
const LIFETIME: Duration = Duration::from_secs(90);

const JSON: &str = "application/json";

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that the stream is made of.
    Nothing,
    /// A line.
    Line(Bytes),
    /// The end of the stream, after a line perhaps.
    End(Option<Bytes>),
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    reassembly: Reassembly,
    frames: VecDeque<Frame>,
    /// How long the server may be silent.
    patience: Duration,
    heard: Time,
    /// When the last sign of life was sent.
    spoken: Time,
    /// Lines that were taken since the last grant.
    taken: u32,
}

impl Conversation {
    /// Begins with SETUP and the request, both JSON.
    pub(super) fn new(now: Time, patience: Duration, line_bytes: usize, token: &str, request: Vec<u8>) -> Self {
        let user_agent = concat!("syncline/", env!("CARGO_PKG_VERSION"));
        let metadata = serde_json::json!({ "token": format!("Token {token}"), "user_agent": user_agent }).to_string();
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let setup = Frame::Setup(Setup {
            version: (1, 0),
            keepalive: millis(KEEPALIVE),
            lifetime: millis(LIFETIME),
            resume_token: None,
            lease: false,
            metadata_type: JSON.to_owned(),
            data_type: JSON.to_owned(),
            payload: Payload { metadata: Some(metadata.into()), data: Bytes::new() },
        });
        let metadata = Some(Bytes::from_static(b"{\"path\":\"/sync/stream\"}"));
        let payload = Payload { metadata, data: request.into() };
        let request = Frame::RequestStream { stream: STREAM, initial: CREDIT, follows: false, payload };
        Self {
            reassembly: Reassembly::new(line_bytes, 1),
            frames: [setup, request].into(),
            patience,
            heard: now,
            spoken: now,
            taken: 0,
        }
    }

    /// The next frame to send.
    pub(super) fn next(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub(super) fn deadline(&self) -> Time {
        (self.spoken + self.interval()).min(self.heard + self.patience)
    }

    /// A server that is alive must have time to say so before it is given up.
    fn interval(&self) -> Duration {
        KEEPALIVE.min(self.patience / 3)
    }

    /// Something has come that says nothing but that the server is there.
    pub(super) fn alive(&mut self, now: Time) {
        self.heard = now;
    }

    /// Time has passed.
    ///
    /// # Errors
    /// `Unavailable` if the server has been silent for too long.
    pub(super) fn tick(&mut self, now: Time) -> Result<()> {
        if now >= self.heard + self.patience {
            let silence = self.patience.as_secs_f64();
            return Err(Error::unavailable(format!("nothing came from the server for {silence} s")));
        }
        if now >= self.spoken + self.interval() {
            self.spoken = now;
            self.frames.push_back(Frame::Keepalive { respond: true, position: 0, data: Bytes::new() });
        }
        Ok(())
    }

    /// The application has taken a number of lines: as many more may come, asked for in halves of what may be under way.
    pub(super) fn taken(&mut self, lines: u32) {
        self.taken = self.taken.saturating_add(lines);
        if self.taken >= CREDIT / 2 {
            self.frames.push_back(Frame::RequestN { stream: STREAM, n: std::mem::take(&mut self.taken) });
        }
    }

    /// The application wants no more.
    pub(super) fn cancel(&mut self) {
        self.frames = [Frame::Cancel { stream: STREAM }].into();
    }

    /// A binary message has come.
    ///
    /// # Errors
    /// What the server states; `Protocol` for what makes no sense.
    pub(super) fn received(&mut self, now: Time, message: Bytes) -> Result<Heard> {
        self.heard = now;
        let unreadable = |error| Error::protocol("the server sent something that is no frame").caused_by(error);
        let frame = Frame::decode(message).map_err(unreadable)?;
        let Some(frame) = self.reassembly.push(frame).map_err(unreadable)? else { return Ok(Heard::Nothing) };
        Ok(match frame {
            Frame::Payload { stream: STREAM, next: true, payload, .. } if payload.data.is_empty() => {
                return Err(Error::protocol("the server sent a line without content"));
            }
            Frame::Payload { stream: STREAM, complete, next, payload, .. } => match (next, complete) {
                (true, false) => Heard::Line(payload.data),
                (line, true) => Heard::End(line.then_some(payload.data)),
                (false, false) => Heard::Nothing,
            },
            Frame::Error { stream: 0 | STREAM, code, message } => return Err(refusal(code, &message)),
            Frame::Keepalive { respond: true, data, .. } => {
                self.frames.push_back(Frame::Keepalive { respond: false, position: 0, data });
                Heard::Nothing
            }
            // Nothing else is of concern to a client with one stream.
            _ => Heard::Nothing,
        })
    }
}

/// The error that a server states: its text begins with a code in brackets.
fn refusal(code: ErrorCode, text: &str) -> Error {
    let stated = text.strip_prefix('[').and_then(|text| text.split_once(']')).map(|(code, _)| code);
    let senseless = [ErrorCode::INVALID_SETUP, ErrorCode::UNSUPPORTED_SETUP, ErrorCode::INVALID].contains(&code);
    let otherwise = if senseless { ErrorKind::Protocol } else { ErrorKind::Unavailable };
    refused(stated.unwrap_or_default(), text, otherwise)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::hex::bytes_of;

    const NOW: Time = Time(1_000);
    const RECORDED: &str = include_str!("../../../core/tests/data/vectors/rsocket_sessions.json");

    fn conversation() -> Conversation {
        let mut conversation =
            Conversation::new(NOW, Duration::from_secs(60), 1 << 20, "abc", b"{\"raw_data\":true}".to_vec());
        assert!(matches!(conversation.next(), Some(Frame::Setup(_))));
        assert!(matches!(conversation.next(), Some(Frame::RequestStream { stream: 1, initial: CREDIT, .. })));
        assert_eq!(conversation.next(), None);
        conversation
    }

    #[test]
    fn the_first_frames_are_those_of_the_official_sdk() {
        let mut conversation = Conversation::new(NOW, Duration::from_secs(60), 1 << 20, "abc.def.ghi", b"{}".to_vec());
        let setup = conversation.next().expect("SETUP").encode().expect("short");
        // As recorded of the official SDK, up to the user agent.
        let recorded = "0000000005000001000000004e2000015f90106170706c69636174696f6e2f6a736f6e10617070\
                        6c69636174696f6e2f6a736f6e";
        assert!(setup.starts_with(&bytes_of(recorded)));
        let Ok(Frame::Setup(setup)) = Frame::decode(setup) else { panic!("no SETUP") };
        let metadata = setup.payload.metadata.unwrap_or_default();
        let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
        assert_eq!(metadata["token"], "Token abc.def.ghi");
        let request = conversation.next().expect("a request").encode().expect("short");
        let recorded = "000000011900000000100000177b2270617468223a222f73796e632f73747265616d227d7b7d";
        assert_eq!(request, bytes_of(recorded));
    }

    #[test]
    fn recorded_answers_of_the_official_service_are_understood() {
        let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
        let (mut lines, mut refusals) = (0, 0);
        for session in recorded["sessions"].as_array().expect("sessions") {
            let mut conversation = conversation();
            for frame in session["frames"].as_array().expect("frames") {
                let (Some("server"), Some(hex)) = (frame["dir"].as_str(), frame["hex"].as_str()) else { continue };
                let decoded = &frame["decoded"];
                match (conversation.received(NOW, bytes_of(hex)), decoded["type"].as_str()) {
                    (Ok(Heard::Line(line)), Some("PAYLOAD")) => {
                        assert_eq!(line, bytes_of(hex).slice(6..));
                        lines += usize::from(decoded["streamId"] == 1);
                    }
                    (Ok(Heard::Nothing), kind) => assert!(kind == Some("KEEPALIVE") || decoded["streamId"] == 3),
                    (Err(error), Some("ERROR")) => {
                        let message = decoded["message"].as_str().expect("a message");
                        let unauthorized = message.contains("PSYNC_S21");
                        assert_eq!(error.kind() == ErrorKind::Unauthorized, unauthorized, "{error}");
                        assert!(!message.contains("PSYNC") || error.code().is_some(), "{error}");
                        refusals += 1;
                    }
                    (heard, kind) => panic!("{heard:?} of {kind:?} in {}", session["name"]),
                }
            }
        }
        assert_eq!((lines, refusals), (15, 14));
    }

    #[test]
    fn ends_and_fragments_are_heard() {
        let mut conversation = conversation();
        let mut hear = |hex: &str| conversation.received(NOW, bytes_of(hex)).expect("a frame");
        assert_eq!(hear("0000000128a00102"), Heard::Nothing);
        assert_eq!(hear("00000001282003"), Heard::Line(Bytes::from_static(&[1, 2, 3])));
        assert_eq!(hear("00000001286009"), Heard::End(Some(Bytes::from_static(&[9]))));
        assert_eq!(hear("000000012840"), Heard::End(None));
        assert_eq!(hear("00000000fe00"), Heard::Nothing);
        for broken in [&b"abc"[..], b"\0\0\0\x01\x28\x20"] {
            let error = conversation.received(NOW, Bytes::from_static(broken)).expect_err("no frame, no line");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn grants_replace_what_was_taken() {
        let mut conversation = conversation();
        let mut granted = 0;
        for taken in 1..=100 {
            conversation.taken(1);
            while let Some(frame) = conversation.next() {
                let Frame::RequestN { stream: 1, n } = frame else { panic!("{frame:?}") };
                granted += n;
            }
            assert!(granted <= taken && taken - granted < CREDIT / 2, "{granted} of {taken}");
        }
    }

    #[test]
    fn signs_of_life_are_sent_and_a_silent_server_is_given_up() {
        let mut conversation = conversation();
        for step in 1..=2 {
            let due = NOW + KEEPALIVE * step;
            assert_eq!(conversation.deadline(), due);
            conversation.tick(due).expect("it may be alive");
            assert!(matches!(conversation.next(), Some(Frame::Keepalive { respond: true, .. })));
        }
        let answer = bytes_of("000000000c000000000000000000");
        conversation.received(NOW + Duration::from_secs(41), answer).expect("a frame");
        conversation.tick(NOW + Duration::from_secs(100)).expect("it was heard of");
        let error = conversation.tick(NOW + Duration::from_secs(101)).expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        conversation.received(NOW, bytes_of("000000000c80000000000000000070696e67")).expect("a frame");
        let frames: Vec<_> = std::iter::from_fn(|| conversation.next()).collect();
        let echo = Frame::Keepalive { respond: false, position: 0, data: Bytes::from_static(b"ping") };
        assert_eq!(frames.last(), Some(&echo));
    }
}
