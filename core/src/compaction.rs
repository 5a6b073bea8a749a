//! Compaction of a bucket: which operations are superseded, and what they become.
//!
//! An operation with a later PUT or REMOVE of the same row becomes a MOVE, which keeps its id and checksum. The run of
//! operations before the first PUT that is left becomes one CLEAR with their sum, under the id of the last of them. So
//! every client ends up with the same rows and the same checksum, wherever it had stopped (S5).

use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest, Sha256};

use crate::checksum::Checksum;
use crate::chunk::{Chunk, ChunkBuilder, OperationRef};
use crate::error::Result;
use crate::operation::{OpId, OperationKind};

/// A map by a part of a digest, which is its own hash: no other is faster, or the same in every process. Only looked up.
#[allow(clippy::disallowed_types, reason = "its hasher is fixed")]
type DigestMap<T> = std::collections::HashMap<[u8; 16], T, BuildHasherDefault<DigestHasher>>;

#[derive(Debug, Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    // The length of the key, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One pass over a bucket, from its newest operation that may be compacted to its oldest.
#[derive(Debug, Default)]
pub struct Compactor {
    /// The newest operation of each row, by a hash of the row's type, id and subkey.
    newest: DigestMap<OpId>,
    oldest_put: Option<OpId>,
    max_rows: usize,
}

/// What a [`Compactor`] makes of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revised {
    /// The chunk with its superseded operations replaced; as it was if there were none.
    pub chunk: Chunk,
    /// The highest operation that superseded one of them now; zero if none was.
    pub target: OpId,
}

impl Compactor {
    /// A pass that remembers up to `max_rows` rows (about 40 bytes each). Older operations of further rows stay as they
    /// are.
    pub fn new(max_rows: usize) -> Self {
        Self { max_rows, ..Self::default() }
    }

    /// Replaces what is superseded in the next older chunk.
    ///
    /// # Errors
    /// `Internal` if the chunk cannot be written again.
    pub fn revise(&mut self, chunk: &Chunk) -> Result<Revised> {
        let mut superseded = vec![false; chunk.len()];
        let mut target = OpId::ZERO;
        for (index, operation) in chunk.operations(0..chunk.len()).enumerate().collect::<Vec<_>>().into_iter().rev() {
            if !matches!(operation.kind, OperationKind::Put | OperationKind::Remove) {
                continue;
            }
            let key = row_hash(&operation);
            if let Some(newest) = self.newest.get(&key) {
                superseded[index] = true;
                target = target.max(*newest);
                continue;
            }
            if self.newest.len() < self.max_rows {
                self.newest.insert(key, operation.op_id);
            }
            if operation.kind == OperationKind::Put {
                self.oldest_put = Some(operation.op_id);
            }
        }
        if target == OpId::ZERO {
            return Ok(Revised { chunk: chunk.clone(), target });
        }
        let mut builder = ChunkBuilder::new();
        for (operation, superseded) in chunk.operations(0..chunk.len()).zip(superseded) {
            builder.push(if superseded { bare(&operation, OperationKind::Move) } else { operation })?;
        }
        Ok(Revised { chunk: builder.finish(), target })
    }

    /// The oldest PUT that is left, among the chunks seen so far. After the pass, everything before it may be
    /// [cleared](LeadingRun).
    pub fn oldest_put(&self) -> Option<OpId> {
        self.oldest_put
    }
}

/// The operations of a bucket before the oldest PUT that is left: together they become one CLEAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeadingRun {
    /// The last of them, whose id the CLEAR gets.
    pub last_op: OpId,
    /// The bucket's running count up to it.
    pub count: u64,
    /// The sum of the bucket up to it: the checksum of the CLEAR.
    pub sum: Checksum,
}

impl LeadingRun {
    /// The run that ends within `boundary`: the chunk that holds the PUT, or the last chunk that may be compacted if
    /// there is no PUT. `count` and `sum` are the bucket's up to and including that chunk; `before` is the last
    /// operation of the chunk before it.
    pub fn find(
        boundary: &Chunk,
        oldest_put: Option<OpId>,
        (count, sum): (u64, Checksum),
        before: Option<OpId>,
    ) -> Option<Self> {
        let upto = OpId(oldest_put.map_or(u64::MAX, |put| put.0.saturating_sub(1)));
        let (inside, inside_sum) = boundary.sum_upto(upto);
        let (all, all_sum) = boundary.sum_upto(OpId(u64::MAX));
        let last_op = match usize::try_from(inside).ok()?.checked_sub(1) {
            Some(last) => boundary.op_id(last),
            None => before,
        };
        Some(Self { last_op: last_op?, count: count - (all - inside), sum: sum - (all_sum - inside_sum) })
    }

    /// The boundary with a CLEAR in place of the run.
    ///
    /// # Errors
    /// `Internal` if the chunk cannot be written again.
    pub fn clear(&self, boundary: &Chunk) -> Result<Chunk> {
        let mut builder = ChunkBuilder::new();
        builder.push(OperationRef {
            op_id: self.last_op,
            kind: OperationKind::Clear,
            checksum: self.sum,
            object_type: "",
            object_id: "",
            subkey: "",
            data: "",
        })?;
        for operation in boundary.operations(boundary.range(self.last_op, OpId(u64::MAX))) {
            builder.push(operation)?;
        }
        Ok(builder.finish())
    }
}

fn bare<'a>(operation: &OperationRef<'a>, kind: OperationKind) -> OperationRef<'a> {
    OperationRef { kind, object_type: "", object_id: "", subkey: "", data: "", ..*operation }
}

/// Wide enough that nobody finds two rows that share it: a collision would remove a row.
fn row_hash(operation: &OperationRef<'_>) -> [u8; 16] {
    let mut hash = Sha256::new();
    for text in [operation.object_type, operation.object_id, operation.subkey] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let digest = hash.finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}
