//! The server's session, over a store that holds what the bytes say, with a client that keeps count.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::bucket::{BucketId, BucketPriority, DefinitionId, Generation};
use crate::bucket_read::BucketRead;
use crate::bucket_store::{OperationChunk, ReadRequest};
use crate::checkpoint::{BucketChecksum, Checkpoint, DeployedConfig, DeployedDefinition};
use crate::checksum::Checksum;
use crate::chunk::{Chunk, ChunkBuilder, OperationRef};
use crate::identity::Identity;
use crate::operation::{OpId, OperationKind};
use crate::protocol::{BucketPosition, SyncRequest};
use crate::server::{
    CheckpointUpdate, ResolvedStreams, ServerCommand, ServerEvent, ServerLine, ServerSession, SessionLimits, Touched,
    WantedBucket,
};
use crate::testing::Random;
use crate::time::{Time, WallTime};
use crate::write_checkpoint::WriteCheckpoint;

const WALL: WallTime = WallTime(1_700_000_000_000);
const GENERATION: Generation = Generation(7);
/// Buckets of the store. The client wants all but the last.
const BUCKETS: u32 = 5;
/// Events of one run.
const EVENTS: usize = 400;

/// A session between a store and a client, which the bytes direct. Every line follows from what the store holds: what is
/// completed was sent in whole and once, bucket by bucket and in order, and nothing else was sent. By the first byte it is
/// told anything at any time instead, and must only not panic.
pub fn server_session(bytes: &[u8]) {
    let choices = Random::of_bytes(bytes);
    let lawful = choices.below(4) != 0;
    let Some(mut run) = Run::new(choices) else { return };
    for _ in 0..EVENTS {
        if !run.choices.has_more() || run.closed {
            break;
        }
        let told = if lawful { run.event() } else { Some(run.anything()) };
        let Some(event) = told else { continue };
        if run.tell(event).is_err() {
            assert!(!lawful, "a lawful event is refused");
            return;
        }
        if lawful {
            run.look();
        } else {
            while run.session.poll().is_some() {}
        }
    }
    if lawful {
        run.finish();
    }
}

fn bucket(number: u32) -> BucketId {
    BucketId { definition: DefinitionId(number), parameters: "[]".into() }
}

fn checksum_of(op_id: u64) -> Checksum {
    Checksum((op_id as u32).wrapping_mul(0x9e37_79b9))
}

/// What the client has of a bucket.
#[derive(Debug, Default)]
struct Received {
    /// The last operation that was sent; where the client stood before.
    upto: OpId,
    /// What the checkpoint says of it.
    announced: Option<(BucketChecksum, BucketPriority)>,
}

struct Run {
    choices: Random,
    session: ServerSession,
    now: Time,
    config: Arc<DeployedConfig>,
    /// Operations of each bucket, by id.
    operations: BTreeMap<BucketId, BTreeSet<u64>>,
    next_op: u64,
    /// What changed since the session was told last.
    changed: BTreeSet<BucketId>,
    checkpoint: OpId,
    write_checkpoint: Option<WriteCheckpoint>,
    resolved: Option<ResolvedStreams>,
    asked: Option<ServerCommand>,
    /// A read has said that no checkpoint below may be completed.
    superseded: OpId,
    line_operations: usize,
    /// The client's side.
    received: BTreeMap<String, Received>,
    announced: Option<OpId>,
    announced_write_checkpoint: Option<WriteCheckpoint>,
    closed: bool,
}

