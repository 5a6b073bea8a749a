//! The trait of the server's store: buckets, checkpoints, lookups and write checkpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketId, DefinitionId, Generation};
use crate::checkpoint::{BucketChecksum, Checkpoint, DeployedConfig, LookupKey, LookupRows, Published};
use crate::chunk::Chunk;
use crate::error::Result;
use crate::lookup_change::LookupChange;
use crate::operation::{NewOperation, OpId};
use crate::source::{SourcePosition, SourceState};
use crate::table::{RowKey, TableId};
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// Where replication stands in a store.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The store's random number: part of every bucket name.
    pub generation: Generation,
    /// The source position of the last commit.
    pub position: Option<SourcePosition>,
    /// The source's state as of the last commit.
    pub source_state: Option<SourceState>,
    /// The replicator's state as of the last commit; opaque to the store.
    pub replicator_state: Option<Bytes>,
    /// The deployed config.
    pub config: Option<Arc<DeployedConfig>>,
    /// The last published checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

/// A source row as replication last left it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CurrentRow {
    /// Its values, in an encoding of the replicator's; opaque to the store. It may share its memory with other images: a store
    /// that keeps it in memory keeps a copy.
    pub image: Bytes,
    /// Where it stands: one entry per bucket and output row.
    pub memberships: Vec<Membership>,
    /// The lookup entries it yields.
    pub lookups: Vec<LookupKey>,
}

/// An output row that a source row has in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The bucket.
    pub bucket: BucketId,
    /// The client's table.
    pub object_type: ByteString,
    /// The client's row id.
    pub object_id: ByteString,
}

/// A lookup entry of a source row: from the commit on, `key` yields `outputs` for this row (none: no longer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupEntry {
    /// The row that it comes from.
    pub row: RowKey,
    /// The key.
    pub key: LookupKey,
    /// Output rows, each a compact JSON array; empty removes the entry.
    pub outputs: Vec<ByteString>,
}

/// Changes to be staged, in this order: truncations, then operations in order, rows, lookups and write checkpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AppendBatch {
    /// Tables whose stored rows are all void: each of their memberships gets a REMOVE (with
    /// [`RowKey::subkey`]), each of their lookups an empty entry, and the rows are forgotten.
    pub truncate: Vec<TableId>,
    /// Operations, in order.
    pub operations: Vec<NewOperation>,
    /// Rows as they are now; `None` forgets one. A key stands here at most once.
    pub rows: Vec<(RowKey, Option<CurrentRow>)>,
    /// Lookup entries that changed.
    pub lookups: Vec<LookupEntry>,
    /// Write checkpoints that the source itself confirms, as an application's backend writes them: from the commit on,
    /// streams may show each number to its client (S6). One that is not above what the client was shown changes nothing.
    pub write_checkpoints: BTreeMap<ClientKey, WriteCheckpoint>,
}

impl AppendBatch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.truncate.is_empty()
            && self.operations.is_empty()
            && self.rows.is_empty()
            && self.lookups.is_empty()
            && self.write_checkpoints.is_empty()
    }
}

/// What a commit makes durable together with everything appended since the last one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Commit {
    /// The new source position; `None` leaves it.
    pub position: Option<SourcePosition>,
    /// The source's new state; `None` leaves it.
    pub source_state: Option<SourceState>,
    /// The replicator's new state; `None` leaves it.
    pub replicator_state: Option<Bytes>,
    /// A config to deploy: its text, and the canonical forms of its definitions. The store keeps the number of a form
    /// that is deployed now and gives a new one to every other.
    pub deploy: Option<Deploy>,
    /// Markers that the source sent back within this commit: their write checkpoints may be shown from here on.
    pub markers: Vec<MarkerToken>,
    /// Whether the state after this commit is consistent and shall be shown to clients. A checkpoint results if anything
    /// changed since the last one: operations, lookups, the config, or a write checkpoint that rose. `Invalid` before a
    /// config was deployed.
    pub publish: bool,
}

/// A config to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Its YAML text.
    pub text: ByteString,
    /// The canonical form of each definition, in its order.
    pub forms: Vec<ByteString>,
}

/// A request for operations of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadRequest {
    /// The bucket.
    pub bucket: BucketId,
    /// Operations above this one,
    pub after: OpId,
    /// up to and including this one: a published checkpoint.
    pub upto: OpId,
    /// Stop after about this many bytes, but return at least one operation.
    pub max_bytes: usize,
}

/// The answer to a [`ReadRequest`].
#[derive(Debug, Clone)]
pub struct OperationChunk {
    /// Consecutive chunks that together hold the operations. Each is shared and immutable; slice each with
    /// [`Chunk::range`] from the request's `after` to [`next_after`](Self::next_after).
    pub chunks: Vec<Chunk>,
    /// Everything up to here has been returned; `upto` if the bucket has no more below it.
    pub next_after: OpId,
    /// Whether more operations of this bucket lie in `(next_after, upto]`.
    pub has_more: bool,
    /// Set if compaction touched what was read: the checkpoint of the request must not be completed, only one at or
    /// above this id (S5).
    pub superseded: Option<OpId>,
}

/// Limits of one round of compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactLimits {
    /// Stop after having looked at this many operations.
    pub max_operations: u64,
}

/// What one round of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Operations looked at.
    pub operations: u64,
    /// Bytes that became free.
    pub bytes_freed: u64,
    /// Whether there is more to do.
    pub more: bool,
}

