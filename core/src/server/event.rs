//! What a [`ServerSession`](super::ServerSession) is told, and what it asks for.

use std::collections::BTreeSet;
use std::ops::Range;

use bytestring::ByteString;

use super::wanted::WantedBucket;
use crate::bucket::{BucketId, BucketPriority};
use crate::bucket_store::{OperationChunk, ReadRequest};
use crate::checkpoint::{BucketChecksum, ChangeSet, Checkpoint, LookupKey};
use crate::chunk::Chunk;
use crate::operation::OpId;
use crate::protocol::{CheckpointDiffLine, CheckpointLine, StreamDescription};
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

/// A newer checkpoint, and which of the session's buckets it touches.
#[derive(Debug, Clone)]
pub struct CheckpointUpdate {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What changed for this session since the update before.
    pub touched: Touched,
    /// What has changed of the buckets that the request yields, if it was resolved anew.
    pub resolved: Option<ResolvedStreams>,
}

/// The buckets and streams that a request yields: at first all, then what differs.
#[derive(Debug, Clone, Default)]
pub struct ResolvedStreams {
    /// Buckets that are new, or that have another priority or other reasons; each once.
    pub buckets: Vec<WantedBucket>,
    /// Buckets that have gone.
    pub gone: BTreeSet<BucketId>,
    /// All streams that the client is subscribed to.
    pub streams: Vec<StreamDescription>,
}

impl ResolvedStreams {
    /// Both as one; `other` is the later one.
    pub(super) fn merge(&mut self, other: Self) {
        let Self { buckets, gone, streams } = other;
        let mut replaced: BTreeSet<BucketId> = buckets.iter().map(|bucket| bucket.bucket.id().clone()).collect();
        self.gone.retain(|id| !replaced.contains(id));
        replaced.extend(gone.iter().cloned());
        self.buckets.retain(|bucket| !replaced.contains(bucket.bucket.id()));
        self.buckets.extend(buckets);
        self.gone.extend(gone);
        self.streams = streams;
    }
}

/// What changed for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Not known: everything may have.
    Unknown,
    /// These buckets have new operations, or (`write_checkpoint`) the client's write checkpoint may have risen.
    These {
        /// Buckets.
        buckets: BTreeSet<BucketId>,
        /// Lookups whose rows changed: the buckets of the request may be others. It was resolved anew if they are.
        lookups: BTreeSet<LookupKey>,
        /// Whether the write checkpoint is to be looked up again.
        write_checkpoint: bool,
    },
}

impl Touched {
    /// So many buckets and lookups are told apart; with more, everything may have changed, so that what is noted for a session that
    /// takes nothing stays small.
    pub const LIMIT: usize = 1_000;

    /// New operations of these buckets, and nothing else.
    pub fn buckets(buckets: BTreeSet<BucketId>) -> Self {
        Self::These { buckets, lookups: BTreeSet::new(), write_checkpoint: false }
    }

    /// All that a checkpoint changed, for one that does not know yet what concerns it.
    pub(super) fn all(changes: &ChangeSet) -> Self {
        let ChangeSet { buckets, lookups, clients } = changes;
        if buckets.len() + lookups.len() > Self::LIMIT {
            return Self::Unknown;
        }
        Self::These {
            buckets: buckets.iter().cloned().collect(),
            lookups: lookups.iter().cloned().collect(),
            write_checkpoint: !clients.is_empty(),
        }
    }

    /// Both changes as one.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Unknown, _) => {}
            (_, Self::Unknown) => *self = Self::Unknown,
            (
                Self::These { buckets, lookups, write_checkpoint },
                Self::These { buckets: more, lookups: found, write_checkpoint: also },
            ) => {
                *write_checkpoint |= also;
                buckets.extend(more);
                lookups.extend(found);
                if buckets.len() + lookups.len() > Self::LIMIT {
                    *self = Self::Unknown;
                }
            }
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum ServerEvent {
    /// A newer checkpoint; newer than every one that was told before.
    Checkpoint(CheckpointUpdate),
    /// The answer to [`ServerCommand::Describe`].
    Described {
        /// One per bucket asked for.
        checksums: Vec<BucketChecksum>,
        /// The client's write checkpoint, if it was asked for and there is one.
        write_checkpoint: Option<WriteCheckpoint>,
    },
    /// The other answer to [`ServerCommand::Describe`]: the store has gone past the checkpoint, a newer one follows.
    Gone,
    /// The answer to [`ServerCommand::Read`], one per request.
    Read(Vec<OperationChunk>),
    /// There is a new token of the same identity, which expires then.
    Renewed(Option<WallTime>),
    /// The service shuts down.
    Closing,
    /// Time has passed; nothing else happened.
    Tick,
}

/// What the session wants done. `Describe` and `Read` are answered before anything else is asked.
#[derive(Debug)]
pub enum ServerCommand {
    /// Look up sums and the write checkpoint.
    Describe {
        /// The checkpoint.
        at: OpId,
        /// The buckets.
        buckets: Vec<BucketId>,
        /// Whether the write checkpoint may have risen.
        write_checkpoint: bool,
    },
    /// Read operations.
    Read(Vec<ReadRequest>),
    /// Send a line.
    Send(ServerLine),
    /// End the stream, without an error.
    Close,
}

/// A line to be sent. Data lines refer to chunks as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerLine {
    /// The whole of a checkpoint.
    Checkpoint(CheckpointLine),
    /// What differs from the line before.
    CheckpointDiff(CheckpointDiffLine),
    /// Operations of one bucket.
    Data {
        /// Its name.
        bucket: ByteString,
        /// Slices of chunks, in order.
        chunks: Vec<(Chunk, Range<usize>)>,
        /// Where the operations begin: the first is above it.
        after: OpId,
        /// Where they end.
        next_after: OpId,
        /// Whether more of this bucket follow for this checkpoint.
        has_more: bool,
    },
    /// Everything was sent.
    Complete {
        /// The id of the checkpoint.
        last_op_id: OpId,
    },
    /// Everything of this priority and smaller numbers was sent.
    PartialComplete {
        /// The id of the checkpoint.
        last_op_id: OpId,
        /// The priority.
        priority: BucketPriority,
    },
    /// Seconds left to the token.
    TokenExpiresIn(i64),
}
