//! A bucket that a stream sends, and how far it has been sent.

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::shared_bucket::SharedBucket;
use super::standing::Standing;
use crate::bucket::BucketId;
use crate::checkpoint::BucketChecksum;
use crate::checksum::Checksum;
use crate::operation::OpId;
use crate::protocol::BucketDescription;

/// Flags, below the number of the standing.
const DESCRIBED: u32 = 1;
const KNOWN: u32 = 2;
const TOLD: u32 = 4;
const UNFINISHED: u32 = 8;
const FLAGS: u32 = 4;

/// A wanted bucket with its position in this stream. An idle stream keeps one for each of its buckets, so it is packed.
#[derive(Debug, Clone)]
pub(super) struct TrackedBucket {
    bucket: SharedBucket,
    /// Operations up to here were sent, or were there before.
    pub(super) sent: OpId,
    /// What the last checkpoint line said of it, if it was described.
    count: u64,
    checksum: Checksum,
    /// The number of its standing, and the flags.
    packed: u32,
}

impl TrackedBucket {
    pub(super) fn new(bucket: SharedBucket, standing: u32, sent: OpId) -> Self {
        Self { bucket, sent, count: 0, checksum: Checksum::default(), packed: standing << FLAGS | UNFINISHED }
    }

    pub(super) fn bucket(&self) -> &SharedBucket {
        &self.bucket
    }

    pub(super) fn id(&self) -> &BucketId {
        self.bucket.id()
    }

    /// The number of what it is for this client.
    pub(super) fn standing(&self) -> u32 {
        self.packed >> FLAGS
    }

    pub(super) fn set_standing(&mut self, number: u32) {
        self.packed = number << FLAGS | self.packed & ((1 << FLAGS) - 1);
    }

    /// What the last checkpoint line said of it; `None` before the first.
    pub(super) fn described(&self) -> Option<BucketChecksum> {
        self.has(DESCRIBED).then_some(BucketChecksum { count: self.count, checksum: self.checksum })
    }

    pub(super) fn describe(&mut self, sum: BucketChecksum) {
        (self.count, self.checksum) = (sum.count, sum.checksum);
        self.set(DESCRIBED, true);
    }

    /// The client knows it.
    pub(super) fn is_known(&self) -> bool {
        self.has(KNOWN)
    }

    pub(super) fn set_known(&mut self) {
        self.set(KNOWN, true);
    }

    /// A line has said what it is now: its priority and its reasons.
    pub(super) fn is_told(&self) -> bool {
        self.has(TOLD)
    }

    pub(super) fn set_told(&mut self, told: bool) {
        self.set(TOLD, told);
    }

    /// Operations between `sent` and the checkpoint may be missing.
    pub(super) fn is_unfinished(&self) -> bool {
        self.has(UNFINISHED)
    }

    pub(super) fn set_unfinished(&mut self, unfinished: bool) {
        self.set(UNFINISHED, unfinished);
    }

    fn has(&self, flag: u32) -> bool {
        self.packed & flag != 0
    }

    fn set(&mut self, flag: u32, is_set: bool) {
        self.packed = if is_set { self.packed | flag } else { self.packed & !flag };
    }

    pub(super) fn description(&self, standing: &Standing) -> BucketDescription {
        BucketDescription {
            bucket: self.bucket.name().clone(),
            checksum: self.checksum,
            count: Some(self.count),
            priority: standing.priority,
            subscriptions: standing.reasons.clone(),
        }
    }
}

impl Borrow<BucketId> for TrackedBucket {
    fn borrow(&self) -> &BucketId {
        self.id()
    }
}

impl PartialEq for TrackedBucket {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for TrackedBucket {}

impl PartialOrd for TrackedBucket {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TrackedBucket {
    /// A stream has each bucket once.
    fn cmp(&self, other: &Self) -> Ordering {
        self.id().cmp(other.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{DefinitionId, Generation};

    #[test]
    fn it_is_small_and_its_flags_do_not_touch_its_standing() {
        assert_eq!(size_of::<TrackedBucket>(), 32);
        let id = BucketId { definition: DefinitionId(1), parameters: "[]".into() };
        let mut bucket = TrackedBucket::new(SharedBucket::new(&id, Generation(1)), 7, OpId(3));
        assert!(bucket.is_unfinished() && !bucket.is_known() && !bucket.is_told() && bucket.described().is_none());
        bucket.set_unfinished(false);
        bucket.set_told(true);
        bucket.set_standing(123_456_789);
        assert!(bucket.is_told() && !bucket.is_unfinished());
        assert_eq!(bucket.standing(), 123_456_789);
        bucket.set_told(false);
        let sum = BucketChecksum { count: 2, checksum: Checksum(9) };
        bucket.describe(sum);
        assert_eq!((bucket.standing(), bucket.described(), bucket.is_told()), (123_456_789, Some(sum), false));
    }
}
