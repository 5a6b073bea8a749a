//! Conversations with a connection: what it grants, what it takes, and how it ends.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use syncline_core::{Error, Time, WriteCheckpoint};

use super::super::limits::WebSocketLimits;
use super::super::subprotocol::{Asked, Close, News, Outgoing, Output, Subprotocol};
use super::Calls;
use crate::compact::{ClientFrame, MOST_LINE_BYTES, Request, ServerFrame};

const NOW: Time = Time(1_000);

fn request() -> Request {
    Request {
        positions: Vec::new(),
        client_id: Some("device".to_owned()),
        parameters: "{}".to_owned(),
        metadata: BTreeMap::new(),
        streams: None,
    }
}

fn open(call: u32, credit: u64) -> ClientFrame {
    ClientFrame::Open { call, token: "good".to_owned(), credit, request: request() }
}

fn ask(call: u32) -> ClientFrame {
    ClientFrame::WriteCheckpoint { call, token: "good".to_owned(), client_id: None }
}

fn token(call: u32) -> ClientFrame {
    ClientFrame::Token { call, token: "new".to_owned() }
}

/// A connection, and an owner that does what it is told.
struct Talk {
    connection: Calls,
    now: Time,
    asked: Vec<(u32, String)>,
    renewed: Vec<u32>,
    pulled: Vec<u32>,
    dropped: Vec<u32>,
    sent: VecDeque<ServerFrame>,
    closed: Option<(Close, &'static str)>,
}

impl Talk {
    fn new(limits: WebSocketLimits) -> Self {
        Self {
            connection: Calls::new(NOW, limits, false),
            now: NOW,
            asked: Vec::new(),
            renewed: Vec::new(),
            pulled: Vec::new(),
            dropped: Vec::new(),
            sent: VecDeque::new(),
            closed: None,
        }
    }

    /// One with an open stream that was granted so much.
    fn streaming(credit: u64) -> Self {
        let mut talk = Self::new(WebSocketLimits::default());
        talk.say(open(1, credit));
        talk.told(1, News::Opened(None));
        assert_eq!(talk.sent.pop_front(), Some(ServerFrame::Opened { call: 1 }));
        talk
    }

    fn say(&mut self, frame: ClientFrame) {
        self.say_bytes(frame.encode().unwrap());
    }

    fn say_bytes(&mut self, bytes: Bytes) {
        self.connection.received(self.now, bytes);
        self.settle();
    }

    fn told(&mut self, call: u32, news: News) {
        self.connection.told(self.now, call, news);
        self.settle();
    }

    fn piece(&mut self, call: u32, length: usize) {
        self.told(call, News::Piece(Some(Ok(vec![7; length].into()))));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.connection.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            self.connection.tick(deadline);
            self.settle();
            assert_ne!(self.connection.deadline(), Some(deadline), "its owner would tick for ever");
        }
        self.now = end;
        self.connection.tick(end);
        self.settle();
    }

    /// The same while the client gives signs of life.
    fn wait_alive(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.connection.alive(self.now);
            self.wait(Duration::from_secs(10).min(end.since(self.now)));
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.connection.next() {
            assert_eq!(self.closed, None, "{output:?} follows the close");
            match output {
                Output::Send(frame) => self.sent.push_back(ServerFrame::decode(&frame.bytes().unwrap()).unwrap()),
                Output::Ask(call, ask) => {
                    let what = match ask.what {
                        Asked::Stream(request) => request.client_id.unwrap_or_default(),
                        Asked::WriteCheckpoint(client) => client.unwrap_or_default(),
                    };
                    self.asked.push((call, format!("{} for {what}", ask.token)));
                }
                Output::Renew(call, _) => self.renewed.push(call),
                Output::Pull(call) => self.pulled.push(call),
                Output::Drop(call) => self.dropped.push(call),
                Output::Close(close, reason) => self.closed = Some((close, reason)),
                Output::Authenticate(_) | Output::Open(..) => panic!("{output:?} is RSocket's"),
            }
        }
    }

    /// How many bytes of lines were sent, and nothing else.
    fn bytes(&mut self) -> usize {
        let length = |frame| match frame {
            ServerFrame::Lines { bytes, .. } => {
                assert!((1..=MOST_LINE_BYTES).contains(&bytes.len()));
                bytes.len()
            }
            frame => panic!("{frame:?} is no lines"),
        };
        self.sent.drain(..).map(length).sum()
    }