/// The server's store. One replicator writes it, many sessions read it.
///
/// # Contract
/// - `append` stages; nobody sees anything of it before `commit`, and a crash before `commit` leaves nothing of it.
/// - `commit` is one durable, atomic step: it returns after an fsync (S2, S3).
/// - Operation ids rise, are never reused and never added at or below a published checkpoint, power loss included (S1).
/// - Reads are at a published checkpoint: nothing above it is returned.
/// - A read holds no lock and no transaction after it returned.
///
/// # Errors
/// `Unavailable` for a disk that is full or a store that is busy: the call may be repeated after `resume`. `Data` for
/// stored state that cannot be read.
///
/// # Cancel safety
/// Dropping the future of any method leaves either all or nothing of its effect; after a dropped or failed `append` or
/// `commit` the replicator must start again from `resume`.
#[async_trait]
pub trait BucketStore: Send + Sync + fmt::Debug {
    // ---- written by one replicator

    /// Where to go on. Forgets everything that was appended and not committed.
    async fn resume(&self) -> Result<Resume>;

    /// The rows as replication last left them, appended and not yet committed ones included; one answer per key.
    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>>;

    /// Stages changes, and gives each operation its [`OpId`]. May come many times for one source transaction.
    async fn append(&self, batch: AppendBatch) -> Result<()>;

    /// Makes everything appended durable, in one atomic step, with the position and states. Returns the checkpoint if one
    /// was published.
    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>>;

    /// Forgets everything and draws a new generation: for a source whose history is lost. Write checkpoints keep
    /// rising; their requests stay pending until a marker comes back.
    async fn reset(&self) -> Result<()>;

    // ---- read by many sessions, always at a published checkpoint

    /// The newest checkpoint now (if any), then newer ones; may skip, never goes back. Each item names what changed since
    /// the item before; the first says [`Unknown`](crate::Changes::Unknown).
    fn checkpoints(&self) -> BoxStream<'static, Result<Published>>;

    /// The rows of each lookup key at a checkpoint. `Unavailable` if compaction went past it: ask at a newer one.
    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>>;

    /// What changed of the rows of each lookup key after the checkpoint `since`, up to the checkpoint `at`; one answer per
    /// key. `Unavailable` if compaction went past `at`.
    ///
    /// A store that does not know answers with all rows that the key has, as this does where it is not overridden: it
    /// is as correct, and a user of thousands of rows under one key costs as many whenever one of them changes.
    /// [`CheckpointFeed::changed_rows`](crate::CheckpointFeed::changed_rows) tells which source rows changed it.
    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        let _ = since;
        Ok(self.lookup(at, keys).await?.into_iter().map(LookupChange::Whole).collect())
    }

    /// Count and checksum of each bucket at a checkpoint; zero for an unknown bucket. Never reads operations to answer.
    /// `Unavailable` if compaction went past it: ask at a newer one.
    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>>;

    /// Operations in order, as chunks ready to be sent; one answer per request.
    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>>;

    // ---- write checkpoints

    /// Records a request as waiting for a marker, durably, and wakes [`pending_markers`](Self::pending_markers).
    /// A request whose stored number is not yet confirmed gets a new marker as well, so that a lost one cannot wedge it.
    /// `Invalid` for a number that does not pass [`WriteCheckpointRequest::check`]; `Unavailable` with `PSYNC_S2304` if
    /// [`ClientKey::PER_USER`] clients of the user wait already.
    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint>;

    /// The largest write checkpoint of each client that a stream may show at this checkpoint (S6), whether it was requested or
    /// the [source confirmed](AppendBatch::write_checkpoints) it: a client has one record for both. A number of the source
    /// makes a record where there is none and is never refused: with [`ClientKey::PER_USER`] clients of the user, those
    /// that were confirmed longest ago are forgotten for it.
    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>>;

    /// Markers to be sent through the source: those pending now first, then new ones. Several requests may share one.
    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>>;

    // ---- upkeep

    /// Replaces superseded operations at or below the published checkpoint. Neither checksums nor what any client ends up
    /// with may change (S5).
    async fn compact(&self, limits: CompactLimits) -> Result<Compacted>;
}

/// The number that the store gave to a canonical form, given what is deployed now and the next free number.
///
/// A form that is deployed keeps its number; every other gets a new one, so that a number is never reused.
pub fn assign_definitions(
    deploy: &Deploy,
    deployed: Option<&DeployedConfig>,
    next: &mut u32,
) -> Vec<crate::checkpoint::DeployedDefinition> {
    let mut given: Vec<crate::checkpoint::DeployedDefinition> = Vec::with_capacity(deploy.forms.len());
    for form in &deploy.forms {
        let known = given
            .iter()
            .chain(deployed.iter().flat_map(|config| &config.definitions))
            .find(|definition| definition.form == *form)
            .map(|definition| definition.id);
        let id = known.unwrap_or_else(|| {
            let id = DefinitionId(*next);
            *next += 1;
            id
        });
        given.push(crate::checkpoint::DeployedDefinition { form: form.clone(), id });
    }
    given
}

#[async_trait]
impl<T: BucketStore + ?Sized> BucketStore for Arc<T> {
    async fn resume(&self) -> Result<Resume> {
        (**self).resume().await
    }
    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        (**self).current_rows(keys).await
    }
    async fn append(&self, batch: AppendBatch) -> Result<()> {
        (**self).append(batch).await
    }
    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        (**self).commit(commit).await
    }
    async fn reset(&self) -> Result<()> {
        (**self).reset().await
    }
    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        (**self).checkpoints()
    }
    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        (**self).lookup(at, keys).await
    }
    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        (**self).lookup_changes(since, at, keys).await
    }
    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        (**self).checksums(at, buckets).await
    }
    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        (**self).read(requests).await
    }
    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        (**self).request_write_checkpoint(client, request).await
    }
    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        (**self).write_checkpoints(at, clients).await
    }
    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        (**self).pending_markers()
    }
    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        (**self).compact(limits).await
    }
}
