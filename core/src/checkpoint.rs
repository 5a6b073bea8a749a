//! Checkpoints: consistent states of all buckets.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketId, DefinitionId, Generation};
use crate::checksum::Checksum;
use crate::operation::OpId;
use crate::write_checkpoint::ClientKey;

/// A state that clients may see: every operation at or below `op_id`, of the definitions of `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its id. Two checkpoints of a store never share one; later ones are larger.
    pub op_id: OpId,
    /// The store it is of.
    pub generation: Generation,
    /// The config whose definitions its buckets follow (S8).
    pub config: Arc<DeployedConfig>,
}

/// A sync config as a store knows it: its text, and the numbers that the store gave to its definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedConfig {
    /// The YAML text, which services parse to resolve requests.
    pub text: ByteString,
    /// Canonical form and number of each definition, in the order of the config.
    pub definitions: Vec<DeployedDefinition>,
}

/// A definition in its canonical form, under the number that the store gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedDefinition {
    /// What is the same for two definitions whose buckets have the same content: tables, filters, keys, outputs.
    pub form: ByteString,
    /// Its number.
    pub id: DefinitionId,
}

/// What a store publishes: a checkpoint, and what changed since the one before.
#[derive(Debug, Clone)]
pub struct Published {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// What changed since the item before it in the same stream.
    pub changes: Changes,
}

/// What changed between two checkpoints.
#[derive(Debug, Clone)]
pub enum Changes {
    /// Not known: everything may have.
    Unknown,
    /// Exactly this.
    These(Arc<ChangeSet>),
}

/// Buckets, lookups and write checkpoints that changed between two checkpoints.
#[derive(Debug, Clone, Default)]
pub struct ChangeSet {
    /// Buckets that have new operations.
    pub buckets: Vec<BucketId>,
    /// Lookup keys whose rows changed.
    pub lookups: Vec<LookupKey>,
    /// Clients whose write checkpoint may be shown now.
    pub clients: Vec<ClientKey>,
}

/// Count and checksum of a bucket at a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketChecksum {
    /// Operations at or below the checkpoint.
    pub count: u64,
    /// Their sum.
    pub checksum: Checksum,
}

/// What is asked of a lookup index: "which rows have these values?".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LookupKey {
    /// The index, numbered like a definition.
    pub index: DefinitionId,
    /// The values as a compact JSON array.
    pub values: ByteString,
}

/// The answer to a [`LookupKey`]: output values of each matching row, each a compact JSON array.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupRows {
    /// One entry per row, in no particular order.
    pub rows: Vec<ByteString>,
}
