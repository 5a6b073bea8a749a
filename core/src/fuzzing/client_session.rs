//! The client's session, over a store, a connector and a server that do what the bytes say.

use serde_json::json;

use self::model::Model;
use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::client::{
    ClientEvent, ClientLimits, ClientOptions, ClientSession, HeldSubscription, StoreCommand, StoreReply,
};
use crate::client_store::{ClientState, PublishOutcome, StoredSubscription, UploadSequence, UploadState};
use crate::connector::Credentials;
use crate::error::{Error, Result};
use crate::local_transaction::{LocalTransaction, LocalWrite, Uploaded, WriteKind};
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, StreamDescription, StreamError,
    SubscriptionReason,
};
use crate::testing::Random;
use crate::time::{Time, WallTime};
use crate::write_checkpoint::WriteCheckpoint;

mod model;

const WALL: i64 = 1_700_000_000_000;
const BUCKETS: [&str; 4] = ["a", "b", "c", ""];
/// Events of one run.
const EVENTS: usize = 400;
/// Ticks without another event.
const TICKS: usize = 64;
/// One event leads to no more commands than there are parties to talk to, and calls of each to abandon.
const COMMANDS: usize = 10;

/// A session that is told what the bytes say: only what a driver may tell it, or (by the first byte) anything at any time.
/// It never panics, asks for few things at a time, shows nothing that the server did not complete, and has no time to
/// wake up that has passed.
pub fn client_session(bytes: &[u8]) {
    let choices = Random::of_bytes(bytes);
    let lawful = choices.below(4) != 0;
    let mut run = Run { now: Time(1_000), model: Model::new(lawful), session: session(&choices), choices };
    run.tell(ClientEvent::Tick);
    for _ in 0..EVENTS {
        if !run.choices.has_more() || run.model.stopped {
            break;
        }
        run.next();
    }
    // Left alone, it waits.
    for _ in 0..TICKS {
        run.tick();
    }
}

fn session(choices: &Random) -> ClientSession {
    let mut options = ClientOptions::default();
    if choices.below(2) == 0 {
        options.limits = ClientLimits { stage_bytes: 300, buffered_bytes: 500, ..options.limits };
    }
    ClientSession::new(options, choices.below(256))
}

struct Run {
    choices: Random,
    session: ClientSession,
    model: Model,
    now: Time,
}

impl Run {
    fn wall(&self) -> WallTime {
        WallTime(WALL + i64::try_from(self.now.0).unwrap_or(i64::MAX / 2))
    }

    fn tell(&mut self, event: ClientEvent) {
        self.model.told(&event);
        let synced_before = self.session.status().last_synced_at;
        self.session.handle(self.now, self.wall(), event);
        let mut commands = 0;
        while let Some(command) = self.session.poll() {
            commands += 1;
            assert!(commands <= COMMANDS, "one event leads to more than {COMMANDS} commands");
            self.model.asked(&command);
        }
        self.model.settle();
        let status = self.session.status();
        assert!(status.last_synced_at >= synced_before, "C9: the time of the last sync goes back");
        if let Some(progress) = status.downloading {
            assert!(progress.received <= progress.total, "{progress:?}");
        }
        match self.session.poll_timeout() {
            None => assert!(self.model.stopped, "C5: nothing would wake it"),
            Some(at) => assert!(!self.model.lawful || at > self.now, "it would wake at once, and again: {at:?}"),
        }
    }

    /// The time that it asked for comes.
    fn tick(&mut self) {
        if let Some(at) = self.session.poll_timeout() {
            self.now = self.now.max(at);
            self.tell(ClientEvent::Tick);
        }
    }

    fn next(&mut self) {
        let events: [fn(&mut Self) -> Option<ClientEvent>; 16] = [
            Self::store_reply,
            Self::store_reply,
            Self::store_reply,
            Self::store_reply,
            Self::lines,
            Self::lines,
            Self::lines,
            Self::lines,
            Self::opened,
            Self::opened,
            Self::credentials,
            Self::uploaded,
            Self::write_checkpoint,
            Self::stream_ended,
            Self::application,
            Self::time_passes,
        ];
        let choice = self.choices.index(events.len());
        if let Some(event) = events[choice](self) {
            self.tell(event);
        }
    }

