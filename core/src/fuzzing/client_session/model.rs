//! What a driver of a client session knows: what was told, what was asked, and what may follow.

use std::sync::Arc;

use crate::bucket::BucketPriority;
use crate::client::{Call, ClientCommand, ClientEvent, StoreCommand, StoreReply};
use crate::client_store::{PublishOutcome, PublishRequest, TargetBucket, TargetCheckpoint};
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::operation::OpId;
use crate::protocol::{BucketDescription, ClientLine, DataLine};
use crate::write_checkpoint::WriteCheckpoint;

/// The stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Closed,
    Opening,
    Open,
}

/// A checkpoint that the server completed, in whole or up to a priority.
#[derive(Debug)]
struct Completed {
    target: TargetCheckpoint,
    partial: Option<BucketPriority>,
    /// Data lines that had come by then.
    lines: usize,
}

/// Both sides of the conversation so far.
#[derive(Debug)]
pub(super) struct Model {
    /// Only what a driver may tell is told; otherwise little can be said about the answers.
    pub(super) lawful: bool,
    stream: Stream,
    /// A line was told after which the stream must be closed.
    must_close: bool,
    pub(super) fetching: bool,
    pub(super) uploading: Option<Arc<LocalTransaction>>,
    /// What was sent, and what the backend has answered.
    uploaded: Option<(Arc<LocalTransaction>, Uploaded)>,
    pub(super) asking: bool,
    written: Option<WriteCheckpoint>,
    /// The call of the store that is not answered.
    pub(super) store: Option<StoreCommand>,
    begun: Option<Arc<TargetCheckpoint>>,
    /// The checkpoint that the stream announced last.
    target: Option<TargetCheckpoint>,
    completed: Vec<Completed>,
    /// Data lines that came, and how many of them are in the store or were given up.
    lines: Vec<DataLine>,
    staged: usize,
    pub(super) stopped: bool,
}

impl Model {
    pub(super) fn new(lawful: bool) -> Self {
        Self {
            lawful,
            stream: Stream::Closed,
            must_close: false,
            fetching: false,
            uploading: None,
            uploaded: None,
            asking: false,
            written: None,
            store: None,
            begun: None,
            target: None,
            completed: Vec::new(),
            lines: Vec::new(),
            staged: 0,
            stopped: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream == Stream::Open
    }

    pub(super) fn is_opening(&self) -> bool {
        self.stream == Stream::Opening
    }

    pub(super) fn has_stream(&self) -> bool {
        self.stream != Stream::Closed
    }

    /// The id of the checkpoint that was announced last.
    pub(super) fn announced(&self) -> Option<OpId> {
        self.target.as_ref().map(|target| target.last_op_id)
    }

    // ---- what is told --------------------------------------------------------------------------------------------

    pub(super) fn told(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Tick
            | ClientEvent::Heard
            | ClientEvent::UploadQueueChanged
            | ClientEvent::Subscriptions(_)
            | ClientEvent::RetryNow => {}
            ClientEvent::Store(reply) => self.store_replied(reply),
            ClientEvent::Credentials(_) => self.fetching = false,
            ClientEvent::Opened => self.stream = Stream::Open,
            ClientEvent::Lines(lines) => {
                self.must_close = !lines.iter().all(|line| self.line(line));
            }
            ClientEvent::StreamEnded(_) => self.must_close = true,
            ClientEvent::Uploaded(outcome) => {
                self.uploaded = self.uploading.take().zip(outcome.as_ref().ok().cloned());
            }
            ClientEvent::WriteCheckpoint(answer) => {
                self.asking = false;
                self.written = answer.as_ref().ok().copied();
            }
        }
    }

    fn store_replied(&mut self, reply: &StoreReply) {
        self.store = None;
        let given_up = matches!(
            reply,
            StoreReply::Staged(Err(_))
                | StoreReply::Begun(Err(_))
                | StoreReply::Published(Ok(PublishOutcome::Mismatch(_)))
        );
        if given_up {
            // What waits is dropped, and downloaded again.
            self.staged = self.lines.len();
            self.completed.clear();
            self.must_close = self.has_stream();
        }
    }

