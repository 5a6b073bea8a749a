//! One sync stream as a state machine: checkpoints, answers and time in; lines and requests out. It never waits.
//!
//! Keeps S7 (only resolved buckets are read, and the stream ends with the token), S8 (one config per stream) and, with
//! the store, S5 (a superseded checkpoint is not completed).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;

use super::event::{CheckpointUpdate, ResolvedStreams, ServerCommand, ServerEvent, ServerLine, Touched};
use super::tracked_bucket::TrackedBucket;
use super::tracked_buckets::TrackedBuckets;
use crate::bucket::{BucketId, Generation};
use crate::bucket_store::OperationChunk;
use crate::checkpoint::{BucketChecksum, Checkpoint, DeployedConfig};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::operation::OpId;
use crate::protocol::{CheckpointDiffLine, CheckpointLine, SyncRequest};
use crate::time::{Time, WallTime};
use crate::write_checkpoint::WriteCheckpoint;

/// Clients drop a connection that is silent for 30 to 60 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Clients fetch a new token when so much is left.
const EXPIRY_WARNING: Duration = Duration::from_secs(20);
/// With more operations than this sent for a checkpoint, a newer one may interrupt it,
const INTERRUPTIBLE_AFTER: usize = 1_000;
/// or with more bytes of them.
const INTERRUPTIBLE_BYTES: usize = 1 << 20;

/// Limits of one stream.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Bytes of operations read at once, or one operation that is larger. Default 256 KiB. What all streams hold encoded is
    /// bounded by [`ServiceLimits::buffered_bytes`](crate::ServiceLimits::buffered_bytes).
    pub read_bytes: usize,
    /// Operations in one data line. Default 1000.
    pub line_operations: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { read_bytes: 256 << 10, line_operations: 1_000 }
    }
}

/// The logic of one stream.
#[derive(Debug)]
pub struct ServerSession {
    limits: SessionLimits,
    positions: BTreeMap<ByteString, OpId>,
    expiry: Option<WallTime>,
    state: State,
    /// Store and config of the first line; every other line must be of the same (S8).
    origin: Option<(Generation, Arc<DeployedConfig>)>,
    buckets: TrackedBuckets,
    streams: Vec<crate::protocol::StreamDescription>,
    write_checkpoint: Option<WriteCheckpoint>,
    first_line_sent: bool,
    /// The client shows rows of another config or store: no part of a checkpoint may be shown before its whole (S8).
    whole_first: bool,
    /// What an update touched was never described: anything may have changed.
    undescribed: bool,
    /// A checkpoint was begun and not completed: the next one must be sent even if it brings nothing else.
    incomplete: bool,
    /// What was sent makes checkpoints below this one impossible to complete (S5).
    required: OpId,
    waiting: Option<CheckpointUpdate>,
    commands: VecDeque<ServerCommand>,
    next_keepalive: Time,
    expiry_warned: bool,
    closed: bool,
}

#[derive(Debug)]
enum State {
    /// Everything told was sent.
    Idle,
    /// Sums were asked for.
    Describing { checkpoint: Checkpoint, asked: Vec<usize> },
    /// Operations are being sent.
    Sending { checkpoint: Checkpoint, reading: Vec<usize>, sent: usize, bytes: usize },
}

impl ServerSession {
    /// The session of a verified identity and its request.
    ///
    /// # Errors
    /// `Invalid` if a position in the request is not a decimal number.
    pub fn new(identity: &Identity, request: &SyncRequest, limits: SessionLimits, now: Time) -> Result<Self> {
        let mut positions = BTreeMap::new();
        for position in &request.buckets {
            let after = OpId::parse(&position.after).ok_or_else(|| {
                Error::invalid(format!("`after` of bucket `{}` must be a decimal number", position.name))
                    .with_code("PSYNC_S2001")
            })?;
            positions.insert(ByteString::from(position.name.as_str()), after);
        }
        Ok(Self {
            limits,
            positions,
            expiry: identity.expiry(),
            state: State::Idle,
            origin: None,
            buckets: TrackedBuckets::default(),
            streams: Vec::new(),
            write_checkpoint: None,
            first_line_sent: false,
            whole_first: false,
            undescribed: false,
            incomplete: false,
            required: OpId::ZERO,
            waiting: None,
            commands: VecDeque::new(),
            next_keepalive: now + KEEPALIVE,
            expiry_warned: false,
            closed: false,
        })
    }

    /// The next thing to do; `None` until something happens.
    pub fn poll(&mut self) -> Option<ServerCommand> {
        let next = self.commands.pop_front();
        if next.is_none() {
            // Most streams are idle most of the time, and keep no room for more.
            self.commands = VecDeque::new();
        }
        next
    }