    // ---- what happens --------------------------------------------------------------------------------------------

    fn time_passes(&mut self) -> Option<ClientEvent> {
        if self.choices.below(2) == 0 {
            self.tick();
            return None;
        }
        let pause = [0, 1, 500, 10_000, 59_999, 100_000, 3_600_000][self.choices.index(7)];
        self.now = Time(self.now.0 + pause);
        Some(ClientEvent::Tick)
    }

    fn application(&mut self) -> Option<ClientEvent> {
        Some(match self.choices.below(4) {
            0 => ClientEvent::RetryNow,
            1 => {
                let held = (0..self.choices.below(3)).map(|_| self.held()).collect();
                ClientEvent::Subscriptions(held)
            }
            _ => ClientEvent::UploadQueueChanged,
        })
    }

    fn opened(&mut self) -> Option<ClientEvent> {
        (!self.model.lawful || self.model.is_opening()).then_some(ClientEvent::Opened)
    }

    fn stream_ended(&mut self) -> Option<ClientEvent> {
        if self.model.lawful && !self.model.has_stream() {
            return None;
        }
        let ended = match self.choices.below(4) {
            0 => Ok(()),
            1 => Err(Error::unauthorized("refused")),
            2 => Err(Error::protocol("no line")),
            _ => Err(Error::unavailable("broken")),
        };
        Some(ClientEvent::StreamEnded(ended))
    }

    fn credentials(&mut self) -> Option<ClientEvent> {
        if self.model.lawful && !self.model.fetching {
            return None;
        }
        let fails = self.choices.below(5) == 0;
        let token = format!("token {}", self.choices.below(3));
        let credentials = if fails { Err(Error::unavailable("away")) } else { Ok(Credentials::new(token)) };
        Some(ClientEvent::Credentials(credentials))
    }

    fn uploaded(&mut self) -> Option<ClientEvent> {
        if self.model.lawful && self.model.uploading.is_none() {
            return None;
        }
        Some(ClientEvent::Uploaded(match self.choices.below(5) {
            0 => Err(Error::unavailable("away")),
            1 => Err(Error::unauthorized("refused")),
            2 => Ok(Uploaded::Rejected { reason: "no".into() }),
            _ => Ok(Uploaded::Applied),
        }))
    }

    fn write_checkpoint(&mut self) -> Option<ClientEvent> {
        if self.model.lawful && !self.model.asking {
            return None;
        }
        Some(ClientEvent::WriteCheckpoint(match self.choices.below(5) {
            0 => Err(Error::unavailable("away")),
            1 => Err(Error::unauthorized("refused")),
            _ => Ok(WriteCheckpoint(self.number())),
        }))
    }

    fn lines(&mut self) -> Option<ClientEvent> {
        if self.model.lawful && (!self.model.is_open() || !self.session.wants_lines()) {
            return None;
        }
        if self.choices.below(16) == 0 {
            return Some(ClientEvent::Heard);
        }
        Some(ClientEvent::Lines((0..self.choices.between(1, 6)).map(|_| self.line()).collect()))
    }

