//! Lines as JSON texts, each with its newline.

use std::ops::Range;

use super::DataHeader;
use crate::bucket::BucketPriority;
use crate::chunk::{Chunk, OperationRef};
use crate::json::{write_integer, write_string};
use crate::operation::{OpId, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, StreamDescription, StreamError, SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

pub(super) fn checkpoint(out: &mut Vec<u8>, line: &CheckpointLine) {
    out.extend_from_slice(b"{\"checkpoint\":{\"last_op_id\":");
    write_id(out, line.last_op_id);
    write_write_checkpoint(out, line.write_checkpoint);
    out.extend_from_slice(b",\"buckets\":");
    write_array(out, &line.buckets, write_bucket);
    out.extend_from_slice(b",\"streams\":");
    write_array(out, &line.streams, write_stream);
    out.extend_from_slice(b"}}\n");
}

pub(super) fn checkpoint_diff(out: &mut Vec<u8>, line: &CheckpointDiffLine) {
    out.extend_from_slice(b"{\"checkpoint_diff\":{\"last_op_id\":");
    write_id(out, line.last_op_id);
    write_write_checkpoint(out, line.write_checkpoint);
    out.extend_from_slice(b",\"removed_buckets\":");
    write_array(out, &line.removed_buckets, |out, name| write_string(out, name));
    out.extend_from_slice(b",\"updated_buckets\":");
    write_array(out, &line.updated_buckets, write_bucket);
    out.extend_from_slice(b"}}\n");
}

pub(super) fn complete(out: &mut Vec<u8>, last_op_id: OpId) {
    out.extend_from_slice(b"{\"checkpoint_complete\":{\"last_op_id\":");
    write_id(out, last_op_id);
    out.extend_from_slice(b"}}\n");
}

pub(super) fn partial_complete(out: &mut Vec<u8>, last_op_id: OpId, priority: BucketPriority) {
    out.extend_from_slice(b"{\"partial_checkpoint_complete\":{\"last_op_id\":");
    write_id(out, last_op_id);
    out.extend_from_slice(b",\"priority\":");
    write_integer(out, priority.0.into());
    out.extend_from_slice(b"}}\n");
}

pub(super) fn token_expires_in(out: &mut Vec<u8>, seconds: i32) {
    out.extend_from_slice(b"{\"token_expires_in\":");
    write_integer(out, seconds.into());
    out.extend_from_slice(b"}\n");
}

pub(super) fn operations(out: &mut Vec<u8>, chunk: &Chunk, range: Range<usize>, nested: bool) {
    out.reserve(expected_size(chunk, range.clone()));
    for (index, operation) in chunk.operations(range).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_operation(out, &operation, nested);
    }
}

pub(super) fn data(out: &mut Vec<u8>, header: DataHeader<'_>, chunks: &[(Chunk, Range<usize>)], nested: bool) {
    write_data_head(out, header);
    let start = out.len();
    for (chunk, range) in chunks {
        separate(out, start, range.is_empty());
        operations(out, chunk, range.clone(), nested);
    }
    write_data_tail(out, header);
}

pub(super) fn data_of_runs<B: AsRef<[u8]>>(out: &mut Vec<u8>, header: DataHeader<'_>, runs: &[B]) {
    out.reserve(runs.iter().map(|run| run.as_ref().len() + 1).sum::<usize>() + header.bucket.len() + 128);
    write_data_head(out, header);
    let start = out.len();
    for run in runs {
        separate(out, start, run.as_ref().is_empty());
        out.extend_from_slice(run.as_ref());
    }
    write_data_tail(out, header);
}

/// A comma between two runs.
fn separate(out: &mut Vec<u8>, start: usize, empty: bool) {
    if out.len() > start && !empty {
        out.push(b',');
    }
}

fn write_data_head(out: &mut Vec<u8>, header: DataHeader<'_>) {
    out.extend_from_slice(b"{\"data\":{\"bucket\":");
    write_string(out, header.bucket);
    out.extend_from_slice(b",\"after\":");
    write_id(out, header.after);
    out.extend_from_slice(if header.has_more { b",\"has_more\":true" } else { b",\"has_more\":false" });
    out.extend_from_slice(b",\"data\":[");
}

fn write_data_tail(out: &mut Vec<u8>, header: DataHeader<'_>) {
    out.extend_from_slice(b"],\"next_after\":");
    write_id(out, header.next_after);
    out.extend_from_slice(b"}}\n");
}

