//! Operations: the entries of a bucket.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::bucket::BucketId;
use crate::checksum::Checksum;

/// Position in the one sequence of operations of a store. Only the store assigns them (S1).
///
/// On the wire it is a decimal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct OpId(pub u64);

impl OpId {
    /// Before every operation.
    pub const ZERO: Self = Self(0);

    /// From the decimal string of the wire.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<i64>().ok().and_then(|id| u64::try_from(id).ok()).map(Self)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum OperationKind {
    /// The row is this.
    Put = 0,
    /// The row has left the bucket.
    Remove = 1,
    /// An operation that a later one superseded: only its checksum is left.
    Move = 2,
    /// Everything before is gone; the checksum is the sum of what it replaces.
    Clear = 3,
}

impl OperationKind {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Remove => "REMOVE",
            Self::Move => "MOVE",
            Self::Clear => "CLEAR",
        }
    }

    /// From the name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "PUT" => Self::Put,
            "REMOVE" => Self::Remove,
            "MOVE" => Self::Move,
            "CLEAR" => Self::Clear,
            _ => return None,
        })
    }

    /// From its number in a chunk.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Put,
            1 => Self::Remove,
            2 => Self::Move,
            3 => Self::Clear,
            _ => return None,
        })
    }
}

/// An operation before it has an [`OpId`]: what replication appends. `Put` if there is data, `Remove` otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewOperation {
    /// The bucket it goes to.
    pub bucket: BucketId,
    /// The client's table.
    pub object_type: ByteString,
    /// The client's row id.
    pub object_id: ByteString,
    /// Stable per source row, so that several source rows may yield one output row.
    pub subkey: ByteString,
    /// The row as JSON text; `None` removes it.
    pub data: Option<Bytes>,
    /// [`Checksum::of_put`] or [`Checksum::of_remove`].
    pub checksum: Checksum,
}

impl NewOperation {
    /// A PUT with its checksum.
    pub fn put(
        bucket: BucketId,
        object_type: ByteString,
        object_id: ByteString,
        subkey: ByteString,
        data: Bytes,
    ) -> Self {
        let checksum = Checksum::of_put(&object_type, &object_id, &data);
        Self { bucket, object_type, object_id, subkey, data: Some(data), checksum }
    }

    /// A REMOVE with its checksum.
    pub fn remove(bucket: BucketId, object_type: ByteString, object_id: ByteString, subkey: ByteString) -> Self {
        let checksum = Checksum::of_remove(&subkey);
        Self { bucket, object_type, object_id, subkey, data: None, checksum }
    }
}

/// An operation as a client receives it and as a chunk holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its position.
    pub op_id: OpId,
    /// What it does.
    pub kind: OperationKind,
    /// The client's table; empty for MOVE and CLEAR.
    pub object_type: ByteString,
    /// The client's row id; empty for MOVE and CLEAR.
    pub object_id: ByteString,
    /// Tells apart source rows that yield one output row.
    pub subkey: Option<ByteString>,
    /// The row as JSON text, for PUT.
    pub data: Option<ByteString>,
    /// Its checksum.
    pub checksum: Checksum,
}
