//! Recorded lines: what the official service sends is read and encoded back to the same bytes, and what the official
//! client refuses is refused.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::Value as Json;
use syncline_core::protocol::{ClientLine, DataHeader, Framing, LineDecoder, SyncRequest};
use syncline_core::{BucketPriority, Checksum, ChunkBuilder, ErrorKind, OpId, OperationRef, Result};

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(framing: Framing, bytes: &[u8]) -> Result<Vec<ClientLine>> {
    let mut decoder = LineDecoder::new(framing, LineDecoder::DEFAULT_LIMIT);
    decoder.push(Bytes::copy_from_slice(bytes));
    let mut lines = Vec::new();
    while let Some(line) = decoder.next()? {
        lines.push(line);
    }
    lines.extend(decoder.finish()?);
    Ok(lines)
}

fn encode(framing: Framing, out: &mut Vec<u8>, line: &ClientLine, after: OpId) {
    match line {
        ClientLine::Checkpoint(line) => framing.checkpoint(out, line),
        ClientLine::CheckpointDiff(line) => framing.checkpoint_diff(out, line),
        ClientLine::CheckpointComplete { last_op_id } => framing.complete(out, *last_op_id),
        ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
            framing.partial_complete(out, *last_op_id, *priority);
        }
        ClientLine::TokenExpiresIn(seconds) => framing.token_expires_in(out, *seconds),
        ClientLine::Unknown => panic!("the official service sends no unknown line"),
        ClientLine::Data(data) => {
            let mut builder = ChunkBuilder::new();
            for operation in &data.operations {
                builder
                    .push(OperationRef {
                        op_id: operation.op_id,
                        kind: operation.kind,
                        checksum: operation.checksum,
                        object_type: &operation.object_type,
                        object_id: &operation.object_id,
                        subkey: operation.subkey.as_deref().unwrap_or_default(),
                        data: operation.data.as_deref().unwrap_or_default(),
                    })
                    .unwrap();
            }
            let chunk = builder.finish();
            let next_after = chunk.last_op().unwrap();
            let header = DataHeader { bucket: &data.bucket, after, next_after, has_more: false };
            framing.data(out, header, &[(chunk.clone(), 0..chunk.len())]);
        }
    }
}

fn vectors(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn recorded_sessions_come_back_byte_by_byte() {
    let sessions = vectors(include_str!("data/vectors/http_sessions.json"));
    let mut total = 0;
    for session in sessions["sessions"].as_array().unwrap() {
        let raw = session["request"]["body"]["raw_data"] == Json::Bool(true);
        let text = if raw { Framing::Ndjson } else { Framing::NdjsonNested };
        let lines = session["response"]["lines"].as_array().into_iter().flatten();
        let documents = session["response"]["documents"].as_array().into_iter().flatten();
        let recorded = lines
            .map(|line| (text, format!("{}\n", line.as_str().unwrap()).into_bytes(), line.as_str().unwrap().to_owned()))
            .chain(documents.map(|document| {
                (Framing::Bson, unhex(document["hex"].as_str().unwrap()), document["decoded"].to_string())
            }));
        for (framing, bytes, json) in recorded {
            let json: Json = serde_json::from_str(&json).unwrap();
            let after = json["data"]["after"].as_str().and_then(OpId::parse).unwrap_or_default();
            let lines = decode(framing, &bytes).unwrap();
            assert_eq!(lines.len(), 1);
            let mut back = Vec::new();
            encode(framing, &mut back, &lines[0], after);
            assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(&bytes));
            total += 1;
        }
    }
    assert!(total > 40, "{total} lines");
}

#[test]
fn lines_are_read_and_refused_like_the_official_client_does() {
    let scenarios = vectors(include_str!("data/vectors/client_core.json"));
    let mut refused = Vec::new();
    for scenario in scenarios["scenarios"].as_array().unwrap() {
        let name = scenario["name"].as_str().unwrap();
        for step in scenario["steps"].as_array().unwrap() {
            let text = match (&step["line"], step["control"].as_str()) {
                (Json::Null, Some("line_text")) => step["payload"].as_str().unwrap().to_owned(),
                (Json::Null, _) => continue,
                (line, _) => line.to_string(),
            };
            let read = decode(Framing::Ndjson, text.as_bytes());
            match step["error"].as_str() {
                Some(error) if error.contains("invalid text line") => match name {
                    // Two things that the official client cannot read, and this one can.
                    "error_object_data" | "error_escaped_top_level_key" => assert_eq!(read.unwrap().len(), 1),
                    _ => {
                        assert_eq!(read.unwrap_err().kind(), ErrorKind::Protocol, "{name}");
                        refused.push(name);
                    }
                },
                // The official client does not look into this line; a server always states the id.
                None if text == "{\"checkpoint_complete\":{}}" => assert!(read.is_err()),
                _ => assert_eq!(read.unwrap().len(), 1, "{name}: {text}"),
            }
            if let Some(hex) = step["bson_hex"].as_str() {
                let of_json = decode(Framing::Ndjson, text.as_bytes()).unwrap().into_iter();
                let of_bson = decode(Framing::Bson, &unhex(hex)).unwrap().into_iter();
                let without_size = |mut line| {
                    if let ClientLine::Data(data) = &mut line {
                        data.size = 0;
                    }
                    line
                };
                assert!(of_json.map(without_size).eq(of_bson.map(without_size)), "{text}");
            }
        }
    }
    assert_eq!(
        refused,
        [
            "error_two_top_level_keys",
            "error_number_op_id",
            "error_streams_without_errors",
            "error_checksum_too_big",
            "error_unknown_op",
            "error_fractional_token",
            "error_write_checkpoint_number",
            "error_op_id_above_i64",
            "error_negative_priority"
        ]
    );
}

