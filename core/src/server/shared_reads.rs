//! Reads that many streams make at once are made once: each is shared by whoever asks the same while it runs, and for a
//! while after.
//!
//! An update to a bucket of a thousand streams is so described and read once, not a thousand times. A key names the store's
//! generation, the bucket and the range; who may read a bucket is decided before, when a request is resolved (S7).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt, Shared};

use crate::bucket::{BucketId, Generation};
use crate::bucket_store::{BucketStore, OperationChunk, ReadRequest};
use crate::checkpoint::BucketChecksum;
use crate::error::{Error, Result};
use crate::operation::OpId;

/// Requests for more buckets than this at once are one batch of the store, and not shared.
const SHARED_BUCKETS: usize = 4;
/// Sums that are kept.
const SUMS: usize = 4_096;
/// Reads that are kept; each holds at most what a stream reads at once.
const READS: usize = 128;

type Pending<T> = Shared<BoxFuture<'static, Result<T>>>;

/// The reads of all streams of a service.
pub(super) struct SharedReads {
    store: Arc<dyn BucketStore>,
    sums: Recent<(Generation, OpId, BucketId), BucketChecksum>,
    reads: Recent<(Generation, ReadRequest), OperationChunk>,
}

impl SharedReads {
    pub(super) fn new(store: Arc<dyn BucketStore>) -> Self {
        Self { store, sums: Recent::new(SUMS), reads: Recent::new(READS) }
    }

    /// As [`BucketStore::checksums`].
    pub(super) async fn checksums(
        &self,
        generation: Generation,
        at: OpId,
        buckets: &[BucketId],
    ) -> Result<Vec<BucketChecksum>> {
        if buckets.len() > SHARED_BUCKETS {
            return self.store.checksums(at, buckets).await;
        }
        let mut sums = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let ask = || {
                let (store, bucket) = (Arc::clone(&self.store), bucket.clone());
                async move { one(store.checksums(at, &[bucket]).await?) }.boxed()
            };
            sums.push(self.sums.get((generation, at, bucket.clone()), ask).await?);
        }
        Ok(sums)
    }

    /// As [`BucketStore::read`].
    pub(super) async fn read(&self, generation: Generation, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        if requests.len() > SHARED_BUCKETS {
            return self.store.read(requests).await;
        }
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let ask = || {
                let (store, request) = (Arc::clone(&self.store), request.clone());
                async move { one(store.read(&[request]).await?) }.boxed()
            };
            answers.push(self.reads.get((generation, request.clone()), ask).await?);
        }
        Ok(answers)
    }
}

fn one<T>(answers: Vec<T>) -> Result<T> {
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(answer), None) => Ok(answer),
        _ => Err(Error::internal("the bucket store must give one answer per request")),
    }
}

/// The most recent answers by their question, oldest forgotten first.
struct Recent<K, T> {
    capacity: usize,
    entries: Mutex<Entries<K, T>>,
}

struct Entries<K, T> {
    known: HashMap<K, Pending<T>>,
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, T: Clone> Recent<K, T> {
    fn new(capacity: usize) -> Self {
        let entries = Entries { known: HashMap::new(), order: VecDeque::new() };
        Self { capacity, entries: Mutex::new(entries) }
    }

    /// The answer, asked for once. An error is told to all who wait, and not kept.
    async fn get(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, Result<T>>) -> Result<T> {
        let pending = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let Entries { known, order } = &mut *entries;
            match known.get(&key) {
                Some(pending) => pending.clone(),
                None => {
                    let pending = ask().shared();
                    known.insert(key.clone(), pending.clone());
                    order.push_back(key.clone());
                    while order.len() > self.capacity {
                        if let Some(oldest) = order.pop_front() {
                            known.remove(&oldest);
                        }
                    }
                    pending
                }
            }
        };
        let answer = pending.clone().await;
        if answer.is_err() {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let Entries { known, order } = &mut *entries;
            if known.get(&key).is_some_and(|kept| kept.ptr_eq(&pending)) {
                known.remove(&key);
                order.retain(|kept| *kept != key);
            }
        }
        answer
    }
}

impl fmt::Debug for SharedReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReads").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_question_is_asked_once_and_an_error_again() {
        let recent: Recent<u32, u32> = Recent::new(2);
        let asked = AtomicU32::new(0);
        let ask = |answer: Result<u32>| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move { answer }.boxed()
        };
        let both = futures::future::join(recent.get(1, || ask(Ok(7))), recent.get(1, || ask(Ok(8))));
        assert_eq!(block_on(both).0.ok(), Some(7));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(block_on(recent.get(2, || ask(Err(Error::unavailable("away"))))).is_err());
        assert_eq!(block_on(recent.get(2, || ask(Ok(9)))).ok(), Some(9));
        assert_eq!(block_on(recent.get(3, || ask(Ok(10)))).ok(), Some(10));
        assert_eq!(block_on(recent.get(1, || ask(Ok(11)))).ok(), Some(11), "the oldest is forgotten");
    }
}
