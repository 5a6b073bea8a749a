//! What concerns a stream: the buckets that it sends, what they were found by, and its client's write checkpoint.

use std::collections::BTreeSet;

use super::shared_bucket::SharedBucket;
use crate::bucket::BucketId;
use crate::checkpoint::LookupKey;
use crate::sorted_list::SortedList;

/// What concerns a member of the hub.
#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) buckets: SortedList<SharedBucket>,
    /// What the buckets were found by.
    pub(super) lookups: BTreeSet<LookupKey>,
}

/// How it changes.
#[derive(Debug, Default)]
pub(super) struct InterestChange {
    /// Buckets that concern it now.
    pub(super) come: Vec<SharedBucket>,
    /// Buckets that do not any more.
    pub(super) gone: BTreeSet<BucketId>,
    /// Lookups, and whether they concern it now.
    pub(super) lookups: Vec<(LookupKey, bool)>,
}

impl Interest {
    /// Takes a change; what is left of it is what was not so before.
    pub(super) fn apply(&mut self, change: &mut InterestChange) {
        let gone = self.buckets.take(&change.gone);
        change.gone = gone.iter().map(|bucket| bucket.id().clone()).collect();
        change.come.retain(|bucket| !self.buckets.contains(bucket.id()));
        self.buckets.add(change.come.clone());
        change.lookups.retain(|(lookup, concerns)| set(&mut self.lookups, lookup, *concerns));
    }
}

/// Puts an item in or takes it out; whether that changes anything.
fn set<T: Ord + Clone>(items: &mut BTreeSet<T>, item: &T, is_in: bool) -> bool {
    if is_in { items.insert(item.clone()) } else { items.remove(item) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{DefinitionId, Generation};

    #[test]
    fn what_was_so_before_is_no_change() {
        let id = |number: usize| BucketId { definition: DefinitionId(1), parameters: format!("[{number}]").into() };
        let change = |come: &[usize], gone: &[usize]| InterestChange {
            come: come.iter().map(|number| SharedBucket::new(&id(*number), Generation(1))).collect(),
            gone: gone.iter().map(|number| id(*number)).collect(),
            lookups: Vec::new(),
        };
        let mut interest = Interest::default();
        let (mut first, mut second) = (change(&[2, 1], &[]), change(&[1], &[2, 3]));
        interest.apply(&mut first);
        assert_eq!(first.come.len(), 2);
        interest.apply(&mut second);
        assert_eq!((second.come.len(), second.gone), (0, [id(2)].into()));
        assert_eq!(interest.buckets.iter().map(|bucket| bucket.id().clone()).collect::<Vec<_>>(), [id(1)]);
    }
}
