//! A bucket that many streams may have, held once.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use bytestring::ByteString;

use crate::bucket::{BucketId, Generation};
use crate::shared_pool::{Pooled, SharedPool};

/// A bucket and its name on the wire. A handle: a further stream that has the bucket costs nothing for its texts.
#[derive(Debug, Clone)]
pub struct SharedBucket(Arc<Pooled<BucketKey, ByteString>>);

/// The store that a bucket is of, and the bucket.
type BucketKey = (Generation, BucketId);

impl SharedBucket {
    /// One that no other stream shares.
    pub fn new(id: &BucketId, generation: Generation) -> Self {
        let (key, name) = named(&(generation, id.clone()));
        Self(Arc::new(Pooled::alone(key, name)))
    }

    /// The bucket.
    pub fn id(&self) -> &BucketId {
        &self.0.key.1
    }

    /// Its name on the wire.
    pub fn name(&self) -> &ByteString {
        &self.0.value
    }
}

/// A bucket with its name: the parameters are the end of it, so that both are one text.
fn named((generation, id): &BucketKey) -> (BucketKey, ByteString) {
    let name = id.wire_name(*generation);
    let parameters = name.slice_ref(&name[name.len() - id.parameters.len()..]);
    ((*generation, BucketId { definition: id.definition, parameters }), name)
}

impl Borrow<BucketId> for SharedBucket {
    fn borrow(&self) -> &BucketId {
        self.id()
    }
}

impl PartialEq for SharedBucket {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SharedBucket {}

impl PartialOrd for SharedBucket {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SharedBucket {
    /// In the order of their ids: all buckets of a stream are of one store.
    fn cmp(&self, other: &Self) -> Ordering {
        self.id().cmp(other.id())
    }
}

/// The buckets of all streams of a service.
#[derive(Debug, Default)]
pub(super) struct SharedBuckets(SharedPool<BucketKey, ByteString>);

impl SharedBuckets {
    /// Those that other streams have, or new ones.
    pub(super) fn share(&self, keys: &[(Generation, BucketId)]) -> Vec<SharedBucket> {
        self.0.share(keys, named).into_iter().map(SharedBucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::DefinitionId;

    #[test]
    fn a_bucket_of_another_store_has_another_name() {
        let id = BucketId { definition: DefinitionId(1), parameters: "[2]".into() };
        let buckets = SharedBuckets::default();
        let shared = buckets.share(&[(Generation(1), id.clone()), (Generation(2), id.clone())]);
        assert_eq!(
            shared.iter().map(|bucket| &**bucket.name()).collect::<Vec<_>>(),
            ["00000001.1[2]", "00000002.1[2]"]
        );
        assert!(shared.iter().all(|bucket| *bucket.id() == id));
    }
}
