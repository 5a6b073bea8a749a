//! What a client says and hears on a connection with any number of calls. It knows no socket and no runtime.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::{Error, ErrorKind, Result, Time, WriteCheckpoint};

use super::super::refusal::refused;
use crate::compact::{ClientFrame, MOST_LINE_BYTES, Request, ServerFrame};

/// How many bytes of lines the server may send ahead of what was taken, in each stream.
pub(super) const WINDOW: u64 = 1 << 20;

/// Signs of life are this far apart.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A connection without a call is kept for so long: less than a server waits.
const IDLE: Duration = Duration::from_secs(10);

/// What has come for a call.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing but a sign of life.
    Nothing,
    /// The stream is open.
    Opened(u32),
    /// The next bytes of its lines.
    Lines(u32, Bytes),
    /// The stream has ended in order.
    Ended(u32),
    /// The answer to a question.
    WriteCheckpoint(u32, WriteCheckpoint),
    /// The call has failed.
    Failed(u32, Error),
}

/// What is to be done when time has passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The server is to be asked for a sign of life.
    Ping,
    /// Nobody needs the connection.
    Close,
}

#[derive(Debug)]
enum Call {
    Stream {
        open: bool,
        /// What was granted and has not come.
        granted: u64,
        /// What was taken since the last grant.
        taken: u64,
    },
    Question,
}

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    calls: BTreeMap<u32, Call>,
    /// The highest number that a call had.
    last: u32,
    frames: VecDeque<ClientFrame>,
    /// How long the server may be silent.
    patience: Duration,
    heard: Time,
    /// When the last sign of life was asked for.
    asked: Time,
    /// Since when there is no call.
    idle: Time,
}

impl Calls {
    pub(super) fn new(now: Time, patience: Duration) -> Self {
        let (calls, frames) = (BTreeMap::new(), VecDeque::new());
        Self { calls, last: 0, frames, patience, heard: now, asked: now, idle: now }
    }

    /// The next frame to send.
    pub(super) fn next(&mut self) -> Option<ClientFrame> {
        self.frames.pop_front()
    }

    /// Opens a stream; numbers rise from call to call.
    pub(super) fn open(&mut self, call: u32, token: String, request: Request) {
        self.begin(call, Call::Stream { open: false, granted: WINDOW, taken: 0 });
        self.frames.push_back(ClientFrame::Open { call, token, credit: WINDOW, request });
    }

    /// Asks for a write checkpoint.
    pub(super) fn ask(&mut self, call: u32, token: String, client_id: String) {
        self.begin(call, Call::Question);
        self.frames.push_back(ClientFrame::WriteCheckpoint { call, token, client_id: Some(client_id) });
    }

    fn begin(&mut self, number: u32, call: Call) {
        self.last = self.last.max(number);
        self.calls.insert(number, call);
    }

    /// The application has taken so many bytes of a stream: as many more may come, asked for in halves of what may be under way.
    pub(super) fn taken(&mut self, call: u32, bytes: u64) {
        let Some(Call::Stream { granted, taken, .. }) = self.calls.get_mut(&call) else { return };
        *taken += bytes;
        if *taken >= WINDOW / 2 {
            let bytes = std::mem::take(taken);
            *granted += bytes;
            self.frames.push_back(ClientFrame::Credit { call, bytes });
        }
    }

    /// The application wants no more of a call.
    pub(super) fn cancel(&mut self, now: Time, call: u32) {
        if self.forget(now, call) {
            self.frames.push_back(ClientFrame::Cancel { call });
        }
    }

