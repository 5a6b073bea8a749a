//! A conversation with a session: events in, commands out, at a time that the test decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::client::{
    ClientCommand, ClientEvent, ClientOptions, ClientSession, StoreCommand, StoreReply, SyncStatus,
};
use syncline_core::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, SyncRequest,
};
use syncline_core::{
    BucketPriority, Checksum, ClientState, Credentials, OpId, Operation, OperationKind, PublishOutcome, PublishRequest,
    Time, UploadState, WallTime, WriteCheckpoint,
};

pub(crate) struct Talk {
    pub(crate) session: ClientSession,
    pub(crate) now: Time,
    pub(crate) commands: VecDeque<ClientCommand>,
}

pub(crate) const WALL: i64 = 1_700_000_000_000;

impl Talk {
    pub(crate) fn new() -> Self {
        Self::with(ClientOptions::default())
    }

    pub(crate) fn with(options: ClientOptions) -> Self {
        Self { session: ClientSession::new(options, 7), now: Time(1000), commands: VecDeque::new() }
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(WALL + i64::try_from(self.now.0).unwrap())
    }

    pub(crate) fn tell(&mut self, event: ClientEvent) {
        self.session.handle(self.now, self.wall(), event);
        while let Some(command) = self.session.poll() {
            self.commands.push_back(command);
        }
        if !self.commands.iter().any(|command| matches!(command, ClientCommand::Stop(_))) {
            assert!(self.session.poll_timeout().is_some_and(|at| at > self.now), "no time to wake up is left");
        }
    }

    pub(crate) fn reply(&mut self, reply: StoreReply) {
        self.tell(ClientEvent::Store(reply));
    }

    pub(crate) fn lines(&mut self, lines: impl IntoIterator<Item = ClientLine>) {
        self.tell(ClientEvent::Lines(lines.into_iter().collect()));
    }

