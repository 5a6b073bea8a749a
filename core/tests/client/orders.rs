//! Any order of events: a session never panics or stalls, calls nobody twice, and shows nothing that is not staged.

use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::Map;
use syncline_core::client::{
    Call, ClientCommand, ClientEvent, ClientLimits, ClientOptions, ClientSession, HeldSubscription, StoreCommand,
    StoreReply,
};
use syncline_core::protocol::ClientLine;
use syncline_core::{
    BucketPriority, ClientState, Credentials, Error, LocalTransaction, LocalWrite, OpId, PublishOutcome,
    StoredSubscription, Time, UploadSequence, UploadState, Uploaded, WallTime, WriteCheckpoint, WriteKind,
};

use crate::talk::{checkpoint, complete, data, diff, partial, state};

/// One number decides what happens next, another one how.
type Choice = (u8, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Opening,
    Open,
}

/// What a driver would know, and what it checks.
struct World {
    session: ClientSession,
    now: Time,
    store: Option<StoreCommand>,
    fetching: bool,
    stream: Stream,
    uploading: Option<i64>,
    asking: bool,
    stopped: bool,
    queue: VecDeque<i64>,
    next_write: i64,
    /// The checkpoint line that was told last, and operations told in this stream.
    announced: Option<u64>,
    last_id: u64,
    /// Operations that were told and are neither staged nor given up.
    unstaged: VecDeque<u64>,
    /// Checkpoints that were told to be complete, whether as a whole, and the last operation told before.
    completed: Vec<(u64, bool, u64)>,
    begun: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = ClientLimits { stage_bytes: 250, buffered_bytes: 2000, ..ClientLimits::default() };
        Self {
            session: ClientSession::new(ClientOptions { limits, ..ClientOptions::default() }, seed),
            now: Time(0),
            store: None,
            fetching: false,
            stream: Stream::None,
            uploading: None,
            asking: false,
            stopped: false,
            queue: VecDeque::new(),
            next_write: 1,
            announced: None,
            last_id: 0,
            unstaged: VecDeque::new(),
            completed: Vec::new(),
            begun: None,
        }
    }

    fn wall(&self) -> WallTime {
        WallTime(1_000_000 + i64::try_from(self.now.0).unwrap())
    }

    fn tell(&mut self, event: ClientEvent) {
        self.session.handle(self.now, self.wall(), event);
        while let Some(command) = self.session.poll() {
            self.take(command);
        }
        if self.stopped {
            assert_eq!(self.session.poll_timeout(), None);
        } else {
            let at = self.session.poll_timeout().expect("there is always a time to wake up");
            assert!(at > self.now, "it would wake up for nothing");
        }
    }

    fn take(&mut self, command: ClientCommand) {
        assert!(!self.stopped, "nothing follows the end");
        match command {
            ClientCommand::Store(command) => {
                assert!(self.store.is_none(), "one call of the store at a time");
                self.check_store(&command);
                self.store = Some(command);
            }
            ClientCommand::FetchCredentials => assert!(!std::mem::replace(&mut self.fetching, true)),
            ClientCommand::Open { .. } => {
                assert_eq!(self.stream, Stream::None, "one stream at a time");
                let pending = self.store.as_ref().is_some_and(|call| matches!(call, StoreCommand::Stage(_)));
                assert!(self.unstaged.is_empty() && !pending, "the request must name all that was received");
                self.stream = Stream::Opening;
                self.announced = None;
            }
            ClientCommand::CloseStream => {
                assert_ne!(self.stream, Stream::None);
                self.stream = Stream::None;
            }
            ClientCommand::Upload { transaction, .. } => {
                assert!(self.uploading.is_none() && !self.asking, "one upload at a time");
                self.uploading = transaction.transaction_id;
                assert_eq!(self.queue.front().copied(), self.uploading, "in order");
            }
            ClientCommand::RequestWriteCheckpoint { .. } => {
                assert!(self.uploading.is_none(), "nothing is sent while a write checkpoint is asked for");
                assert!(!std::mem::replace(&mut self.asking, true));
            }
            ClientCommand::Abandon(Call::Credentials) => assert!(std::mem::replace(&mut self.fetching, false)),
            ClientCommand::Abandon(Call::Upload) => assert!(self.uploading.take().is_some()),
            ClientCommand::Abandon(Call::WriteCheckpoint) => assert!(std::mem::replace(&mut self.asking, false)),
            ClientCommand::Stop(_) => self.stopped = true,
        }
    }

    fn check_store(&mut self, command: &StoreCommand) {
        match command {
            StoreCommand::BeginCheckpoint(target) => self.begun = Some(target.last_op_id.0),
            StoreCommand::Stage(lines) => {
                assert!(!lines.is_empty());
                let size: usize = lines.iter().map(|line| line.size).sum();
                assert!(size <= 250 || lines.len() == 1, "batches are bounded");
                for operation in lines.iter().flat_map(|line| &line.operations) {
                    // In the order of arrival, without a gap.
                    assert_eq!(self.unstaged.front(), Some(&operation.op_id.0));
                    self.unstaged.pop_front();
                }
            }
            StoreCommand::Publish(request) => {
                let id = request.target.last_op_id.0;
                assert_eq!(self.begun, Some(id), "what is shown was begun, and nothing newer");
                // The highest priority is shown by our own choice once the whole is here.
                let whole = request.partial.is_none();
                let mut told = self.completed.iter();
                let told = told.find(|(completed, was_whole, _)| *completed == id && (*was_whole || !whole));
                let (.., upto) = told.expect("only what is complete is shown");
                assert!(self.unstaged.front().is_none_or(|first| first > upto), "all of it is staged");
            }
            _ => {}
        }
    }

    /// Lines that were told and are not with the store are given up.
    fn forget_lines(&mut self) {
        self.unstaged.clear();
        self.begun = None;
    }

    fn reply_store(&mut self, how: u32) {
        let Some(command) = self.store.take() else { return };
        let fails = how.is_multiple_of(7);
        let error = || match how % 5 {
            0 => Error::protocol("bad"),
            _ => Error::unavailable("busy"),
        };
        let reply = match command {
            StoreCommand::Resume { now } if !fails => StoreReply::Resumed(Ok(resumed(now, how))),
            StoreCommand::Resume { .. } => StoreReply::Resumed(Err(error())),
            StoreCommand::BeginCheckpoint(_) | StoreCommand::Stage(_) if fails => {
                self.forget_lines();
                match command {
                    StoreCommand::Stage(_) => StoreReply::Staged(Err(error())),
                    _ => StoreReply::Begun(Err(error())),
                }
            }
            StoreCommand::BeginCheckpoint(_) => StoreReply::Begun(Ok(())),
            StoreCommand::Stage(_) => StoreReply::Staged(Ok(())),
            StoreCommand::Publish(_) => StoreReply::Published(match how % 6 {
                0 => Err(error()),
                1 => {
                    self.forget_lines();
                    Ok(PublishOutcome::Mismatch(vec!["a".into()]))
                }
                2 | 3 => Ok(PublishOutcome::Held),
                _ => Ok(PublishOutcome::Published),
            }),
            StoreCommand::LoadUpload if fails => StoreReply::UploadLoaded(Err(error())),
            StoreCommand::LoadUpload => StoreReply::UploadLoaded(Ok(self.queue.front().map(|id| transaction(*id)))),
            StoreCommand::FinishUpload { transaction, .. } => {
                assert_eq!(self.queue.front().copied(), transaction.transaction_id);
                if !fails {
                    self.queue.pop_front();
                }
                StoreReply::UploadFinished(if fails { Err(error()) } else { Ok(()) })
            }
            StoreCommand::LoadUploadState if fails => StoreReply::UploadStateLoaded(Err(error())),
            StoreCommand::LoadUploadState => StoreReply::UploadStateLoaded(Ok(UploadState {
                queued: self.queue.len() as u64,
                uncovered: (how.is_multiple_of(2)).then_some(UploadSequence(self.next_write)),
                covered: (how.is_multiple_of(3)).then_some(UploadSequence(self.next_write)),
                awaited: (how.is_multiple_of(3)).then_some(WriteCheckpoint(i64::from(how % 10))),
            })),
            StoreCommand::Cover { .. } => StoreReply::Covered(if fails { Err(error()) } else { Ok(()) }),
            StoreCommand::SaveSubscription { .. } => {
                StoreReply::SubscriptionSaved(if fails { Err(error()) } else { Ok(()) })
            }
        };
        self.tell(ClientEvent::Store(reply));
    }

    fn tell_lines(&mut self, how: u32) {
        if self.stream != Stream::Open || !self.session.wants_lines() {
            return;
        }
        let mut lines = Vec::new();
        for step in 0..1 + how % 4 {
            let which = (how >> (step * 4)) % 16;
            let line = match which {
                0..=1 => {
                    self.last_id += 1;
                    self.announced = Some(self.last_id);
                    checkpoint(self.last_id, &["a", "b"])
                }
                2..=5 if self.announced.is_some() => {
                    self.last_id += 1;
                    self.announced = Some(self.last_id);
                    let removed: &[&str] = if which == 2 { &["b"] } else { &[] };
                    diff(self.last_id, Some(i64::from(how % 10)), &["a", "c"], removed)
                }
                6..=9 => {
                    self.last_id += 1;
                    self.unstaged.push_back(self.last_id);
                    data("a", self.last_id)
                }
                10..=12 => match self.announced {
                    Some(id) => {
                        self.completed.push((id, true, self.last_id));
                        complete(id)
                    }
                    None => ClientLine::Unknown,
                },
                13 => match self.announced {
                    Some(id) => {
                        self.completed.push((id, false, self.last_id));
                        partial(id, u8::try_from(how % 3).unwrap())
                    }
                    None => ClientLine::Unknown,
                },
                14 => ClientLine::TokenExpiresIn(i64::from(how % 61)),
                _ => ClientLine::Unknown,
            };
            let last = matches!(line, ClientLine::TokenExpiresIn(0));
            lines.push(line);
            if last {
                break;
            }
        }
        self.tell(ClientEvent::Lines(lines));
    }

    fn act(&mut self, (what, how): Choice) {
        if self.stopped {
            return;
        }
        match what % 16 {
            0..=4 => self.reply_store(how),
            5..=7 => self.tell_lines(how),
            8 if self.fetching => {
                self.fetching = false;
                let reply = match how % 4 {
                    0 => Err(Error::unavailable("no route")),
                    token => Ok(Credentials::new(format!("t{token}"))),
                };
                self.tell(ClientEvent::Credentials(reply));
            }
            9 if self.stream == Stream::Opening => {
                if how.is_multiple_of(3) {
                    self.tell(ClientEvent::StreamEnded(Err(network_error(how))));
                } else {
                    self.stream = Stream::Open;
                    self.tell(ClientEvent::Opened);
                }
            }
            10 if self.stream == Stream::Open && how.is_multiple_of(2) => {
                let result = if how.is_multiple_of(4) { Ok(()) } else { Err(network_error(how)) };
                self.tell(ClientEvent::StreamEnded(result));
            }
            11 if self.uploading.is_some() => {
                self.uploading = None;
                let reply = match how % 5 {
                    0 => Err(network_error(how)),
                    1 => Ok(Uploaded::Rejected { reason: "no".into() }),
                    _ => Ok(Uploaded::Applied),
                };
                self.tell(ClientEvent::Uploaded(reply));
            }
            11 if self.asking => {
                self.asking = false;
                let number = WriteCheckpoint(i64::from(how % 10));
                let reply = if how.is_multiple_of(5) { Err(network_error(how)) } else { Ok(number) };
                self.tell(ClientEvent::WriteCheckpoint(reply));
            }
            12 => {
                self.queue.push_back(self.next_write);
                self.next_write += 1;
                self.tell(ClientEvent::UploadQueueChanged);
            }
            13 => self.tell(match how % 4 {
                0 => ClientEvent::RetryNow,
                1 => ClientEvent::Heard,
                _ => ClientEvent::Subscriptions(held(how)),
            }),
            14 => {
                self.now.0 += u64::from(how % 5000);
                self.tell(ClientEvent::Tick);
            }
            15 => {
                if let Some(at) = self.session.poll_timeout() {
                    self.now = at;
                }
                self.tell(ClientEvent::Tick);
            }
            _ => {}
        }
    }
}

