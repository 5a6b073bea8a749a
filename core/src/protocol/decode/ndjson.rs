//! Reads a line that is a JSON text.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::json::read_string;
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, StreamDescription, StreamError,
    SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

/// Reads one line, with or without its newline.
pub(super) fn read(line: Bytes) -> Result<ClientLine> {
    let text = ByteString::try_from(line).map_err(|error| refused("it is not UTF-8").caused_by(error))?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    let wire = reader
        .deserialize_map(LineVisitor)
        .and_then(|wire| reader.end().map(|()| wire))
        .map_err(|error| Error::protocol("a line of the stream cannot be read").caused_by(error))?;
    Ok(match wire {
        LineWire::Checkpoint(wire) => ClientLine::Checkpoint(CheckpointLine {
            last_op_id: wire.last_op_id.0,
            write_checkpoint: wire.write_checkpoint.map(|number| WriteCheckpoint(number.0)),
            buckets: wire.buckets.into_iter().map(bucket).collect(),
            streams: wire.streams.unwrap_or_default().into_iter().map(stream).collect(),
        }),
        LineWire::CheckpointDiff(wire) => ClientLine::CheckpointDiff(CheckpointDiffLine {
            last_op_id: wire.last_op_id.0,
            write_checkpoint: wire.write_checkpoint.map(|number| WriteCheckpoint(number.0)),
            updated_buckets: wire.updated_buckets.into_iter().map(bucket).collect(),
            removed_buckets: wire.removed_buckets,
        }),
        LineWire::Data(wire) => ClientLine::Data(data(&text, wire)?),
        LineWire::Complete(wire) => ClientLine::CheckpointComplete { last_op_id: wire.last_op_id.0 },
        LineWire::PartialComplete(wire) => ClientLine::PartialCheckpointComplete {
            last_op_id: wire.last_op_id.0,
            priority: BucketPriority(wire.priority),
        },
        LineWire::TokenExpiresIn(seconds) => ClientLine::TokenExpiresIn(seconds),
        LineWire::Unknown => ClientLine::Unknown,
    })
}

fn refused(what: &str) -> Error {
    Error::protocol(format!("a line of the stream cannot be read: {what}"))
}

enum LineWire<'a> {
    Checkpoint(CheckpointWire),
    CheckpointDiff(CheckpointDiffWire),
    Data(DataWire<'a>),
    Complete(CompleteWire),
    PartialComplete(PartialCompleteWire),
    TokenExpiresIn(i64),
    Unknown,
}

#[derive(serde::Deserialize)]
struct CheckpointWire {
    last_op_id: IdWire,
    #[serde(default)]
    write_checkpoint: Option<NumberWire>,
    buckets: Vec<BucketWire>,
    #[serde(default)]
    streams: Option<Vec<StreamWire>>,
}

#[derive(serde::Deserialize)]
struct CheckpointDiffWire {
    last_op_id: IdWire,
    #[serde(default)]
    write_checkpoint: Option<NumberWire>,
    updated_buckets: Vec<BucketWire>,
    removed_buckets: Vec<ByteString>,
}

#[derive(serde::Deserialize)]
struct BucketWire {
    bucket: ByteString,
    checksum: ChecksumWire,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    priority: Option<u8>,
    #[serde(default)]
    subscriptions: Option<Vec<ReasonWire>>,
}

#[derive(serde::Deserialize)]
struct ReasonWire {
    #[serde(default)]
    default: Option<u32>,
    #[serde(default)]
    sub: Option<u32>,
}

#[derive(serde::Deserialize)]
struct StreamWire {
    name: String,
    is_default: bool,
    errors: Vec<StreamErrorWire>,
}

#[derive(serde::Deserialize)]
struct StreamErrorWire {
    subscription: SubscriptionWire,
    message: String,
}

#[derive(serde::Deserialize)]
struct CompleteWire {
    last_op_id: IdWire,
}

#[derive(serde::Deserialize)]
struct PartialCompleteWire {
    last_op_id: IdWire,
    priority: u8,
}

#[derive(serde::Deserialize)]
struct DataWire<'a> {
    #[serde(borrow)]
    bucket: TextWire<'a>,
    #[serde(borrow)]
    data: Vec<OperationWire<'a>>,
}

#[derive(serde::Deserialize)]
struct OperationWire<'a> {
    op_id: IdWire,
    op: KindWire,
    checksum: ChecksumWire,
    #[serde(borrow, default)]
    object_type: Option<TextWire<'a>>,
    #[serde(borrow, default)]
    object_id: Option<TextWire<'a>>,
    #[serde(borrow, default)]
    subkey: Option<TextWire<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// A text that is borrowed unless it holds escapes.
#[derive(serde::Deserialize)]
struct TextWire<'a>(#[serde(borrow)] Cow<'a, str>);