/// About what operations take: their bodies, a sixth more for escapes, and the field names.
fn expected_size(chunk: &Chunk, range: Range<usize>) -> usize {
    let bodies = chunk.body_size(range.clone());
    bodies + bodies / 6 + range.len() * 128
}

fn write_operation(out: &mut Vec<u8>, operation: &OperationRef<'_>, nested: bool) {
    out.extend_from_slice(b"{\"op_id\":");
    write_id(out, operation.op_id);
    out.extend_from_slice(match operation.kind {
        OperationKind::Put => b",\"op\":\"PUT\"".as_slice(),
        OperationKind::Remove => b",\"op\":\"REMOVE\"",
        OperationKind::Move => b",\"op\":\"MOVE\"",
        OperationKind::Clear => b",\"op\":\"CLEAR\"",
    });
    let of_a_row = matches!(operation.kind, OperationKind::Put | OperationKind::Remove);
    if of_a_row {
        out.extend_from_slice(b",\"object_type\":");
        write_string(out, operation.object_type);
        out.extend_from_slice(b",\"object_id\":");
        write_string(out, operation.object_id);
    }
    out.extend_from_slice(b",\"checksum\":");
    write_integer(out, super::wire_checksum(operation));
    if of_a_row && !operation.subkey.is_empty() {
        out.extend_from_slice(b",\"subkey\":");
        write_string(out, operation.subkey);
    }
    match operation.kind {
        OperationKind::Put if nested => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(operation.data.as_bytes());
        }
        OperationKind::Put => {
            out.extend_from_slice(b",\"data\":");
            write_string(out, operation.data);
        }
        OperationKind::Remove => out.extend_from_slice(b",\"data\":null"),
        OperationKind::Move | OperationKind::Clear if nested => out.extend_from_slice(b",\"data\":null"),
        OperationKind::Move | OperationKind::Clear => {}
    }
    out.push(b'}');
}

fn write_id(out: &mut Vec<u8>, id: OpId) {
    out.push(b'"');
    write_integer(out, id.0 as i64);
    out.push(b'"');
}

fn write_write_checkpoint(out: &mut Vec<u8>, write_checkpoint: Option<WriteCheckpoint>) {
    if let Some(WriteCheckpoint(number)) = write_checkpoint {
        out.extend_from_slice(b",\"write_checkpoint\":\"");
        write_integer(out, number);
        out.push(b'"');
    }
}

fn write_bucket(out: &mut Vec<u8>, bucket: &BucketDescription) {
    out.extend_from_slice(b"{\"bucket\":");
    write_string(out, &bucket.bucket);
    out.extend_from_slice(b",\"checksum\":");
    write_integer(out, bucket.checksum.signed().into());
    if let Some(count) = bucket.count {
        out.extend_from_slice(b",\"count\":");
        write_integer(out, i64::try_from(count).unwrap_or(i64::MAX));
    }
    out.extend_from_slice(b",\"priority\":");
    write_integer(out, bucket.priority.0.into());
    out.extend_from_slice(b",\"subscriptions\":");
    write_array(out, &bucket.subscriptions, |out, reason| {
        let (key, index) = match *reason {
            SubscriptionReason::Default(index) => (b"{\"default\":".as_slice(), index),
            SubscriptionReason::Subscription(index) => (b"{\"sub\":".as_slice(), index),
        };
        out.extend_from_slice(key);
        write_integer(out, index.into());
        out.push(b'}');
    });
    out.push(b'}');
}

fn write_stream(out: &mut Vec<u8>, stream: &StreamDescription) {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &stream.name);
    out.extend_from_slice(if stream.is_default { b",\"is_default\":true" } else { b",\"is_default\":false" });
    out.extend_from_slice(b",\"errors\":");
    write_array(out, &stream.errors, write_stream_error);
    out.push(b'}');
}

fn write_stream_error(out: &mut Vec<u8>, error: &StreamError) {
    out.extend_from_slice(b"{\"subscription\":");
    match error.subscription {
        None => out.extend_from_slice(b"\"default\""),
        Some(index) => write_integer(out, index.into()),
    }
    out.extend_from_slice(b",\"message\":");
    write_string(out, &error.message);
    out.push(b'}');
}

fn write_array<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}
