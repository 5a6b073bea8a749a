//! Conversations with a connection: those that were recorded with the official service, and those with hostile clients.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::hex::bytes_of;

const SESSIONS: &str = include_str!("../../../../core/tests/data/vectors/rsocket_sessions.json");
const FRAMES: &str = include_str!("../../../../core/tests/data/vectors/rsocket_frames.json");

const NOW: Time = Time(1_000);
const JSON: &str = "application/json";

fn setup() -> Setup {
    let metadata = json!({ "token": "Token good", "user_agent": "sample/1.0" }).to_string();
    Setup {
        version: (1, 0),
        keepalive: 20_000,
        lifetime: 90_000,
        resume_token: None,
        lease: false,
        metadata_type: JSON.to_owned(),
        data_type: JSON.to_owned(),
        payload: Payload { metadata: Some(metadata.into()), data: Bytes::new() },
    }
}

fn request(stream: u32, initial: u32) -> Frame {
    let metadata = Some(Bytes::from_static(b"{\"path\":\"/sync/stream\"}"));
    let payload = Payload { metadata, data: Bytes::from_static(b"{\"raw_data\":true}") };
    Frame::RequestStream { stream, initial, follows: false, payload }
}

/// The shortest document, told apart by nothing.
const LINE: &[u8] = &[5, 0, 0, 0, 0];

/// A connection, and an owner that does what it is told.
struct Talk {
    connection: Connection,
    now: Time,
    /// What each stream is answered when it is pulled for the first time.
    piece: Bytes,
    verdict: Result<Option<Time>>,
    pulled: Vec<u32>,
    opened: Vec<(u32, SyncRequest)>,
    dropped: Vec<u32>,
    sent: VecDeque<Bytes>,
    closed: Option<Close>,
}

impl Talk {
    fn new(limits: WebSocketLimits) -> Self {
        Self {
            connection: Connection::new(NOW, limits),
            now: NOW,
            piece: LINE.repeat(4).into(),
            verdict: Ok(None),
            pulled: Vec::new(),
            opened: Vec::new(),
            dropped: Vec::new(),
            sent: VecDeque::new(),
            closed: None,
        }
    }

    /// A connection that is set up.
    fn open(limits: WebSocketLimits) -> Self {
        let mut talk = Self::new(limits);
        talk.say(&Frame::Setup(setup()));
        assert_eq!((talk.sent.len(), talk.closed), (0, None));
        talk
    }

    fn say(&mut self, frame: &Frame) {
        self.say_bytes(frame.encode().unwrap());
    }

