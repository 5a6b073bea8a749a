//! What concerns a stream: the buckets that it sends, what they were found by, and its client's write checkpoint.

use crate::bucket::BucketId;
use crate::checkpoint::LookupKey;
use crate::write_checkpoint::ClientKey;

/// What concerns a member of the hub.
#[derive(Debug)]
pub(super) struct Interest {
    /// Sorted, each once.
    pub(super) buckets: Vec<BucketId>,
    /// What the buckets were found by: sorted, each once.
    pub(super) lookups: Vec<LookupKey>,
    pub(super) client: ClientKey,
}

impl Interest {
    pub(super) fn new(mut buckets: Vec<BucketId>, mut lookups: Vec<LookupKey>, client: ClientKey) -> Self {
        buckets.sort_unstable();
        buckets.dedup();
        lookups.sort_unstable();
        lookups.dedup();
        Self { buckets, lookups, client }
    }

    /// The buckets and lookups of this one that the other does not have.
    pub(super) fn beyond<'a>(&'a self, other: Option<&Self>) -> (Vec<&'a BucketId>, Vec<&'a LookupKey>) {
        let (buckets, lookups) = other.map_or((&[][..], &[][..]), |other| (&other.buckets, &other.lookups));
        (difference(&self.buckets, buckets), difference(&self.lookups, lookups))
    }
}

/// What is in one sorted list and not in another.
fn difference<'a, T: Ord>(one: &'a [T], other: &[T]) -> Vec<&'a T> {
    let mut rest = other.iter().peekable();
    let is_new = |item: &&T| {
        while rest.next_if(|known| *known < *item).is_some() {}
        rest.next_if(|known| *known == *item).is_none()
    };
    one.iter().filter(is_new).collect()
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_difference_of_sorted_lists() {
        assert_eq!(difference(&[1, 2, 4, 7], &[0, 2, 3, 7, 9]), [&1, &4]);
        assert_eq!(difference(&[1, 2], &[]), [&1, &2]);
        assert_eq!(difference(&[], &[1]), [&0; 0]);
    }
}
