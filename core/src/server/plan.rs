//! What to read next for a checkpoint: priorities in order, several buckets at once, bounded bytes.

use super::wanted::TrackedBucket;
use crate::bucket::BucketPriority;
use crate::bucket_store::ReadRequest;
use crate::operation::OpId;

/// Buckets asked for at once.
const BUCKETS_PER_READ: usize = 16;

/// The next reads of the most urgent unfinished priority, and which tracked bucket each is for.
pub(super) fn next_reads(
    buckets: &[TrackedBucket],
    upto: OpId,
    max_bytes: usize,
) -> Option<(Vec<usize>, Vec<ReadRequest>)> {
    let priority = most_urgent_unfinished(buckets)?;
    let indexes: Vec<usize> = buckets
        .iter()
        .enumerate()
        .filter(|(_, bucket)| bucket.unfinished && bucket.wanted.priority == priority)
        .map(|(index, _)| index)
        .take(BUCKETS_PER_READ)
        .collect();
    let share = (max_bytes / indexes.len().max(1)).max(1);
    let reads = indexes
        .iter()
        .map(|&index| ReadRequest {
            bucket: buckets[index].wanted.id.clone(),
            after: buckets[index].sent,
            upto,
            max_bytes: share,
        })
        .collect();
    Some((indexes, reads))
}

/// The most urgent priority that has an unfinished bucket.
pub(super) fn most_urgent_unfinished(buckets: &[TrackedBucket]) -> Option<BucketPriority> {
    buckets.iter().filter(|bucket| bucket.unfinished).map(|bucket| bucket.wanted.priority).min()
}
