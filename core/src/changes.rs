//! Collecting what changed, up to a bound.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bucket::BucketId;
use crate::checkpoint::{ChangeSet, Changes, LookupKey};
use crate::recent_lookups::{ChangedRows, RecentLookups};
use crate::table::RowKey;
use crate::write_checkpoint::ClientKey;

/// Collects what changed between two checkpoints, each thing once. Beyond [`LIMIT`](Self::LIMIT) entries it forgets them
/// and says [`Changes::Unknown`], so that its size is bounded.
#[derive(Debug, Clone, Default)]
pub struct ChangeCollector {
    unknown: bool,
    buckets: BTreeSet<BucketId>,
    /// With the source rows, unless there are too many.
    lookups: ChangedRows,
    rows: usize,
    /// The source rows are not known.
    rows_unknown: bool,
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

    /// A source row yields something else for a lookup key.
    pub fn lookup(&mut self, key: &LookupKey, row: &RowKey) {
        if self.unknown {
            return;
        }
        if !self.lookups.contains_key(key) {
            self.lookups.insert(key.clone(), BTreeSet::new());
            self.bound();
        }
        if !self.rows_unknown
            && let Some(rows) = self.lookups.get_mut(key)
            && rows.insert(row.clone())
        {
            self.rows += 1;
            self.bound_rows();
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
            self.clients.extend(later.clients);
            self.rows_unknown |= later.rows_unknown;
            for (key, rows) in later.lookups {
                let known = self.lookups.entry(key).or_default();
                let before = known.len();
                known.extend(rows);
                self.rows += known.len() - before;
            }
            self.bound_rows();
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
                self.lookups.extend(set.lookups.iter().map(|key| (key.clone(), BTreeSet::new())));
                self.rows_unknown = true;
                self.clients.extend(set.clients.iter().cloned());
                self.bound();
            }
        }
    }

    /// What was collected, in order; the collector is empty afterwards.
    pub fn take(&mut self) -> Changes {
        let Self { unknown, buckets, lookups, clients, .. } = std::mem::take(self);
        if unknown {
            return Changes::Unknown;
        }
        Changes::These(Arc::new(ChangeSet {
            buckets: buckets.into_iter().collect(),
            lookups: lookups.into_keys().collect(),
            clients: clients.into_iter().collect(),
        }))
    }

    /// The source rows that changed each lookup key, if they are known; they are not any more afterwards.
    pub(crate) fn take_rows(&mut self) -> Option<ChangedRows> {
        let known = !self.unknown && !self.rows_unknown;
        let rows = self.lookups.iter_mut().map(|(key, rows)| (key.clone(), std::mem::take(rows)));
        let rows = known.then(|| rows.collect());
        self.forget_rows();
        rows
    }

    fn forget_rows(&mut self) {
        self.lookups.values_mut().for_each(BTreeSet::clear);
        self.rows = 0;
        self.rows_unknown = true;
    }

    fn bound_rows(&mut self) {
        if self.rows_unknown || self.rows > RecentLookups::LIMIT {
            self.forget_rows();
        }
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