    fn failed(&mut self) -> (u32, String) {
        match self.sent.pop_front() {
            Some(ServerFrame::Failed { call, code, .. }) => (call, code),
            frame => panic!("{frame:?} is no failure"),
        }
    }
}

#[test]
fn calls_are_asked_for_under_their_own_tokens_and_answered() {
    let mut talk = Talk::new(WebSocketLimits::default());
    talk.say(ask(1));
    talk.say(open(5, 100));
    assert_eq!(talk.asked, [(1, "good for ".to_owned()), (5, "good for device".to_owned())]);
    talk.told(1, News::WriteCheckpoint(WriteCheckpoint(7)));
    assert_eq!(talk.sent.pop_front(), Some(ServerFrame::WriteCheckpoint { call: 1, number: 7 }));
    talk.told(5, News::Failed(Error::unauthorized("no").with_code("PSYNC_S2103")));
    assert_eq!(talk.failed(), (5, "PSYNC_S2103".to_owned()));
    assert_eq!(talk.dropped, [1, 5]);
    // What comes too late is for nobody.
    talk.told(5, News::Opened(None));
    talk.piece(5, 10);
    talk.say(ClientFrame::Cancel { call: 5 });
    talk.say(ClientFrame::Credit { call: 2, bytes: 1 });
    talk.say(token(1));
    assert!(talk.sent.is_empty() && talk.closed.is_none());
    let broken = Request { parameters: "[]".to_owned(), ..request() };
    talk.say(ClientFrame::Open { call: 6, token: String::new(), credit: 1, request: broken });
    assert_eq!(talk.failed(), (6, "PSYNC_S2001".to_owned()));
}

#[test]
fn no_byte_is_sent_and_no_piece_is_pulled_that_was_not_granted() {
    let mut talk = Talk::new(WebSocketLimits::default());
    talk.say(open(1, 100));
    talk.say(ClientFrame::Credit { call: 1, bytes: 50 });
    talk.told(1, News::Opened(None));
    assert_eq!(talk.sent.pop_front(), Some(ServerFrame::Opened { call: 1 }));
    assert_eq!(talk.pulled, [1]);
    talk.piece(1, 120);
    assert_eq!(talk.bytes(), 120);
    assert_eq!(talk.pulled, [1, 1], "30 are left");
    talk.piece(1, 1_000);
    assert_eq!(talk.bytes(), 30);
    assert_eq!(talk.pulled.len(), 2);
    talk.say(ClientFrame::Credit { call: 1, bytes: 970 });
    assert_eq!(talk.bytes(), 970);
    assert_eq!(talk.pulled.len(), 2, "nothing is granted any more");
    talk.say(ClientFrame::Credit { call: 1, bytes: u64::MAX });
    talk.say(ClientFrame::Credit { call: 1, bytes: u64::MAX });
    assert_eq!(talk.pulled.len(), 3);
    talk.piece(1, 3 * MOST_LINE_BYTES + 1);
    assert_eq!(talk.sent.len(), 4);
    assert_eq!(talk.bytes(), 3 * MOST_LINE_BYTES + 1);
    talk.told(1, News::Piece(None));
    assert_eq!(talk.sent.pop_front(), Some(ServerFrame::Ended { call: 1 }));
    assert_eq!(talk.dropped, [1]);
}