    /// Lets time pass, with a tick whenever the session asked for one.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks = 0;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.tell(ClientEvent::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "the session spins");
            if self.commands.iter().any(|command| matches!(command, ClientCommand::Stop(_))) {
                break;
            }
        }
        self.now = end;
    }

    /// Lets time pass until the session asks for something; returns how long that took.
    pub(crate) fn pass_until_asked(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        while self.commands.is_empty() {
            let at = self.session.poll_timeout().expect("a time to wake up");
            assert!(at <= start + limit, "nothing was asked for within {limit:?}");
            self.now = at;
            self.tell(ClientEvent::Tick);
        }
        self.now.since(start)
    }

    pub(crate) fn next(&mut self) -> ClientCommand {
        self.commands.pop_front().expect("a command")
    }

    pub(crate) fn store(&mut self) -> StoreCommand {
        match self.next() {
            ClientCommand::Store(command) => command,
            other => panic!("expected a call of the store, not {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn quiet(&self) {
        assert!(self.commands.is_empty(), "nothing more was expected: {:?}", self.commands);
    }

    pub(crate) fn status(&self) -> &SyncStatus {
        self.session.status()
    }

    /// Answers `Resume` and what follows, up to an open stream with nothing to upload.
    pub(crate) fn connect(&mut self, state: ClientState) -> Arc<SyncRequest> {
        if self.commands.is_empty() {
            self.tell(ClientEvent::Tick);
        }
        assert!(matches!(self.store(), StoreCommand::Resume { .. }));
        self.reply(StoreReply::Resumed(Ok(state)));
        let mut request = None;
        loop {
            match self.commands.pop_front() {
                Some(ClientCommand::FetchCredentials) => {
                    self.tell(ClientEvent::Credentials(Ok(Credentials::new("t1"))))
                }
                Some(ClientCommand::Open { request: asked, .. }) => {
                    request = Some(asked);
                    self.tell(ClientEvent::Opened);
                }
                Some(ClientCommand::Store(StoreCommand::LoadUpload)) => self.reply(StoreReply::UploadLoaded(Ok(None))),
                Some(ClientCommand::Store(StoreCommand::LoadUploadState)) => {
                    self.reply(StoreReply::UploadStateLoaded(Ok(UploadState::default())));
                }
                None => break,
                other => panic!("unexpected while connecting: {other:?}"),
            }
        }
        assert!(self.status().connected);
        request.expect("a request")
    }

    /// Answers the calls of an idle upload side.
    pub(crate) fn nothing_to_upload(&mut self) {
        while let Some(ClientCommand::Store(StoreCommand::LoadUpload | StoreCommand::LoadUploadState)) =
            self.commands.front()
        {
            match self.store() {
                StoreCommand::LoadUpload => self.reply(StoreReply::UploadLoaded(Ok(None))),
                _ => self.reply(StoreReply::UploadStateLoaded(Ok(UploadState::default()))),
            }
        }
    }

    /// Expects a `Publish` and answers it.
    #[track_caller]
    pub(crate) fn publishes(&mut self, outcome: PublishOutcome) -> PublishRequest {
        self.nothing_to_upload();
        let StoreCommand::Publish(request) = self.store() else { panic!("expected a publish") };
        self.reply(StoreReply::Published(Ok(outcome)));
        request
    }

    /// Expects a `BeginCheckpoint` of this id.
    #[track_caller]
    pub(crate) fn begins(&mut self, last_op_id: u64) {
        self.nothing_to_upload();
        let StoreCommand::BeginCheckpoint(target) = self.store() else { panic!("expected the begin of a checkpoint") };
        assert_eq!(target.last_op_id, OpId(last_op_id));
        self.reply(StoreReply::Begun(Ok(())));
    }

    /// Expects a `Stage` and answers it; returns the ids of its operations.
    #[track_caller]
    pub(crate) fn stages(&mut self) -> Vec<u64> {
        self.nothing_to_upload();
        let StoreCommand::Stage(lines) = self.store() else { panic!("expected lines to be staged") };
        self.reply(StoreReply::Staged(Ok(())));
        lines.iter().flat_map(|line| &line.operations).map(|operation| operation.op_id.0).collect()
    }

    /// Takes in and shows a checkpoint of one bucket without data.
    pub(crate) fn sync(&mut self, last_op_id: u64) {
        self.lines([checkpoint(last_op_id, &["a"]), complete(last_op_id)]);
        self.begins(last_op_id);
        self.publishes(PublishOutcome::Published);
        self.nothing_to_upload();
    }
}

pub(crate) fn state() -> ClientState {
    ClientState {
        client_id: "device".into(),
        buckets: Vec::new(),
        subscriptions: Vec::new(),
        last_synced_at: None,
        uploads: UploadState::default(),
    }
}

pub(crate) fn bucket(name: &str, priority: u8) -> BucketDescription {
    BucketDescription {
        bucket: name.into(),
        checksum: Checksum(0),
        count: Some(1),
        priority: BucketPriority(priority),
        subscriptions: Vec::new(),
    }
}

pub(crate) fn checkpoint(last_op_id: u64, buckets: &[&str]) -> ClientLine {
    ClientLine::Checkpoint(CheckpointLine {
        last_op_id: OpId(last_op_id),
        write_checkpoint: None,
        buckets: buckets.iter().map(|name| bucket(name, 3)).collect(),
        streams: Vec::new(),
    })
}

pub(crate) fn diff(last_op_id: u64, write_checkpoint: Option<i64>, updated: &[&str], removed: &[&str]) -> ClientLine {
    ClientLine::CheckpointDiff(CheckpointDiffLine {
        last_op_id: OpId(last_op_id),
        write_checkpoint: write_checkpoint.map(WriteCheckpoint),
        updated_buckets: updated.iter().map(|name| bucket(name, 3)).collect(),
        removed_buckets: removed.iter().map(|name| (*name).into()).collect(),
    })
}

pub(crate) fn complete(last_op_id: u64) -> ClientLine {
    ClientLine::CheckpointComplete { last_op_id: OpId(last_op_id) }
}

pub(crate) fn partial(last_op_id: u64, priority: u8) -> ClientLine {
    ClientLine::PartialCheckpointComplete { last_op_id: OpId(last_op_id), priority: BucketPriority(priority) }
}

pub(crate) fn data(bucket: &str, op_id: u64) -> ClientLine {
    sized_data(bucket, op_id, 100)
}

pub(crate) fn sized_data(bucket: &str, op_id: u64, size: usize) -> ClientLine {
    let operation = Operation {
        op_id: OpId(op_id),
        kind: OperationKind::Put,
        object_type: "t".into(),
        object_id: op_id.to_string().into(),
        subkey: None,
        data: Some("{}".into()),
        checksum: Checksum(0),
    };
    ClientLine::Data(DataLine { bucket: bucket.into(), operations: vec![operation], size })
}
