//! Buckets: the unit of partial replication.

use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// The number that a store gave to one definition of a deployed sync config; never given twice in a store generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefinitionId(pub u32);

/// A bucket: a definition and the values of its parameters.
///
/// `parameters` is a compact JSON array (`["u1",7]`, `[]`), in which integral reals are written as integers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BucketId {
    /// The definition.
    pub definition: DefinitionId,
    /// The JSON array of parameter values.
    pub parameters: ByteString,
}

impl BucketId {
    /// The name that clients see: `<generation>.<definition><parameters>`. Opaque to them, and never the same for two
    /// contents: another store, or a definition that was removed and added again, has another name.
    pub fn wire_name(&self, generation: Generation) -> ByteString {
        format!("{generation}.{}{}", self.definition.0, self.parameters).into()
    }

    /// The definition in a name that [`wire_name`](Self::wire_name) made; `None` for a name of another store.
    pub(crate) fn definition_in(name: &str, generation: Generation) -> Option<DefinitionId> {
        let (head, _) = name.split_once('[')?;
        let number = head.strip_prefix(&generation.to_string())?.strip_prefix('.')?;
        number.parse().ok().map(DefinitionId)
    }
}

/// A random number that a bucket store draws when it is made, so that buckets of two stores never share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// How early a bucket is sent and shown: 0 first, 3 (the default) last.
///
/// A client may show a priority as soon as all buckets of it and of smaller numbers are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BucketPriority(pub u8);

impl BucketPriority {
    /// Published even while local writes wait to be uploaded.
    pub const HIGHEST: Self = Self(0);
    /// What a bucket has unless the sync config says otherwise.
    pub const DEFAULT: Self = Self(3);
}

impl Default for BucketPriority {
    fn default() -> Self {
        Self::DEFAULT
    }
}
