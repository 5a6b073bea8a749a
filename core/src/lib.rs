//! The core of Syncline: data, sync config, protocol, sessions and the traits that adapters implement.
//!
//! Nothing here does I/O or knows a runtime. Four layers, imports only downward: *data* (plain types), *logic* (pure and
//! sans-IO), *traits* (what adapters implement), *drivers* (which obey the logic), with `memory` and `testing` beside them.

// Data.
mod bucket;
mod changes;
mod checkpoint;
mod checksum;
mod chunk;
mod error;
mod identity;
pub mod json;
mod local_transaction;
mod lookup_change;
mod operation;
mod recent_lookups;
mod shared_pool;
mod sorted_list;
mod suggestion;
mod table;
mod time;
mod value;
mod value_options;
mod write_checkpoint;

// Logic.
mod bucket_read;
mod checkpoint_feed;
mod compaction;
mod config;
#[cfg(feature = "jwt")]
pub mod jwt;
mod marker_feed;
pub mod protocol;

// Traits.
mod bucket_store;
mod client_store;
mod clock;
mod conflict;
mod connector;
mod source;
mod transport;

// Drivers, and parts in memory.
pub mod client;
#[cfg(feature = "testing")]
pub mod fuzzing;
pub mod memory;
mod replication;
pub mod server;
#[cfg(feature = "jwt")]
mod static_keys;
#[cfg(feature = "testing")]
pub mod testing;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use bytestring::ByteString;

pub use bucket::{BucketId, BucketPriority, DefinitionId, Generation};
pub use bucket_read::BucketRead;
pub use bucket_store::{
    AppendBatch, BucketStore, Commit, CompactLimits, Compacted, CurrentRow, Deploy, LookupEntry, Membership,
    OperationChunk, ReadRequest, Resume, assign_definitions,
};
pub use changes::ChangeCollector;
pub use checkpoint::{
    BucketChecksum, ChangeSet, Changes, Checkpoint, DeployedConfig, DeployedDefinition, LookupKey, LookupRows,
    Published,
};
pub use checkpoint_feed::CheckpointFeed;
pub use checksum::Checksum;
pub use chunk::{Chunk, ChunkBuilder, OperationRef};
pub use client::{StreamHandle, SyncClient, SyncStatus};
pub use client_store::{
    ClientState, ClientStore, PublishOutcome, PublishRequest, StoreLease, StoredSubscription, TargetBucket,
    TargetCheckpoint, UploadSequence, UploadState,
};
pub use clock::{Clock, SystemClock};
pub use compaction::{Compactor, LeadingRun, Revised};
pub use config::{
    ConfigLookup, ConfigRequest, Definition, Diagnostic, DiagnosticLevel, Diagnostics, EditorDiagnostic,
    EditorPosition, EditorRange, EvaluatedEvent, EvaluatedLookup, EvaluatedRow, Evaluation, EvaluationError,
    ExplainedBranch, Explanation, Reason, RequestOutcome, RequestResolver, ResolveStep, ResolvedBucket,
    ResolvedChanges, ResolvedRequest, ResolvedStream, RowOutcome, SourceSchema, StreamSubscription, SubscriptionRef,
    SyncConfig, TableEvaluator,
};
pub use conflict::{Conflict, ConflictResolver, LastWriteWins, RejectIfChanged, Resolution};
pub use connector::{Connector, Credentials};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use identity::{Authenticator, Identity};
pub use local_transaction::{LocalTransaction, LocalWrite, Uploaded, WriteKind};
pub use lookup_change::{LookupChange, LookupDifference};
pub use marker_feed::MarkerFeed;
pub use operation::{NewOperation, OpId, Operation, OperationKind};
pub use replication::{ReplicationPhase, ReplicationStatus, Replicator};
pub use server::{Readiness, ServiceLimits, StreamRenewal, SyncService};
pub use source::{Reread, SnapshotProgress, Source, SourceEvent, SourcePosition, SourceStart, SourceState};
#[cfg(feature = "jwt")]
pub use static_keys::StaticKeys;
pub use suggestion::nearest_name;
pub use table::{
    ConfigPlace, Field, RowKey, SourceColumn, SourceRow, SourceTable, TableId, TablePattern, TablePlaces,
    TableSelection,
};
pub use time::{Time, WallTime};
pub use transport::{LineStream, Transport};
pub use value::Value;
pub use value_options::{TimePrecision, ValueOptions};
pub use write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};
