//! What an operator wants to know of replication.

use crate::source::{SnapshotProgress, SourcePosition};
use crate::time::WallTime;

/// A snapshot of the state of replication.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplicationStatus {
    /// What it is doing.
    pub phase: ReplicationPhase,
    /// How far the snapshot is, while there is one.
    pub snapshot: Option<SnapshotProgress>,
    /// The last durable source position.
    pub position: Option<SourcePosition>,
    /// When the last replicated transaction was committed, by the source's clock.
    pub last_committed_at: Option<WallTime>,
    /// What holds back the next checkpoint.
    pub blocked_by: Option<&'static str>,
    /// The last error, until replication goes on.
    pub error: Option<String>,
    /// Durable commits since the start.
    pub commits: u64,
    /// Row changes since the start.
    pub rows: u64,
    /// Rows since the start that could not be evaluated, by a query or in part; they left the buckets of that query. A row
    /// whose write checkpoint cannot be used is one too.
    pub failed_rows: u64,
}

/// What replication is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicationPhase {
    /// It was not started, or has stopped.
    #[default]
    Stopped,
    /// It connects to the source.
    Connecting,
    /// It reads a snapshot.
    Snapshot,
    /// It follows the stream.
    Streaming,
    /// It waits before it tries again.
    Waiting,
}
