//! What concerns a stream: the buckets that it sends, what they were found by, and its client's write checkpoint.

use std::collections::BTreeSet;

use crate::bucket::BucketId;
use crate::checkpoint::LookupKey;

/// What concerns a member of the hub.
#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) buckets: BTreeSet<BucketId>,
    /// What the buckets were found by.
    pub(super) lookups: BTreeSet<LookupKey>,
}

/// How it changes.
#[derive(Debug, Default)]
pub(super) struct InterestChange {
    /// Buckets, and whether they concern it now.
    pub(super) buckets: Vec<(BucketId, bool)>,
    /// The same of lookups.
    pub(super) lookups: Vec<(LookupKey, bool)>,
}

impl Interest {
    /// Takes a change; what is left of it is what was not so before.
    pub(super) fn apply(&mut self, change: &mut InterestChange) {
        change.buckets.retain(|(bucket, concerns)| set(&mut self.buckets, bucket, *concerns));
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
    use crate::bucket::DefinitionId;

    #[test]
    fn what_was_so_before_is_no_change() {
        let bucket = |parameters| BucketId { definition: DefinitionId(1), parameters };
        let one = |is_in| InterestChange {
            buckets: vec![(bucket("[1]".into()), true), (bucket("[2]".into()), is_in)],
            lookups: Vec::new(),
        };
        let mut interest = Interest::default();
        let (mut first, mut second) = (one(true), one(false));
        interest.apply(&mut first);
        assert_eq!(first.buckets.len(), 2);
        interest.apply(&mut second);
        assert_eq!(second.buckets, [(bucket("[2]".into()), false)]);
        assert_eq!(interest.buckets, [bucket("[1]".into())].into());
    }
}