    /// When [`ServerEvent::Tick`] is due, if nothing happens before.
    pub fn poll_timeout(&self, now: Time, wall: WallTime) -> Time {
        let Some(left) = self.left(wall) else { return self.next_keepalive };
        let due = if !self.expiry_warned && left > EXPIRY_WARNING { now + (left - EXPIRY_WARNING) } else { now + left };
        due.min(self.next_keepalive)
    }

    /// Whether it has ended: commands that were not polled by then are taken back, but for a last line and
    /// [`ServerCommand::Close`].
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a newer checkpoint may be told now: while idle, and in the middle of a long one.
    pub fn wants_checkpoint(&self) -> bool {
        match &self.state {
            State::Idle => true,
            State::Describing { .. } => false,
            State::Sending { sent, bytes, .. } => {
                let long = *sent >= INTERRUPTIBLE_AFTER || *bytes >= INTERRUPTIBLE_BYTES;
                long && self.waiting.is_none()
            }
        }
    }

    /// Tells the session what happened.
    ///
    /// # Errors
    /// `Internal` if an answer comes that was not asked for.
    pub fn handle(&mut self, now: Time, wall: WallTime, event: ServerEvent) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        match event {
            ServerEvent::Checkpoint(update) => self.checkpoint(update),
            ServerEvent::Described { checksums, write_checkpoint } => self.described(&checksums, write_checkpoint)?,
            ServerEvent::Gone => self.gone()?,
            ServerEvent::Read(chunks) => self.read(chunks)?,
            ServerEvent::Renewed(expiry) => (self.expiry, self.expiry_warned) = (expiry, false),
            ServerEvent::Closing => self.close(),
            ServerEvent::Tick => {}
        }
        if !self.closed {
            self.tick(now, wall);
        }
        Ok(())
    }

    fn tick(&mut self, now: Time, wall: WallTime) {
        let left = self.left(wall);
        if left.is_some_and(|left| left.is_zero()) {
            self.commands.clear();
            self.commands.push_back(ServerCommand::Send(ServerLine::TokenExpiresIn(0)));
            self.close_after_commands();
            return;
        }
        let warn = !self.expiry_warned && left.is_some_and(|left| left <= EXPIRY_WARNING);
        if warn || now >= self.next_keepalive {
            self.expiry_warned |= warn;
            self.next_keepalive = now + KEEPALIVE;
            // Without an expiry the line is a mere sign of life; clients do nothing above 30 s.
            let seconds = left.map_or(3_600, |left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX).max(1));
            self.commands.push_back(ServerCommand::Send(ServerLine::TokenExpiresIn(seconds)));
        }
    }

    fn left(&self, wall: WallTime) -> Option<Duration> {
        let expiry = self.expiry?;
        Some(Duration::from_millis(u64::try_from(expiry.0.saturating_sub(wall.0)).unwrap_or(0)))
    }

    fn close(&mut self) {
        self.commands.clear();
        self.close_after_commands();
    }

    fn close_after_commands(&mut self) {
        self.closed = true;
        self.state = State::Idle;
        self.commands.push_back(ServerCommand::Close);
    }

    /// Whether a checkpoint is of the store and config of this stream; anything is before its first line.
    fn is_of(&self, checkpoint: &Checkpoint) -> bool {
        self.origin.as_ref().is_none_or(|(generation, config)| {
            let same_config = Arc::ptr_eq(config, &checkpoint.config) || **config == *checkpoint.config;
            *generation == checkpoint.generation && same_config
        })
    }

    fn checkpoint(&mut self, update: CheckpointUpdate) {
        let CheckpointUpdate { checkpoint, .. } = &update;
        if !self.is_of(checkpoint) {
            // The client connects again and is resolved anew from its first line on.
            self.close();
            return;
        }
        if self.origin.is_none() {
            self.origin = Some((checkpoint.generation, Arc::clone(&checkpoint.config)));
            self.whole_first = self.has_strange_buckets(checkpoint);
        }
        match &self.state {
            State::Idle => self.begin(update),
            State::Describing { .. } | State::Sending { .. } => match &mut self.waiting {
                None => self.waiting = Some(update),
                Some(waiting) => {
                    waiting.checkpoint = update.checkpoint;
                    waiting.touched.merge(update.touched);
                    if let Some(resolved) = update.resolved {
                        match &mut waiting.resolved {
                            None => waiting.resolved = Some(resolved),
                            Some(before) => {
                                // One may have gone and come back: what happened to it meanwhile was not heard of.
                                let come = resolved.buckets.iter().map(|bucket| bucket.bucket.id());
                                let come = come.filter(|id| before.gone.contains(*id));
                                waiting.touched.merge(Touched::buckets(come.cloned().collect()));
                                before.merge(resolved);
                            }
                        }
                    }
                }
            },
        }
    }

    /// Whether the client has buckets that are not of this config.
    fn has_strange_buckets(&self, checkpoint: &Checkpoint) -> bool {
        let known: BTreeSet<_> = checkpoint.config.definitions.iter().map(|definition| definition.id).collect();
        let is_known = |name: &ByteString| {
            BucketId::definition_in(name, checkpoint.generation).is_some_and(|definition| known.contains(&definition))
        };
        !self.positions.keys().all(is_known)
    }

    /// Starts on a checkpoint: finds out what to describe.
    fn begin(&mut self, update: CheckpointUpdate) {
        let CheckpointUpdate { checkpoint, touched, resolved } = update;
        if let Some(resolved) = resolved {
            self.adopt(resolved);
        }
        if checkpoint.op_id < self.required {
            // It was told before compaction took something; the one that shows what took its place is told as well.
            self.undescribed = true;
            return;
        }
        let touched = if std::mem::take(&mut self.undescribed) { Touched::Unknown } else { touched };
        let asked = self.buckets.to_describe(&touched);
        let write_checkpoint = match &touched {
            Touched::Unknown => true,
            Touched::These { write_checkpoint, .. } => *write_checkpoint,
        };
        let nothing = asked.is_empty() && !self.buckets.has_dropped() && !write_checkpoint;
        if nothing && !self.incomplete && self.first_line_sent {
            return;
        }
        let buckets = asked.iter().map(|place| self.buckets.get(*place).id().clone()).collect();
        self.commands.push_back(ServerCommand::Describe { at: checkpoint.op_id, buckets, write_checkpoint });
        self.state = State::Describing { checkpoint, asked };
    }

    fn adopt(&mut self, resolved: ResolvedStreams) {
        self.buckets.adopt(resolved.buckets, &resolved.gone, &self.positions, !self.first_line_sent);
        self.streams = resolved.streams;
    }

    fn described(&mut self, sums: &[BucketChecksum], write_checkpoint: Option<WriteCheckpoint>) -> Result<()> {
        let State::Describing { checkpoint, asked } = std::mem::replace(&mut self.state, State::Idle) else {
            return Err(Error::internal("sums came that nobody asked for"));
        };
        if asked.len() != sums.len() {
            return Err(Error::internal("there must be one sum per bucket that was asked for"));
        }
        let mut updated: Vec<usize> = Vec::new();
        for (&place, sum) in asked.iter().zip(sums) {
            if self.buckets.describe(place, *sum, checkpoint.op_id) {
                updated.push(place);
            }
        }
        // It never falls within a stream, and every line repeats it.
        let risen = write_checkpoint.max(self.write_checkpoint);
        let write_checkpoint_changed = risen != self.write_checkpoint;
        self.write_checkpoint = risen;
        let nothing = updated.is_empty() && !self.buckets.has_dropped() && !write_checkpoint_changed;
        if self.first_line_sent && nothing && !self.incomplete {
            // A bucket that was touched and has the same count and sum has nothing new.
            return self.take_waiting();
        }
        self.incomplete = true;
        let line = if self.first_line_sent {
            ServerLine::CheckpointDiff(CheckpointDiffLine {
                last_op_id: checkpoint.op_id,
                write_checkpoint: self.write_checkpoint,
                updated_buckets: self.buckets.tell(&updated),
                removed_buckets: self.buckets.tell_dropped(),
            })
        } else {
            self.first_line_sent = true;
            // From here on the client has no bucket that is not named there.
            self.positions = BTreeMap::new();
            ServerLine::Checkpoint(CheckpointLine {
                last_op_id: checkpoint.op_id,
                write_checkpoint: self.write_checkpoint,
                buckets: self.buckets.tell_all(),
                streams: self.streams.clone(),
            })
        };
        self.commands.push_back(ServerCommand::Send(line));
        self.state = State::Sending { checkpoint, reading: Vec::new(), sent: 0, bytes: 0 };
        self.go_on()
    }

    /// The checkpoint was compacted away before its sums were read: the next one takes its place.
    fn gone(&mut self) -> Result<()> {
        let State::Describing { .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return Err(Error::internal("a checkpoint is gone that nobody asked for"));
        };
        self.undescribed = true;
        self.take_waiting()
    }

    /// Asks for more operations, or completes.
    fn go_on(&mut self) -> Result<()> {
        let State::Sending { checkpoint, reading, .. } = &mut self.state else {
            return Err(Error::internal("nothing is being sent"));
        };
        let upto = checkpoint.op_id;
        match self.buckets.next_reads(upto, self.limits.read_bytes) {
            Some((places, reads)) => {
                *reading = places;
                self.commands.push_back(ServerCommand::Read(reads));
                Ok(())
            }
            None => {
                self.commands.push_back(ServerCommand::Send(ServerLine::Complete { last_op_id: upto }));
                self.incomplete = false;
                self.whole_first = false;
                self.state = State::Idle;
                self.take_waiting()
            }
        }
    }

    fn take_waiting(&mut self) -> Result<()> {
        if let Some(update) = self.waiting.take() {
            self.begin(update);
        }
        Ok(())
    }

    fn read(&mut self, answers: Vec<OperationChunk>) -> Result<()> {
        let State::Sending { checkpoint, reading, sent, bytes } = &mut self.state else {
            return Err(Error::internal("operations came that nobody asked for"));
        };
        if reading.len() != answers.len() {
            return Err(Error::internal("there must be one answer per read"));
        }
        let upto = checkpoint.op_id;
        let before = self.buckets.most_urgent_unfinished();
        let mut superseded = false;
        for (place, answer) in std::mem::take(reading).into_iter().zip(answers) {
            let target = answer.superseded.filter(|target| *target > upto);
            let stale = target.is_some();
            self.required = self.required.max(target.unwrap_or_default());
            superseded |= stale;
            let bucket = self.buckets.get(place);
            let mut brought = bucket.sent;
            for line in data_lines(bucket, &answer, self.limits.line_operations) {
                if let ServerLine::Data { chunks, next_after, .. } = &line {
                    brought = *next_after;
                    *sent += chunks.iter().map(|(_, range)| range.len()).sum::<usize>();
                    *bytes += chunks.iter().map(|(chunk, range)| chunk.body_size(range.clone())).sum::<usize>();
                }
                self.commands.push_back(ServerCommand::Send(line));
            }
            // What a CLEAR above the checkpoint replaced was not brought. The next read begins before it: if its answer is a
            // shared one that is older than the CLEAR, it goes on where this client is.
            let sent = if stale { brought } else { answer.next_after.max(bucket.sent) };
            self.buckets.set_sent(place, sent, answer.has_more);
        }
        if superseded {
            // Only a checkpoint at or above the target may be completed. What superseded it lies in the same bucket, so
            // the checkpoint that shows it is told to this session.
            self.state = State::Idle;
            return self.take_waiting();
        }
        if self.waiting.is_some() {
            self.state = State::Idle;
            return self.take_waiting();
        }
        let after = self.buckets.most_urgent_unfinished();
        if let (Some(done), Some(next)) = (before, after)
            && done < next
            && !self.whole_first
        {
            let line = ServerLine::PartialComplete { last_op_id: upto, priority: done };
            self.commands.push_back(ServerCommand::Send(line));
        }
        self.go_on()
    }
}

