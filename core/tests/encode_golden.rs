//! Recorded conversations of the official service: what is encoded must be the same, byte by byte.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use syncline_core::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, DataHeader, Framing, StreamDescription, SubscriptionReason,
};
use syncline_core::{BucketPriority, Checksum, ChunkBuilder, OpId, OperationKind, OperationRef, WriteCheckpoint};

fn id(json: &Json) -> OpId {
    OpId::parse(json.as_str().unwrap()).unwrap()
}

fn index(json: &Json) -> u32 {
    json.as_u64().unwrap() as u32
}

fn buckets(json: &Json) -> Vec<BucketDescription> {
    let reason = |json: &Json| match json.get("sub") {
        Some(sub) => SubscriptionReason::Subscription(index(sub)),
        None => SubscriptionReason::Default(index(&json["default"])),
    };
    json.as_array()
        .unwrap()
        .iter()
        .map(|json| BucketDescription {
            bucket: json["bucket"].as_str().unwrap().into(),
            checksum: Checksum::from_wire(json["checksum"].as_i64().unwrap()),
            count: json["count"].as_u64(),
            priority: BucketPriority(json["priority"].as_u64().unwrap() as u8),
            subscriptions: json["subscriptions"].as_array().unwrap().iter().map(reason).collect(),
        })
        .collect()
}

fn write_checkpoint(json: &Json) -> Option<WriteCheckpoint> {
    json["write_checkpoint"].as_str().map(|number| WriteCheckpoint(number.parse().unwrap()))
}

/// The texts of the nested rows of a data line, as they stand there: a parsed object would have lost the order.
fn nested_rows(line: &str) -> Vec<Option<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Line {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        data: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        data: Option<Box<RawValue>>,
    }
    serde_json::from_str::<Line>(line).map(|line| line.data.data.into_iter().map(|row| row.data).collect()).unwrap()
}

/// Encodes the line that `json` shows; data lines also as runs, which must give the same.
fn encode(framing: Framing, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let json: Json = serde_json::from_str(text).unwrap();
    let (key, json) = json.as_object().unwrap().iter().next().unwrap();
    match key.as_str() {
        "checkpoint" => {
            let streams = json["streams"].as_array().unwrap().iter().map(|json| StreamDescription {
                name: json["name"].as_str().unwrap().into(),
                is_default: json["is_default"].as_bool().unwrap(),
                errors: Vec::new(),
            });
            let line = CheckpointLine {
                last_op_id: id(&json["last_op_id"]),
                write_checkpoint: write_checkpoint(json),
                buckets: buckets(&json["buckets"]),
                streams: streams.collect(),
            };
            framing.checkpoint(&mut out, &line);
        }
        "checkpoint_diff" => {
            let line = CheckpointDiffLine {
                last_op_id: id(&json["last_op_id"]),
                write_checkpoint: write_checkpoint(json),
                updated_buckets: buckets(&json["updated_buckets"]),
                removed_buckets: Vec::new(),
            };
            framing.checkpoint_diff(&mut out, &line);
        }
        "checkpoint_complete" => framing.complete(&mut out, id(&json["last_op_id"])),
        "partial_checkpoint_complete" => framing.partial_complete(
            &mut out,
            id(&json["last_op_id"]),
            BucketPriority(json["priority"].as_u64().unwrap() as u8),
        ),
        "data" => {
            let mut builder = ChunkBuilder::new();
            let rows = nested_rows(text);
            for (operation, row) in json["data"].as_array().unwrap().iter().zip(&rows) {
                let nested = row.as_ref().filter(|_| operation["data"].is_object());
                let text = |key: &str| operation[key].as_str().unwrap_or_default();
                builder
                    .push(OperationRef {
                        op_id: id(&operation["op_id"]),
                        kind: OperationKind::from_name(text("op")).unwrap(),
                        checksum: Checksum::from_wire(operation["checksum"].as_i64().unwrap()),
                        object_type: text("object_type"),
                        object_id: text("object_id"),
                        subkey: text("subkey"),
                        data: nested.map_or(text("data"), |row| row.get()),
                    })
                    .unwrap();
            }
            let chunk = builder.finish();
            let header = DataHeader {
                bucket: json["bucket"].as_str().unwrap(),
                after: id(&json["after"]),
                next_after: id(&json["next_after"]),
                has_more: json["has_more"].as_bool().unwrap(),
            };
            for cut in 0..=chunk.len() {
                let ranges = [0..0, 0..cut, cut..chunk.len()];
                let parts: Vec<_> = ranges.iter().map(|range| (chunk.clone(), range.clone())).collect();
                let runs = ranges.map(|range| {
                    let mut run = Vec::new();
                    framing.operations(&mut run, &chunk, range);
                    run
                });
                out.clear();
                framing.data(&mut out, header, &parts);
                let mut joined = Vec::new();
                framing.data_of_runs(&mut joined, header, &runs);
                assert_eq!(joined, out);
            }
        }
        other => panic!("no such line: {other}"),
    }
    out
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn recorded_sessions_are_encoded_the_same() {
    let sessions: Json = serde_json::from_str(include_str!("data/vectors/http_sessions.json")).unwrap();
    let mut lines = 0;
    for session in sessions["sessions"].as_array().unwrap() {
        let raw = session["request"]["body"]["raw_data"] == Json::Bool(true);
        let framing = if raw { Framing::Ndjson } else { Framing::NdjsonNested };
        for line in session["response"]["lines"].as_array().into_iter().flatten() {
            let line = line.as_str().unwrap();
            let encoded = encode(framing, line);
            assert_eq!(String::from_utf8(encoded).unwrap(), format!("{line}\n"), "{}", session["name"]);
            lines += 1;
        }
        for document in session["response"]["documents"].as_array().into_iter().flatten() {
            let encoded = encode(Framing::Bson, &document["decoded"].to_string());
            assert_eq!(encoded, unhex(document["hex"].as_str().unwrap()), "{}", session["name"]);
            lines += 1;
        }
    }
    assert!(lines > 40, "{lines} lines");
}

#[test]
fn a_sign_of_life_is_a_whole_number_of_32_bits() {
    let mut out = Vec::new();
    Framing::Ndjson.token_expires_in(&mut out, 60);
    Framing::NdjsonNested.token_expires_in(&mut out, i64::MAX);
    assert_eq!(out, b"{\"token_expires_in\":60}\n{\"token_expires_in\":2147483647}\n");
    let mut out = Vec::new();
    Framing::Bson.token_expires_in(&mut out, 60);
    assert_eq!(out, unhex("1b00000010746f6b656e5f657870697265735f696e003c00000000"));
}