impl Run {
    fn new(choices: Random) -> Option<Self> {
        let limits = SessionLimits {
            read_bytes: [1, 40, 4_000][choices.index(3)],
            line_operations: [1, 2, 1_000][choices.index(3)],
        };
        let position = |_| BucketPosition {
            name: bucket(choices.below(BUCKETS.into()) as u32).wire_name(GENERATION).to_string(),
            after: choices.below(8).to_string(),
        };
        let buckets = (0..choices.below(3)).map(position).collect();
        let request = SyncRequest { buckets, ..SyncRequest::default() };
        let mut identity = Identity::new("anna");
        if choices.below(2) == 0 {
            identity = identity.expires_at(WallTime(WALL.0 + [0, 1, 30_000, 200_000][choices.index(4)]));
        }
        let session = ServerSession::new(&identity, &request, limits, Time(0)).ok()?;
        let definition = |number| DeployedDefinition { form: "".into(), id: DefinitionId(number) };
        let definitions = (0..BUCKETS).map(definition).collect();
        let wanted = |number| {
            let id = bucket(number);
            let priority = BucketPriority([0, 1, 3, 3][choices.index(4)]);
            WantedBucket::new(&id, GENERATION, priority)
        };
        let wanted: Vec<_> = (0..BUCKETS - 1).map(wanted).collect();
        // As the session: the last position counts.
        let mut received: BTreeMap<String, Received> = BTreeMap::new();
        for BucketPosition { name, after } in &request.buckets {
            received.entry(name.clone()).or_default().upto = OpId::parse(after).unwrap_or_default();
        }
        received.retain(|name, _| wanted.iter().any(|wanted| *wanted.bucket.name() == name.as_str()));
        Some(Self {
            session,
            now: Time(0),
            config: Arc::new(DeployedConfig { text: "a".into(), definitions }),
            operations: BTreeMap::new(),
            next_op: 1,
            changed: BTreeSet::new(),
            checkpoint: OpId::ZERO,
            write_checkpoint: None,
            resolved: Some(ResolvedStreams { buckets: wanted, ..ResolvedStreams::default() }),
            asked: None,
            superseded: OpId::ZERO,
            line_operations: limits.line_operations,
            received,
            announced: None,
            announced_write_checkpoint: None,
            closed: false,
            choices,
        })
    }

    fn wall(&self) -> WallTime {
        WallTime(WALL.0 + i64::try_from(self.now.0).unwrap_or(0))
    }

    fn tell(&mut self, event: ServerEvent) -> crate::error::Result<()> {
        self.session.handle(self.now, self.wall(), event)
    }

    // ---- what happens --------------------------------------------------------------------------------------------

    fn event(&mut self) -> Option<ServerEvent> {
        match self.choices.below(8) {
            0..=3 => self.answer(),
            4 | 5 => {
                self.write();
                if self.session.wants_checkpoint() { Some(self.checkpoint()) } else { None }
            }
            6 => Some(self.checkpoint()),
            _ => self.time_passes(),
        }
    }

    fn time_passes(&mut self) -> Option<ServerEvent> {
        if self.choices.below(32) == 0 {
            return Some(ServerEvent::Closing);
        }
        let due = self.session.poll_timeout(self.now, self.wall());
        self.now = if self.choices.below(2) == 0 { due } else { Time(self.now.0 + self.choices.below(40_000)) };
        Some(ServerEvent::Tick)
    }

    fn write(&mut self) {
        for _ in 0..self.choices.between(1, 4) {
            let id = bucket(self.choices.below(BUCKETS.into()) as u32);
            self.operations.entry(id.clone()).or_default().insert(self.next_op);
            self.changed.insert(id);
            self.next_op += 1;
        }
    }

    fn checkpoint(&mut self) -> ServerEvent {
        // Each is above the one before, also if nothing was written.
        self.next_op = self.next_op.max(self.checkpoint.0 + 2);
        self.checkpoint = OpId(self.next_op - 1);
        let raised = self.choices.below(3) == 0;
        if raised {
            self.write_checkpoint = Some(WriteCheckpoint(self.write_checkpoint.map_or(1, |one| one.0 + 1)));
        }
        let buckets = std::mem::take(&mut self.changed);
        let resolved = self.resolved.take();
        let unknown = resolved.is_some() || self.choices.below(4) == 0;
        let touched = if unknown {
            Touched::Unknown
        } else {
            Touched::These { buckets, lookups: BTreeSet::new(), write_checkpoint: raised }
        };
        let other = self.choices.below(64) == 0;
        let generation = if other { Generation(8) } else { GENERATION };
        let checkpoint = Checkpoint { op_id: self.checkpoint, generation, config: Arc::clone(&self.config) };
        ServerEvent::Checkpoint(CheckpointUpdate { checkpoint, touched, resolved })
    }

    /// The answer to what the session asked for, if it did.
    fn answer(&mut self) -> Option<ServerEvent> {
        Some(match self.asked.take()? {
            ServerCommand::Describe { at, buckets, write_checkpoint } => {
                if at < self.checkpoint && self.choices.below(8) == 0 {
                    return Some(ServerEvent::Gone);
                }
                let checksums = buckets.iter().map(|bucket| self.sum(bucket, at)).collect();
                let write_checkpoint = self.write_checkpoint.filter(|_| write_checkpoint);
                ServerEvent::Described { checksums, write_checkpoint }
            }
            ServerCommand::Read(requests) => {
                ServerEvent::Read(requests.iter().map(|request| self.read(request)).collect())
            }
            ServerCommand::Send(_) | ServerCommand::Close => return None,
        })
    }