/// The operations of an answer as lines of at most `limit` operations.
fn data_lines(bucket: &TrackedBucket, answer: &OperationChunk, limit: usize) -> Vec<ServerLine> {
    let mut lines = Vec::new();
    let mut chunks: Vec<(crate::chunk::Chunk, std::ops::Range<usize>)> = Vec::new();
    let mut count = 0;
    let mut after = bucket.sent;
    let mut last = after;
    let mut emit = |chunks: &mut Vec<_>, after: &mut OpId, last: OpId| {
        lines.push(ServerLine::Data {
            bucket: bucket.bucket().name().clone(),
            chunks: std::mem::take(chunks),
            after: *after,
            next_after: last,
            has_more: true,
        });
        *after = last;
    };
    for chunk in &answer.chunks {
        let mut range = chunk.range(bucket.sent, answer.next_after);
        while !range.is_empty() {
            let take = range.len().min(limit - count);
            let slice = range.start..range.start + take;
            range.start += take;
            last = chunk.op_id(slice.end - 1).unwrap_or(last);
            chunks.push((chunk.clone(), slice));
            count += take;
            if count == limit {
                emit(&mut chunks, &mut after, last);
                count = 0;
            }
        }
    }
    if count > 0 {
        emit(&mut chunks, &mut after, last);
    }
    if let Some(ServerLine::Data { has_more, .. }) = lines.last_mut() {
        *has_more = answer.has_more;
    }
    lines
}
