//! Lines as postcard values, each behind its length: four bytes, little-endian, that count themselves.
//!
//! Postcard writes integers as varints, texts and sequences behind their length, and a variant as its number. So a line is the
//! value that `docs/protocol.md` states, written here without making it first: texts go straight from the store's chunks to the
//! line. Within a data line, ids are written as steps and a table's name only once.

use std::ops::Range;

use super::DataHeader;
use crate::bucket::BucketPriority;
use crate::chunk::{Chunk, ChunkBuilder, OperationRef};
use crate::operation::{OpId, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, StreamDescription, StreamError, SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

const CHECKPOINT: u8 = 0;
const CHECKPOINT_DIFF: u8 = 1;
const DATA: u8 = 2;
const COMPLETE: u8 = 3;
const PARTIAL_COMPLETE: u8 = 4;
const TOKEN_EXPIRES_IN: u8 = 5;

pub(super) fn checkpoint(out: &mut Vec<u8>, line: &CheckpointLine) {
    write_line(out, CHECKPOINT, |out| {
        write_number(out, line.last_op_id.0);
        write_write_checkpoint(out, line.write_checkpoint);
        write_each(out, &line.buckets, write_bucket);
        write_each(out, &line.streams, write_stream);
    });
}

pub(super) fn checkpoint_diff(out: &mut Vec<u8>, line: &CheckpointDiffLine) {
    write_line(out, CHECKPOINT_DIFF, |out| {
        write_number(out, line.last_op_id.0);
        write_write_checkpoint(out, line.write_checkpoint);
        write_each(out, &line.removed_buckets, |out, name| write_text(out, name));
        write_each(out, &line.updated_buckets, write_bucket);
    });
}

pub(super) fn complete(out: &mut Vec<u8>, last_op_id: OpId) {
    write_line(out, COMPLETE, |out| write_number(out, last_op_id.0));
}

pub(super) fn partial_complete(out: &mut Vec<u8>, last_op_id: OpId, priority: BucketPriority) {
    write_line(out, PARTIAL_COMPLETE, |out| {
        write_number(out, last_op_id.0);
        out.push(priority.0);
    });
}

pub(super) fn token_expires_in(out: &mut Vec<u8>, seconds: i32) {
    write_line(out, TOKEN_EXPIRES_IN, |out| write_signed(out, seconds.into()));
}

/// A run is a chunk: what stands in a line depends on what stands before it there.
pub(super) fn operations(out: &mut Vec<u8>, chunk: &Chunk, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    let mut builder = ChunkBuilder::new();
    for operation in chunk.operations(range) {
        // What was in a chunk fits into one.
        if builder.push(operation).is_err() {
            return;
        }
    }
    out.extend_from_slice(builder.finish().bytes());
}

pub(super) fn data(out: &mut Vec<u8>, header: DataHeader<'_>, chunks: &[(Chunk, Range<usize>)]) {
    out.reserve(chunks.iter().map(|(chunk, range)| chunk.body_size(range.clone()) + range.len() * 20).sum());
    write_line(out, DATA, |out| {
        write_text(out, header.bucket);
        write_number(out, chunks.iter().map(|(_, range)| range.len() as u64).sum());
        let (mut tables, mut before) = (Tables::default(), OpId::ZERO);
        for operation in chunks.iter().flat_map(|(chunk, range)| chunk.operations(range.clone())) {
            write_operation(out, &operation, before, &mut tables);
            before = operation.op_id;
        }
    });
}

pub(super) fn data_of_runs<B: AsRef<[u8]>>(out: &mut Vec<u8>, header: DataHeader<'_>, runs: &[B]) {
    let chunks = runs.iter().filter_map(|run| {
        let chunk = Chunk::from_bytes(bytes::Bytes::copy_from_slice(run.as_ref())).ok()?;
        let all = 0..chunk.len();
        Some((chunk, all))
    });
    data(out, header, &chunks.collect::<Vec<_>>());
}

/// The tables that a line has named so far.
#[derive(Debug, Default)]
struct Tables<'a>(Vec<&'a str>);

impl<'a> Tables<'a> {
    fn write(&mut self, out: &mut Vec<u8>, name: &'a str) {
        // Neighbours are mostly of one table, and there are few.
        match self.0.iter().position(|known| *known == name) {
            Some(index) => {
                out.push(1);
                write_number(out, index as u64);
            }
            None => {
                out.push(0);
                write_text(out, name);
                self.0.push(name);
            }
        }
    }
}

fn write_operation<'a>(out: &mut Vec<u8>, operation: &OperationRef<'a>, before: OpId, tables: &mut Tables<'a>) {
    out.push(operation.kind as u8);
    write_number(out, operation.op_id.0.wrapping_sub(before.0));
    out.extend_from_slice(&operation.checksum.0.to_le_bytes());
    if matches!(operation.kind, OperationKind::Put | OperationKind::Remove) {
        tables.write(out, operation.object_type);
        write_text(out, operation.object_id);
        write_text(out, operation.subkey);
    }
    if operation.kind == OperationKind::Put {
        write_text(out, operation.data);
    }
}

fn write_bucket(out: &mut Vec<u8>, bucket: &BucketDescription) {
    write_text(out, &bucket.bucket);
    out.extend_from_slice(&bucket.checksum.0.to_le_bytes());
    write_optional(out, bucket.count, write_number);
    out.push(bucket.priority.0);
    write_each(out, &bucket.subscriptions, |out, reason| {
        let (kind, index) = match *reason {
            SubscriptionReason::Default(index) => (0, index),
            SubscriptionReason::Subscription(index) => (1, index),
        };
        out.push(kind);
        write_number(out, index.into());
    });
}

fn write_stream(out: &mut Vec<u8>, stream: &StreamDescription) {
    write_text(out, &stream.name);
    out.push(stream.is_default.into());
    write_each(out, &stream.errors, |out, StreamError { subscription, message }| {
        write_optional(out, *subscription, |out, index| write_number(out, index.into()));
        write_text(out, message);
    });
}

fn write_write_checkpoint(out: &mut Vec<u8>, write_checkpoint: Option<WriteCheckpoint>) {
    write_optional(out, write_checkpoint, |out, WriteCheckpoint(number)| write_signed(out, number));
}

fn write_line(out: &mut Vec<u8>, kind: u8, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    content(out);
    // One that fits no 31 bits cannot be stated; what stands there then is refused by every reader.
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn write_each<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    write_number(out, items.len() as u64);
    for item in items {
        write(out, item);
    }
}

fn write_optional<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            write(out, value);
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn write_signed(out: &mut Vec<u8>, number: i64) {
    write_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
