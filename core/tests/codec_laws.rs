//! What is encoded is decoded the same, wherever its bytes are cut; and no bytes make the decoder panic.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use syncline_core::protocol::{
    BucketDescription, BucketPosition, CheckpointDiffLine, CheckpointLine, ClientLine, DataHeader, DataLine, Framing,
    LineDecoder, RequestedStreams, RequestedSubscription, StreamDescription, StreamError, SubscriptionReason,
    SyncRequest,
};
use syncline_core::{
    BucketId, BucketPriority, Checksum, ChunkBuilder, DefinitionId, DeployedConfig, DeployedDefinition, ErrorKind,
    Generation, LookupKey, OpId, OperationKind, OperationRef, Result, SourcePosition, WriteCheckpoint,
};

const FRAMINGS: [Framing; 4] = [Framing::Ndjson, Framing::NdjsonNested, Framing::Bson, Framing::Compact];

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
        } else if matches!(framing, Framing::Ndjson | Framing::NdjsonNested) && cut == bytes.len() - 1 {
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

/// What is stored is read back, and nothing else is stored alike.
fn stored<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(one: &T, other: &T) {
    let [one_bytes, other_bytes] = [one, other].map(|value| postcard::to_stdvec(value).unwrap());
    assert_eq!(postcard::from_bytes::<T>(&one_bytes).unwrap(), *one);
    assert_eq!(one_bytes == other_bytes, one == other);
}

fn bucket_id() -> impl Strategy<Value = BucketId> {
    let parameters = prop::collection::vec(
        prop_oneof![text().prop_map(serde_json::Value::from), any::<i64>().prop_map(Into::into)],
        0..3,
    );
    (0u32..20, parameters).prop_map(|(definition, parameters)| BucketId {
        definition: DefinitionId(definition),
        parameters: serde_json::Value::Array(parameters).to_string().into(),
    })
}

fn map() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        prop::num::f64::NORMAL.prop_map(Into::into),
        text().prop_map(Into::into),
        prop::collection::vec(text(), 0..3).prop_map(Into::into),
    ];
    prop::collection::vec((text(), value), 0..4).prop_map(|members| members.into_iter().collect())
}

fn request() -> impl Strategy<Value = SyncRequest> {
    let subscription = (text(), prop::option::of(map()), prop::option::of(any::<u8>())).prop_map(
        |(stream, parameters, override_priority)| RequestedSubscription { stream, parameters, override_priority },
    );
    let streams = (any::<bool>(), prop::collection::vec(subscription, 0..4))
        .prop_map(|(include_defaults, subscriptions)| RequestedStreams { include_defaults, subscriptions });
    let position = (text(), text()).prop_map(|(name, after)| BucketPosition { name, after });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let metadata = prop::collection::btree_map(text(), text(), 0..3);
    let rest = (prop::option::of(text()), map(), metadata, prop::option::of(streams));
    (prop::collection::vec(position, 0..4), flags, rest).prop_map(
        |(buckets, (include_checksum, raw_data, binary_data), (client_id, parameters, app_metadata, streams))| {
            SyncRequest {
                buckets,
                include_checksum,
                raw_data,
                binary_data,
                client_id,
                parameters,
                app_metadata,
                streams,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_request_reads_back(request in request()) {
        let text = serde_json::to_string(&request).unwrap();
        prop_assert_eq!(serde_json::from_str::<SyncRequest>(&text).unwrap(), request);
    }

    #[test]
    fn an_operation_id_is_its_decimal_text(id in any::<u64>(), text in "[+-]?[0-9]{0,20}") {
        let read = OpId::parse(&OpId(id).to_string());
        prop_assert_eq!(read, i64::try_from(id).is_ok().then_some(OpId(id)));
        if let Some(read) = OpId::parse(&text) {
            // Only zeros and a sign in front of the digits can be lost.
            let again = read.to_string();
            prop_assert_eq!(text.trim_start_matches(['+', '-', '0']), again.trim_start_matches('0'));
        }
    }

    #[test]
    fn stored_names_and_positions_read_back(
        one in (bucket_id(), prop::collection::vec(any::<u8>(), 0..9), 0u32..3),
        other in (bucket_id(), prop::collection::vec(any::<u8>(), 0..9), 0u32..3),
    ) {
        stored(&one.0, &other.0);
        let position = |bytes: &[u8]| SourcePosition(Bytes::copy_from_slice(bytes));
        stored(&position(&one.1), &position(&other.1));
        prop_assert_eq!(position(&one.1).cmp(&position(&other.1)), one.1.cmp(&other.1));
        // The bytes of a log's position, whose order is that of the numbers.
        let [a, b] = [&one, &other].map(|(_, bytes, _)| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)));
        prop_assert_eq!(position(&a.to_be_bytes()).cmp(&position(&b.to_be_bytes())), a.cmp(&b));
        let key = |(bucket, ..): &(BucketId, Vec<u8>, u32)| LookupKey { index: bucket.definition, values: bucket.parameters.clone() };
        stored(&key(&one), &key(&other));
        let config = |(bucket, _, number): &(BucketId, Vec<u8>, u32)| DeployedConfig {
            text: bucket.parameters.clone(),
            definitions: vec![DeployedDefinition { form: bucket.parameters.clone(), id: bucket.definition }; *number as usize],
        };
        stored(&config(&one), &config(&other));
        // No two buckets of any two stores share a name.
        let name = |(bucket, _, generation): &(BucketId, Vec<u8>, u32)| bucket.wire_name(Generation(*generation));
        prop_assert_eq!(name(&one) == name(&other), (&one.0, one.2) == (&other.0, other.2));
    }
}
