//! What is encoded is decoded the same, wherever its bytes are cut; and no bytes make the decoder panic.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use syncline_core::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataHeader, DataLine, Framing, LineDecoder,
    StreamDescription, StreamError, SubscriptionReason,
};
use syncline_core::{
    BucketPriority, Checksum, ChunkBuilder, ErrorKind, OpId, OperationKind, OperationRef, Result, WriteCheckpoint,
};

const FRAMINGS: [Framing; 3] = [Framing::Ndjson, Framing::NdjsonNested, Framing::Bson];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[\\x00-\\x20\"\\\\/é\u{1F680}a]{0,40}"]
}

fn row() -> impl Strategy<Value = String> {
    prop::collection::vec(
        (text(), prop_oneof![text().prop_map(serde_json::Value::from), any::<i64>().prop_map(Into::into)]),
        0..6,
    )
    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect()).to_string())
}

fn op_id() -> impl Strategy<Value = OpId> {
    (0..=i64::MAX as u64).prop_map(OpId)
}

fn bucket() -> impl Strategy<Value = BucketDescription> {
    let reason = prop_oneof![
        any::<u32>().prop_map(SubscriptionReason::Default),
        any::<u32>().prop_map(SubscriptionReason::Subscription)
    ];
    let count = prop::option::of(prop_oneof![0..9u64, Just(1 << 40)]);
    (text(), any::<u32>(), count, any::<u8>(), prop::collection::vec(reason, 0..3)).prop_map(
        |(name, checksum, count, priority, subscriptions)| BucketDescription {
            bucket: name.into(),
            checksum: Checksum(checksum),
            count,
            priority: BucketPriority(priority),
            subscriptions,
        },
    )
}

fn stream() -> impl Strategy<Value = StreamDescription> {
    let error = (prop::option::of(any::<u32>()), text())
        .prop_map(|(subscription, message)| StreamError { subscription, message });
    (text(), any::<bool>(), prop::collection::vec(error, 0..3))
        .prop_map(|(name, is_default, errors)| StreamDescription { name, is_default, errors })
}

/// A data line as a server states it: operations in two chunks.
#[derive(Debug, Clone)]
struct Data {
    bucket: String,
    operations: Vec<(OperationKind, u32, [String; 3], String)>,
    cut: usize,
}

#[derive(Debug, Clone)]
enum Line {
    Plain(ClientLine),
    Data(Data),
}

fn data() -> impl Strategy<Value = Data> {
    let kind = prop_oneof![
        4 => Just(OperationKind::Put),
        1 => Just(OperationKind::Remove),
        1 => Just(OperationKind::Move),
        1 => Just(OperationKind::Clear)
    ];
    let operation = (kind, any::<u32>(), [text(), text(), text()], row());
    (text(), prop::collection::vec(operation, 0..25), 0..25usize).prop_map(|(bucket, operations, cut)| Data {
        bucket,
        cut: cut.min(operations.len()),
        operations,
    })
}

fn line() -> impl Strategy<Value = Line> {
    let write_checkpoint = || prop::option::of(any::<i64>().prop_map(WriteCheckpoint));
    let buckets = || prop::collection::vec(bucket(), 0..4);
    let checkpoint = (op_id(), write_checkpoint(), buckets(), prop::collection::vec(stream(), 0..3)).prop_map(
        |(last_op_id, write_checkpoint, buckets, streams)| {
            ClientLine::Checkpoint(CheckpointLine { last_op_id, write_checkpoint, buckets, streams })
        },
    );
    let diff = (op_id(), write_checkpoint(), buckets(), prop::collection::vec(text(), 0..14)).prop_map(
        |(last_op_id, write_checkpoint, updated_buckets, removed)| {
            let removed_buckets = removed.into_iter().map(Into::into).collect();
            ClientLine::CheckpointDiff(CheckpointDiffLine {
                last_op_id,
                write_checkpoint,
                updated_buckets,
                removed_buckets,
            })
        },
    );
    prop_oneof![
        checkpoint.prop_map(Line::Plain),
        diff.prop_map(Line::Plain),
        data().prop_map(Line::Data),
        op_id().prop_map(|last_op_id| Line::Plain(ClientLine::CheckpointComplete { last_op_id })),
        (op_id(), any::<u8>()).prop_map(|(last_op_id, priority)| {
            Line::Plain(ClientLine::PartialCheckpointComplete { last_op_id, priority: BucketPriority(priority) })
        }),
        any::<i32>().prop_map(|seconds| Line::Plain(ClientLine::TokenExpiresIn(seconds.into()))),
    ]
}

