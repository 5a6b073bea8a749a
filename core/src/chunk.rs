//! Chunks: operations of one bucket, packed into one run of bytes that is written once and sliced without decoding.
//!
//! Layout (little-endian): `count u32`, then `count` entries of 24 bytes (`op_id u64, checksum u32, kind u8, type_len u8,
//! subkey_len u16, id_len u32, body_offset u32`), then the bodies: type, id, subkey and data, each without a separator; a
//! body ends where the next begins. A type longer than 255 bytes, or a subkey longer than 65 535, is refused when the
//! chunk is built.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::operation::{NewOperation, OpId, Operation, OperationKind};

const ENTRY: usize = 24;

/// Operations of one bucket in order of their ids, as bytes. Cloning copies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Chunk {
    bytes: Bytes,
    count: usize,
}

/// One operation inside a [`Chunk`], borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRef<'a> {
    /// Its position.
    pub op_id: OpId,
    /// What it does.
    pub kind: OperationKind,
    /// Its checksum.
    pub checksum: Checksum,
    /// The client's table; empty for MOVE and CLEAR.
    pub object_type: &'a str,
    /// The client's row id; empty for MOVE and CLEAR.
    pub object_id: &'a str,
    /// Tells apart source rows that yield one output row; empty for MOVE and CLEAR.
    pub subkey: &'a str,
    /// The row as JSON text; empty unless it is a PUT.
    pub data: &'a str,
}

impl TryFrom<Bytes> for Chunk {
    type Error = Error;
    fn try_from(bytes: Bytes) -> Result<Self> {
        Self::from_bytes(bytes)
    }
}

impl From<Chunk> for Bytes {
    fn from(chunk: Chunk) -> Self {
        chunk.bytes
    }
}