    fn sum(&self, bucket: &BucketId, at: OpId) -> BucketChecksum {
        let mut sum = BucketChecksum::default();
        for op_id in self.operations.get(bucket).into_iter().flat_map(|ids| ids.range(..=at.0)) {
            sum.count += 1;
            sum.checksum += checksum_of(*op_id);
        }
        sum
    }

    fn read(&mut self, request: &ReadRequest) -> OperationChunk {
        let mut read = BucketRead::new(request);
        let ids: Vec<u64> = self.operations.get(&request.bucket).into_iter().flatten().copied().collect();
        for ids in ids.chunks(3).filter(|ids| ids.last().is_some_and(|last| *last > request.after.0)) {
            let chunk = chunk(ids);
            if !read.wants(OpId(ids[0]), chunk.body_size(0..chunk.len())) {
                break;
            }
            read.add(chunk, OpId::ZERO);
        }
        if self.choices.below(16) == 0 {
            // By an operation of the same bucket, which the next checkpoint has.
            let target = self.next_op;
            self.operations.entry(request.bucket.clone()).or_default().insert(target);
            self.changed.insert(request.bucket.clone());
            self.next_op += 1;
            read.supersede(OpId(target));
            self.superseded = self.superseded.max(OpId(target));
        }
        read.finish()
    }

    /// Anything, whether it was asked for or not.
    fn anything(&mut self) -> ServerEvent {
        match self.choices.below(8) {
            0 => {
                let sum = |_| BucketChecksum { count: self.choices.below(3), checksum: Checksum(1) };
                let checksums = (0..self.choices.below(6)).map(sum).collect();
                ServerEvent::Described { checksums, write_checkpoint: Some(WriteCheckpoint(i64::MIN)) }
            }
            1 => ServerEvent::Gone,
            2 | 3 => {
                let answer = |_| OperationChunk {
                    chunks: vec![chunk(&[1, 2, 9][..self.choices.index(4)]), chunk(&[4])],
                    next_after: OpId([0, 3, 9, u64::MAX][self.choices.index(4)]),
                    has_more: self.choices.below(2) == 0,
                    superseded: (self.choices.below(4) == 0).then_some(OpId(20)),
                };
                ServerEvent::Read((0..self.choices.below(6)).map(answer).collect())
            }
            4 => ServerEvent::Tick,
            _ => {
                self.write();
                self.checkpoint()
            }
        }
    }

    // ---- what follows --------------------------------------------------------------------------------------------

    /// Takes all commands and looks at them.
    fn look(&mut self) {
        while let Some(command) = self.session.poll() {
            assert!(!self.closed, "after the end it asks for {command:?}");
            match command {
                ServerCommand::Send(line) => self.line(line),
                ServerCommand::Close => self.closed = true,
                command => {
                    assert!(self.asked.is_none(), "two requests at once: {:?}, {command:?}", self.asked);
                    self.asked = Some(command);
                }
            }
        }
        assert_eq!(self.closed, self.session.is_closed());
        let due = self.session.poll_timeout(self.now, self.wall());
        assert!(self.closed || due > self.now, "it would wake at once, and again");
    }

    fn line(&mut self, line: ServerLine) {
        match line {
            ServerLine::Checkpoint(line) => {
                assert_eq!(self.announced, None, "a second checkpoint in full");
                self.announces(line.last_op_id, line.write_checkpoint);
                assert_eq!(line.buckets.len(), BUCKETS as usize - 1, "S7: {line:?}");
                line.buckets.into_iter().for_each(|bucket| self.describes(bucket));
            }
            ServerLine::CheckpointDiff(line) => {
                assert!(self.announced.is_some_and(|before| before < line.last_op_id), "{line:?}");
                self.announces(line.last_op_id, line.write_checkpoint);
                line.updated_buckets.into_iter().for_each(|bucket| self.describes(bucket));
            }
            ServerLine::Data { bucket, chunks, after, next_after, .. } => {
                self.data(&bucket, &chunks, after, next_after)
            }
            ServerLine::Complete { last_op_id } => self.completes(last_op_id, None),
            ServerLine::PartialComplete { last_op_id, priority } => self.completes(last_op_id, Some(priority)),
            ServerLine::TokenExpiresIn(_) => {}
        }
    }