/// Encodes a line, and says what a client must read.
fn encode(framing: Framing, out: &mut Vec<u8>, line: &Line) -> ClientLine {
    let data = match line {
        Line::Data(data) => data,
        Line::Plain(line) => {
            match line {
                ClientLine::Checkpoint(line) => framing.checkpoint(out, line),
                ClientLine::CheckpointDiff(line) => framing.checkpoint_diff(out, line),
                ClientLine::CheckpointComplete { last_op_id } => framing.complete(out, *last_op_id),
                ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
                    framing.partial_complete(out, *last_op_id, *priority);
                }
                ClientLine::TokenExpiresIn(seconds) => framing.token_expires_in(out, *seconds),
                ClientLine::Data(_) | ClientLine::Unknown => unreachable!("not made here"),
            }
            return line.clone();
        }
    };
    let chunk = |range: std::ops::Range<usize>| {
        let mut builder = ChunkBuilder::new();
        for (index, (kind, checksum, [object_type, object_id, subkey], row)) in
            data.operations.iter().enumerate().take(range.end).skip(range.start)
        {
            let of_a_row = matches!(kind, OperationKind::Put | OperationKind::Remove);
            let text = |text: &'static str| text;
            let operation = OperationRef {
                op_id: OpId(index as u64 + 1),
                kind: *kind,
                checksum: Checksum(*checksum),
                object_type: if of_a_row { object_type } else { text("") },
                object_id: if of_a_row { object_id } else { text("") },
                subkey: if of_a_row { subkey } else { text("") },
                data: if *kind == OperationKind::Put { row } else { text("") },
            };
            builder.push(operation).unwrap();
        }
        builder.finish()
    };
    let chunks = [chunk(0..data.cut), chunk(data.cut..data.operations.len())];
    let header = DataHeader {
        bucket: &data.bucket,
        after: OpId::ZERO,
        next_after: OpId(data.operations.len() as u64),
        has_more: data.cut == 0,
    };
    let start = out.len();
    framing.data(out, header, &chunks.clone().map(|chunk| (chunk.clone(), 0..chunk.len())));
    let runs = chunks.each_ref().map(|chunk| {
        let mut run = Vec::new();
        framing.operations(&mut run, chunk, 0..chunk.len());
        run
    });
    let mut joined = Vec::new();
    framing.data_of_runs(&mut joined, header, &runs);
    assert_eq!(joined, out[start..]);
    let operations =
        chunks.iter().flat_map(|chunk| chunk.operations(0..chunk.len()).map(|operation| operation.to_owned()));
    ClientLine::Data(DataLine {
        bucket: data.bucket.as_str().into(),
        operations: operations.collect(),
        size: out.len() - start,
    })
}