    fn say_bytes(&mut self, message: Bytes) {
        self.connection.received(self.now, message);
        self.settle();
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

    fn settle(&mut self) {
        while let Some(output) = self.connection.next() {
            assert_eq!(self.closed, None, "{output:?} follows the close");
            match output {
                Output::Ask(..) | Output::Renew(..) => panic!("{output:?} is none of RSocket"),
                Output::Send(frame) => self.sent.push_back(frame.encode().unwrap()),
                Output::Authenticate(_) => self.connection.authenticated(self.now, self.verdict.clone()),
                Output::Open(stream, request) => self.opened.push((stream, *request)),
                Output::Pull(stream) => {
                    let first = !self.pulled.contains(&stream);
                    self.pulled.push(stream);
                    if first {
                        self.connection.told(self.now, stream, News::Piece(Some(Ok(self.piece.clone()))));
                    }
                }
                Output::Drop(stream) => self.dropped.push(stream),
                Output::Close(close, _) => self.closed = Some(close),
            }
        }
    }

    fn frame(&mut self) -> Frame {
        Frame::decode(self.sent.pop_front().expect("something is sent")).unwrap()
    }

    /// The next frame, which is an error.
    fn error(&mut self) -> (u32, ErrorCode, String) {
        match self.frame() {
            Frame::Error { stream, code, message } => (stream, code, message),
            frame => panic!("{frame:?} is no error"),
        }
    }

    fn assert_error(&mut self, stream: u32, code: ErrorCode, psync: &str) {
        let (on, with, message) = self.error();
        assert_eq!((on, with), (stream, code), "{message}");
        assert!(message.starts_with(&format!("[{psync}] ")), "{message}");
    }

    fn items(&mut self) -> usize {
        let count = self.sent.len();
        while !self.sent.is_empty() {
            assert!(matches!(self.frame(), Frame::Payload { next: true, complete: false, .. }));
        }
        count
    }
}

/// The SETUP of a recorded session, which was recorded without its bytes.
fn recorded_setup(session: &str, decoded: &Value) -> Bytes {
    if session == "bson_request" {
        let frames: Value = serde_json::from_str(FRAMES).unwrap();
        let frames = frames["frames"].as_array().unwrap();
        let bson = frames.iter().find(|frame| frame["name"] == "setup_bson").unwrap();
        return bytes_of(bson["hex"].as_str().unwrap());
    }
    let mut setup = setup();
    setup.payload.metadata = decoded["metadata"].as_str().map(|metadata| Bytes::from(metadata.to_owned()));
    let flags = decoded["flags"].as_u64().unwrap();
    setup.lease = flags & 0x40 != 0;
    setup.resume_token = (flags & 0x80 != 0).then(Bytes::new);
    if session == "bad_mime" {
        "text/plain".clone_into(&mut setup.metadata_type);
    }
    Frame::Setup(setup).encode().unwrap()
}

#[test]
fn recorded_sessions_are_answered_as_recorded() {
    let recorded: Value = serde_json::from_str(SESSIONS).unwrap();
    let sessions = recorded["sessions"].as_array().unwrap();
    let is_data = |frame: &&Value| frame["dir"] == "server" && frame["hex"].is_string();
    let lines = sessions[0]["frames"].as_array().unwrap().iter().filter(is_data);
    let lines: Vec<u8> = lines.flat_map(|frame| bytes_of(frame["hex"].as_str().unwrap()).slice(6..)).collect();
    let mut compared = 0;
    for session in sessions {
        let name = session["name"].as_str().unwrap();
        let mut talk = Talk::new(WebSocketLimits::default());
        talk.piece = lines.clone().into();
        match name {
            "bad_token" => talk.verdict = Err(Error::unauthorized("no JWT").with_code("PSYNC_S2101")),
            "expired_token" => talk.verdict = Err(Error::unauthorized("over").with_code("PSYNC_S2103")),
            _ => {}
        }
        let mut closes = false;
        for frame in session["frames"].as_array().unwrap() {
            let decoded = &frame["decoded"];
            match (frame["dir"].as_str(), frame["hex"].as_str()) {
                (Some("client"), Some(hex)) => {
                    let granted = decoded["type"] == "REQUEST_N";
                    assert!(!granted || talk.sent.is_empty(), "{name}: more is sent than was granted");
                    let is_setup = decoded["type"] == "SETUP";
                    talk.say_bytes(if is_setup { recorded_setup(name, decoded) } else { bytes_of(hex) });
                }
                (Some("server"), Some(hex)) if decoded["type"] == "ERROR" => {
                    let expected = decoded["message"].as_str().unwrap();
                    let (stream, code, message) = talk.error();
                    assert_eq!(Some(u64::from(stream)), decoded["streamId"].as_u64(), "{name}");
                    assert_eq!(Some(u64::from(code.0)), decoded["code"].as_u64(), "{name}: {hex}");
                    // The texts are ours; and where the official service gives no code, we do.
                    let code = expected.split_inclusive(']').next().filter(|code| code.starts_with("[PSYNC"));
                    assert!(message.starts_with(code.unwrap_or("[PSYNC_S2001]")), "{name}: {message}");
                }
                (Some("server"), Some(hex)) => {
                    assert_eq!(talk.sent.pop_front(), Some(bytes_of(hex)), "{name}");
                    compared += 1;
                }
                (Some("server"), None) => closes = frame["close"] == 1005,
                _ => {}
            }
        }
        assert!(talk.sent.is_empty(), "{name}: nothing else is sent");
        assert_eq!(talk.closed, closes.then_some(Close::Silent), "{name}");
    }
    assert_eq!(sessions.len(), 22, "all of them");
    assert!(compared >= 17, "only {compared} frames were compared");
}

#[test]
fn requests_arrive_whole_in_both_encodings() {
    let sessions: Value = serde_json::from_str(SESSIONS).unwrap();
    for (name, client_id) in [("bson_request", Some("c")), ("fragmented_request", None)] {
        let session = sessions["sessions"].as_array().unwrap().iter().find(|session| session["name"] == name).unwrap();
        let mut talk = Talk::new(WebSocketLimits::default());
        for frame in session["frames"].as_array().unwrap().iter().filter(|frame| frame["dir"] == "client") {
            let is_setup = frame["decoded"]["type"] == "SETUP";
            let hex = frame["hex"].as_str().unwrap();
            talk.say_bytes(if is_setup { recorded_setup(name, &frame["decoded"]) } else { bytes_of(hex) });
        }
        let (stream, request) = talk.opened.first().unwrap();
        assert_eq!((*stream, request.raw_data), (1, true), "{name}");
        assert_eq!(request.client_id.as_deref(), client_id, "{name}");
    }
}

#[test]
fn lines_are_sent_and_pulled_against_credit_alone() {
    let mut talk = Talk::open(WebSocketLimits::default());
    talk.say(&request(1, 2));
    assert_eq!((talk.items(), &talk.pulled[..]), (2, &[1][..]));
    talk.say(&Frame::RequestN { stream: 1, n: 2 });
    assert_eq!(talk.items(), 2);
    assert_eq!(talk.pulled, [1], "the last line used up the last credit");
    talk.say(&Frame::RequestN { stream: 1, n: 1 });
    assert_eq!(talk.pulled, [1, 1]);
    talk.say(&Frame::RequestN { stream: 1, n: MAX_31 });
    assert_eq!(talk.pulled, [1, 1], "one piece at a time");
    for _ in 0..3 {
        talk.connection.told(NOW, 1, News::Piece(Some(Ok(LINE.repeat(7).into()))));
        talk.settle();
        assert_eq!(talk.items(), 7, "the largest grant never ends");
    }
    talk.connection.told(NOW, 1, News::Piece(None));
    talk.settle();
    assert!(matches!(talk.frame(), Frame::Payload { complete: true, next: false, .. }));
    assert_eq!(talk.dropped, [1]);
    talk.say(&Frame::RequestN { stream: 1, n: 1 });
    talk.say(&request(3, 1));
    assert_eq!(talk.items(), 1, "the connection is open for another");
}

#[test]
fn impossible_grants_end_their_stream_alone() {
    for n in [0, MAX_31 + 1, u32::MAX] {
        let mut talk = Talk::open(WebSocketLimits::default());
        talk.say(&request(1, 1));
        talk.say(&request(3, 1));
        assert_eq!(talk.items(), 2);
        talk.say(&Frame::RequestN { stream: 1, n });
        talk.assert_error(1, ErrorCode::INVALID, "PSYNC_S2001");
        assert_eq!((&talk.dropped[..], talk.closed), (&[1][..], None));
        talk.say(&request(5, n));
        talk.assert_error(5, ErrorCode::INVALID, "PSYNC_S2001");
        talk.say(&Frame::RequestN { stream: 3, n: 1 });
        assert_eq!(talk.items(), 1, "the other stream goes on");
    }
}

#[test]
fn broken_rules_close_the_connection_with_a_code() {
    let malformed = Bytes::from_static(&[0, 0, 0, 1]);
    let mut talk = Talk::open(WebSocketLimits::default());
    talk.say(&request(1, 1));
    assert_eq!(talk.items(), 1);
    talk.say_bytes(malformed.clone());
    talk.assert_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001");
    assert_eq!((talk.closed, &talk.dropped[..]), (Some(Close::Protocol), &[1][..]));
    talk.say(&request(3, 1));
    assert!(talk.sent.is_empty(), "nothing is said after the close");

    let mut talk = Talk::new(WebSocketLimits::default());
    talk.say_bytes(malformed);
    talk.assert_error(0, ErrorCode::INVALID_SETUP, "PSYNC_S2001");
    assert_eq!(talk.closed, Some(Close::Protocol));

    let unknown = |ignorable| Frame::Other { stream: 0, kind: 0x3f, ignorable };
    for (frame, close) in [
        (Frame::Setup(setup()), Some(Close::Protocol)),
        (request(1, 1), Some(Close::Protocol)),
        (unknown(false), Some(Close::Protocol)),
        (unknown(true), None),
        (Frame::Other { stream: 0, kind: 0x0c, ignorable: false }, None),
    ] {
        let mut talk = Talk::open(WebSocketLimits::default());
        talk.say(&request(1, 1));
        talk.items();
        talk.say(&frame);
        assert_eq!(talk.closed, close, "{frame:?}");
    }
}

#[test]
fn a_request_in_pieces_is_bounded() {
    let limits = WebSocketLimits { request_bytes: 100, ..WebSocketLimits::default() };
    let mut talk = Talk::open(limits);
    let payload = || Payload::of(vec![b' '; 60].into());
    talk.say(&Frame::RequestStream { stream: 1, initial: 1, follows: true, payload: payload() });
    assert_eq!(talk.closed, None);
    talk.say(&Frame::Payload { stream: 1, follows: true, complete: false, next: true, payload: payload() });
    talk.assert_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2001");
    assert_eq!(talk.closed, Some(Close::TooLarge));
}

#[test]
fn streams_of_a_connection_are_bounded() {
    let limits = WebSocketLimits { streams_per_connection: 2, ..WebSocketLimits::default() };
    let mut talk = Talk::open(limits);
    for stream in [1, 3] {
        talk.say(&request(stream, 1));
    }
    assert_eq!(talk.items(), 2);
    talk.say(&request(5, 1));
    talk.assert_error(5, ErrorCode::REJECTED, "PSYNC_S2304");
    talk.say(&Frame::Cancel { stream: 1 });
    assert_eq!(talk.dropped, [1]);
    talk.say(&request(7, 1));
    assert_eq!(talk.items(), 1);
    talk.say(&request(2, 1));
    talk.assert_error(2, ErrorCode::INVALID, "PSYNC_S2001");
}

#[test]
fn a_connection_that_is_not_set_up_in_time_is_closed() {
    let mut talk = Talk::new(WebSocketLimits::default());
    talk.wait(Duration::from_secs(14));
    assert_eq!(talk.closed, None);
    talk.wait(Duration::from_secs(1));
    talk.assert_error(0, ErrorCode::REJECTED_SETUP, "PSYNC_S2003");
    assert_eq!(talk.closed, Some(Close::Policy));
}

#[test]
fn silence_longer_than_setup_states_closes_the_connection() {
    let mut talk = Talk::open(WebSocketLimits::default());
    talk.say(&request(1, MAX_31));
    talk.items();
    for _ in 0..5 {
        talk.wait(Duration::from_secs(80));
        assert_eq!(talk.closed, None);
        talk.say(&Frame::Keepalive { respond: true, position: 7, data: Bytes::from_static(b"ping") });
        let answer = Frame::Keepalive { respond: false, position: 0, data: Bytes::from_static(b"ping") };
        assert_eq!(talk.frame(), answer);
    }
    talk.wait(Duration::from_secs(90));
    talk.assert_error(0, ErrorCode::CONNECTION_ERROR, "PSYNC_S2003");
    assert_eq!((talk.closed, &talk.dropped[..]), (Some(Close::Policy), &[1][..]));
}

#[test]
fn a_lifetime_without_sense_is_bounded() {
    for (stated, served) in [(0, 1), (u32::MAX, 300)] {
        let mut talk = Talk::new(WebSocketLimits::default());
        talk.say(&Frame::Setup(Setup { lifetime: stated, ..setup() }));
        talk.say(&request(1, MAX_31));
        talk.items();
        talk.wait(Duration::from_secs(served) - Duration::from_millis(1));
        assert_eq!(talk.closed, None, "{stated}");
        talk.wait(Duration::from_millis(1));
        assert_eq!(talk.closed, Some(Close::Policy), "{stated}");
    }
}

#[test]
fn a_client_that_grants_nothing_loses_its_stream_and_its_connection_without_one() {
    let limits = WebSocketLimits { lifetime: Duration::from_secs(3_600), ..WebSocketLimits::default() };
    let mut talk = Talk::new(limits);
    talk.say(&Frame::Setup(Setup { lifetime: u32::MAX, ..setup() }));
    talk.say(&request(1, 2));
    talk.items();
    talk.wait(Duration::from_secs(59));
    talk.say(&Frame::RequestN { stream: 1, n: 1 });
    assert_eq!(talk.items(), 1);
    talk.wait(Duration::from_secs(59));
    assert!(talk.dropped.is_empty());
    talk.wait(Duration::from_secs(1));
    talk.assert_error(1, ErrorCode::APPLICATION_ERROR, "PSYNC_S2003");
    assert_eq!((&talk.dropped[..], talk.closed), (&[1][..], None));
    talk.wait(Duration::from_secs(60));
    talk.assert_error(0, ErrorCode::CONNECTION_CLOSE, "PSYNC_S2003");
    assert_eq!(talk.closed, Some(Close::Policy));
}

#[test]
fn a_stream_that_is_granted_nothing_ends_with_its_token() {
    for (granted, completes, after) in [(4, true, 10), (3, false, 40)] {
        let mut talk = Talk::new(WebSocketLimits::default());
        talk.verdict = Ok(Some(NOW + Duration::from_secs(10)));
        talk.say(&Frame::Setup(setup()));
        talk.say(&request(1, granted));
        assert_eq!(talk.items(), granted as usize);
        talk.wait(Duration::from_secs(after) - Duration::from_millis(1));
        assert!(talk.dropped.is_empty());
        talk.wait(Duration::from_millis(1));
        match talk.frame() {
            Frame::Payload { complete: true, next: false, .. } => assert!(completes),
            // What was read before is missing, so it is no orderly end.
            Frame::Error { stream: 1, .. } => assert!(!completes),
            frame => panic!("{frame:?}"),
        }
        assert_eq!(talk.dropped, [1]);
    }
}

#[test]
fn failures_are_told_on_their_stream() {
    let mut talk = Talk::open(WebSocketLimits::default());
    talk.say(&request(1, 5));
    talk.items();
    let cause = std::io::Error::other("secret");
    talk.connection.told(NOW, 1, News::Piece(Some(Err(Error::internal("broken").caused_by(cause)))));
    talk.settle();
    let (stream, code, message) = talk.error();
    assert_eq!((stream, code), (1, ErrorCode::APPLICATION_ERROR));
    assert!(message.starts_with("[PSYNC_S2001] ") && !message.contains("secret"), "{message}");
    // A piece that is not made of lines is a failure, and nothing worse.
    for piece in [&[1][..], &[0, 0, 0, 0, 0], &[9, 0, 0, 0, 0], &[255, 255, 255, 255, 0]] {
        talk.piece = Bytes::copy_from_slice(piece);
        talk.pulled.clear();
        talk.say(&request(3, 1));
        talk.assert_error(3, ErrorCode::APPLICATION_ERROR, "PSYNC_S2001");
    }
    assert_eq!(talk.closed, None);
}

#[test]
fn a_line_that_no_frame_holds_comes_in_several() {
    let mut line = 20_000_000_i32.to_le_bytes().to_vec();
    line.resize(20_000_000, 7);
    let line = Bytes::from(line);
    let mut talk = Talk::open(WebSocketLimits::default());
    talk.piece = line.clone();
    talk.say(&request(1, 1));
    assert_eq!(talk.sent.len(), 2);
    let mut reassembly = Reassembly::new(line.len(), 1);
    let first = talk.frame();
    assert_eq!(reassembly.push(first), Ok(None));
    let last = talk.frame();
    let whole = reassembly.push(last).unwrap().unwrap();
    assert!(matches!(whole, Frame::Payload { payload, next: true, .. } if payload.data == line));
}

/// Frames that make sense by themselves, on few streams, so that they meet.
fn frame() -> impl Strategy<Value = Frame> {
    let stream = 1_u32..6;
    let metadata = prop_oneof![Just("{\"path\":\"/sync/stream\"}"), Just("{\"path\":\"/\"}"), Just("{"), Just("")];
    let data = prop_oneof![Just("{}"), Just("{\"raw_data\":true}"), Just("["), Just("")];
    let payload = (prop::option::weighted(0.8, metadata), data).prop_map(|(metadata, data)| Payload {
        metadata: metadata.map(|metadata| Bytes::from_static(metadata.as_bytes())),
        data: Bytes::from_static(data.as_bytes()),
    });
    let grant = prop_oneof![8 => 1_u32..9, 1 => Just(0), 1 => Just(MAX_31), 1 => Just(u32::MAX)];
    prop_oneof![
        1 => Just(Frame::Setup(setup())),
        2 => any::<bool>().prop_map(|respond| Frame::Keepalive { respond, position: 0, data: Bytes::new() }),
        8 => (stream.clone(), grant.clone(), prop::bool::weighted(0.2), payload.clone()).prop_map(
            |(stream, initial, follows, payload)| Frame::RequestStream { stream, initial, follows, payload }
        ),
        4 => (stream.clone(), grant).prop_map(|(stream, n)| Frame::RequestN { stream, n }),
        2 => stream.clone().prop_map(|stream| Frame::Cancel { stream }),
        2 => (stream.clone(), any::<[bool; 3]>(), payload).prop_map(|(stream, [follows, complete, next], payload)| {
            Frame::Payload { stream, follows, complete, next, payload }
        }),
        1 => (0_u32..6, 0x0c_u8..0x40, any::<bool>())
            .prop_map(|(stream, kind, ignorable)| Frame::Other { stream, kind, ignorable }),
        1 => (0_u32..6).prop_map(|stream| Frame::Error { stream, code: ErrorCode::CANCELED, message: String::new() }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Grant(u32),
    Piece(usize),
    Wait(u64),
    Bytes(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u32..5).prop_map(Step::Grant),
        1 => Just(Step::Grant(MAX_31)),
        4 => (0_usize..6).prop_map(Step::Piece),
        1 => (0_u64..20_000).prop_map(Step::Wait),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Bytes),
    ]
}

proptest! {
    /// Whatever frames come: streams are opened and let go of one for one, never too many, and each gets what it was granted
    /// at most. [`Talk`] checks that nothing follows a close.
    #[test]
    fn streams_are_accounted_for(set_up in prop::bool::weighted(0.9), frames in prop::collection::vec(frame(), 0..40)) {
        let limits = WebSocketLimits { streams_per_connection: 2, request_bytes: 200, ..WebSocketLimits::default() };
        let mut talk = if set_up { Talk::open(limits) } else { Talk::new(limits) };
        for frame in frames {
            talk.say(&frame);
            prop_assert!(talk.opened.len() - talk.dropped.len() <= 2);
            prop_assert!(talk.opened.iter().all(|(stream, _)| stream % 2 == 1));
            let idle = talk.opened.len() == talk.dropped.len();
            prop_assert!(idle || talk.closed.is_none(), "a close lets go of all streams");
            let sent = talk.sent.drain(..).map(Frame::decode).collect::<Result<Vec<_>, _>>();
            prop_assert!(sent.is_ok());
        }
        talk.wait(Duration::from_secs(3_600));
        prop_assert!(talk.closed.is_some(), "an hour of silence ends every connection");
        prop_assert_eq!(talk.opened.len(), talk.dropped.len());
    }

    /// Whatever comes in whatever order: no more lines than were granted, no pull without a grant, and nothing lost.
    #[test]
    fn grants_are_honoured(initial in 1_u32..5, steps in prop::collection::vec(step(), 0..60)) {
        let mut talk = Talk::open(WebSocketLimits::default());
        talk.piece = Bytes::new();
        talk.say(&request(1, initial));
        let (mut granted, mut given, mut sent, mut answered) = (u64::from(initial), 0, 0, 1);
        for step in steps {
            match step {
                Step::Grant(n) => {
                    granted += u64::from(n);
                    talk.say(&Frame::RequestN { stream: 1, n });
                }
                Step::Piece(lines) if talk.pulled.len() > answered => {
                    answered = talk.pulled.len();
                    given += lines as u64;
                    talk.connection.told(talk.now, 1, News::Piece(Some(Ok(LINE.repeat(lines).into()))));
                    talk.settle();
                }
                Step::Piece(_) => {}
                Step::Wait(millis) => talk.wait(Duration::from_millis(millis)),
                Step::Bytes(bytes) => talk.say_bytes(bytes.into()),
            }
            let items = |bytes: &Bytes| matches!(Frame::decode(bytes.clone()), Ok(Frame::Payload { next: true, .. }));
            sent += talk.sent.drain(..).filter(items).count() as u64;
            prop_assert!(sent <= granted, "{} sent, {} granted", sent, granted);
            prop_assert!(talk.pulled.len() <= answered + 1, "one piece at a time");
            if talk.closed.is_none() && talk.dropped.is_empty() {
                prop_assert_eq!(sent, given.min(granted), "all that is granted is sent at once");
                prop_assert_eq!(talk.pulled.len() > answered, granted > given, "pulled if and only if granted");
            }
        }
    }
}