    /// A line as an honest server would send it now, mostly.
    fn line(&mut self) -> ClientLine {
        let announced = self.model.announced();
        let fits = announced.filter(|_| self.choices.below(16) != 0);
        match self.choices.below(10) {
            0 => ClientLine::Checkpoint(CheckpointLine {
                last_op_id: self.op_id(fits),
                write_checkpoint: self.some_write_checkpoint(),
                buckets: self.buckets(),
                streams: self.streams(),
            }),
            1 | 2 => ClientLine::CheckpointDiff(CheckpointDiffLine {
                last_op_id: self.op_id(fits),
                write_checkpoint: self.some_write_checkpoint(),
                updated_buckets: self.buckets(),
                removed_buckets: (0..self.choices.below(4) / 3).map(|_| self.bucket().into()).collect(),
            }),
            3..=5 => self.data(),
            6 | 7 => ClientLine::CheckpointComplete { last_op_id: fits.unwrap_or_else(|| self.op_id(None)) },
            8 => ClientLine::PartialCheckpointComplete {
                last_op_id: fits.unwrap_or_else(|| self.op_id(None)),
                priority: self.priority(),
            },
            _ => match self.choices.below(4) {
                0 => ClientLine::TokenExpiresIn([0, -1, i64::MIN, 1, 29, 30, 31, i64::MAX][self.choices.index(8)]),
                1 => ClientLine::Unknown,
                _ => ClientLine::TokenExpiresIn(60),
            },
        }
    }

    fn data(&mut self) -> ClientLine {
        let operations = (0..self.choices.below(3)).map(|_| Operation {
            op_id: self.op_id(None),
            kind: [OperationKind::Put, OperationKind::Remove, OperationKind::Move, OperationKind::Clear]
                [self.choices.index(4)],
            object_type: "t".into(),
            object_id: "i".into(),
            subkey: None,
            data: None,
            checksum: Checksum(1),
        });
        let operations = operations.collect();
        let size = [10, 100, 290, 301, 5 << 20][self.choices.index(5)];
        ClientLine::Data(DataLine { bucket: self.bucket().into(), operations, size })
    }

    fn store_reply(&mut self) -> Option<ClientEvent> {
        let Some(command) = self.model.store.clone() else {
            return (!self.model.lawful).then(|| {
                let loaded = self.upload_state();
                ClientEvent::Store(StoreReply::UploadStateLoaded(Ok(loaded)))
            });
        };
        let failure = match self.choices.below(24) {
            0 | 1 => Some(Error::unavailable("disk full")),
            2 if self.choices.below(4) == 0 => Some(Error::closed("closed")),
            3 if self.choices.below(4) == 0 => Some(Error::data("damaged")),
            _ => None,
        };
        let done = || failure.clone().map_or(Ok(()), Err);
        if !self.model.lawful && self.choices.below(4) == 0 {
            // An answer to something else.
            return Some(ClientEvent::Store(match self.choices.below(3) {
                0 => StoreReply::Staged(done()),
                1 => StoreReply::Published(Ok(PublishOutcome::Published)),
                _ => StoreReply::UploadFinished(done()),
            }));
        }
        fn or<T>(failure: Option<Error>, value: T) -> Result<T> {
            failure.map_or(Ok(value), Err)
        }
        Some(ClientEvent::Store(match command {
            StoreCommand::Resume { .. } => StoreReply::Resumed(or(failure.clone(), self.state())),
            StoreCommand::BeginCheckpoint(_) => StoreReply::Begun(done()),
            StoreCommand::Stage(_) => StoreReply::Staged(done()),
            StoreCommand::Publish(_) => {
                let outcome = match self.choices.below(8) {
                    0 | 1 => PublishOutcome::Held,
                    2 => PublishOutcome::Mismatch(vec![self.bucket().into()]),
                    _ => PublishOutcome::Published,
                };
                StoreReply::Published(or(failure.clone(), outcome))
            }
            StoreCommand::LoadUpload => StoreReply::UploadLoaded(or(failure.clone(), self.transaction())),
            StoreCommand::FinishUpload { .. } => StoreReply::UploadFinished(done()),
            StoreCommand::LoadUploadState => StoreReply::UploadStateLoaded(or(failure.clone(), self.upload_state())),
            StoreCommand::Cover { .. } => StoreReply::Covered(done()),
            StoreCommand::SaveSubscription { .. } => StoreReply::SubscriptionSaved(done()),
        }))
    }

    // ---- what it is about ----------------------------------------------------------------------------------------

