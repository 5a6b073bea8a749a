//! A bucket that a stream sends, and how far it has been sent.

use bytestring::ByteString;

use crate::bucket::{BucketId, BucketPriority};
use crate::checkpoint::BucketChecksum;
use crate::operation::OpId;
use crate::protocol::{BucketDescription, SubscriptionReason};

/// A bucket that a request yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBucket {
    /// The bucket.
    pub id: BucketId,
    /// Its name on the wire.
    pub name: ByteString,
    /// Its priority for this client.
    pub priority: BucketPriority,
    /// Why the client has it.
    pub reasons: Vec<SubscriptionReason>,
}

/// A wanted bucket with its position in this stream.
#[derive(Debug, Clone)]
pub(super) struct TrackedBucket {
    pub(super) wanted: WantedBucket,
    /// Operations up to here were sent, or were there before.
    pub(super) sent: OpId,
    /// What the last checkpoint line said of it; `None` before the first.
    pub(super) described: Option<BucketChecksum>,
    /// The client knows it.
    pub(super) known: bool,
    /// A line has said what it is now: its priority and its reasons.
    pub(super) told: bool,
    /// Operations between `sent` and the checkpoint may be missing.
    pub(super) unfinished: bool,
}

impl TrackedBucket {
    pub(super) fn new(wanted: WantedBucket, sent: OpId) -> Self {
        Self { wanted, sent, described: None, known: false, told: false, unfinished: true }
    }

    pub(super) fn description(&self) -> BucketDescription {
        let sum = self.described.unwrap_or_default();
        BucketDescription {
            bucket: self.wanted.name.clone(),
            checksum: sum.checksum,
            count: Some(sum.count),
            priority: self.wanted.priority,
            subscriptions: self.wanted.reasons.clone(),
        }
    }
}
