//! Encoders: lines as a server writes them, in each framing.
//!
//! Every function appends one complete line to a buffer: an NDJSON line with its newline, a BSON document, or a postcard value
//! behind its length. Nothing here can fail, and nothing allocates but the buffer.

mod bson;
mod compact;
mod ndjson;

use std::ops::Range;

use crate::bucket::BucketPriority;
use crate::chunk::{Chunk, OperationRef};
use crate::operation::{OpId, OperationKind};
use crate::protocol::{CheckpointDiffLine, CheckpointLine, Framing};

/// What a data line says beside its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader<'a> {
    /// The bucket's name.
    pub bucket: &'a str,
    /// The operations follow this id.
    pub after: OpId,
    /// The id of the last one.
    pub next_after: OpId,
    /// Whether more of the bucket may follow for the same checkpoint.
    pub has_more: bool,
}

impl Framing {
    /// Appends a `checkpoint` line.
    pub fn checkpoint(self, out: &mut Vec<u8>, line: &CheckpointLine) {
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::checkpoint(out, line),
            Self::Bson => bson::checkpoint(out, line),
            Self::Compact => compact::checkpoint(out, line),
        }
    }

    /// Appends a `checkpoint_diff` line.
    pub fn checkpoint_diff(self, out: &mut Vec<u8>, line: &CheckpointDiffLine) {
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::checkpoint_diff(out, line),
            Self::Bson => bson::checkpoint_diff(out, line),
            Self::Compact => compact::checkpoint_diff(out, line),
        }
    }

    /// Appends a `checkpoint_complete` line.
    pub fn complete(self, out: &mut Vec<u8>, last_op_id: OpId) {
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::complete(out, last_op_id),
            Self::Bson => bson::complete(out, last_op_id),
            Self::Compact => compact::complete(out, last_op_id),
        }
    }

    /// Appends a `partial_checkpoint_complete` line.
    pub fn partial_complete(self, out: &mut Vec<u8>, last_op_id: OpId, priority: BucketPriority) {
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::partial_complete(out, last_op_id, priority),
            Self::Bson => bson::partial_complete(out, last_op_id, priority),
            Self::Compact => compact::partial_complete(out, last_op_id, priority),
        }
    }

    /// Appends a `token_expires_in` line. What does not fit 32 bits is clamped, because clients read no more.
    pub fn token_expires_in(self, out: &mut Vec<u8>, seconds: i64) {
        let seconds = seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::token_expires_in(out, seconds),
            Self::Bson => bson::token_expires_in(out, seconds),
            Self::Compact => compact::token_expires_in(out, seconds),
        }
    }

    /// Appends the operations of a range of indexes as a *run*: the form in which they can be kept, shared by all
    /// clients of this framing, and put into lines by [`data_of_runs`](Self::data_of_runs).
    ///
    /// NDJSON: objects separated by commas, without one at either end. BSON: documents one after another. Compact: a chunk. Runs
    /// of one framing must not be joined by hand, nor used under another framing.
    pub fn operations(self, out: &mut Vec<u8>, chunk: &Chunk, range: Range<usize>) {
        match self {
            Self::Ndjson => ndjson::operations(out, chunk, range, false),
            Self::NdjsonNested => ndjson::operations(out, chunk, range, true),
            Self::Bson => bson::operations(out, chunk, range),
            Self::Compact => compact::operations(out, chunk, range),
        }
    }

    /// Appends a `data` line with the operations of ranges of chunks.
    ///
    /// A BSON document and a compact line hold less than 2 GiB; the caller keeps lines far below that (one MiB and one operation).
    pub fn data(self, out: &mut Vec<u8>, header: DataHeader<'_>, chunks: &[(Chunk, Range<usize>)]) {
        match self {
            Self::Ndjson => ndjson::data(out, header, chunks, false),
            Self::NdjsonNested => ndjson::data(out, header, chunks, true),
            Self::Bson => bson::data(out, header, chunks),
            Self::Compact => compact::data(out, header, chunks),
        }
    }

    /// Appends a `data` line with [runs](Self::operations) of the same framing; empty ones are skipped.
    pub fn data_of_runs<B: AsRef<[u8]>>(self, out: &mut Vec<u8>, header: DataHeader<'_>, runs: &[B]) {
        match self {
            Self::Ndjson | Self::NdjsonNested => ndjson::data_of_runs(out, header, runs),
            Self::Bson => bson::data_of_runs(out, header, runs),
            Self::Compact => compact::data_of_runs(out, header, runs),
        }
    }

    /// The content type of a response body in this framing, exactly as clients compare it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson | Self::NdjsonNested => "application/x-ndjson",
            Self::Bson => "application/vnd.powersync.bson-stream",
            Self::Compact => "application/vnd.syncline.compact-stream",
        }
    }
}

/// The checksum of an operation as the official service writes it: that of a CLEAR signed, like every sum.
fn wire_checksum(operation: &OperationRef<'_>) -> i64 {
    match operation.kind {
        OperationKind::Clear => operation.checksum.signed().into(),
        OperationKind::Put | OperationKind::Remove | OperationKind::Move => operation.checksum.0.into(),
    }
}
