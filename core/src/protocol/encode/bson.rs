//! Lines as BSON documents.
//!
//! The length of a document stands before it, so it is written as zero and mended when the document ends. Types follow
//! what clients read: ids are strings, small numbers int32, a checksum that fits no int32 a double.

use std::ops::Range;

use super::DataHeader;
use crate::bucket::BucketPriority;
use crate::chunk::{Chunk, OperationRef};
use crate::json::write_integer;
use crate::operation::{OpId, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, StreamDescription, StreamError, SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;

pub(super) fn checkpoint(out: &mut Vec<u8>, line: &CheckpointLine) {
    write_line(out, b"checkpoint\0", |out| {
        write_id(out, b"last_op_id\0", line.last_op_id);
        write_write_checkpoint(out, line.write_checkpoint);
        write_documents(out, b"buckets\0", &line.buckets, write_bucket);
        write_documents(out, b"streams\0", &line.streams, write_stream);
    });
}

pub(super) fn checkpoint_diff(out: &mut Vec<u8>, line: &CheckpointDiffLine) {
    write_line(out, b"checkpoint_diff\0", |out| {
        write_id(out, b"last_op_id\0", line.last_op_id);
        write_write_checkpoint(out, line.write_checkpoint);
        write_key(out, ARRAY, b"removed_buckets\0");
        write_document(out, |out| {
            for (index, name) in line.removed_buckets.iter().enumerate() {
                write_index(out, STRING, index);
                write_text(out, name);
            }
        });
        write_documents(out, b"updated_buckets\0", &line.updated_buckets, write_bucket);
    });
}

pub(super) fn complete(out: &mut Vec<u8>, last_op_id: OpId) {
    write_line(out, b"checkpoint_complete\0", |out| write_id(out, b"last_op_id\0", last_op_id));
}

pub(super) fn partial_complete(out: &mut Vec<u8>, last_op_id: OpId, priority: BucketPriority) {
    write_line(out, b"partial_checkpoint_complete\0", |out| {
        write_id(out, b"last_op_id\0", last_op_id);
        write_number(out, b"priority\0", priority.0.into());
    });
}

pub(super) fn token_expires_in(out: &mut Vec<u8>, seconds: i32) {
    write_document(out, |out| write_number(out, b"token_expires_in\0", seconds.into()));
}

pub(super) fn operations(out: &mut Vec<u8>, chunk: &Chunk, range: Range<usize>) {
    out.reserve(expected_size(chunk, range.clone()));
    for operation in chunk.operations(range) {
        write_operation(out, &operation);
    }
}

pub(super) fn data(out: &mut Vec<u8>, header: DataHeader<'_>, chunks: &[(Chunk, Range<usize>)]) {
    out.reserve(chunks.iter().map(|(chunk, range)| expected_size(chunk, range.clone())).sum());
    write_data(out, header, |out| {
        let operations = chunks.iter().flat_map(|(chunk, range)| chunk.operations(range.clone()));
        for (index, operation) in operations.enumerate() {
            write_index(out, DOCUMENT, index);
            write_operation(out, &operation);
        }
    });
}

pub(super) fn data_of_runs<B: AsRef<[u8]>>(out: &mut Vec<u8>, header: DataHeader<'_>, runs: &[B]) {
    out.reserve(runs.iter().map(|run| run.as_ref().len() + run.as_ref().len() / 16).sum::<usize>() + 256);
    write_data(out, header, |out| {
        let mut index = 0;
        for run in runs {
            let mut rest = run.as_ref();
            // Each document begins with its own length; a run that is not what `operations` wrote ends the line early.
            while let Some(length) = rest.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize) {
                let Some((document, others)) = rest.split_at_checked(length).filter(|_| length > 4) else { break };
                write_index(out, DOCUMENT, index);
                out.extend_from_slice(document);
                rest = others;
                index += 1;
            }
        }
    });
}

fn write_data(out: &mut Vec<u8>, header: DataHeader<'_>, operations: impl FnOnce(&mut Vec<u8>)) {
    write_line(out, b"data\0", |out| {
        write_string(out, b"bucket\0", header.bucket);
        write_id(out, b"after\0", header.after);
        write_boolean(out, b"has_more\0", header.has_more);
        write_key(out, ARRAY, b"data\0");
        write_document(out, operations);
        write_id(out, b"next_after\0", header.next_after);
    });
}

/// About what operations take: their bodies and the field names.
fn expected_size(chunk: &Chunk, range: Range<usize>) -> usize {
    chunk.body_size(range.clone()) + range.len() * 144
}

