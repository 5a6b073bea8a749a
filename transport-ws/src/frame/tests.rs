//! Frames held to what the official library makes of them, and to laws.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::hex::bytes_of;

const RECORDED: &str = include_str!("../../../core/tests/data/vectors/rsocket_frames.json");

fn recorded() -> Value {
    serde_json::from_str(RECORDED).unwrap()
}

fn number(fields: &Value, name: &str) -> u32 {
    u32::try_from(fields[name].as_u64().unwrap_or_else(|| panic!("{fields} has no {name}"))).unwrap()
}

/// The payload that recorded fields state; the flags say whether there is metadata.
fn payload_of(fields: &Value) -> Payload {
    let part = |name: &str| fields[name]["hex"].as_str().map(bytes_of);
    let has_metadata = number(fields, "flags") & u32::from(METADATA) != 0;
    Payload {
        metadata: has_metadata.then(|| part("metadata").unwrap_or_default()),
        data: part("data").unwrap_or_default(),
    }
}

/// The frame that recorded fields state.
fn frame_of(fields: &Value) -> Frame {
    let has = |flag: u16| number(fields, "flags") & u32::from(flag) != 0;
    let stream = number(fields, "streamId");
    match u8::try_from(number(fields, "type")).unwrap() {
        SETUP => Frame::Setup(Setup {
            version: (number(fields, "majorVersion") as u16, number(fields, "minorVersion") as u16),
            keepalive: number(fields, "keepAlive"),
            lifetime: number(fields, "lifetime"),
            resume_token: None,
            lease: false,
            metadata_type: fields["metadataMimeType"].as_str().unwrap().to_owned(),
            data_type: fields["dataMimeType"].as_str().unwrap().to_owned(),
            payload: payload_of(fields),
        }),
        KEEPALIVE => {
            let position = fields["lastReceivedPosition"].as_u64().unwrap();
            Frame::Keepalive { respond: has(RESPOND), position, data: payload_of(fields).data }
        }
        REQUEST_STREAM => {
            let payload = payload_of(fields);
            Frame::RequestStream { stream, initial: number(fields, "requestN"), follows: has(FOLLOWS), payload }
        }
        REQUEST_N => Frame::RequestN { stream, n: number(fields, "requestN") },
        CANCEL => Frame::Cancel { stream },
        PAYLOAD => Frame::Payload {
            stream,
            follows: has(FOLLOWS),
            complete: has(COMPLETE),
            next: has(NEXT),
            payload: payload_of(fields),
        },
        ERROR => {
            let message = fields["message"].as_str().unwrap().to_owned();
            Frame::Error { stream, code: ErrorCode(number(fields, "code")), message }
        }
        other => panic!("type {other} is not used"),
    }
}

#[test]
fn recorded_frames_are_read_and_written_byte_for_byte() {
    let recorded = recorded();
    let mut compared = 0;
    for case in recorded["frames"].as_array().unwrap() {
        let bytes = bytes_of(case["hex"].as_str().unwrap());
        let expected = frame_of(&case["fields"]);
        assert_eq!(Frame::decode(bytes.clone()).as_ref(), Ok(&expected), "{}", case["name"]);
        assert_eq!(expected.encode(), Ok(bytes), "{}", case["name"]);
        compared += 1;
    }
    assert!(compared >= 17, "only {compared} frames were compared");
}

#[test]
fn recorded_fragments_are_put_together() {
    let recorded = recorded();
    for (name, whole) in [("fragments_request_stream_64", 64), ("fragments_payload_48", 85)] {
        let mut reassembly = Reassembly::new(1_000, 1);
        let mut done = None;
        for fragment in recorded[name].as_array().unwrap() {
            assert_eq!(done, None, "{name}: the last fragment is the last");
            let frame = Frame::decode(bytes_of(fragment["hex"].as_str().unwrap())).unwrap();
            done = reassembly.push(frame).unwrap();
        }
        let (Frame::RequestStream { follows, payload, .. } | Frame::Payload { follows, payload, .. }) = done.unwrap()
        else {
            panic!("{name} is something else");
        };
        assert!(!follows);
        assert_eq!(payload.data.len(), whole, "{name}");
        if name == "fragments_request_stream_64" {
            assert_eq!(payload.metadata.as_deref(), Some(&b"{\"path\":\"/sync/stream\"}"[..]));
            assert!(serde_json::from_slice::<Value>(&payload.data).is_ok());
        }
        assert_eq!((reassembly.open(), reassembly.held()), (0, 0));
    }
}