    /// Takes a line in as a client must; false if the stream is to be closed.
    fn line(&mut self, line: &ClientLine) -> bool {
        match line {
            ClientLine::Checkpoint(line) => {
                self.target = Some(TargetCheckpoint {
                    last_op_id: line.last_op_id,
                    write_checkpoint: line.write_checkpoint,
                    buckets: line.buckets.iter().map(described).collect(),
                    streams: line.streams.clone(),
                });
                true
            }
            ClientLine::CheckpointDiff(line) => {
                let Some(target) = self.target.as_mut().filter(|target| line.last_op_id >= target.last_op_id) else {
                    return false;
                };
                target.last_op_id = line.last_op_id;
                target.write_checkpoint = line.write_checkpoint;
                target.buckets.retain(|name, _| !line.removed_buckets.contains(name));
                target.buckets.extend(line.updated_buckets.iter().map(described));
                true
            }
            ClientLine::Data(line) => {
                self.lines.push(line.clone());
                true
            }
            ClientLine::CheckpointComplete { last_op_id } => self.complete(*last_op_id, None),
            ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
                self.complete(*last_op_id, Some(*priority))
            }
            ClientLine::TokenExpiresIn(seconds) => *seconds > 0,
            ClientLine::Unknown => true,
        }
    }

    fn complete(&mut self, last_op_id: OpId, partial: Option<BucketPriority>) -> bool {
        let Some(target) = self.target.clone().filter(|target| target.last_op_id == last_op_id) else { return false };
        self.completed.push(Completed { target, partial, lines: self.lines.len() });
        true
    }

    // ---- what is asked -------------------------------------------------------------------------------------------

    pub(super) fn asked(&mut self, command: &ClientCommand) {
        assert!(!self.stopped, "after the end it asks for {command:?}");
        match command {
            ClientCommand::Store(command) => {
                assert!(self.store.is_none(), "two calls of the store at once: {:?}, {command:?}", self.store);
                self.store_asked(command);
                self.store = Some(command.clone());
            }
            ClientCommand::FetchCredentials => {
                assert!(!self.fetching || !self.lawful, "two fetches of credentials at once");
                self.fetching = true;
            }
            ClientCommand::Open { .. } => {
                assert!(!self.has_stream() || !self.lawful, "two streams at once");
                self.stream = Stream::Opening;
            }
            ClientCommand::CloseStream => {
                assert!(self.has_stream() || !self.lawful, "there is no stream to be closed");
                self.stream = Stream::Closed;
                self.target = None;
            }
            ClientCommand::Upload { transaction, .. } => {
                assert!(self.uploading.is_none() || !self.lawful, "two uploads at once");
                self.uploading = Some(Arc::clone(transaction));
            }
            ClientCommand::RequestWriteCheckpoint { .. } => {
                assert!(!self.asking || !self.lawful, "two requests for write checkpoints at once");
                self.asking = true;
                self.written = None;
            }
            ClientCommand::Abandon(call) => {
                let is_running = match call {
                    Call::Credentials => std::mem::take(&mut self.fetching),
                    Call::Upload => self.uploading.take().is_some(),
                    Call::WriteCheckpoint => std::mem::take(&mut self.asking),
                };
                assert!(is_running || !self.lawful, "there is no call to abandon: {call:?}");
            }
            ClientCommand::Stop(_) => self.stopped = true,
        }
    }

    fn store_asked(&mut self, command: &StoreCommand) {
        match command {
            StoreCommand::BeginCheckpoint(target) => self.begun = Some(Arc::clone(target)),
            StoreCommand::Stage(lines) => self.stages(lines),
            StoreCommand::Publish(request) => self.publishes(request),
            StoreCommand::FinishUpload { transaction, outcome } => {
                // C2: only what the backend has answered for leaves the queue.
                let answered = self.uploaded.take();
                let is_answered =
                    answered.is_some_and(|answered| answered == (Arc::clone(transaction), outcome.clone()));
                assert!(is_answered || !self.lawful, "C2: the backend has not answered so for {transaction:?}");
            }
            StoreCommand::Cover { checkpoint, .. } => {
                assert!(self.written == Some(*checkpoint) || !self.lawful, "a number that the server did not give");
            }
            StoreCommand::Resume { .. }
            | StoreCommand::LoadUpload
            | StoreCommand::LoadUploadState
            | StoreCommand::SaveSubscription { .. } => {}
        }
    }

    /// Lines are staged as they came: none is made up, none is left out, and none goes ahead of another.
    fn stages(&mut self, lines: &[DataLine]) {
        if !self.lawful {
            return;
        }
        let end = self.staged + lines.len();
        let came = self.lines.get(self.staged..end);
        assert!(came == Some(lines), "staged {lines:?}, where {:?} came", self.lines.get(self.staged..));
        self.staged = end;
    }

    /// C1: only what the server has completed is shown, and only once all of it is in the store.
    fn publishes(&mut self, request: &PublishRequest) {
        let PublishRequest { target, partial, .. } = request;
        // Ahead of local writes, the highest priority of a whole checkpoint may be shown.
        let shows = |completed: &&Completed| {
            completed.partial == *partial || completed.partial.is_none() && *partial == Some(BucketPriority::HIGHEST)
        };
        // Of two that are equal, the earlier: it is not known which one is shown.
        let found = self.completed.iter().find(|completed| shows(completed) && completed.target == **target);
        let found = found.unwrap_or_else(|| panic!("C1: it shows what was not completed: {request:?}"));
        if self.lawful {
            assert!(self.staged >= found.lines, "C1: {} lines, and {} are staged", found.lines, self.staged);
            assert!(self.begun.as_ref().is_some_and(|begun| begun == target), "it was not begun: {request:?}");
        }
    }

    /// All commands of an event were taken.
    pub(super) fn settle(&mut self) {
        if self.lawful && !self.stopped {
            assert!(!std::mem::take(&mut self.must_close) || !self.is_open(), "the stream is not closed");
        }
    }
}

fn described(bucket: &BucketDescription) -> (bytestring::ByteString, TargetBucket) {
    let BucketDescription { bucket, checksum, count, priority, subscriptions } = bucket.clone();
    (bucket, TargetBucket { checksum, priority, count, subscriptions })
}