impl Chunk {
    /// Reads a chunk back, checking that every offset and text in it is sound.
    ///
    /// # Errors
    /// `Data` if the bytes are not a chunk.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let damaged = |what: &str| Error::data(format!("a chunk of operations is damaged: {what}"));
        let count = read_u32(&bytes, 0).ok_or_else(|| damaged("no header"))? as usize;
        let bodies = count
            .checked_mul(ENTRY)
            .and_then(|size| size.checked_add(4))
            .filter(|start| *start <= bytes.len())
            .ok_or_else(|| damaged("more entries than bytes"))?;
        std::str::from_utf8(&bytes[bodies..]).map_err(|_| damaged("text that is not UTF-8"))?;
        let chunk = Self { bytes, count };
        let mut before = OpId::ZERO;
        for index in 0..count {
            let operation = chunk.decode(index).ok_or_else(|| damaged("a bad entry"))?;
            if index > 0 && operation.op_id <= before {
                return Err(damaged("operations out of order"));
            }
            before = operation.op_id;
        }
        Ok(chunk)
    }

    /// The chunk as it is stored.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The id of the operation at `index`, without touching its body.
    pub fn op_id(&self, index: usize) -> Option<OpId> {
        (index < self.count).then(|| read_u64(&self.bytes, 4 + index * ENTRY).map(OpId)).flatten()
    }

    /// The first id.
    pub fn first_op(&self) -> Option<OpId> {
        self.op_id(0)
    }

    /// The last id.
    pub fn last_op(&self) -> Option<OpId> {
        self.op_id(self.count.wrapping_sub(1))
    }

    /// The checksum of the operation at `index`.
    pub fn checksum(&self, index: usize) -> Option<Checksum> {
        (index < self.count).then(|| read_u32(&self.bytes, 4 + index * ENTRY + 8).map(Checksum)).flatten()
    }

    /// The indexes of the operations with ids in `(after, upto]`, found by bisection.
    pub fn range(&self, after: OpId, upto: OpId) -> std::ops::Range<usize> {
        let first_above = |bound: OpId| {
            let (mut low, mut high) = (0, self.count);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.op_id(middle).is_some_and(|id| id <= bound) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let start = first_above(after);
        start..first_above(upto).max(start)
    }

    /// Count and sum of the operations with ids at or below `upto`, without touching their bodies.
    pub fn sum_upto(&self, upto: OpId) -> (u64, Checksum) {
        let range = self.range(OpId::ZERO, upto);
        let mut sum = Checksum::default();
        let count = range.len() as u64;
        for index in range {
            sum += self.checksum(index).unwrap_or_default();
        }
        (count, sum)
    }

    /// The operations of a range of indexes.
    pub fn operations(&self, range: std::ops::Range<usize>) -> impl DoubleEndedIterator<Item = OperationRef<'_>> {
        range.filter_map(|index| self.decode(index))
    }

    /// Bytes of the bodies in a range of indexes: about what they take on the wire.
    pub fn body_size(&self, range: std::ops::Range<usize>) -> usize {
        match (self.body_start(range.start), range.is_empty()) {
            (Some(start), false) => self.body_end(range.end - 1).unwrap_or(start) - start,
            _ => 0,
        }
    }

    fn body_start(&self, index: usize) -> Option<usize> {
        (index < self.count).then(|| read_u32(&self.bytes, 4 + index * ENTRY + 20).map(|at| at as usize)).flatten()
    }

    fn body_end(&self, index: usize) -> Option<usize> {
        if index + 1 < self.count { self.body_start(index + 1) } else { Some(self.bytes.len()) }
    }

    fn decode(&self, index: usize) -> Option<OperationRef<'_>> {
        if index >= self.count {
            return None;
        }
        let at = 4 + index * ENTRY;
        let type_len = usize::from(*self.bytes.get(at + 13)?);
        let subkey_len = usize::from(u16::from_le_bytes(self.bytes.get(at + 14..at + 16)?.try_into().ok()?));
        let id_len = read_u32(&self.bytes, at + 16)? as usize;
        let body = self.bytes.get(self.body_start(index)?..self.body_end(index)?)?;
        // The whole of the bodies was checked when the chunk was read; this only finds the borders of characters.
        let body = std::str::from_utf8(body).ok()?;
        let (object_type, rest) = body.split_at_checked(type_len)?;
        let (object_id, rest) = rest.split_at_checked(id_len)?;
        let (subkey, data) = rest.split_at_checked(subkey_len)?;
        Some(OperationRef {
            op_id: OpId(read_u64(&self.bytes, at)?),
            kind: OperationKind::from_number(*self.bytes.get(at + 12)?)?,
            checksum: Checksum(read_u32(&self.bytes, at + 8)?),
            object_type,
            object_id,
            subkey,
            data,
        })
    }
}

impl OperationRef<'_> {
    /// The operation with texts of its own.
    pub fn to_owned(&self) -> Operation {
        let text = |text: &str| (!text.is_empty()).then(|| ByteString::from(text));
        Operation {
            op_id: self.op_id,
            kind: self.kind,
            object_type: self.object_type.into(),
            object_id: self.object_id.into(),
            subkey: text(self.subkey),
            data: text(self.data),
            checksum: self.checksum,
        }
    }
}

/// Builds a [`Chunk`], operation by operation in order of their ids.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    entries: BytesMut,
    bodies: BytesMut,
    count: u32,
    last_op: OpId,
}

impl ChunkBuilder {
    /// An empty chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations it holds so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the chunk takes so far.
    pub fn size(&self) -> usize {
        4 + self.entries.len() + self.bodies.len()
    }