#[test]
fn fragments_are_bounded_and_ordered() {
    let first = |stream, data: &'static [u8]| Frame::RequestStream {
        stream,
        initial: 1,
        follows: true,
        payload: Payload::of(Bytes::from_static(data)),
    };
    let part = |stream, follows, payload| Frame::Payload { stream, follows, complete: false, next: true, payload };
    let mut reassembly = Reassembly::new(4, 2);
    assert_eq!(reassembly.push(first(1, b"ab")), Ok(None));
    assert_eq!(reassembly.push(first(3, b"")), Ok(None));
    assert_eq!(reassembly.push(first(5, b"")), Err(FrameError::TooLarge), "a third stream");
    assert_eq!(reassembly.push(part(3, true, Payload::of(Bytes::from_static(b"cd")))), Ok(None));
    assert_eq!(reassembly.push(part(1, false, Payload::of(Bytes::from_static(b"e")))), Err(FrameError::TooLarge));

    let mut reassembly = Reassembly::new(10, 2);
    reassembly.push(first(1, b"ab")).unwrap();
    let late = Payload { metadata: Some(Bytes::new()), data: Bytes::new() };
    assert!(matches!(reassembly.push(part(1, true, late)), Err(FrameError::Malformed(_))), "metadata after data");
    assert!(matches!(reassembly.push(first(1, b"")), Err(FrameError::Malformed(_))), "another request amid it");
    assert_eq!(reassembly.push(Frame::RequestN { stream: 1, n: MAX_31 }), Ok(None));
    let whole = reassembly.push(part(1, false, Payload::default())).unwrap().unwrap();
    assert!(matches!(whole, Frame::RequestStream { initial: MAX_31, .. }), "grants add up, and no further");

    reassembly.push(first(1, b"ab")).unwrap();
    assert_eq!(reassembly.push(Frame::Cancel { stream: 1 }), Ok(Some(Frame::Cancel { stream: 1 })));
    assert_eq!((reassembly.open(), reassembly.held()), (0, 0), "a cancelled request is forgotten");
}

#[test]
fn what_breaks_the_rules_is_malformed() {
    for (hex, what) in [
        ("", "nothing"),
        ("0000000128", "half a header"),
        ("800000012840", "the reserved bit of a stream id"),
        ("000000002840", "a payload of no stream"),
        ("0000000020000000000a", "a grant for no stream"),
        ("000000010c800000000000000000", "a sign of life on a stream"),
        ("000000012000000000", "a grant cut off"),
        ("00000001292000000a00", "metadata cut off"),
        ("0000000005000001000000004e2000015f90ff", "a MIME type cut off"),
        ("0000000004000001000000004e2000015f9001ff0161", "a MIME type that is no ASCII"),
    ] {
        assert!(matches!(Frame::decode(bytes_of(hex)), Err(FrameError::Malformed(_))), "{what}");
    }
    let unknown = Frame::decode(bytes_of("00000000fe00")).unwrap();
    assert_eq!(unknown, Frame::Other { stream: 0, kind: 0x3f, ignorable: true });
    let long = Payload { metadata: Some(Bytes::from(vec![0; 1 << 24])), data: Bytes::new() };
    let frame = Frame::RequestStream { stream: 1, initial: 1, follows: false, payload: long };
    assert_eq!(frame.encode(), Err(FrameError::TooLarge));
}