fn write_operation(out: &mut Vec<u8>, operation: &OperationRef<'_>) {
    write_document(out, |out| {
        write_id(out, b"op_id\0", operation.op_id);
        write_string(out, b"op\0", operation.kind.name());
        let of_a_row = matches!(operation.kind, OperationKind::Put | OperationKind::Remove);
        if of_a_row {
            write_string(out, b"object_type\0", operation.object_type);
            write_string(out, b"object_id\0", operation.object_id);
        }
        let checksum = super::wire_checksum(operation);
        match i32::try_from(checksum) {
            Ok(checksum) => {
                write_key(out, INT32, b"checksum\0");
                out.extend_from_slice(&checksum.to_le_bytes());
            }
            Err(_) => {
                write_key(out, DOUBLE, b"checksum\0");
                out.extend_from_slice(&(checksum as f64).to_le_bytes());
            }
        }
        if of_a_row && !operation.subkey.is_empty() {
            write_string(out, b"subkey\0", operation.subkey);
        }
        match operation.kind {
            OperationKind::Put => write_string(out, b"data\0", operation.data),
            OperationKind::Remove => write_key(out, NULL, b"data\0"),
            OperationKind::Move | OperationKind::Clear => {}
        }
    });
}

fn write_bucket(out: &mut Vec<u8>, bucket: &BucketDescription) {
    write_string(out, b"bucket\0", &bucket.bucket);
    write_number(out, b"checksum\0", bucket.checksum.signed().into());
    if let Some(count) = bucket.count {
        write_number(out, b"count\0", i64::try_from(count).unwrap_or(i64::MAX));
    }
    write_number(out, b"priority\0", bucket.priority.0.into());
    write_documents(out, b"subscriptions\0", &bucket.subscriptions, |out, reason| match *reason {
        SubscriptionReason::Default(index) => write_number(out, b"default\0", index.into()),
        SubscriptionReason::Subscription(index) => write_number(out, b"sub\0", index.into()),
    });
}

fn write_stream(out: &mut Vec<u8>, stream: &StreamDescription) {
    write_string(out, b"name\0", &stream.name);
    write_boolean(out, b"is_default\0", stream.is_default);
    write_documents(out, b"errors\0", &stream.errors, write_stream_error);
}

fn write_stream_error(out: &mut Vec<u8>, error: &StreamError) {
    match error.subscription {
        None => write_string(out, b"subscription\0", "default"),
        Some(index) => write_number(out, b"subscription\0", index.into()),
    }
    write_string(out, b"message\0", &error.message);
}

fn write_write_checkpoint(out: &mut Vec<u8>, write_checkpoint: Option<WriteCheckpoint>) {
    if let Some(WriteCheckpoint(number)) = write_checkpoint {
        write_decimal(out, b"write_checkpoint\0", number);
    }
}

/// A document with one key, whose value is a document.
fn write_line(out: &mut Vec<u8>, key: &'static [u8], content: impl FnOnce(&mut Vec<u8>)) {
    write_document(out, |out| {
        write_key(out, DOCUMENT, key);
        write_document(out, content);
    });
}

fn write_documents<T>(out: &mut Vec<u8>, key: &'static [u8], items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    write_key(out, ARRAY, key);
    write_document(out, |out| {
        for (index, item) in items.iter().enumerate() {
            write_index(out, DOCUMENT, index);
            write_document(out, |out| write(out, item));
        }
    });
}

fn write_document(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    out.push(0);
    let length = out.len() - start;
    write_length(out, start, length);
}

/// Mends a length. One that fits no int32 cannot be stated in BSON; what stands there then is refused by every reader.
fn write_length(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 4].copy_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_le_bytes());
}

fn write_key(out: &mut Vec<u8>, kind: u8, key: &'static [u8]) {
    out.push(kind);
    out.extend_from_slice(key);
}

/// The key of an array's element.
fn write_index(out: &mut Vec<u8>, kind: u8, index: usize) {
    out.push(kind);
    write_integer(out, index as i64);
    out.push(0);
}

fn write_string(out: &mut Vec<u8>, key: &'static [u8], text: &str) {
    write_key(out, STRING, key);
    write_text(out, text);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let length = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn write_id(out: &mut Vec<u8>, key: &'static [u8], id: OpId) {
    write_decimal(out, key, id.0 as i64);
}

fn write_decimal(out: &mut Vec<u8>, key: &'static [u8], number: i64) {
    write_key(out, STRING, key);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write_integer(out, number);
    out.push(0);
    let length = out.len() - start - 4;
    write_length(out, start, length);
}

fn write_boolean(out: &mut Vec<u8>, key: &'static [u8], value: bool) {
    write_key(out, BOOLEAN, key);
    out.push(value.into());
}

/// An int32, or an int64 where that does not suffice.
fn write_number(out: &mut Vec<u8>, key: &'static [u8], number: i64) {
    match i32::try_from(number) {
        Ok(number) => {
            write_key(out, INT32, key);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Err(_) => {
            write_key(out, INT64, key);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}