/// All lines of bytes that arrive in pieces of these sizes.
fn decode(framing: Framing, limit: usize, bytes: &[u8], pieces: &[usize]) -> Result<Vec<ClientLine>> {
    let mut decoder = LineDecoder::new(framing, limit);
    let mut lines = Vec::new();
    let mut rest = bytes;
    let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(sizes.next().unwrap_or(usize::MAX).min(rest.len()));
        rest = others;
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(line) = decoder.next()? {
            lines.push(line);
        }
    }
    lines.extend(decoder.finish()?);
    Ok(lines)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_the_same(
        lines in prop::collection::vec(line(), 0..6),
        pieces in prop::collection::vec(prop_oneof![0..12usize, 0..900usize], 0..60),
        framing in prop::sample::select(&FRAMINGS[..]),
    ) {
        let mut bytes = Vec::new();
        let wanted: Vec<_> = lines.iter().map(|line| encode(framing, &mut bytes, line)).collect();
        let read = decode(framing, LineDecoder::DEFAULT_LIMIT, &bytes, &pieces);
        prop_assert_eq!(read.unwrap(), wanted);
    }

    #[test]
    fn damaged_lines_are_refused_without_a_panic(
        lines in prop::collection::vec(line(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in prop::collection::vec(0..300usize, 0..20),
        framing in prop::sample::select(&FRAMINGS[..]),
    ) {
        let mut bytes = Vec::new();
        for line in &lines {
            encode(framing, &mut bytes, line);
        }
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Err(error) = decode(framing, LineDecoder::DEFAULT_LIMIT, &bytes, &pieces) {
            prop_assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[{}\\[\\]\":,\\\\a-e0-9 \n]{0,200}".prop_map(String::into_bytes),
        ],
        framing in prop::sample::select(&FRAMINGS[..]),
    ) {
        if let Err(error) = decode(framing, 150, &bytes, &[]) {
            prop_assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn a_cut_stream_is_an_error(line in line(), cut in any::<prop::sample::Index>(), framing in prop::sample::select(&FRAMINGS[..])) {
        let mut bytes = Vec::new();
        let wanted = encode(framing, &mut bytes, &line);
        let cut = cut.index(bytes.len());
        let read = decode(framing, LineDecoder::DEFAULT_LIMIT, &bytes[..cut], &[]);
        if cut == 0 {
            prop_assert_eq!(read.unwrap(), []);
        } else if framing != Framing::Bson && cut == bytes.len() - 1 {
            let mut read = read.unwrap();
            if let ClientLine::Data(data) = &mut read[0] {
                data.size += 1;
            }
            prop_assert_eq!(read, [wanted]);
        } else {
            prop_assert_eq!(read.unwrap_err().kind(), ErrorKind::Protocol);
        }
    }
}

#[test]
fn a_line_beyond_the_limit_is_refused_before_it_ends() {
    for framing in FRAMINGS {
        let mut line = Vec::new();
        framing.complete(&mut line, OpId(1));
        for pieces in [vec![], vec![1; line.len()]] {
            let read = decode(framing, line.len(), &line.repeat(3), &pieces).unwrap();
            assert_eq!(read.len(), 3);
            let error = decode(framing, line.len() - 1, &line, &pieces).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }
    // A document that states a huge length is refused by its first bytes.
    let mut decoder = LineDecoder::new(Framing::Bson, 1000);
    decoder.push(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]));
    assert!(decoder.next().is_err());
    // After an error nothing is read any more.
    decoder.push(Bytes::from_static(&[5, 0, 0, 0, 0]));
    assert!(decoder.next().is_err());
    assert!(decoder.finish().is_err());
}

#[test]
fn documents_deeper_than_any_stack_are_stepped_over() {
    let mut document = vec![5, 0, 0, 0, 0];
    for _ in 0..20_000 {
        let length = (document.len() + 8) as i32;
        let mut outer = length.to_le_bytes().to_vec();
        outer.extend_from_slice(&[3, b'k', 0]);
        outer.extend_from_slice(&document);
        outer.push(0);
        document = outer;
    }
    assert_eq!(decode(Framing::Bson, LineDecoder::DEFAULT_LIMIT, &document, &[]).unwrap(), [ClientLine::Unknown]);
    for deep in ["[".repeat(100_000), "{\"k\":".repeat(100_000)] {
        assert!(decode(Framing::Ndjson, LineDecoder::DEFAULT_LIMIT, deep.as_bytes(), &[]).is_err());
        let known = format!("{{\"checkpoint\":{deep}");
        assert!(decode(Framing::Ndjson, LineDecoder::DEFAULT_LIMIT, known.as_bytes(), &[]).is_err());
    }
}