fn content() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    (option::of(content()), content()).prop_map(|(metadata, data)| Payload { metadata, data })
}

fn frame() -> impl Strategy<Value = Frame> {
    let stream = 1..=MAX_31;
    let setup = (
        any::<(u16, u16)>(),
        any::<(u32, u32)>(),
        option::of(content()),
        any::<bool>(),
        "[ -~]{0,20}",
        "[ -~]{0,20}",
        payload(),
    );
    prop_oneof![
        setup.prop_map(|(version, (keepalive, lifetime), resume_token, lease, metadata_type, data_type, payload)| {
            Frame::Setup(Setup { version, keepalive, lifetime, resume_token, lease, metadata_type, data_type, payload })
        }),
        (any::<bool>(), any::<u64>(), content()).prop_map(|(respond, position, data)| Frame::Keepalive {
            respond,
            position,
            data
        }),
        (stream.clone(), any::<u32>(), any::<bool>(), payload())
            .prop_map(|(stream, initial, follows, payload)| Frame::RequestStream { stream, initial, follows, payload }),
        (stream.clone(), any::<u32>()).prop_map(|(stream, n)| Frame::RequestN { stream, n }),
        stream.clone().prop_map(|stream| Frame::Cancel { stream }),
        (stream.clone(), any::<[bool; 3]>(), payload()).prop_map(|(stream, [follows, complete, next], payload)| {
            Frame::Payload { stream, follows, complete, next, payload }
        }),
        (0..=MAX_31, any::<u32>(), ".{0,20}").prop_map(|(stream, code, message)| Frame::Error {
            stream,
            code: ErrorCode(code),
            message
        }),
        (0..=MAX_31, 0x0c_u8..0x40, any::<bool>()).prop_map(|(stream, kind, ignorable)| Frame::Other {
            stream,
            kind,
            ignorable
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(frame in frame()) {
        prop_assert_eq!(Frame::decode(frame.encode().unwrap()), Ok(frame));
    }

    #[test]
    fn any_bytes_are_a_frame_or_malformed(bytes in vec(any::<u8>(), 0..80)) {
        let _ = Frame::decode(Bytes::from(bytes));
    }

    #[test]
    fn damaged_frames_are_frames_or_malformed(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = frame.encode().unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Frame::decode(Bytes::from(bytes.clone())) {
            // Whatever it is, it can be written, and means the same.
            prop_assert_eq!(Frame::decode(read.encode().unwrap()), Ok(read));
        }
        bytes.truncate(at);
        let _ = Frame::decode(Bytes::from(bytes));
    }

    #[test]
    fn a_payload_survives_being_cut_anywhere(whole in payload(), cuts in vec(1_usize..20, 1..8), stream in 1..=MAX_31) {
        let mut reassembly = Reassembly::new(whole.len(), 1);
        let (mut metadata, mut data) = (whole.metadata.clone(), whole.data.clone());
        let mut done = None;
        for (index, cut) in cuts.iter().enumerate() {
            let last = index + 1 == cuts.len();
            let take = |bytes: &mut Bytes| if last { std::mem::take(bytes) } else { bytes.split_to((*cut).min(bytes.len())) };
            let part_metadata = metadata.as_mut().map(take);
            // Data begins when there is no more metadata.
            let rest = metadata.as_ref().map_or(0, Bytes::len);
            if rest == 0 {
                metadata = None;
            }
            let part_data = if rest == 0 { take(&mut data) } else { Bytes::new() };
            let payload = Payload { metadata: part_metadata, data: part_data };
            let frame = if index == 0 {
                Frame::RequestStream { stream, initial: 1, follows: !last, payload }
            } else {
                Frame::Payload { stream, follows: !last, complete: false, next: true, payload }
            };
            done = reassembly.push(frame).unwrap();
            prop_assert_eq!(done.is_some(), last);
        }
        prop_assert_eq!(done, Some(Frame::RequestStream { stream, initial: 1, follows: false, payload: whole }));
    }
}
