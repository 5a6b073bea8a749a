//! Reads a line that is a BSON document.

use bytes::Bytes;
use bytestring::ByteString;

use super::bson_reader::{Document, Value};
use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, StreamDescription, StreamError,
    SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

/// Reads one document.
pub(super) fn read(line: &Bytes) -> Result<ClientLine> {
    let mut document = Document::read(line)?;
    let (key, value) = document.next().ok_or_else(|| refused("it has no key"))??;
    if document.next().is_some() {
        return Err(refused("it has more than one key"));
    }
    Ok(match key {
        b"checkpoint" => ClientLine::Checkpoint(checkpoint(value.document()?)?),
        b"checkpoint_diff" => ClientLine::CheckpointDiff(checkpoint_diff(value.document()?)?),
        b"data" => ClientLine::Data(data(line, value.document()?)?),
        b"checkpoint_complete" => {
            let (last_op_id, _) = complete(value.document()?)?;
            ClientLine::CheckpointComplete { last_op_id }
        }
        b"partial_checkpoint_complete" => {
            let (last_op_id, priority) = complete(value.document()?)?;
            let priority = priority.ok_or_else(|| missing("priority"))?;
            ClientLine::PartialCheckpointComplete { last_op_id, priority }
        }
        b"token_expires_in" => ClientLine::TokenExpiresIn(value.whole()?),
        _ => ClientLine::Unknown,
    })
}

fn checkpoint(document: Document<'_>) -> Result<CheckpointLine> {
    let (mut last_op_id, mut buckets) = (None, None);
    let mut line = CheckpointLine::default();
    for element in document {
        let (key, value) = element?;
        match key {
            b"last_op_id" => last_op_id = Some(value.id()?),
            b"write_checkpoint" => line.write_checkpoint = write_checkpoint(value)?,
            b"buckets" => buckets = Some(value.each(bucket)?),
            b"streams" => {
                line.streams = value.optional().map(|value| value.each(stream)).transpose()?.unwrap_or_default()
            }
            _ => {}
        }
    }
    line.last_op_id = last_op_id.ok_or_else(|| missing("last_op_id"))?;
    line.buckets = buckets.ok_or_else(|| missing("buckets"))?;
    Ok(line)
}

fn checkpoint_diff(document: Document<'_>) -> Result<CheckpointDiffLine> {
    let (mut last_op_id, mut updated, mut removed) = (None, None, None);
    let mut line = CheckpointDiffLine::default();
    for element in document {
        let (key, value) = element?;
        match key {
            b"last_op_id" => last_op_id = Some(value.id()?),
            b"write_checkpoint" => line.write_checkpoint = write_checkpoint(value)?,
            b"updated_buckets" => updated = Some(value.each(bucket)?),
            b"removed_buckets" => removed = Some(value.each(|value| value.text().map(ByteString::from))?),
            _ => {}
        }
    }
    line.last_op_id = last_op_id.ok_or_else(|| missing("last_op_id"))?;
    line.updated_buckets = updated.ok_or_else(|| missing("updated_buckets"))?;
    line.removed_buckets = removed.ok_or_else(|| missing("removed_buckets"))?;
    Ok(line)
}

fn complete(document: Document<'_>) -> Result<(OpId, Option<BucketPriority>)> {
    let (mut last_op_id, mut priority) = (None, None);
    for element in document {
        let (key, value) = element?;
        match key {
            b"last_op_id" => last_op_id = Some(value.id()?),
            b"priority" => priority = Some(value.priority()?),
            _ => {}
        }
    }
    Ok((last_op_id.ok_or_else(|| missing("last_op_id"))?, priority))
}

fn bucket(value: Value<'_>) -> Result<BucketDescription> {
    let (mut name, mut checksum, mut count) = (None, None, None);
    let mut priority = BucketPriority::DEFAULT;
    let mut subscriptions = Vec::new();
    for element in value.document()? {
        let (key, value) = element?;
        match (key, value.optional()) {
            (b"bucket", _) => name = Some(ByteString::from(value.text()?)),
            (b"checksum", _) => checksum = Some(value.checksum()?),
            (b"count", Some(value)) => {
                count = Some(u64::try_from(value.whole()?).map_err(|_| refused("a count is negative"))?);
            }
            (b"priority", Some(value)) => priority = value.priority()?,
            (b"subscriptions", Some(value)) => {
                subscriptions = value.each(reason)?.into_iter().flatten().collect();
            }
            _ => {}
        }
    }
    Ok(BucketDescription {
        bucket: name.ok_or_else(|| missing("bucket"))?,
        checksum: checksum.ok_or_else(|| missing("checksum"))?,
        count,
        priority,
        subscriptions,
    })
}

/// `None` for a reason of a newer protocol: it changes nothing about the bucket.
fn reason(value: Value<'_>) -> Result<Option<SubscriptionReason>> {
    let mut reason = None;
    for element in value.document()? {
        let (key, value) = element?;
        match (key, value.optional()) {
            (b"default", Some(value)) => reason = Some(SubscriptionReason::Default(value.index()?)),
            (b"sub", Some(value)) => reason = Some(SubscriptionReason::Subscription(value.index()?)),
            _ => {}
        }
    }
    Ok(reason)
}

fn stream(value: Value<'_>) -> Result<StreamDescription> {
    let (mut name, mut is_default, mut errors) = (None, None, None);
    for element in value.document()? {
        let (key, value) = element?;
        match key {
            b"name" => name = Some(value.text()?.to_owned()),
            b"is_default" => is_default = Some(value.boolean()?),
            b"errors" => errors = Some(value.each(stream_error)?),
            _ => {}
        }
    }
    Ok(StreamDescription {
        name: name.ok_or_else(|| missing("name"))?,
        is_default: is_default.ok_or_else(|| missing("is_default"))?,
        errors: errors.ok_or_else(|| missing("errors"))?,
    })
}

