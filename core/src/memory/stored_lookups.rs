//! Lookup entries at each point of their history, in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::bucket_store::LookupEntry;
use crate::checkpoint::{LookupKey, LookupRows};
use crate::lookup_change::LookupDifference;
use crate::operation::OpId;
use crate::table::RowKey;

/// What each row yields for each lookup key, and from which operation id on. [`MemoryBucketStore`](super::MemoryBucketStore)
/// holds its lookups in these; so may any store that keeps them in memory and makes them durable by other means.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StoredLookups {
    entries: BTreeMap<LookupKey, BTreeMap<RowKey, Vec<LookupState>>>,
}

/// What a row yields for a lookup key from an operation id on.
#[derive(Debug, Serialize, Deserialize)]
struct LookupState {
    from: OpId,
    outputs: Vec<ByteString>,
}

impl StoredLookups {
    /// Adds the state of an entry from `from` on, which is at or above all that it has.
    pub fn push(&mut self, from: OpId, entry: LookupEntry) {
        let states = self.entries.entry(entry.key).or_default().entry(entry.row).or_default();
        states.retain(|state| state.from != from);
        states.push(LookupState { from, outputs: entry.outputs });
    }

    /// What a key yields at `at`.
    pub fn rows(&self, key: &LookupKey, at: OpId) -> LookupRows {
        let states = self.entries.get(key).into_iter().flat_map(BTreeMap::values);
        LookupRows { rows: states.flat_map(|states| outputs(states, at)).collect() }
    }

    /// What is different between `since` and `at` of what these source rows yield for a key.
    pub fn difference(&self, key: &LookupKey, rows: &BTreeSet<RowKey>, since: OpId, at: OpId) -> LookupDifference {
        let mut difference = LookupDifference::default();
        let entries = self.entries.get(key);
        for states in rows.iter().filter_map(|row| entries.and_then(|entries| entries.get(row))) {
            difference.add(outputs(states, since), outputs(states, at));
        }
        difference
    }

    /// Forgets keys; whether there were any.
    pub fn retain(&mut self, is_kept: impl Fn(&LookupKey) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|key, _| is_kept(key));
        self.entries.len() < before
    }

    /// Keeps only the newest state of each entry at `published`. Below the id that it returns nothing can be looked up any
    /// more; `None` if nothing was dropped.
    pub fn compact(&mut self, published: OpId) -> Option<OpId> {
        let mut floor = None;
        self.entries.retain(|_, rows| {
            rows.retain(|_, states| {
                let newest = states.partition_point(|state| state.from <= published);
                let gone = states[..newest].last().is_some_and(|state| state.outputs.is_empty());
                let drop = if gone { newest } else { newest.saturating_sub(1) };
                if drop > 0 {
                    floor = floor.max(Some(states[newest - 1].from));
                    states.drain(..drop);
                }
                !states.is_empty()
            });
            !rows.is_empty()
        });
        floor
    }
}

/// The newest state at `at`.
fn outputs(states: &[LookupState], at: OpId) -> Vec<ByteString> {
    let newest = states.iter().rev().find(|state| state.from <= at);
    newest.map(|state| state.outputs.clone()).unwrap_or_default()
}