impl TextWire<'_> {
    fn slice(self, line: &ByteString) -> ByteString {
        match self.0 {
            Cow::Borrowed(text) => line.slice_ref(text),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// An operation id: a decimal string.
struct IdWire(OpId);

/// Another number that is a decimal string.
struct NumberWire(i64);

struct KindWire(OperationKind);

struct ChecksumWire(Checksum);

/// `"default"`, or the index of a subscription.
struct SubscriptionWire(Option<u32>);

fn bucket(wire: BucketWire) -> BucketDescription {
    let reason = |wire: ReasonWire| match (wire.default, wire.sub) {
        (Some(index), _) => Some(SubscriptionReason::Default(index)),
        (None, Some(index)) => Some(SubscriptionReason::Subscription(index)),
        // A reason of a newer protocol: it changes nothing about the bucket.
        (None, None) => None,
    };
    BucketDescription {
        bucket: wire.bucket,
        checksum: wire.checksum.0,
        count: wire.count,
        priority: wire.priority.map_or(BucketPriority::DEFAULT, BucketPriority),
        subscriptions: wire.subscriptions.unwrap_or_default().into_iter().filter_map(reason).collect(),
    }
}

fn stream(wire: StreamWire) -> StreamDescription {
    let error = |wire: StreamErrorWire| StreamError { subscription: wire.subscription.0, message: wire.message };
    StreamDescription {
        name: wire.name,
        is_default: wire.is_default,
        errors: wire.errors.into_iter().map(error).collect(),
    }
}

/// Where the data of an operation is.
enum DataPlace<'a> {
    Absent,
    /// A nested object, as it stands in the line.
    Line(&'a str),
    /// This far into the texts that were unescaped: from where the one before it ends.
    Unescaped(usize),
}

fn data(line: &ByteString, wire: DataWire<'_>) -> Result<DataLine> {
    // All data of the line is unescaped into one run of bytes, which the operations share.
    let mut unescaped = String::with_capacity(line.len());
    let mut places = Vec::with_capacity(wire.data.len());
    for operation in &wire.data {
        places.push(match operation.data.map(RawValue::get) {
            None => DataPlace::Absent,
            Some(text) if text.starts_with('{') => DataPlace::Line(text),
            Some(text) => {
                read_string(&mut unescaped, text)
                    .ok_or_else(|| refused("the data of an operation is neither a string nor an object"))?;
                DataPlace::Unescaped(unescaped.len())
            }
        });
    }
    let mut unescaped = ByteString::from(unescaped);
    let mut taken = 0;
    let operations = wire.data.into_iter().zip(places).map(|(operation, place)| Operation {
        op_id: operation.op_id.0,
        kind: operation.op.0,
        object_type: operation.object_type.map(|text| text.slice(line)).unwrap_or_default(),
        object_id: operation.object_id.map(|text| text.slice(line)).unwrap_or_default(),
        subkey: operation.subkey.map(|text| text.slice(line)).filter(|subkey| !subkey.is_empty()),
        data: match place {
            DataPlace::Absent => None,
            DataPlace::Line(text) => Some(line.slice_ref(text)),
            DataPlace::Unescaped(end) => {
                let (text, rest) = unescaped.split_at(end - taken);
                unescaped = rest;
                taken = end;
                Some(text)
            }
        },
        checksum: operation.checksum.0,
    });
    let operations = operations.collect();
    Ok(DataLine { bucket: wire.bucket.slice(line), operations, size: line.len() })
}

/// An object with exactly one key.
struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = LineWire<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with exactly one key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some(key) = map.next_key::<TextWire<'de>>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let line = match &*key.0 {
            "checkpoint" => LineWire::Checkpoint(map.next_value()?),
            "checkpoint_diff" => LineWire::CheckpointDiff(map.next_value()?),
            "data" => LineWire::Data(map.next_value()?),
            "checkpoint_complete" => LineWire::Complete(map.next_value()?),
            "partial_checkpoint_complete" => LineWire::PartialComplete(map.next_value()?),
            "token_expires_in" => LineWire::TokenExpiresIn(map.next_value()?),
            _ => {
                map.next_value::<IgnoredAny>()?;
                LineWire::Unknown
            }
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(line),
            Some(IgnoredAny) => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

impl<'de> Deserialize<'de> for IdWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextWire::deserialize(deserializer)?;
        OpId::parse(&text.0)
            .map(Self)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text.0), &"an operation id of 63 bits"))
    }
}

impl<'de> Deserialize<'de> for NumberWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextWire::deserialize(deserializer)?;
        text.0
            .parse()
            .map(Self)
            .map_err(|_| D::Error::invalid_value(Unexpected::Str(&text.0), &"a whole number of 64 bits"))
    }
}

impl<'de> Deserialize<'de> for KindWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextWire::deserialize(deserializer)?;
        OperationKind::from_name(&text.0)
            .map(Self)
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text.0), &"PUT, REMOVE, MOVE or CLEAR"))
    }
}

impl<'de> Deserialize<'de> for ChecksumWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChecksumVisitor;

        impl Visitor<'_> for ChecksumVisitor {
            type Value = ChecksumWire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 32 bits")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ChecksumWire, E> {
                super::checksum(number)
                    .map(ChecksumWire)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ChecksumWire, E> {
                i64::try_from(number)
                    .ok()
                    .and_then(super::checksum)
                    .map(ChecksumWire)
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<ChecksumWire, E> {
                super::whole(number)
                    .and_then(super::checksum)
                    .map(ChecksumWire)
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_any(ChecksumVisitor)
    }
}

impl<'de> Deserialize<'de> for SubscriptionWire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SubscriptionVisitor;

        impl Visitor<'_> for SubscriptionVisitor {
            type Value = SubscriptionWire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default` or the index of a subscription")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SubscriptionWire, E> {
                match text {
                    "default" => Ok(SubscriptionWire(None)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<SubscriptionWire, E> {
                u32::try_from(number)
                    .map(|index| SubscriptionWire(Some(index)))
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }

        deserializer.deserialize_any(SubscriptionVisitor)
    }
}
