//! Chunks as a store gives them back.

use bytes::Bytes;

use crate::chunk::{Chunk, ChunkBuilder};
use crate::operation::OpId;

/// Bytes of a store: they are refused, or they are a chunk that can be read, sliced, and built again.
pub fn stored_chunk(bytes: &[u8]) {
    let Ok(chunk) = Chunk::from_bytes(Bytes::copy_from_slice(bytes)) else { return };
    let operations: Vec<_> = chunk.operations(0..chunk.len()).collect();
    assert_eq!(operations.len(), chunk.len());
    let middle = operations.get(operations.len() / 2).map_or(OpId(7), |operation| operation.op_id);
    let (before, after) = (chunk.range(OpId::ZERO, middle), chunk.range(middle, OpId(u64::MAX)));
    assert_eq!(before.end, after.start, "the parts of a chunk join");
    let (count, _) = chunk.sum_upto(middle);
    assert_eq!(count, before.len() as u64);
    let sizes = chunk.body_size(before) + chunk.body_size(after);
    assert!(sizes <= bytes.len());

    let mut builder = ChunkBuilder::new();
    for operation in &operations {
        assert!(builder.push(*operation).is_ok(), "what was stored can be stored");
    }
    let again = builder.finish();
    assert!(again.operations(0..again.len()).eq(operations), "what was stored is stored again");
}
