//! Frames are read as they were written, and keep the bytes that `docs/protocol.md` shows.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;
use syncline_core::protocol::SyncRequest;

use super::*;
use crate::hex::bytes_of;

fn request() -> impl Strategy<Value = Request> {
    let position = (".{0,9}", any::<u64>()).prop_map(|(bucket, after)| Position { bucket, after });
    let subscription = (".{0,9}", option::of(".{0,9}"), option::of(any::<u8>()))
        .prop_map(|(stream, parameters, priority)| Subscription { stream, parameters, priority });
    let streams = (any::<bool>(), vec(subscription, 0..3))
        .prop_map(|(include_defaults, subscriptions)| Streams { include_defaults, subscriptions });
    let metadata = btree_map(".{0,4}", ".{0,4}", 0..3);
    (vec(position, 0..4), option::of(".{0,9}"), ".{0,9}", metadata, option::of(streams)).prop_map(
        |(positions, client_id, parameters, metadata, streams)| Request {
            positions,
            client_id,
            parameters,
            metadata,
            streams,
        },
    )
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let call = any::<u32>();
    prop_oneof![
        (call, ".{0,30}", any::<u64>(), request()).prop_map(|(call, token, credit, request)| ClientFrame::Open {
            call,
            token,
            credit,
            request
        }),
        (call, ".{0,30}", option::of(".{0,9}")).prop_map(|(call, token, client_id)| ClientFrame::WriteCheckpoint {
            call,
            token,
            client_id
        }),
        (call, any::<u64>()).prop_map(|(call, bytes)| ClientFrame::Credit { call, bytes }),
        (call, ".{0,30}").prop_map(|(call, token)| ClientFrame::Token { call, token }),
        call.prop_map(|call| ClientFrame::Cancel { call }),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let call = any::<u32>();
    let bytes = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![
        call.prop_map(|call| ServerFrame::Opened { call }),
        (call, bytes()).prop_map(|(call, bytes)| ServerFrame::Lines { call, bytes }),
        (call, any::<u32>(), bytes()).prop_map(|(call, length, zstd)| ServerFrame::CompressedLines {
            call,
            length,
            zstd
        }),
        call.prop_map(|call| ServerFrame::Ended { call }),
        (call, any::<i64>()).prop_map(|(call, number)| ServerFrame::WriteCheckpoint { call, number }),
        call.prop_map(|call| ServerFrame::Renewed { call }),
        (call, ".{0,9}", ".{0,9}").prop_map(|(call, code, message)| ServerFrame::Failed { call, code, message }),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(ours in client_frame(), theirs in server_frame(), more in any::<u8>()) {
        let bytes = ours.encode().expect("a frame can be written");
        prop_assert_eq!(ClientFrame::decode(&bytes), Ok(ours));
        prop_assert_eq!(ClientFrame::decode(&[&bytes[..], &[more]].concat()), Err(FrameError::TooLong));
        prop_assert!(ClientFrame::decode(&bytes[..bytes.len() - 1]).is_err());
        let bytes = theirs.encode().expect("a frame can be written");
        prop_assert_eq!(ServerFrame::decode(&bytes), Ok(theirs));
        prop_assert_eq!(ServerFrame::decode(&[&bytes[..], &[more]].concat()), Err(FrameError::TooLong));
        prop_assert!(ServerFrame::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn frames_of_unknown_kinds_are_refused() {
    for kind in [5, 9, 0x7f] {
        assert!(ClientFrame::decode(&[kind, 1]).is_err());
    }
    for kind in [7, 9, 0x7f] {
        assert!(ServerFrame::decode(&[kind, 1]).is_err());
    }
}

#[test]
fn frames_have_the_bytes_that_are_documented() {
    let request = Request {
        positions: vec![Position { bucket: "b[]".to_owned(), after: 300 }],
        client_id: Some("c".to_owned()),
        parameters: "{}".to_owned(),
        metadata: BTreeMap::new(),
        streams: None,
    };
    let open = ClientFrame::Open { call: 1, token: "abc".to_owned(), credit: 65_536, request };
    assert_eq!(open.encode(), Ok(bytes_of("0001036162638080040103625b5dac02010163027b7d0000")));
    let credit = ClientFrame::Credit { call: 1, bytes: 32_768 };
    assert_eq!(credit.encode(), Ok(bytes_of("0201808002")));
    let lines = ServerFrame::Lines { call: 1, bytes: Bytes::from_static(&[7, 0, 0, 0, 3, 0x80, 1]) };
    assert_eq!(lines.encode(), Ok(bytes_of("01010707000000038001")));
    let number = ServerFrame::WriteCheckpoint { call: 2, number: 5 };
    assert_eq!(number.encode(), Ok(bytes_of("04020a")));
}

#[test]
fn a_request_keeps_what_it_asks_for() {
    let request: SyncRequest = serde_json::from_value(json!({
        "buckets": [{ "name": "a[\"ü\"]", "after": "9223372036854775807" }],
        "include_checksum": true,
        "raw_data": true,
        "binary_data": true,
        "client_id": "device",
        "parameters": { "b": [1, 2.5, null], "a": "text" },
        "app_metadata": { "version": "1" },
        "streams": {
            "include_defaults": false,
            "subscriptions": [
                { "stream": "s", "parameters": { "x": 1 }, "override_priority": 2 },
                { "stream": "t", "parameters": null, "override_priority": null },
            ],
        },
    }))
    .expect("a request");
    assert_eq!(Request::of(&request).and_then(Request::read).expect("it is sound"), request);
    let strange = SyncRequest {
        buckets: vec![syncline_core::protocol::BucketPosition { name: "a".to_owned(), after: "x".to_owned() }],
        ..SyncRequest::default()
    };
    assert!(Request::of(&strange).is_err());
    let broken = Request { parameters: "[]".to_owned(), ..Request::of(&request).expect("sound") };
    assert!(broken.read().is_err());
}