#[test]
fn who_breaks_the_rules_is_closed_with_a_reason() {
    let broken: [(Vec<Bytes>, &str); 8] = [
        (vec![Bytes::new()], "a message is no frame of this version"),
        (vec![Bytes::from_static(&[5, 1])], "a message is no frame of this version"),
        (vec![Bytes::from_static(&[4, 1, 0])], "a message is no frame of this version"),
        (vec![open(1, 1).encode().unwrap()], "the number of a call is not above those before"),
        (vec![ask(0).encode().unwrap()], "the number of a call is not above those before"),
        (vec![ClientFrame::Cancel { call: 2 }.encode().unwrap()], "there never was such a call"),
        (vec![ClientFrame::Credit { call: 1, bytes: 0 }.encode().unwrap()], "a grant of nothing"),
        (vec![token(1).encode().unwrap(); 2], "a token for what has no token that was verified"),
    ];
    for (messages, reason) in broken {
        let mut talk = Talk::streaming(1);
        messages.into_iter().for_each(|message| talk.say_bytes(message));
        assert_eq!(talk.closed, Some((Close::Protocol, reason)));
        assert_eq!(talk.dropped, [1]);
        talk.say(open(9, 1));
        talk.wait(Duration::from_secs(1_000));
        talk.told(1, News::Piece(None));
        assert!(talk.sent.is_empty() && talk.asked.len() == 1, "nothing follows the close");
    }
    let mut talk = Talk::streaming(1);
    talk.say(ask(2));
    talk.say(ClientFrame::Credit { call: 2, bytes: 1 });
    assert_eq!(talk.closed, Some((Close::Protocol, "a question is granted bytes")));
    assert_eq!(talk.dropped, [1, 2]);
}

#[test]
fn one_call_too_many_fails_alone() {
    let mut talk = Talk::new(WebSocketLimits { streams_per_connection: 2, ..WebSocketLimits::default() });
    talk.say(open(1, 1));
    talk.say(ask(2));
    talk.say(open(3, 1));
    talk.say(ask(4));
    assert_eq!(talk.failed(), (3, "PSYNC_S2304".to_owned()));
    assert_eq!(talk.failed(), (4, "PSYNC_S2304".to_owned()));
    talk.say(ClientFrame::Cancel { call: 1 });
    assert_eq!(talk.dropped, [1]);
    talk.say(open(5, 1));
    assert_eq!(talk.asked.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [1, 2, 5]);
}

#[test]
fn a_stranger_is_closed_in_time_however_many_tokens_it_tries() {
    let mut talk = Talk::new(WebSocketLimits::default());
    for call in 1..=14 {
        talk.say(open(call, 1));
        talk.told(call, News::Failed(Error::unauthorized("no")));
        talk.wait(Duration::from_secs(1));
        assert_eq!(talk.closed, None);
    }
    talk.say(open(15, 1));
    talk.wait(Duration::from_secs(1));
    assert_eq!(talk.closed, Some((Close::Policy, "no token was accepted in time")));
    assert_eq!(talk.dropped.last(), Some(&15));
}

#[test]
fn who_is_silent_and_who_has_no_call_is_closed() {
    let mut talk = Talk::streaming(u64::MAX);
    talk.wait_alive(Duration::from_secs(600));
    assert_eq!(talk.closed, None);
    // It was heard ten seconds ago.
    talk.wait(Duration::from_secs(79));
    assert_eq!(talk.closed, None);
    talk.wait(Duration::from_secs(1));
    assert_eq!(talk.closed, Some((Close::Policy, "there was no sign of life for too long")));

    let mut talk = Talk::streaming(u64::MAX);
    talk.say(ClientFrame::Cancel { call: 1 });
    talk.wait_alive(Duration::from_secs(50));
    assert_eq!(talk.closed, None);
    talk.wait_alive(Duration::from_secs(10));
    assert_eq!(talk.closed, Some((Close::Policy, "there was no call for too long")));
}

#[test]
fn a_stream_that_is_granted_nothing_fails_alone_or_ends_with_its_token() {
    let mut talk = Talk::streaming(10);
    talk.piece(1, 20);
    assert_eq!(talk.bytes(), 10);
    talk.say(open(2, u64::MAX));
    talk.told(2, News::Opened(None));
    talk.sent.clear();
    talk.wait_alive(Duration::from_secs(59));
    assert!(talk.sent.is_empty());
    talk.wait_alive(Duration::from_secs(1));
    assert_eq!(talk.failed(), (1, "PSYNC_S2003".to_owned()));
    assert_eq!((&talk.dropped[..], talk.closed), (&[1][..], None));

    for (piece, end) in [(10, 20), (20, 50)] {
        let mut talk = Talk::new(WebSocketLimits::default());
        talk.say(open(1, 10));
        talk.told(1, News::Opened(Some(NOW + Duration::from_secs(20))));
        talk.piece(1, piece);
        talk.sent.clear();
        talk.wait_alive(Duration::from_secs(end - 1));
        assert!(talk.sent.is_empty());
        talk.wait_alive(Duration::from_secs(1));
        match piece {
            10 => assert_eq!(talk.sent.pop_front(), Some(ServerFrame::Ended { call: 1 })),
            _ => assert_eq!(talk.failed(), (1, "PSYNC_S2003".to_owned())),
        }
    }
}