    fn bucket(&self) -> &'static str {
        BUCKETS[self.choices.index(BUCKETS.len())]
    }

    fn priority(&self) -> BucketPriority {
        BucketPriority([0, 1, 3, 255][self.choices.index(4)])
    }

    /// At or a little above `from`, mostly.
    fn op_id(&self, from: Option<OpId>) -> OpId {
        match from {
            Some(from) => OpId(from.0.saturating_add(self.choices.below(3)).min(i64::MAX as u64)),
            None => OpId([0, 1, 2, 3, 7, i64::MAX as u64][self.choices.index(6)]),
        }
    }

    fn number(&self) -> i64 {
        [1, 2, 3, 0, -1, i64::MAX, i64::MIN, 4][self.choices.index(8)]
    }

    fn some_write_checkpoint(&self) -> Option<WriteCheckpoint> {
        (self.choices.below(3) == 0).then(|| WriteCheckpoint(self.number()))
    }

    fn buckets(&self) -> Vec<BucketDescription> {
        let reason = || match self.choices.below(3) {
            0 => SubscriptionReason::Default(0),
            1 => SubscriptionReason::Subscription(0),
            _ => SubscriptionReason::Subscription(u32::MAX),
        };
        let bucket = |_| BucketDescription {
            bucket: self.bucket().into(),
            checksum: Checksum(1),
            count: [None, Some(0), Some(2), Some(u64::MAX)][self.choices.index(4)],
            priority: self.priority(),
            subscriptions: (0..self.choices.below(2)).map(|_| reason()).collect(),
        };
        (0..self.choices.below(4)).map(bucket).collect()
    }

    fn streams(&self) -> Vec<StreamDescription> {
        let error = |_| StreamError {
            subscription: [None, Some(0), Some(u32::MAX)][self.choices.index(3)],
            message: "wrong".into(),
        };
        let stream = |_| StreamDescription {
            name: self.bucket().into(),
            is_default: self.choices.below(2) == 0,
            errors: (0..self.choices.below(2)).map(error).collect(),
        };
        (0..self.choices.below(3)).map(stream).collect()
    }

    fn held(&self) -> HeldSubscription {
        let ttl = [0, 1, 60, 86_400, u64::MAX][self.choices.index(5)];
        HeldSubscription {
            stream: self.bucket().into(),
            parameters: Default::default(),
            priority: (self.choices.below(2) == 0).then(|| self.priority()),
            ttl: std::time::Duration::from_secs(ttl),
        }
    }

    fn state(&self) -> ClientState {
        let subscription = |_| StoredSubscription {
            stream: self.bucket().into(),
            parameters: Default::default(),
            priority: None,
            expires_at: WallTime([0, self.wall().0 + 1_000, self.wall().0 + 200_000, i64::MAX][self.choices.index(4)]),
            last_synced_at: None,
        };
        ClientState {
            client_id: "device".into(),
            buckets: (0..self.choices.below(3)).map(|_| (self.bucket().into(), self.op_id(None))).collect(),
            subscriptions: (0..self.choices.below(3)).map(subscription).collect(),
            last_synced_at: (self.choices.below(2) == 0).then(|| WallTime(self.number())),
            uploads: self.upload_state(),
        }
    }

    fn upload_state(&self) -> UploadState {
        let sequence = || (self.choices.below(3) == 0).then(|| UploadSequence(self.number()));
        UploadState {
            queued: [0, 0, 1, u64::MAX][self.choices.index(4)],
            uncovered: sequence(),
            covered: sequence(),
            awaited: self.some_write_checkpoint(),
        }
    }

    fn transaction(&self) -> Option<LocalTransaction> {
        if self.choices.below(3) == 0 {
            return None;
        }
        let write = |_| LocalWrite {
            op_id: self.number(),
            op: WriteKind::Put,
            table: "t".into(),
            id: "i".into(),
            tx_id: None,
            data: json!({ "name": "x" }).as_object().cloned(),
            old: None,
            metadata: None,
        };
        let crud = (0..self.choices.below(3)).map(write).collect();
        Some(LocalTransaction { transaction_id: Some(self.number()), client_id: None, crud })
    }
}
