//! Reads that many streams make at once are made once: each is shared by whoever asks the same while it runs, and for a
//! while after.
//!
//! An update to a bucket of a thousand streams is so described and read once, not a thousand times. A key names the store's
//! generation, the bucket and the range; who may read a bucket is decided before, when a request is resolved (S7).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
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
/// Reads that are kept, and the bytes of their operations: a single row may be of many megabytes.
const READS: usize = 128;
const READ_BYTES: usize = 64 << 20;

type Pending<T> = Shared<BoxFuture<'static, Result<T>>>;

/// The reads of all streams of a service, each under the number of its store's generation.
pub(super) struct SharedReads {
    store: Arc<dyn BucketStore>,
    sums: Recent<(u32, OpId, BucketId), BucketChecksum>,
    reads: Recent<(u32, ReadRequest), OperationChunk>,
}

impl SharedReads {
    pub(super) fn new(store: Arc<dyn BucketStore>) -> Self {
        Self { store, sums: Recent::new(SUMS, usize::MAX, |_| 0), reads: Recent::new(READS, READ_BYTES, size) }
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
            sums.push(self.sums.get((generation.0, at, bucket.clone()), ask).await?);
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
            answers.push(self.reads.get((generation.0, request.clone()), ask).await?);
        }
        Ok(answers)
    }
}

fn size(answer: &OperationChunk) -> usize {
    answer.chunks.iter().map(|chunk| chunk.bytes().len()).sum()
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
    max_bytes: usize,
    size: fn(&T) -> usize,
    entries: Mutex<Entries<K, T>>,
}

struct Entries<K, T> {
    known: BTreeMap<K, Kept<T>>,
    order: VecDeque<K>,
    bytes: usize,
}

struct Kept<T> {
    answer: Pending<T>,
    /// Zero until it is there.
    bytes: usize,
}

impl<K: Ord, T> Entries<K, T> {
    fn forget_oldest(&mut self) -> bool {
        let Some(kept) = self.order.pop_front().and_then(|key| self.known.remove(&key)) else { return false };
        self.bytes -= kept.bytes;
        true
    }
}

impl<K: Ord + Clone, T: Clone> Recent<K, T> {
    fn new(capacity: usize, max_bytes: usize, size: fn(&T) -> usize) -> Self {
        let entries = Entries { known: BTreeMap::new(), order: VecDeque::new(), bytes: 0 };
        Self { capacity, max_bytes, size, entries: Mutex::new(entries) }
    }

    /// The answer, asked for once. An error is told to all who wait, and not kept.
    async fn get(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, Result<T>>) -> Result<T> {
        let pending = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            match entries.known.get(&key) {
                Some(kept) => kept.answer.clone(),
                None => {
                    let answer = ask().shared();
                    entries.known.insert(key.clone(), Kept { answer: answer.clone(), bytes: 0 });
                    entries.order.push_back(key.clone());
                    while entries.order.len() > self.capacity && entries.forget_oldest() {}
                    answer
                }
            }
        };
        let answer = pending.clone().await;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Entries { known, order, bytes } = &mut *entries;
        let Some(kept) = known.get_mut(&key).filter(|kept| kept.answer.ptr_eq(&pending)) else { return answer };
        match &answer {
            Ok(found) if kept.bytes == 0 => {
                kept.bytes = (self.size)(found);
                *bytes += kept.bytes;
                while entries.bytes > self.max_bytes && entries.forget_oldest() {}
            }
            Ok(_) => {}
            Err(_) => {
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
        let recent: Recent<u32, u32> = Recent::new(2, usize::MAX, |_| 0);
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

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let recent: Recent<u32, usize> = Recent::new(100, 1_000, |bytes| *bytes);
        let asked = AtomicU32::new(0);
        let get = |key: u32, bytes: usize| {
            let ask = || {
                asked.fetch_add(1, Ordering::Relaxed);
                async move { Ok(bytes) }.boxed()
            };
            assert_eq!(block_on(recent.get(key, ask)).ok(), Some(bytes));
            asked.load(Ordering::Relaxed)
        };
        assert_eq!((get(1, 400), get(2, 600), get(1, 400)), (1, 2, 2));
        assert_eq!(get(3, 1), 3);
        assert_eq!((get(2, 600), get(1, 400)), (3, 4), "the oldest made room");
        assert_eq!((get(4, 5_000), get(4, 5_000)), (5, 6), "what is too large is not kept at all");
    }
}