#[test]
fn what_may_be_absent_may_be_null() {
    let short = r#"{"checkpoint":{"last_op_id":"1","buckets":[{"bucket":"a","checksum":4294967295}]}}"#;
    let nulls = r#"{"checkpoint":{"last_op_id":"1","write_checkpoint":null,"streams":null,"buckets":
        [{"bucket":"a","checksum":-1.0,"count":null,"priority":null,"subscriptions":null}]}}"#
        .replace('\n', " ");
    let read = decode(Framing::Ndjson, format!("\r\n{short}\r\n \n{nulls}").as_bytes()).unwrap();
    assert_eq!(read[0], read[1]);
    let ClientLine::Checkpoint(line) = &read[0] else { panic!("{read:?}") };
    assert_eq!(line.buckets[0].checksum, Checksum(u32::MAX));
    assert_eq!(line.buckets[0].priority, BucketPriority::DEFAULT);
    let text =
        r#"{"data":{"bucket":"a","data":[{"op_id":"1","op":"REMOVE","checksum":1,"object_type":null,"object_id":null,
        "subkey":null,"data":null}]}}"#
            .replace('\n', " ");
    let ClientLine::Data(line) = decode(Framing::Ndjson, text.as_bytes()).unwrap().remove(0) else { panic!() };
    assert_eq!((&*line.operations[0].object_id, &line.operations[0].data), ("", &None));
    for wrong in ["{}", "[]", "5", "null", "{\"a\":1}x", "{\"a\":1}{\"b\":2}", "{\"data\":{\"bucket\":\"a\"}}"] {
        assert!(decode(Framing::Ndjson, wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(decode(Framing::Bson, &[5, 0, 0, 0, 0]).is_err(), "a document without a key");
}

#[test]
fn requests_are_checked_like_the_official_service_does() {
    let cases = vectors(include_str!("data/vectors/http_small.json"));
    let mut seen = 0;
    for case in cases["cases"].as_array().unwrap() {
        let (Some("/sync/stream"), Some(body)) = (case["request"]["path"].as_str(), case["request"]["body"].as_str())
        else {
            continue;
        };
        let valid = serde_json::from_str::<SyncRequest>(body).is_ok();
        match case["name"].as_str().unwrap() {
            "invalid_json" | "validation" | "validation_before_auth" => assert!(!valid, "{body}"),
            // No JSON at all: refused by its content type or its size.
            "unsupported_content_type" | "body_too_large" => continue,
            // The official service refuses `"parameters":null`, although some SDKs send it.
            _ => assert!(valid, "{body}"),
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen} requests");
    for wrong in [
        r#"{"buckets":[{"name":"a","after":1}]}"#,
        r#"{"buckets":[{"name":"a"}]}"#,
        r#"{"buckets":{}}"#,
        r#"{"parameters":[]}"#,
        r#"{"app_metadata":{"a":1}}"#,
        r#"{"client_id":7}"#,
        r#"{"streams":{"subscriptions":[{"stream":1,"parameters":null,"override_priority":null}]}}"#,
    ] {
        assert!(serde_json::from_str::<SyncRequest>(wrong).is_err(), "{wrong}");
    }
    let sent = vectors(include_str!("data/vectors/client_requests.json"));
    let mut seen = 0;
    for request in sent["result"]["http"]["requests"].as_array().unwrap() {
        if request["url"] == "/sync/stream" {
            let body = match &request["body"] {
                Json::String(text) => text.clone(),
                body => body.to_string(),
            };
            let request: SyncRequest = serde_json::from_str(&body).unwrap();
            assert!(request.raw_data && request.client_id.is_some());
            seen += 1;
        }
    }
    assert!(seen > 0);
}