    fn announces(&mut self, last_op_id: OpId, write_checkpoint: Option<WriteCheckpoint>) {
        assert!(last_op_id <= self.checkpoint, "a checkpoint that there is not");
        assert!(write_checkpoint <= self.write_checkpoint, "S6: a write checkpoint that there is not");
        assert!(write_checkpoint >= self.announced_write_checkpoint, "S6: a write checkpoint is taken back");
        self.announced = Some(last_op_id);
        self.announced_write_checkpoint = write_checkpoint;
    }

    fn describes(&mut self, bucket: crate::protocol::BucketDescription) {
        let sum = BucketChecksum { count: bucket.count.unwrap_or_default(), checksum: bucket.checksum };
        self.received.entry(bucket.bucket.to_string()).or_default().announced = Some((sum, bucket.priority));
    }

    fn data(&mut self, name: &str, chunks: &[(Chunk, Range<usize>)], after: OpId, next_after: OpId) {
        let id = (0..BUCKETS).map(bucket).find(|id| id.wire_name(GENERATION) == name);
        let id = id.unwrap_or_else(|| panic!("S7: data of {name}"));
        let Some(received) = self.received.get_mut(name).filter(|received| received.announced.is_some()) else {
            panic!("S7: data of {name}, which no checkpoint named");
        };
        let count: usize = chunks.iter().map(|(_, range)| range.len()).sum();
        assert!((1..=self.line_operations).contains(&count), "a line of {count} operations");
        assert!(received.upto <= after, "operations after {after} follow those up to {}", received.upto);
        let sent = chunks.iter().flat_map(|(chunk, range)| chunk.operations(range.clone())).map(|one| one.op_id.0);
        let has = self.operations.get(&id).into_iter().flatten().copied();
        let missing = has.filter(|op_id| (received.upto.0 + 1..=next_after.0).contains(op_id));
        assert!(sent.eq(missing), "S4: up to {next_after} of {name}, after {}", received.upto);
        assert!(Some(next_after) <= self.announced, "operations above the checkpoint");
        received.upto = next_after;
    }

    fn completes(&mut self, last_op_id: OpId, partial: Option<BucketPriority>) {
        assert_eq!(self.announced, Some(last_op_id));
        assert!(last_op_id >= self.superseded, "S5: a superseded checkpoint is completed");
        for id in (0..BUCKETS - 1).map(bucket) {
            let received = self.received.get(&*id.wire_name(GENERATION));
            let (announced, upto) = received.map_or((None, OpId::ZERO), |one| (one.announced, one.upto));
            let (sum, priority) = announced.unwrap_or_default();
            if partial.is_some_and(|partial| priority > partial) {
                continue;
            }
            let missing = self.operations.get(&id).and_then(|ids| ids.range(upto.0 + 1..).next());
            assert!(missing.is_none_or(|missing| *missing > last_op_id.0), "S4: {missing:?} of {id:?} is missing");
            assert_eq!(sum, self.sum(&id, last_op_id), "S4: the sum of {id:?}");
        }
    }

    /// What was begun comes to its end: S10, as far as a session can see to it.
    fn finish(&mut self) {
        // A read may bring a single operation.
        let operations: usize = self.operations.values().map(BTreeSet::len).sum();
        for _ in 0..EVENTS + operations {
            if self.closed {
                return;
            }
            let Some(event) = self.answer() else { break };
            assert!(self.tell(event).is_ok());
            self.look();
        }
        assert!(self.asked.is_none(), "it never comes to an end");
        assert!(self.session.wants_checkpoint(), "S10: it takes no more checkpoints");
    }
}

fn chunk(ids: &[u64]) -> Chunk {
    let mut builder = ChunkBuilder::new();
    for op_id in ids {
        let operation = OperationRef {
            op_id: OpId(*op_id),
            kind: OperationKind::Put,
            checksum: checksum_of(*op_id),
            object_type: "t",
            object_id: "i",
            subkey: "",
            data: "{\"id\":\"i\"}",
        };
        assert!(builder.push(operation).is_ok());
    }
    builder.finish()
}