    fn forget(&mut self, now: Time, call: u32) -> bool {
        let was_there = self.calls.remove(&call).is_some();
        if was_there {
            self.idle = now;
        }
        was_there
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub(super) fn deadline(&self) -> Time {
        let idle = self.calls.is_empty().then_some(self.idle + IDLE);
        let silent = (self.asked + self.interval()).min(self.heard + self.patience);
        idle.map_or(silent, |idle| idle.min(silent))
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
    pub(super) fn tick(&mut self, now: Time) -> Result<Due> {
        if now >= self.heard + self.patience {
            let silence = self.patience.as_secs_f64();
            return Err(Error::unavailable(format!("nothing came from the server for {silence} s")));
        }
        if self.calls.is_empty() && now >= self.idle + IDLE {
            return Ok(Due::Close);
        }
        if now >= self.asked + self.interval() {
            self.asked = now;
            return Ok(Due::Ping);
        }
        Ok(Due::Nothing)
    }

    /// A binary message has come.
    ///
    /// # Errors
    /// `Protocol` for what makes no sense: the connection is of no use then.
    pub(super) fn received(&mut self, now: Time, message: &[u8]) -> Result<Heard> {
        self.heard = now;
        let strange = |what| Error::protocol(format!("the server broke the rules of {}: {what}", crate::compact::NAME));
        let frame = ServerFrame::decode(message).map_err(|error| strange("a message is no frame").caused_by(error))?;
        let number = match &frame {
            ServerFrame::Opened { call }
            | ServerFrame::Lines { call, .. }
            | ServerFrame::CompressedLines { call, .. }
            | ServerFrame::Ended { call }
            | ServerFrame::WriteCheckpoint { call, .. }
            | ServerFrame::Renewed { call }
            | ServerFrame::Failed { call, .. } => *call,
        };
        let Some(call) = self.calls.get_mut(&number) else {
            // It may have been given up meanwhile.
            return if number <= self.last { Ok(Heard::Nothing) } else { Err(strange("there never was such a call")) };
        };
        Ok(match (frame, call) {
            (ServerFrame::Opened { .. }, Call::Stream { open: open @ false, .. }) => {
                *open = true;
                Heard::Opened(number)
            }
            (ServerFrame::Lines { bytes, .. }, Call::Stream { open: true, granted, .. }) => {
                use_up(granted, bytes.len()).ok_or_else(|| strange(NOT_GRANTED))?;
                Heard::Lines(number, bytes)
            }
            (ServerFrame::CompressedLines { length, zstd, .. }, Call::Stream { open: true, granted, .. }) => {
                // Known before any of it is unfolded.
                use_up(granted, length as usize).ok_or_else(|| strange(NOT_GRANTED))?;
                let bytes = zstd::bulk::decompress(&zstd, length as usize)
                    .map_err(|error| strange("lines cannot be decompressed").caused_by(error))?;
                if bytes.len() != length as usize {
                    return Err(strange("lines have another length than is stated"));
                }
                Heard::Lines(number, bytes.into())
            }
            (ServerFrame::Ended { .. }, Call::Stream { open: true, .. }) => {
                self.forget(now, number);
                Heard::Ended(number)
            }
            (ServerFrame::WriteCheckpoint { number: checkpoint, .. }, Call::Question) => {
                self.forget(now, number);
                Heard::WriteCheckpoint(number, WriteCheckpoint(checkpoint))
            }
            (ServerFrame::Failed { code, message, .. }, _) => {
                self.forget(now, number);
                Heard::Failed(number, refused(&code, &message, ErrorKind::Unavailable))
            }
            _ => return Err(strange("a frame is about a call of another kind")),
        })
    }
}

const NOT_GRANTED: &str = "lines are longer than was granted, or empty";

/// Takes bytes that have come off what may come.
fn use_up(granted: &mut u64, length: usize) -> Option<()> {
    if !(1..=MOST_LINE_BYTES).contains(&length) {
        return None;
    }
    *granted = granted.checked_sub(length as u64)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use syncline_core::protocol::SyncRequest;

    use super::*;

    const NOW: Time = Time(1_000);

    fn calls() -> Calls {
        Calls::new(NOW, Duration::from_secs(60))
    }

    fn request() -> Request {
        Request::of(&SyncRequest::default()).expect("it is sound")
    }

    /// Calls with an open stream.
    fn streaming() -> Calls {
        let mut calls = calls();
        calls.open(1, "abc".to_owned(), request());
        let open = ClientFrame::Open { call: 1, token: "abc".to_owned(), credit: WINDOW, request: request() };
        assert_eq!(calls.next(), Some(open));
        assert!(matches!(hear(&mut calls, &ServerFrame::Opened { call: 1 }), Ok(Heard::Opened(1))));
        calls
    }

    fn hear(calls: &mut Calls, frame: &ServerFrame) -> Result<Heard> {
        calls.received(NOW, &frame.encode().expect("a frame"))
    }

    fn lines(length: usize) -> ServerFrame {
        ServerFrame::Lines { call: 1, bytes: vec![7; length].into() }
    }

    #[test]
    fn calls_are_answered_and_over() {
        let mut calls = streaming();
        calls.ask(2, "abc".to_owned(), "device".to_owned());
        assert!(matches!(calls.next(), Some(ClientFrame::WriteCheckpoint { call: 2, .. })));
        let answer = ServerFrame::WriteCheckpoint { call: 2, number: 9 };
        assert!(matches!(hear(&mut calls, &answer), Ok(Heard::WriteCheckpoint(2, WriteCheckpoint(9)))));
        assert!(matches!(hear(&mut calls, &answer), Ok(Heard::Nothing)), "it is over");
        assert!(matches!(hear(&mut calls, &lines(5)), Ok(Heard::Lines(1, bytes)) if bytes.len() == 5));
        assert!(matches!(hear(&mut calls, &ServerFrame::Ended { call: 1 }), Ok(Heard::Ended(1))));
        calls.cancel(NOW, 1);
        assert_eq!(calls.next(), None, "what is over is not given up");
        for (code, kind) in [
            ("PSYNC_S2103", ErrorKind::Unauthorized),
            ("PSYNC_S2199", ErrorKind::Unauthorized),
            ("PSYNC_S2305", ErrorKind::Protocol),
            ("PSYNC_S2304", ErrorKind::Unavailable),
            ("", ErrorKind::Unavailable),
        ] {
            let call = calls.last + 1;
            calls.open(call, "abc".to_owned(), request());
            let failed = ServerFrame::Failed { call, code: code.to_owned(), message: "no".to_owned() };
            let Ok(Heard::Failed(failed, error)) = hear(&mut calls, &failed) else { panic!("it has failed") };
            assert_eq!((failed, error.kind()), (call, kind), "{code}");
        }
    }

    #[test]
    fn what_was_given_up_may_still_be_heard_of_and_nothing_else() {
        let mut calls = streaming();
        calls.cancel(NOW, 1);
        assert_eq!(calls.next(), Some(ClientFrame::Cancel { call: 1 }));
        assert!(matches!(hear(&mut calls, &lines(5)), Ok(Heard::Nothing)));
        let strange = [
            ServerFrame::Ended { call: 2 },
            ServerFrame::Opened { call: 1 },
            ServerFrame::WriteCheckpoint { call: 1, number: 1 },
            ServerFrame::Renewed { call: 1 },
            lines(0),
            lines(MOST_LINE_BYTES + 1),
        ];
        for frame in strange {
            let error = hear(&mut streaming(), &frame).expect_err("it makes no sense");
            assert_eq!(error.kind(), ErrorKind::Protocol, "{frame:?}");
        }
        assert_eq!(streaming().received(NOW, &[9, 9]).expect_err("no frame").kind(), ErrorKind::Protocol);
    }

    #[test]
    fn no_more_comes_than_was_granted_and_grants_replace_what_was_taken() {
        let mut calls = streaming();
        for _ in 0..WINDOW as usize / MOST_LINE_BYTES {
            assert!(matches!(hear(&mut calls, &lines(MOST_LINE_BYTES)), Ok(Heard::Lines(..))));
        }
        calls.taken(1, WINDOW / 2 - 1);
        assert_eq!(calls.next(), None);
        calls.taken(1, 1);
        assert_eq!(calls.next(), Some(ClientFrame::Credit { call: 1, bytes: WINDOW / 2 }));
        for _ in 0..WINDOW as usize / 2 / MOST_LINE_BYTES {
            assert!(matches!(hear(&mut calls, &lines(MOST_LINE_BYTES)), Ok(Heard::Lines(..))));
        }
        assert_eq!(hear(&mut calls, &lines(1)).expect_err("not granted").kind(), ErrorKind::Protocol);
    }

    #[test]
    fn compressed_lines_unfold_to_what_they_state_and_no_further() {
        let text = b"operation ".repeat(1_000);
        let zstd = Bytes::from(zstd::bulk::compress(&text, 1).expect("it can be compressed"));
        let frame = |length| ServerFrame::CompressedLines { call: 1, length, zstd: zstd.clone() };
        let Ok(Heard::Lines(1, bytes)) = hear(&mut streaming(), &frame(10_000)) else { panic!("lines") };
        assert_eq!(bytes, text);
        let bomb = Bytes::from(zstd::bulk::compress(&vec![0; 100 << 20], 1).expect("it can be compressed"));
        let bomb = |length| ServerFrame::CompressedLines { call: 1, length, zstd: bomb.clone() };
        for frame in [frame(9_999), frame(10_001), frame(0), frame(u32::MAX), bomb(60_000), bomb(100 << 20)] {
            let error = hear(&mut streaming(), &frame).expect_err("another length");
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        }
    }

    #[test]
    fn signs_of_life_are_asked_for_and_a_silent_server_is_given_up() {
        let mut calls = streaming();
        for step in 1..=2 {
            let due = NOW + KEEPALIVE * step;
            assert_eq!(calls.deadline(), due);
            assert_eq!(calls.tick(due).expect("it may be alive"), Due::Ping);
        }
        calls.alive(NOW + Duration::from_secs(41));
        assert_eq!(calls.tick(NOW + Duration::from_secs(100)).expect("it was heard of"), Due::Ping);
        let error = calls.tick(NOW + Duration::from_secs(101)).expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_connection_without_a_call_is_closed_soon() {
        let mut calls = streaming();
        calls.cancel(NOW + Duration::from_secs(5), 1);
        assert_eq!(calls.deadline(), NOW + Duration::from_secs(15));
        assert_eq!(calls.tick(NOW + Duration::from_secs(14)).expect("alive"), Due::Nothing);
        assert_eq!(calls.tick(NOW + Duration::from_secs(15)).expect("alive"), Due::Close);
    }
}
