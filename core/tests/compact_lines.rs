//! Compact lines are what `docs/protocol.md` says: postcard values of these types, behind their length.
#![allow(clippy::unwrap_used)]

use serde::{Deserialize, Serialize};
use syncline_core::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, DataHeader, Framing, StreamDescription, StreamError,
    SubscriptionReason,
};
use syncline_core::{
    BucketPriority, Checksum, Chunk, ChunkBuilder, OpId, OperationKind, OperationRef, WriteCheckpoint,
};

// region: lines
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Line<'a> {
    Checkpoint {
        last_op_id: u64,
        write_checkpoint: Option<i64>,
        #[serde(borrow)]
        buckets: Vec<Bucket<'a>>,
        streams: Vec<Stream<'a>>,
    },
    CheckpointDiff {
        last_op_id: u64,
        write_checkpoint: Option<i64>,
        removed_buckets: Vec<&'a str>,
        updated_buckets: Vec<Bucket<'a>>,
    },
    Data {
        bucket: &'a str,
        operations: Vec<Operation<'a>>,
    },
    CheckpointComplete {
        last_op_id: u64,
    },
    PartialCheckpointComplete {
        last_op_id: u64,
        priority: u8,
    },
    TokenExpiresIn(i32),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bucket<'a> {
    name: &'a str,
    /// Little-endian, as that of an operation.
    checksum: [u8; 4],
    count: Option<u64>,
    priority: u8,
    subscriptions: Vec<Reason>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Reason {
    /// The index of a stream in the checkpoint.
    Default(u32),
    /// The index of a subscription in the request.
    Subscription(u32),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stream<'a> {
    name: &'a str,
    is_default: bool,
    #[serde(borrow)]
    errors: Vec<StreamProblem<'a>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StreamProblem<'a> {
    subscription: Option<u32>,
    message: &'a str,
}

/// `step` is what is added to the id of the operation before it in the line; the first is added to 0.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Operation<'a> {
    Put {
        step: u64,
        checksum: [u8; 4],
        #[serde(borrow)]
        table: Table<'a>,
        id: &'a str,
        subkey: &'a str,
        data: &'a str,
    },
    Remove {
        step: u64,
        checksum: [u8; 4],
        table: Table<'a>,
        id: &'a str,
        subkey: &'a str,
    },
    Move {
        step: u64,
        checksum: [u8; 4],
    },
    Clear {
        step: u64,
        checksum: [u8; 4],
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Table<'a> {
    /// Named for the first time in this line.
    New(&'a str),
    /// The one that was named in this line after so many others.
    Known(u32),
}
// endregion: lines

/// The line that these bytes are; it is written again as it was.
fn line_of(bytes: &[u8]) -> Line<'_> {
    let (length, value) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_le_bytes(*length) as usize, bytes.len());
    let (line, rest) = postcard::take_from_bytes(value).unwrap();
    assert!(rest.is_empty());
    assert_eq!(postcard::to_stdvec(&line).unwrap(), value);
    line
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn lines_about_checkpoints_are_postcard_values() {
    let bucket = |name: &'static str, subscriptions| BucketDescription {
        bucket: name.into(),
        checksum: Checksum(0xfffe_0304),
        count: Some(300),
        priority: BucketPriority(2),
        subscriptions,
    };
    let reasons = || vec![SubscriptionReason::Default(1), SubscriptionReason::Subscription(200)];
    let expected = |name, subscriptions| Bucket {
        name,
        checksum: [0x04, 0x03, 0xfe, 0xff],
        count: Some(300),
        priority: 2,
        subscriptions,
    };
    let expected_reasons = vec![Reason::Default(1), Reason::Subscription(200)];
    let problem = |subscription| StreamError { subscription, message: "größer".into() };
    let stream = StreamDescription {
        name: "lists".into(),
        is_default: true,
        errors: vec![problem(None), problem(Some(1 << 31))],
    };
    let checkpoint = CheckpointLine {
        last_op_id: OpId(i64::MAX as u64),
        write_checkpoint: Some(WriteCheckpoint(-300)),
        buckets: vec![bucket("a[]", reasons()), bucket("", vec![])],
        streams: vec![stream],
    };
    let bytes = encoded(|out| Framing::Compact.checkpoint(out, &checkpoint));
    let problem = |subscription| StreamProblem { subscription, message: "größer" };
    let expected_stream =
        Stream { name: "lists", is_default: true, errors: vec![problem(None), problem(Some(1 << 31))] };
    let expected_line = Line::Checkpoint {
        last_op_id: i64::MAX as u64,
        write_checkpoint: Some(-300),
        buckets: vec![expected("a[]", expected_reasons), expected("", vec![])],
        streams: vec![expected_stream],
    };
    assert_eq!(line_of(&bytes), expected_line);

    let diff = CheckpointDiffLine {
        last_op_id: OpId(1),
        write_checkpoint: None,
        updated_buckets: vec![BucketDescription { count: None, ..bucket("b", vec![]) }],
        removed_buckets: vec!["c".into(), "".into()],
    };
    let bytes = encoded(|out| Framing::Compact.checkpoint_diff(out, &diff));
    let expected_line = Line::CheckpointDiff {
        last_op_id: 1,
        write_checkpoint: None,
        removed_buckets: vec!["c", ""],
        updated_buckets: vec![Bucket { count: None, ..expected("b", vec![]) }],
    };
    assert_eq!(line_of(&bytes), expected_line);

    let bytes = encoded(|out| Framing::Compact.complete(out, OpId(128)));
    assert_eq!(line_of(&bytes), Line::CheckpointComplete { last_op_id: 128 });
    let bytes = encoded(|out| Framing::Compact.partial_complete(out, OpId(127), BucketPriority(200)));
    assert_eq!(line_of(&bytes), Line::PartialCheckpointComplete { last_op_id: 127, priority: 200 });
    for seconds in [i32::MIN, -1, 0, 3600] {
        let bytes = encoded(|out| Framing::Compact.token_expires_in(out, seconds.into()));
        assert_eq!(line_of(&bytes), Line::TokenExpiresIn(seconds));
    }
}

