//! The trait of whatever changes come from, and the events that it sends.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::table::{RowKey, SourceRow, SourceTable, TableId, TableSelection};
use crate::time::WallTime;
use crate::write_checkpoint::MarkerToken;

/// A position in a source's stream: bytes that sort as the stream runs. An LSN, big-endian, for Postgres.
///
/// Never compared with an [`OpId`](crate::OpId) or with time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePosition(pub Bytes);

/// What a source wants to find again after a restart: progress of its snapshot, names, fingerprints. Opaque to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState(pub Bytes);

/// Where a source is to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStart {
    /// The tables and columns that are wanted.
    pub selection: TableSelection,
    /// The last position that is durable in the store; `None` before the first.
    pub position: Option<SourcePosition>,
    /// The last state that was stored; `None` at the very beginning.
    pub state: Option<SourceState>,
}

/// What a source sends, in order.
///
/// A stream is: an optional snapshot (`SnapshotRows`…, `SnapshotDone`), then transactions (row changes and markers, then
/// `Commit`), with `Progress` between them. A table's snapshot may come again between two transactions, after
/// `TableReset`.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceEvent {
    /// The source cannot go on from where it was asked to: changes in between are gone. The stream ends after it. The
    /// replicator must start over with neither position nor state.
    HistoryLost {
        /// Why, as a sentence for an operator.
        reason: String,
    },
    /// All rows of this table are void; a snapshot of it follows, or nothing if the table is gone.
    TableReset {
        /// The table.
        table: TableId,
    },
    /// Rows of a snapshot: hints that are valid only together with the stream that follows. A row whose key is stored
    /// already must be left alone.
    SnapshotRows {
        /// Their table.
        table: Arc<SourceTable>,
        /// The rows.
        rows: Vec<SourceRow>,
    },
    /// The rows so far are one resumable unit: to be committed together with this state. A source that can resume
    /// sends it before the first of them too: after a crash it knows then that a snapshot is under way.
    SnapshotProgress {
        /// What to hand back in [`SourceStart::state`].
        state: SourceState,
        /// Rows read so far and an estimate of all, for people.
        progress: SnapshotProgress,
    },
    /// The snapshot is complete. No checkpoint may be published before the stream has passed this position (S2).
    SnapshotDone {
        /// Taken after the last row was read.
        no_checkpoint_before: SourcePosition,
        /// What to hand back in [`SourceStart::state`].
        state: SourceState,
    },
    /// A row was inserted or updated.
    Put {
        /// Its table, as it was at that point of the stream.
        table: Arc<SourceTable>,
        /// The row.
        row: SourceRow,
        /// Its key before, if the update changed it.
        old_key: Option<RowKey>,
    },
    /// A row was deleted.
    Remove {
        /// Its table.
        table: Arc<SourceTable>,
        /// Its key.
        key: RowKey,
    },
    /// All rows of these tables were deleted.
    Truncate {
        /// The tables.
        tables: Vec<TableId>,
    },
    /// A marker of ours came by; it belongs to the transaction that the next `Commit` ends.
    Marker(MarkerToken),
    /// A transaction ended: everything before it is one consistent state.
    Commit {
        /// Where to go on after it.
        position: SourcePosition,
        /// When it was committed, by the source's clock.
        committed_at: Option<WallTime>,
        /// New state to store with it, if it changed.
        state: Option<SourceState>,
    },
    /// Outside any transaction, nothing of interest lies before this position.
    Progress {
        /// Where to go on.
        position: SourcePosition,
        /// The source waits for it to be acknowledged: it is to be stored now and not when that is convenient.
        awaited: bool,
    },
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotProgress {
    /// The table that is being read.
    pub table: String,
    /// Rows of it read so far.
    pub rows: u64,
    /// The source's estimate of all its rows.
    pub estimated: Option<u64>,
    /// Tables that are complete.
    pub tables_done: u32,
    /// Tables in all.
    pub tables: u32,
}

/// Rows read again because the stream sent only part of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reread {
    /// One answer per key, in order; `None` if the row does not exist (its removal is still ahead in the stream).
    pub rows: Vec<Option<(Arc<SourceTable>, SourceRow)>>,
    /// No checkpoint may be published before the stream has passed this position.
    pub no_checkpoint_before: SourcePosition,
}

/// Where changes come from. `source_tests!` (feature `testing`) checks what is promised here.
///
/// # Contract
/// - Transactions come whole and in commit order, each with a `Commit` of its own; a replayed one, at or before
///   [`SourceStart::position`], is left out. One that was sent and not acknowledged comes again as it was, at the same
///   position.
/// - Positions rise with each `Commit` and never fall with a `Progress`, within a stream and from one to the next, and a
///   position handed to [`acknowledge`](Self::acknowledge) is never needed again.
/// - [`events`](Self::events) may be called again after its stream ended or was dropped, also by another process; there is
///   one stream at a time.
/// - A position or state that the source cannot have handed out is refused, or its history is lost: it never goes on from
///   some other place.
/// - A snapshot of which anything was sent is ended by a `SnapshotDone`, after a restart too: until it comes, nothing is
///   published.
/// - The stream passes each `no_checkpoint_before` by itself, with a `Progress` if nothing is written.
/// - Everything read beside the stream (snapshots, rows read again) sees every transaction that the stream has sent.
/// - A row has the same key in a snapshot, in the stream and when it is read again. An update that changes the key tells the
///   old one, and what it leaves alone is sent or is [`Unchanged`](crate::Field::Unchanged), never NULL.
/// - A table that the selection names by a pattern, and that appears later, comes from its first row on.
/// - Nothing is buffered without a bound when the reader is slow.
///
/// # Cancel safety
/// The future of [`events`](Self::events) and its stream may be dropped at any point: whoever opens it again, with what is
/// durable by then, misses nothing and gets nothing twice.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// Connects and sends events, batch by batch, until an error ends the stream. One that ends without an error, after
    /// something that had to be stored (a `SnapshotProgress`), is to be opened again at once with what is stored by then:
    /// so a source has a name on disk before it makes what bears it.
    ///
    /// # Errors
    /// `Invalid` if a person must change something (a missing publication, a missing right, an unknown table); `Invalid` or
    /// `Data` for a position or state that is not the source's own; `Unavailable` if it may pass.
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>>;

    /// Everything up to this position is durable: the source may forget it (S3). Never blocks; keeps the highest, and ignores
    /// what is no position of its own. Where a stream begins is for [`SourceStart::position`] alone to say.
    fn acknowledge(&self, position: &SourcePosition);

    /// Sends a marker through the source, after everything that was committed before this call. If no stream is open, it waits
    /// in its place for the next one.
    async fn emit_marker(&self, token: &MarkerToken) -> Result<()>;

    /// Reads rows again, as they are after everything that the stream has sent: one answer per key, in their order.
    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread>;
}

#[async_trait]
impl<T: Source + ?Sized> Source for Arc<T> {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        (**self).events(start).await
    }
    fn acknowledge(&self, position: &SourcePosition) {
        (**self).acknowledge(position);
    }
    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        (**self).emit_marker(token).await
    }
    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        (**self).reread(table, keys).await
    }
}