fn network_error(how: u32) -> Error {
    match how % 3 {
        0 => Error::unauthorized("refused"),
        1 => Error::protocol("nonsense"),
        _ => Error::unavailable("away"),
    }
}

fn transaction(id: i64) -> LocalTransaction {
    let write = LocalWrite {
        op_id: id,
        op: WriteKind::Delete,
        table: "t".into(),
        id: "x".into(),
        tx_id: None,
        data: None,
        old: None,
        metadata: None,
    };
    LocalTransaction { transaction_id: Some(id), client_id: None, crud: vec![write] }
}

fn held(how: u32) -> Vec<HeldSubscription> {
    let one = |stream: &str, seconds| HeldSubscription {
        stream: stream.into(),
        parameters: Map::new(),
        priority: None,
        ttl: std::time::Duration::from_secs(seconds),
    };
    let all = [one("s0", 0), one("s1", 60), one("s2", 86_400)];
    all.into_iter().enumerate().filter(|(at, _)| how & (1 << at) != 0).map(|(_, one)| one).collect()
}

fn resumed(now: WallTime, how: u32) -> ClientState {
    let stored = held(how / 8).into_iter().map(|one| StoredSubscription {
        stream: one.stream,
        parameters: one.parameters,
        priority: Some(BucketPriority(1)),
        expires_at: WallTime(now.0 + 1 + i64::from(how % 200_000)),
        last_synced_at: None,
    });
    ClientState { buckets: vec![("a".into(), OpId(1))], subscriptions: stored.collect(), ..state() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_confuses_a_session(
        seed: u64,
        choices in prop::collection::vec(any::<Choice>(), 1..400),
    ) {
        let mut world = World::new(seed);
        world.tell(ClientEvent::Tick);
        for choice in choices {
            world.act(choice);
        }
        prop_assert!(!world.stopped, "nothing here needs a person");

        // From whatever state, once all answers come, a checkpoint is shown within 30 seconds of waiting.
        let end = Time(world.now.0 + 200_000);
        let before = world.session.status().clone();
        let mut shown = false;
        let mut waited = 0;
        while !shown {
            prop_assert!(world.now < end, "not current after {waited} ms of waiting, since {before:?}");
            if let Some(command) = world.store.take() {
                shown = matches!(&command, StoreCommand::Publish(request) if request.partial.is_none());
                world.store = Some(command);
                world.reply_healthy();
            } else if world.fetching {
                world.fetching = false;
                world.tell(ClientEvent::Credentials(Ok(Credentials::new("good"))));
            } else if world.stream == Stream::Opening {
                world.stream = Stream::Open;
                world.tell(ClientEvent::Opened);
                world.last_id += 1;
                let id = world.last_id;
                world.announced = Some(id);
                world.completed.push((id, true, id));
                world.tell(ClientEvent::Lines(vec![checkpoint(id, &["a"]), complete(id)]));
            } else if world.uploading.take().is_some() {
                world.tell(ClientEvent::Uploaded(Ok(Uploaded::Applied)));
            } else if std::mem::replace(&mut world.asking, false) {
                world.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(99))));
            } else {
                let before = world.now;
                world.now = world.session.poll_timeout().unwrap();
                // A stream that was open before the faults ended says nothing: it is given up by its own limit.
                if world.stream != Stream::Open {
                    waited += world.now.since(before).as_millis();
                    prop_assert!(waited <= 30_000, "waited for {waited} ms, since {:?}", world.session.status());
                }
                world.tell(ClientEvent::Tick);
            }
        }
    }
}

impl World {
    fn reply_healthy(&mut self) {
        let Some(command) = self.store.take() else { return };
        let reply = match command {
            StoreCommand::Resume { .. } => StoreReply::Resumed(Ok(state())),
            StoreCommand::BeginCheckpoint(_) => StoreReply::Begun(Ok(())),
            StoreCommand::Stage(_) => StoreReply::Staged(Ok(())),
            StoreCommand::Publish(_) => StoreReply::Published(Ok(PublishOutcome::Published)),
            StoreCommand::LoadUpload => StoreReply::UploadLoaded(Ok(self.queue.front().map(|id| transaction(*id)))),
            StoreCommand::FinishUpload { .. } => {
                self.queue.pop_front();
                StoreReply::UploadFinished(Ok(()))
            }
            StoreCommand::LoadUploadState => {
                let queued = self.queue.len() as u64;
                StoreReply::UploadStateLoaded(Ok(UploadState { queued, ..UploadState::default() }))
            }
            StoreCommand::Cover { .. } => StoreReply::Covered(Ok(())),
            StoreCommand::SaveSubscription { .. } => StoreReply::SubscriptionSaved(Ok(())),
        };
        self.tell(ClientEvent::Store(reply));
    }
}