#[test]
fn a_data_line_names_each_table_once_and_steps_from_id_to_id() {
    let chunk = |first: u64, table: &str| -> Chunk {
        let mut builder = ChunkBuilder::new();
        for (step, kind) in [OperationKind::Put, OperationKind::Move, OperationKind::Remove, OperationKind::Clear]
            .into_iter()
            .enumerate()
        {
            let of_a_row = matches!(kind, OperationKind::Put | OperationKind::Remove);
            let operation = OperationRef {
                op_id: OpId(first + step as u64 * 300),
                kind,
                checksum: Checksum(7),
                object_type: if of_a_row { table } else { "" },
                object_id: if of_a_row { "id" } else { "" },
                subkey: if of_a_row { "key" } else { "" },
                data: if kind == OperationKind::Put { "{}" } else { "" },
            };
            builder.push(operation).unwrap();
        }
        builder.finish()
    };
    let chunks = [(chunk(1_000, "lists"), 0..4), (chunk(5_000, "todos"), 1..3), (chunk(9_000, "lists"), 0..1)];
    let header = DataHeader { bucket: "b[]", after: OpId(999), next_after: OpId(9_000), has_more: false };
    let bytes = encoded(|out| Framing::Compact.data(out, header, &chunks));
    let checksum = [7, 0, 0, 0];
    let (id, subkey, data) = ("id", "key", "{}");
    let operations = vec![
        Operation::Put { step: 1_000, checksum, table: Table::New("lists"), id, subkey, data },
        Operation::Move { step: 300, checksum },
        Operation::Remove { step: 300, checksum, table: Table::Known(0), id, subkey },
        Operation::Clear { step: 300, checksum },
        Operation::Move { step: 3_400, checksum },
        Operation::Remove { step: 300, checksum, table: Table::New("todos"), id, subkey },
        Operation::Put { step: 3_400, checksum, table: Table::Known(0), id, subkey, data },
    ];
    assert_eq!(line_of(&bytes), Line::Data { bucket: "b[]", operations });
}
