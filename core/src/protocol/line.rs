//! The lines of a sync stream, as a client reads them and as a server states them.

use bytestring::ByteString;

use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::operation::{OpId, Operation};
use crate::write_checkpoint::WriteCheckpoint;

/// A line as a client decodes it. (A server does not build these: it encodes chunks in place.)
#[derive(Debug, Clone, PartialEq)]
pub enum ClientLine {
    /// The whole of a checkpoint.
    Checkpoint(CheckpointLine),
    /// What differs from the line before.
    CheckpointDiff(CheckpointDiffLine),
    /// Operations of one bucket.
    Data(DataLine),
    /// Everything of the checkpoint was sent.
    CheckpointComplete {
        /// The id of the checkpoint.
        last_op_id: OpId,
    },
    /// Everything of buckets with this priority and smaller numbers was sent.
    PartialCheckpointComplete {
        /// The id of the checkpoint.
        last_op_id: OpId,
        /// The priority.
        priority: BucketPriority,
    },
    /// A sign of life: so many seconds are left to the token. Zero or less: the stream ends.
    TokenExpiresIn(i64),
    /// A line of a newer protocol, to be ignored.
    Unknown,
}

/// A checkpoint with all its buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointLine {
    /// Its id.
    pub last_op_id: OpId,
    /// The largest write checkpoint that it carries.
    pub write_checkpoint: Option<WriteCheckpoint>,
    /// All its buckets.
    pub buckets: Vec<BucketDescription>,
    /// The streams that the client is subscribed to.
    pub streams: Vec<StreamDescription>,
}

/// What differs from the checkpoint line before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointDiffLine {
    /// The id of the new checkpoint.
    pub last_op_id: OpId,
    /// The current value, not a delta: absent means that there is none.
    pub write_checkpoint: Option<WriteCheckpoint>,
    /// Buckets that are new or whose checksum, count or priority changed.
    pub updated_buckets: Vec<BucketDescription>,
    /// Buckets that are gone.
    pub removed_buckets: Vec<ByteString>,
}

/// A bucket in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketDescription {
    /// Its name; opaque.
    pub bucket: ByteString,
    /// The sum of its operations up to the checkpoint.
    pub checksum: Checksum,
    /// Operations in it up to the checkpoint, for progress only.
    pub count: Option<u64>,
    /// Its priority.
    pub priority: BucketPriority,
    /// Why the client has it.
    pub subscriptions: Vec<SubscriptionReason>,
}

/// Why a client has a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubscriptionReason {
    /// By the stream with this index in [`CheckpointLine::streams`].
    Default(u32),
    /// By the subscription with this index in the request.
    Subscription(u32),
}

/// A stream in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamDescription {
    /// Its name.
    pub name: String,
    /// Whether the config subscribes everyone to it.
    pub is_default: bool,
    /// What went wrong with subscriptions to it.
    pub errors: Vec<StreamError>,
}

/// A subscription that could not be resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamError {
    /// The index of the subscription in the request; `None` for the automatic one.
    pub subscription: Option<u32>,
    /// What is wrong.
    pub message: String,
}

/// Operations of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct DataLine {
    /// The bucket's name.
    pub bucket: ByteString,
    /// Operations in order of their ids.
    pub operations: Vec<Operation>,
    /// Bytes that the line took on the wire.
    pub size: usize,
}
