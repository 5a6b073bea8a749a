//! Reads a line that is a postcard value behind its length.

use bytes::Bytes;
use bytestring::ByteString;

use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, StreamDescription, StreamError,
    SubscriptionReason,
};
use crate::write_checkpoint::WriteCheckpoint;

/// Reads one line, its length included.
pub(super) fn read(line: &Bytes) -> Result<ClientLine> {
    let mut reader = Reader { line, at: 4 };
    let read = match reader.byte()? {
        0 => ClientLine::Checkpoint(CheckpointLine {
            last_op_id: reader.id()?,
            write_checkpoint: reader.write_checkpoint()?,
            buckets: reader.each(bucket)?,
            streams: reader.each(stream)?,
        }),
        1 => ClientLine::CheckpointDiff(CheckpointDiffLine {
            last_op_id: reader.id()?,
            write_checkpoint: reader.write_checkpoint()?,
            removed_buckets: reader.each(|reader| reader.text().map(ByteString::from))?,
            updated_buckets: reader.each(bucket)?,
        }),
        2 => ClientLine::Data(data(&mut reader)?),
        3 => ClientLine::CheckpointComplete { last_op_id: reader.id()? },
        4 => ClientLine::PartialCheckpointComplete { last_op_id: reader.id()?, priority: reader.priority()? },
        5 => {
            let seconds = i32::try_from(reader.signed()?).map_err(|_| refused("a time has more than 32 bits"))?;
            ClientLine::TokenExpiresIn(seconds.into())
        }
        // Client and server have agreed on a version: there is no line that one of them does not know.
        _ => return Err(refused("it is of no known kind")),
    };
    if reader.left() > 0 {
        return Err(refused("bytes follow its end"));
    }
    Ok(read)
}

fn bucket(reader: &mut Reader<'_>) -> Result<BucketDescription> {
    Ok(BucketDescription {
        // A copy, since it outlives the line.
        bucket: reader.text()?.into(),
        checksum: reader.checksum()?,
        count: reader.optional(Reader::number)?,
        priority: reader.priority()?,
        subscriptions: reader.each(|reader| match reader.byte()? {
            0 => reader.index().map(SubscriptionReason::Default),
            1 => reader.index().map(SubscriptionReason::Subscription),
            _ => Err(refused("a reason is of no known kind")),
        })?,
    })
}

fn stream(reader: &mut Reader<'_>) -> Result<StreamDescription> {
    Ok(StreamDescription {
        name: reader.text()?.to_owned(),
        is_default: reader.flag()?,
        errors: reader.each(|reader| {
            Ok(StreamError { subscription: reader.optional(Reader::index)?, message: reader.text()?.to_owned() })
        })?,
    })
}

fn data(reader: &mut Reader<'_>) -> Result<DataLine> {
    let bucket = reader.slice()?;
    let (mut tables, mut before) = (Vec::new(), OpId::ZERO);
    let operations = reader.each(|reader| {
        let operation = operation(reader, before, &mut tables)?;
        before = operation.op_id;
        Ok(operation)
    })?;
    Ok(DataLine { bucket, operations, size: reader.line.len() })
}

fn operation(reader: &mut Reader<'_>, before: OpId, tables: &mut Vec<ByteString>) -> Result<Operation> {
    let kind = OperationKind::from_number(reader.byte()?).ok_or_else(|| refused("an operation is of no known kind"))?;
    let op_id = before.0.checked_add(reader.number()?).and_then(id_of);
    let op_id = op_id.ok_or_else(|| refused("an operation id has more than 63 bits"))?;
    let checksum = reader.checksum()?;
    let (mut object_type, mut object_id, mut subkey) = (ByteString::new(), ByteString::new(), None);
    if matches!(kind, OperationKind::Put | OperationKind::Remove) {
        object_type = match reader.byte()? {
            0 => {
                let name = reader.slice()?;
                tables.push(name.clone());
                name
            }
            1 => {
                let known = tables.get(reader.index()? as usize);
                known.cloned().ok_or_else(|| refused("an operation is of a table that was not named before"))?
            }
            _ => return Err(refused("a table is neither new nor known")),
        };
        object_id = reader.slice()?;
        subkey = Some(reader.slice()?).filter(|subkey| !subkey.is_empty());
    }
    let data = if kind == OperationKind::Put { Some(reader.slice()?) } else { None };
    Ok(Operation { op_id, kind, object_type, object_id, subkey, data, checksum })
}

/// Reads a line from its beginning to its end.
struct Reader<'a> {
    line: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.line.len().saturating_sub(self.at)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(|| refused(CUT))?;
        let taken = self.line.get(self.at..end).ok_or_else(|| refused(CUT))?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(refused("a number has more than 64 bits"))
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn index(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| refused("an index has more than 32 bits"))
    }

    fn length(&mut self) -> Result<usize> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= self.left());
        length.ok_or_else(|| refused(CUT))
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(refused("a flag is neither true nor false")),
        }
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Whatever is read takes a byte at least, so there are no more items than bytes; room is made for those that come.
    fn each<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        (0..self.length()?).map(|_| read(self)).collect()
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| refused(NO_TEXT))
    }

    /// A text that shares the bytes of the line.
    fn slice(&mut self) -> Result<ByteString> {
        let length = self.length()?;
        let start = self.at;
        self.take(length)?;
        ByteString::try_from(self.line.slice(start..self.at)).map_err(|_| refused(NO_TEXT))
    }

    fn id(&mut self) -> Result<OpId> {
        id_of(self.number()?).ok_or_else(|| refused("an operation id has more than 63 bits"))
    }

    fn priority(&mut self) -> Result<BucketPriority> {
        self.byte().map(BucketPriority)
    }

    fn checksum(&mut self) -> Result<Checksum> {
        let bytes = self.take(4)?;
        Ok(Checksum(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
    }

    fn write_checkpoint(&mut self) -> Result<Option<WriteCheckpoint>> {
        self.optional(|reader| reader.signed().map(WriteCheckpoint))
    }
}

fn id_of(number: u64) -> Option<OpId> {
    i64::try_from(number).is_ok().then_some(OpId(number))
}

const CUT: &str = "it is cut off";
const NO_TEXT: &str = "a text is not UTF-8";

fn refused(what: &str) -> Error {
    Error::protocol(format!("a line of the stream cannot be read: {what}"))
}
