//! Collecting what changed, up to a bound.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bucket::BucketId;
use crate::checkpoint::{ChangeSet, Changes, LookupKey};
use crate::write_checkpoint::ClientKey;

/// Collects what changed between two checkpoints, each thing once. Beyond [`LIMIT`](Self::LIMIT) entries it forgets them
/// and says [`Changes::Unknown`], so that its size is bounded.
#[derive(Debug, Clone, Default)]
pub struct ChangeCollector {
    unknown: bool,
    buckets: BTreeSet<BucketId>,
    lookups: BTreeSet<LookupKey>,
    clients: BTreeSet<ClientKey>,
}

impl ChangeCollector {
    /// As many entries are told apart; above that everything may have changed.
    pub const LIMIT: usize = 100_000;

    /// Nothing changed so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything may have changed.
    pub fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.unknown && self.len() == 0
    }

    /// A bucket has new operations.
    pub fn bucket(&mut self, bucket: &BucketId) {
        if !self.unknown && !self.buckets.contains(bucket) {
            self.buckets.insert(bucket.clone());
            self.bound();
        }
    }

    /// The rows of a lookup key changed.
    pub fn lookup(&mut self, key: &LookupKey) {
        if !self.unknown && !self.lookups.contains(key) {
            self.lookups.insert(key.clone());
            self.bound();
        }
    }

    /// A client's write checkpoint may be shown now.
    pub fn client(&mut self, client: &ClientKey) {
        if !self.unknown && self.clients.insert(client.clone()) {
            self.bound();
        }
    }

    /// Adds what changed after this.
    pub fn merge(&mut self, later: Self) {
        if later.unknown {
            *self = Self::unknown();
        } else if self.is_empty() {
            *self = later;
        } else if !self.unknown {
            self.buckets.extend(later.buckets);
            self.lookups.extend(later.lookups);
            self.clients.extend(later.clients);
            self.bound();
        }
    }

    /// Adds changes that were already handed over once.
    pub fn merge_changes(&mut self, later: &Changes) {
        match later {
            Changes::Unknown => *self = Self::unknown(),
            Changes::These(_) if self.unknown => {}
            Changes::These(set) => {
                self.buckets.extend(set.buckets.iter().cloned());
                self.lookups.extend(set.lookups.iter().cloned());
                self.clients.extend(set.clients.iter().cloned());
                self.bound();
            }
        }
    }

    /// What was collected, in order; the collector is empty afterwards.
    pub fn take(&mut self) -> Changes {
        let Self { unknown, buckets, lookups, clients } = std::mem::take(self);
        if unknown {
            return Changes::Unknown;
        }
        Changes::These(Arc::new(ChangeSet {
            buckets: buckets.into_iter().collect(),
            lookups: lookups.into_iter().collect(),
            clients: clients.into_iter().collect(),
        }))
    }

    fn len(&self) -> usize {
        self.buckets.len() + self.lookups.len() + self.clients.len()
    }

    fn bound(&mut self) {
        if self.len() > Self::LIMIT {
            *self = Self::unknown();
        }
    }
}
