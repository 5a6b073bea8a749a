//! Putting together the answer to a read request from the stored chunks of a bucket.

use crate::bucket_store::{OperationChunk, ReadRequest};
use crate::chunk::Chunk;
use crate::operation::OpId;

/// What a [`BucketStore`](crate::BucketStore) answers a [`ReadRequest`] with: it is given the bucket's chunks in order,
/// from the first whose last operation lies above `after`, until it has [enough](Self::wants).
#[derive(Debug)]
pub struct BucketRead {
    after: OpId,
    upto: OpId,
    max_bytes: usize,
    bytes: usize,
    answer: OperationChunk,
}

impl BucketRead {
    /// For this request, whose `upto` must be a published checkpoint.
    pub fn new(request: &ReadRequest) -> Self {
        Self {
            after: request.after,
            upto: request.upto,
            max_bytes: request.max_bytes,
            bytes: 0,
            answer: OperationChunk { chunks: Vec::new(), next_after: request.after, has_more: false, superseded: None },
        }
    }

    /// The checkpoint of the request is void: only one at or above `target` may be completed.
    pub fn supersede(&mut self, target: OpId) {
        self.answer.superseded = self.answer.superseded.max(Some(target));
    }

    /// Whether the next chunk, which begins with `first_op` and takes about `size` bytes, is to be loaded and
    /// [added](Self::add). If not, the answer is complete.
    pub fn wants(&mut self, first_op: OpId, size: usize) -> bool {
        if first_op > self.upto || self.answer.has_more {
            return false;
        }
        if !self.answer.chunks.is_empty() && self.bytes.saturating_add(size) > self.max_bytes {
            self.answer.has_more = true;
        }
        !self.answer.has_more
    }

    /// Adds the next chunk. `target` is the highest operation that superseded one of its operations, or zero.
    pub fn add(&mut self, chunk: Chunk, target: OpId) {
        let whole = chunk.range(self.after, self.upto);
        if whole.is_empty() {
            return;
        }
        let mut end = whole.end;
        let room = self.max_bytes.saturating_sub(self.bytes);
        if chunk.body_size(whole.clone()) > room {
            // The largest prefix that fits, but at least one operation.
            let (mut low, mut high) = (whole.start + 1, whole.end);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if chunk.body_size(whole.start..middle) <= room {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            end = low;
        }
        self.answer.has_more = end < whole.end;
        self.bytes += chunk.body_size(whole.start..end);
        if target > self.upto {
            self.supersede(target);
        }
        self.answer.next_after = chunk.op_id(end - 1).unwrap_or(self.upto);
        self.answer.chunks.push(chunk);
    }

    /// The answer.
    pub fn finish(mut self) -> OperationChunk {
        if !self.answer.has_more {
            self.answer.next_after = self.upto.max(self.after);
        }
        self.answer
    }
}