#[test]
fn a_stream_goes_on_under_a_new_token_or_fails_with_it() {
    let mut talk = Talk::new(WebSocketLimits::default());
    talk.say(open(1, 10));
    talk.told(1, News::Opened(Some(NOW + Duration::from_secs(20))));
    talk.piece(1, 10);
    talk.sent.clear();
    talk.say(token(1));
    talk.told(1, News::Renewed(Ok(Some(NOW + Duration::from_secs(40)))));
    assert_eq!(talk.sent.pop_front(), Some(ServerFrame::Renewed { call: 1 }));
    talk.wait_alive(Duration::from_secs(39));
    assert!(talk.sent.is_empty(), "it goes on");
    talk.say(token(1));
    assert_eq!(talk.renewed, [1, 1]);
    talk.told(1, News::Renewed(Err(Error::unauthorized("of another"))));
    assert_eq!(talk.failed(), (1, "PSYNC_S2101".to_owned()));
    assert_eq!(talk.dropped, [1]);
}

#[test]
fn a_service_that_shuts_down_closes_what_has_no_call() {
    let mut talk = Talk::streaming(10);
    talk.say(ask(2));
    talk.told(1, News::Piece(None));
    talk.connection.leave();
    talk.settle();
    assert_eq!(talk.closed, None, "a question waits for its answer");
    talk.told(2, News::WriteCheckpoint(WriteCheckpoint(1)));
    talk.connection.leave();
    talk.settle();
    assert_eq!(talk.closed, Some((Close::Away, "the service shuts down")));
}

#[test]
fn lines_are_compressed_one_by_one_if_that_makes_them_shorter() {
    let mut connection = Calls::new(NOW, WebSocketLimits::default(), true);
    connection.received(NOW, open(1, u64::MAX).encode().unwrap());
    connection.told(NOW, 1, News::Opened(None));
    let mut strange = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        strange = strange.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (strange >> 24) as u8
    })
    .take(2_000)
    .collect();
    let text = Bytes::from("operation ".repeat(10_000));
    let mut lines = Vec::new();
    for piece in [Bytes::from(noise.clone()), Bytes::from_static(&[7; 100]), text.clone()] {
        connection.told(NOW, 1, News::Piece(Some(Ok(piece))));
        while let Some(output) = connection.next() {
            let Output::Send(frame) = output else { continue };
            lines.push(ServerFrame::decode(&frame.bytes().unwrap()).unwrap());
        }
    }
    let [ServerFrame::Opened { .. }, plain, short, compressed @ ..] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(*plain, ServerFrame::Lines { call: 1, bytes: noise.into() });
    assert_eq!(*short, ServerFrame::Lines { call: 1, bytes: Bytes::from_static(&[7; 100]) });
    let mut read = Vec::new();
    for frame in compressed {
        let ServerFrame::CompressedLines { call: 1, length, zstd } = frame else { panic!("{frame:?}") };
        assert!(zstd.len() < 1_000, "{} bytes", zstd.len());
        read.extend(zstd::bulk::decompress(zstd, *length as usize).unwrap());
    }
    assert_eq!(read, text);
}

proptest! {
    /// Whatever a client says and however pieces come: it gets all bytes in order, and never more than it has granted.
    #[test]
    fn grants_are_honoured(steps in prop::collection::vec((any::<bool>(), 1..200_000_usize), 1..60)) {
        let mut talk = Talk::streaming(1);
        let (mut granted, mut sent, mut held) = (1, 0, 0);
        for (grant, size) in steps {
            if grant {
                talk.say(ClientFrame::Credit { call: 1, bytes: size as u64 });
                granted += size;
            } else if talk.pulled.pop().is_some() {
                held += size;
                talk.piece(1, size);
            }
            sent += talk.bytes();
            prop_assert_eq!(sent, held.min(granted));
            prop_assert_eq!(talk.pulled.len(), usize::from(held < granted), "a piece is pulled when one is granted");
        }
    }
}
