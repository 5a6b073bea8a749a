//! What buckets are for a client: few differ in it, so that each bucket has no more than a number.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bucket::BucketPriority;
use crate::protocol::SubscriptionReason;

/// A priority, and why the client has a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    pub(super) priority: BucketPriority,
    pub(super) reasons: Vec<SubscriptionReason>,
}

/// The standings of all buckets of a stream.
#[derive(Debug, Default)]
pub(super) struct Standings {
    all: Vec<Arc<Standing>>,
    numbers: BTreeMap<Arc<Standing>, u32>,
}

impl Standings {
    pub(super) fn number(&mut self, standing: Standing) -> u32 {
        if let Some(number) = self.numbers.get(&standing) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let standing = Arc::new(standing);
        self.all.push(Arc::clone(&standing));
        self.numbers.insert(standing, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &Standing {
        &self.all[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
