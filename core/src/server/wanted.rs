//! A bucket that a request yields.

use super::shared_bucket::SharedBucket;
use crate::bucket::{BucketId, BucketPriority, Generation};
use crate::protocol::SubscriptionReason;

/// A bucket that a request yields, with what it is for this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBucket {
    /// The bucket.
    pub bucket: SharedBucket,
    /// Its priority for this client.
    pub priority: BucketPriority,
    /// Why the client has it.
    pub reasons: Vec<SubscriptionReason>,
}

impl WantedBucket {
    /// One without a reason, which no other stream shares.
    pub fn new(id: &BucketId, generation: Generation, priority: BucketPriority) -> Self {
        Self { bucket: SharedBucket::new(id, generation), priority, reasons: Vec::new() }
    }
}