fn stream_error(value: Value<'_>) -> Result<StreamError> {
    let (mut subscription, mut message) = (None, None);
    for element in value.document()? {
        let (key, value) = element?;
        match (key, value) {
            (b"subscription", Value::Text(b"default")) => subscription = Some(None),
            (b"subscription", _) => subscription = Some(Some(value.index()?)),
            (b"message", _) => message = Some(value.text()?.to_owned()),
            _ => {}
        }
    }
    Ok(StreamError {
        subscription: subscription.ok_or_else(|| missing("subscription"))?,
        message: message.ok_or_else(|| missing("message"))?,
    })
}

fn data(line: &Bytes, document: Document<'_>) -> Result<DataLine> {
    let (mut bucket, mut operations) = (None, None);
    for element in document {
        let (key, value) = element?;
        match key {
            b"bucket" => bucket = Some(value.slice(line)?),
            b"data" => operations = Some(value.each(|value| operation(line, value))?),
            _ => {}
        }
    }
    Ok(DataLine {
        bucket: bucket.ok_or_else(|| missing("bucket"))?,
        operations: operations.ok_or_else(|| missing("data"))?,
        size: line.len(),
    })
}

fn operation(line: &Bytes, value: Value<'_>) -> Result<Operation> {
    let (mut op_id, mut kind, mut checksum) = (None, None, None);
    let (mut object_type, mut object_id, mut subkey, mut data) = (None, None, None, None);
    for element in value.document()? {
        let (key, value) = element?;
        match (key, value.optional()) {
            (b"op_id", _) => op_id = Some(value.id()?),
            (b"op", _) => {
                let name = value.text()?;
                kind = Some(OperationKind::from_name(name).ok_or_else(|| refused("an operation has an unknown name"))?);
            }
            (b"checksum", _) => checksum = Some(value.checksum()?),
            (b"object_type", Some(value)) => object_type = Some(value.slice(line)?),
            (b"object_id", Some(value)) => object_id = Some(value.slice(line)?),
            (b"subkey", Some(value)) => subkey = Some(value.slice(line)?).filter(|subkey| !subkey.is_empty()),
            (b"data", Some(value)) => data = Some(value.slice(line)?),
            _ => {}
        }
    }
    Ok(Operation {
        op_id: op_id.ok_or_else(|| missing("op_id"))?,
        kind: kind.ok_or_else(|| missing("op"))?,
        object_type: object_type.unwrap_or_default(),
        object_id: object_id.unwrap_or_default(),
        subkey,
        data,
        checksum: checksum.ok_or_else(|| missing("checksum"))?,
    })
}

fn write_checkpoint(value: Value<'_>) -> Result<Option<WriteCheckpoint>> {
    let Some(value) = value.optional() else { return Ok(None) };
    let number = value.text()?.parse().map_err(|_| refused("a write checkpoint is no number of 64 bits"))?;
    Ok(Some(WriteCheckpoint(number)))
}

impl<'a> Value<'a> {
    /// `None` for null, which may stand for what is absent.
    fn optional(self) -> Option<Self> {
        (!matches!(self, Self::Null)).then_some(self)
    }

    fn document(self) -> Result<Document<'a>> {
        match self {
            Self::Document(document) => Ok(document),
            _ => Err(refused("a document is expected")),
        }
    }

    fn each<T>(self, read: impl Fn(Self) -> Result<T>) -> Result<Vec<T>> {
        match self {
            Self::Array(array) => array.map(|element| read(element?.1)).collect(),
            _ => Err(refused("an array is expected")),
        }
    }

    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(refused("a string is expected")),
        }
    }

    fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| refused("a string is not UTF-8"))
    }

    /// A text that shares the bytes of the line.
    fn slice(self, line: &Bytes) -> Result<ByteString> {
        ByteString::try_from(line.slice_ref(self.bytes()?)).map_err(|_| refused("a string is not UTF-8"))
    }

    fn boolean(self) -> Result<bool> {
        match self {
            Self::Boolean(value) => Ok(value),
            _ => Err(refused("true or false is expected")),
        }
    }

    fn whole(self) -> Result<i64> {
        match self {
            Self::Int32(number) => Ok(number.into()),
            Self::Int64(number) => Ok(number),
            _ => Err(refused("a whole number is expected")),
        }
    }

    fn index(self) -> Result<u32> {
        u32::try_from(self.whole()?).map_err(|_| refused("an index is negative or too large"))
    }

    fn priority(self) -> Result<BucketPriority> {
        u8::try_from(self.whole()?).map(BucketPriority).map_err(|_| refused("a priority is negative or too large"))
    }

    fn id(self) -> Result<OpId> {
        OpId::parse(self.text()?).ok_or_else(|| refused("an operation id is no number of 63 bits"))
    }

    fn checksum(self) -> Result<Checksum> {
        match self {
            Self::Double(number) => super::whole(number),
            Self::Int32(number) => Some(number.into()),
            Self::Int64(number) => Some(number),
            _ => None,
        }
        .and_then(super::checksum)
        .ok_or_else(|| refused("a checksum is no whole number of 32 bits"))
    }
}

fn missing(key: &str) -> Error {
    refused(&format!("it lacks `{key}`"))
}

fn refused(what: &str) -> Error {
    Error::protocol(format!("a line of the stream cannot be read: {what}"))
}