    /// Adds a new operation under the id that the store gave it.
    ///
    /// # Errors
    /// `Invalid` if a name is too long; the chunk is unchanged then.
    pub fn push_new(&mut self, op_id: OpId, operation: &NewOperation) -> Result<()> {
        let (kind, data) = match &operation.data {
            Some(data) => (OperationKind::Put, data.as_ref()),
            None => (OperationKind::Remove, &[][..]),
        };
        let data = std::str::from_utf8(data).map_err(|_| Error::internal("the data of an operation is not UTF-8"))?;
        self.push(OperationRef {
            op_id,
            kind,
            checksum: operation.checksum,
            object_type: &operation.object_type,
            object_id: &operation.object_id,
            subkey: &operation.subkey,
            data,
        })
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// `Invalid` if a name is too long; the chunk is unchanged then. `Internal` if its id does not follow the last.
    pub fn push(&mut self, operation: OperationRef<'_>) -> Result<()> {
        if self.count > 0 && operation.op_id <= self.last_op {
            return Err(Error::internal("operations must be added to a chunk in order"));
        }
        let too_long =
            |what: &str, limit: usize| Error::invalid(format!("{what} of an operation is longer than {limit} bytes"));
        let type_len =
            u8::try_from(operation.object_type.len()).map_err(|_| too_long("the table name", u8::MAX.into()))?;
        let subkey_len = u16::try_from(operation.subkey.len()).map_err(|_| too_long("the subkey", u16::MAX.into()))?;
        let body =
            u32::try_from(self.bodies.len()).map_err(|_| Error::internal("a chunk of operations exceeds 4 GiB"))?;
        let id_len = u32::try_from(operation.object_id.len()).map_err(|_| too_long("the id", u32::MAX as usize))?;
        self.entries.put_u64_le(operation.op_id.0);
        self.entries.put_u32_le(operation.checksum.0);
        self.entries.put_u8(operation.kind as u8);
        self.entries.put_u8(type_len);
        self.entries.put_u16_le(subkey_len);
        self.entries.put_u32_le(id_len);
        self.entries.put_u32_le(body);
        self.bodies.extend_from_slice(operation.object_type.as_bytes());
        self.bodies.extend_from_slice(operation.object_id.as_bytes());
        self.bodies.extend_from_slice(operation.subkey.as_bytes());
        self.bodies.extend_from_slice(operation.data.as_bytes());
        self.count += 1;
        self.last_op = operation.op_id;
        Ok(())
    }

    /// The chunk; the builder is empty afterwards.
    pub fn finish(&mut self) -> Chunk {
        let count = self.count;
        let bodies_start = 4 + self.entries.len();
        let mut bytes = BytesMut::with_capacity(bodies_start + self.bodies.len());
        bytes.put_u32_le(count);
        for entry in self.entries.chunks_exact(ENTRY) {
            bytes.extend_from_slice(&entry[..20]);
            let body = u32::from_le_bytes([entry[20], entry[21], entry[22], entry[23]]);
            bytes.put_u32_le(body.saturating_add(u32::try_from(bodies_start).unwrap_or(u32::MAX)));
        }
        bytes.extend_from_slice(&self.bodies);
        *self = Self::default();
        Chunk { bytes: bytes.freeze(), count: count as usize }
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(operations: &[(u64, String, String, String)]) -> Chunk {
        let mut builder = ChunkBuilder::new();
        for (op_id, object_type, object_id, data) in operations {
            builder
                .push(OperationRef {
                    op_id: OpId(*op_id),
                    kind: OperationKind::Put,
                    checksum: Checksum(*op_id as u32),
                    object_type,
                    object_id,
                    subkey: "k",
                    data,
                })
                .expect("short names");
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn a_chunk_reads_back_and_slices(
            texts in prop::collection::vec((".{0,9}", ".{0,9}", ".{0,40}"), 0..40),
            after in 0u64..90, upto in 0u64..90,
        ) {
            let operations: Vec<_> = texts
                .into_iter()
                .enumerate()
                .map(|(index, (a, b, c))| (index as u64 * 2 + 1, a, b, c))
                .collect();
            let chunk = Chunk::from_bytes(build(&operations).bytes().clone()).expect("sound");
            let read: Vec<_> = chunk
                .operations(chunk.range(OpId(after), OpId(upto)))
                .map(|op| (op.op_id.0, op.object_type.to_owned(), op.object_id.to_owned(), op.data.to_owned()))
                .collect();
            let wanted: Vec<_> =
                operations.iter().filter(|op| op.0 > after && op.0 <= upto).cloned().collect();
            prop_assert_eq!(read, wanted);
            let sum: u64 = operations.iter().filter(|op| op.0 <= upto).map(|op| op.0).sum();
            prop_assert_eq!(chunk.sum_upto(OpId(upto)).1, Checksum(sum as u32));
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(chunk) = Chunk::from_bytes(bytes.into()) {
                prop_assert_eq!(chunk.operations(0..chunk.len()).count(), chunk.len());
            }
        }
    }
}
