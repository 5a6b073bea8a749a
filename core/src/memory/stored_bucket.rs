//! One bucket's operations, in memory.

use serde::{Deserialize, Serialize};

use crate::bucket_read::BucketRead;
use crate::bucket_store::{OperationChunk, ReadRequest};
use crate::checkpoint::BucketChecksum;
use crate::checksum::Checksum;
use crate::chunk::{Chunk, ChunkBuilder};
use crate::compaction::{Compactor, LeadingRun};
use crate::error::{Error, Result};
use crate::operation::OpId;

/// Chunks of up to this size are merged.
const MERGED: usize = 64 << 10;
/// Rows that one pass of compaction remembers.
const ROWS: usize = 1 << 20;

/// The chunks of a bucket, and how far they were compacted. [`MemoryBucketStore`](super::MemoryBucketStore) holds its buckets
/// in these; so may any store that keeps them in memory and makes them durable by other means.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StoredBucket {
    chunks: Vec<StoredChunk>,
    /// The id of the CLEAR at its start: the state below it is gone.
    cleared: OpId,
    /// Operations that CLEARs replaced, which the running count still contains.
    removed: u64,
    /// Its last operation when it was compacted.
    compacted: OpId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredChunk {
    chunk: Chunk,
    first_op: OpId,
    last_op: OpId,
    /// Operations and their sum up to and including this chunk.
    count: u64,
    sum: Checksum,
    /// The highest operation that superseded one of this chunk.
    target: OpId,
}

impl StoredBucket {
    /// Adds operations above all that it has.
    pub fn push(&mut self, chunk: Chunk) {
        let (Some(first_op), Some(last_op)) = (chunk.first_op(), chunk.last_op()) else { return };
        let (mut count, mut sum) = self.chunks.last().map_or_else(Default::default, |last| (last.count, last.sum));
        let (more, added) = chunk.sum_upto(last_op);
        count += more;
        sum += added;
        self.chunks.push(StoredChunk { chunk, first_op, last_op, count, sum, target: OpId::ZERO });
    }

    /// Count and sum of the operations at or below `at`.
    ///
    /// # Errors
    /// `Unavailable` if compaction removed what tells.
    pub fn checksum(&self, at: OpId) -> Result<BucketChecksum> {
        if at < self.cleared {
            return Err(Error::unavailable(format!("the state at {at} was compacted away, ask at a newer checkpoint")));
        }
        let next = self.chunks.partition_point(|stored| stored.last_op <= at);
        let (mut count, mut checksum) = match next.checked_sub(1) {
            Some(before) => (self.chunks[before].count - self.removed, self.chunks[before].sum),
            None => Default::default(),
        };
        if let Some(stored) = self.chunks.get(next) {
            let (more, added) = stored.chunk.sum_upto(at);
            // The first chunk's running count contains what its CLEAR replaced; its own operations do not.
            count += more;
            checksum += added;
        }
        Ok(BucketChecksum { count, checksum })
    }

    /// The answer to a request whose `upto` is a published checkpoint.
    pub fn read(&self, request: &ReadRequest) -> OperationChunk {
        let mut read = BucketRead::new(request);
        if request.upto < self.cleared {
            read.supersede(self.cleared);
        }
        let first = self.chunks.partition_point(|stored| stored.last_op <= request.after);
        for stored in &self.chunks[first..] {
            if !read.wants(stored.first_op, stored.chunk.body_size(0..stored.chunk.len())) {
                break;
            }
            read.add(stored.chunk.clone(), stored.target);
        }
        read.finish()
    }

    /// Compacts what lies at or below `published`. Returns how many operations were looked at, and the bytes freed.
    ///
    /// # Errors
    /// `Internal` if a chunk cannot be written again.
    pub fn compact(&mut self, published: OpId) -> Result<(u64, u64)> {
        let end = self.chunks.partition_point(|stored| stored.last_op <= published);
        let Some(newest) = end.checked_sub(1).map(|last| self.chunks[last].last_op) else { return Ok((0, 0)) };
        if newest <= self.compacted {
            return Ok((0, 0));
        }
        let size = |chunks: &[StoredChunk]| chunks.iter().map(|stored| stored.chunk.bytes().len() as u64).sum::<u64>();
        let mut old: Vec<StoredChunk> = self.chunks[..end].to_vec();
        let looked_at = old.iter().map(|stored| stored.chunk.len() as u64).sum();
        let before = size(&old);
        let mut compactor = Compactor::new(ROWS);
        for stored in old.iter_mut().rev() {
            let revised = compactor.revise(&stored.chunk)?;
            stored.chunk = revised.chunk;
            stored.target = stored.target.max(revised.target);
        }
        let removed = clear(&mut old, compactor.oldest_put(), self.removed)?;
        let merged = merge(old)?;
        let freed = before.saturating_sub(size(&merged));
        if let Some((cleared, more)) = removed {
            self.cleared = cleared;
            self.removed += more;
        }
        self.compacted = newest;
        self.chunks.splice(..end, merged);
        Ok((looked_at, freed))
    }
}

/// Replaces everything before the oldest PUT by one CLEAR. Returns its id and how many operations fewer there are.
fn clear(chunks: &mut Vec<StoredChunk>, oldest_put: Option<OpId>, removed: u64) -> Result<Option<(OpId, u64)>> {
    let boundary = match oldest_put {
        Some(put) => chunks.partition_point(|stored| stored.last_op < put),
        None => chunks.len() - 1,
    };
    let stored = &chunks[boundary];
    let before = boundary.checked_sub(1).map(|before| chunks[before].last_op);
    let Some(run) = LeadingRun::find(&stored.chunk, oldest_put, (stored.count, stored.sum), before) else {
        return Ok(None);
    };
    if run.count - removed < 2 {
        return Ok(None);
    }
    let chunk = run.clear(&stored.chunk)?;
    let target = chunks[..=boundary].iter().map(|stored| stored.target).max().unwrap_or_default();
    let cleared = StoredChunk { chunk, first_op: run.last_op, target, ..stored.clone() };
    chunks.splice(..=boundary, [cleared]);
    Ok(Some((run.last_op, run.count - removed - 1)))
}

/// Merges neighbours into chunks of a useful size.
fn merge(chunks: Vec<StoredChunk>) -> Result<Vec<StoredChunk>> {
    let mut merged: Vec<StoredChunk> = Vec::new();
    for stored in chunks {
        match merged.last_mut() {
            Some(last) if last.chunk.bytes().len() + stored.chunk.bytes().len() <= MERGED => {
                let mut builder = ChunkBuilder::new();
                for part in [&last.chunk, &stored.chunk] {
                    for operation in part.operations(0..part.len()) {
                        builder.push(operation)?;
                    }
                }
                *last = StoredChunk {
                    chunk: builder.finish(),
                    first_op: last.first_op,
                    target: last.target.max(stored.target),
                    ..stored
                };
            }
            _ => merged.push(stored),
        }
    }
    Ok(merged)
}
