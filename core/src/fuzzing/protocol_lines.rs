//! Lines of a stream, as a client receives them from a server that it cannot trust.

use bytes::Bytes;

use crate::chunk::ChunkBuilder;
use crate::chunk::OperationRef;
use crate::error::ErrorKind;
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataHeader, DataLine, Framing, LineDecoder,
};

/// No input is as long as this.
const LIMIT: usize = 1 << 20;

/// A stream of JSON lines: read the same wherever it is cut; what is read can be written and read the same.
pub fn ndjson_lines(bytes: &[u8]) {
    lines(Framing::Ndjson, bytes);
}

/// The same for BSON documents.
pub fn bson_lines(bytes: &[u8]) {
    lines(Framing::Bson, bytes);
}

/// The same for compact lines.
pub fn compact_lines(bytes: &[u8]) {
    lines(Framing::Compact, bytes);
}

fn lines(framing: Framing, bytes: &[u8]) {
    let whole = decode(framing, bytes, bytes.len());
    for piece in [1, 7] {
        assert_eq!(decode(framing, bytes, piece), whole, "in pieces of {piece} bytes");
    }
    for line in whole.0 {
        let Some(line) = as_written(line) else { continue };
        for framing in [Framing::Ndjson, Framing::Bson, Framing::Compact] {
            let mut written = Vec::new();
            if encode(framing, &mut written, &line) {
                let read = decode(framing, &written, written.len());
                let expected = with_size(line.clone(), written.len());
                assert_eq!(read, (vec![expected], false), "as {framing:?}: {}", written.escape_ascii());
            }
        }
    }
}

/// All lines before the first that is refused, and whether one is.
fn decode(framing: Framing, bytes: &[u8], piece: usize) -> (Vec<ClientLine>, bool) {
    let mut decoder = LineDecoder::new(framing, LIMIT);
    let mut lines = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                    assert!(decoder.finish().is_err(), "nothing is read after an error");
                    return (lines, true);
                }
            }
        }
    }
    match decoder.finish() {
        Ok(line) => {
            lines.extend(line);
            (lines, false)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
            (lines, true)
        }
    }
}

/// The line without what no server writes; `None` for one that none of ours can write.
fn as_written(line: ClientLine) -> Option<ClientLine> {
    Some(match line {
        ClientLine::Unknown => return None,
        ClientLine::Checkpoint(line) => {
            let buckets = line.buckets.into_iter().map(counted).collect();
            ClientLine::Checkpoint(CheckpointLine { buckets, ..line })
        }
        ClientLine::CheckpointDiff(line) => {
            let updated_buckets = line.updated_buckets.into_iter().map(counted).collect();
            ClientLine::CheckpointDiff(CheckpointDiffLine { updated_buckets, ..line })
        }
        ClientLine::Data(line) => {
            let operations = line.operations.into_iter().map(of_kind).collect();
            ClientLine::Data(DataLine { operations, ..line })
        }
        ClientLine::TokenExpiresIn(seconds) => {
            ClientLine::TokenExpiresIn(seconds.clamp(i32::MIN.into(), i32::MAX.into()))
        }
        line => line,
    })
}

/// A count fits 63 bits.
fn counted(bucket: BucketDescription) -> BucketDescription {
    BucketDescription { count: bucket.count.map(|count| count.min(i64::MAX as u64)), ..bucket }
}

/// An operation without what its kind does not have.
fn of_kind(operation: Operation) -> Operation {
    let of_a_row = matches!(operation.kind, OperationKind::Put | OperationKind::Remove);
    Operation {
        object_type: if of_a_row { operation.object_type } else { Default::default() },
        object_id: if of_a_row { operation.object_id } else { Default::default() },
        subkey: operation.subkey.filter(|_| of_a_row),
        data: (operation.kind == OperationKind::Put).then(|| operation.data.unwrap_or_default()),
        ..operation
    }
}

fn with_size(line: ClientLine, size: usize) -> ClientLine {
    match line {
        ClientLine::Data(line) => ClientLine::Data(DataLine { size, ..line }),
        line => line,
    }
}

/// False if no server can have such a line: operations that are no chunk.
fn encode(framing: Framing, out: &mut Vec<u8>, line: &ClientLine) -> bool {
    match line {
        ClientLine::Checkpoint(line) => framing.checkpoint(out, line),
        ClientLine::CheckpointDiff(line) => framing.checkpoint_diff(out, line),
        ClientLine::CheckpointComplete { last_op_id } => framing.complete(out, *last_op_id),
        ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
            framing.partial_complete(out, *last_op_id, *priority);
        }
        ClientLine::TokenExpiresIn(seconds) => framing.token_expires_in(out, *seconds),
        ClientLine::Data(line) => {
            let mut builder = ChunkBuilder::new();
            for operation in &line.operations {
                let operation = OperationRef {
                    op_id: operation.op_id,
                    kind: operation.kind,
                    checksum: operation.checksum,
                    object_type: &operation.object_type,
                    object_id: &operation.object_id,
                    subkey: operation.subkey.as_deref().unwrap_or_default(),
                    data: operation.data.as_deref().unwrap_or_default(),
                };
                if builder.push(operation).is_err() {
                    return false;
                }
            }
            let chunk = builder.finish();
            let count = chunk.len();
            let header = DataHeader {
                bucket: &line.bucket,
                after: OpId::ZERO,
                next_after: chunk.last_op().unwrap_or_default(),
                has_more: false,
            };
            framing.data(out, header, &[(chunk, 0..count)]);
        }
        ClientLine::Unknown => return false,
    }
    true
}
