//! The trait of the client's store: downloads, what the application sees, and the upload queue.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytestring::ByteString;
use futures::stream::BoxStream;
use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::error::Result;
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::operation::OpId;
use crate::protocol::{DataLine, StreamDescription, SubscriptionReason};
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

/// What a client knows from before.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientState {
    /// A random id made once per database; survives everything.
    pub client_id: Arc<str>,
    /// Every bucket with its position: everything up to there is stored. A bucket that left, and whose rows are shown until
    /// the next whole checkpoint, stands here at position zero: so that server and session know that something else is
    /// shown, and show nothing of another config beside it (S8).
    pub buckets: Vec<(ByteString, OpId)>,
    /// Streams that the application subscribed to and that have not expired.
    pub subscriptions: Vec<StoredSubscription>,
    /// When a full checkpoint was last published.
    pub last_synced_at: Option<WallTime>,
    /// The upload queue.
    pub uploads: UploadState,
}

/// A stream that the application subscribed to.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSubscription {
    /// The stream's name.
    pub stream: String,
    /// Its parameters; compared in canonical form (sorted keys).
    pub parameters: Map<String, Json>,
    /// A priority that overrides that of the config.
    pub priority: Option<BucketPriority>,
    /// When it ends, unless a handle holds it.
    pub expires_at: WallTime,
    /// When its rows were first and last complete.
    pub last_synced_at: Option<WallTime>,
}

/// The state of the upload queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadState {
    /// Local transactions that wait to be uploaded.
    pub queued: u64,
    /// The newest entry that was sent (applied or rejected) and that no write checkpoint covers yet: one must be asked
    /// for.
    pub uncovered: Option<UploadSequence>,
    /// The newest entry that waits for a write checkpoint: what to cover anew if the server has lost its numbers.
    pub covered: Option<UploadSequence>,
    /// The largest write checkpoint that sent entries wait for.
    pub awaited: Option<WriteCheckpoint>,
}

/// A point of the upload queue: the number of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadSequence(pub i64);

/// A checkpoint as the client was told, diffs merged in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetCheckpoint {
    /// Its id.
    pub last_op_id: OpId,
    /// The largest write checkpoint that it carries.
    pub write_checkpoint: Option<WriteCheckpoint>,
    /// All its buckets, by name.
    pub buckets: BTreeMap<ByteString, TargetBucket>,
    /// The streams that the client is subscribed to.
    pub streams: Vec<StreamDescription>,
}

/// A bucket of a [`TargetCheckpoint`].
#[derive(Debug, Clone, PartialEq)]
pub struct TargetBucket {
    /// The sum that its stored operations must have.
    pub checksum: Checksum,
    /// Its priority.
    pub priority: BucketPriority,
    /// Operations in it, for progress only.
    pub count: Option<u64>,
    /// Why the client has it.
    pub subscriptions: Vec<SubscriptionReason>,
}

/// A request to show a checkpoint.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The checkpoint.
    pub target: Arc<TargetCheckpoint>,
    /// `Some(p)`: only buckets with priority number at or below `p`, adding and replacing rows but never deleting.
    /// `None`: everything.
    pub partial: Option<BucketPriority>,
    /// The subscriptions of the request, in its order: what [`SubscriptionReason::Subscription`] counts.
    pub requested: Arc<[StoredSubscription]>,
    /// The time of day.
    pub now: WallTime,
}

/// The right of one sync engine to use a [`ClientStore`], until it is dropped.
pub struct StoreLease {
    _guard: Box<dyn Send + Sync>,
}

impl StoreLease {
    /// A lease that ends when `guard` is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

impl fmt::Debug for StoreLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLease").finish_non_exhaustive()
    }
}

/// What became of a [`PublishRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Readers see it.
    Published,
    /// The sums of these buckets differ. They were discarded, and nothing else: they must be downloaded again.
    Mismatch(Vec<ByteString>),
    /// Local writes hold it back (C3). What was downloaded is kept; try again when the upload queue has changed.
    Held,
}

/// The client's store. One sync driver uses it beside the application's own reads and writes.
///
/// # Contract
/// - `stage` is invisible to the application; only `publish` shows, and all at once (C1).
/// - `publish` verifies sums, tests the upload queue and shows, in one transaction; it recomputes every row that the
///   checkpoint changed and every row with an entry that it covers. What it prepares before that is invisible. A local
///   write waits at most 50 ms for any of it, a read never (C4).
/// - A local write and its queue entry commit together (C2), and an entry stays until a publish covers it.
/// - Nothing that sync does is captured into the queue (C7).
///
/// # Cancel safety
/// Dropping the future of any method leaves either all or nothing of its effect; that of `stage` may leave a beginning.
#[async_trait]
pub trait ClientStore: Send + Sync + fmt::Debug {
    /// Takes the store for a sync engine, until what is returned is dropped. Two engines, be they in one process or in two,
    /// would upload the same writes and stage the same operations.
    ///
    /// # Errors
    /// `Unavailable` while another engine has it.
    async fn lease(&self) -> Result<StoreLease>;

    /// What is known from before. Subscriptions that expired before `now` are dropped.
    async fn resume(&self, now: WallTime) -> Result<ClientState>;

    /// Records or renews a subscription. `None` for `expires_at` ends it.
    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()>;

    /// A checkpoint line came: downloads of buckets that it does not name are dropped (their rows leave with the publish).
    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()>;

    /// Stores operations as received, in order and durably. It may take several transactions, so that no local write waits
    /// for long: after each of them every bucket stands at a position from which its download can go on, so that after a
    /// crash or an error the next request asks for exactly what is missing.
    async fn stage(&self, lines: &[DataLine]) -> Result<()>;

    /// Verifies and shows a checkpoint, or says why not.
    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome>;

    /// The state of the upload queue.
    async fn upload_state(&self) -> Result<UploadState>;

    /// The oldest local transaction that was not sent.
    async fn next_upload(&self) -> Result<Option<LocalTransaction>>;

    /// The oldest transaction was sent. A rejected one is recorded in the dead-letter table.
    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()>;

    /// Entries sent up to `upto` are covered by this write checkpoint, which was asked for after they were sent. It replaces
    /// the one that they waited for, also if it is smaller: then the server had forgotten that one. Entries after `upto`
    /// keep the one that they wait for: an answer that comes late says nothing about them.
    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()>;

    /// An item after each commit that changed the upload queue, whoever made it; items may be merged.
    fn upload_changes(&self) -> BoxStream<'static, ()>;
}

#[async_trait]
impl<T: ClientStore + ?Sized> ClientStore for Arc<T> {
    async fn lease(&self) -> Result<StoreLease> {
        (**self).lease().await
    }
    async fn resume(&self, now: WallTime) -> Result<ClientState> {
        (**self).resume(now).await
    }
    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()> {
        (**self).subscribe(stream, parameters, priority, expires_at).await
    }
    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()> {
        (**self).begin_checkpoint(target).await
    }
    async fn stage(&self, lines: &[DataLine]) -> Result<()> {
        (**self).stage(lines).await
    }
    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        (**self).publish(request).await
    }
    async fn upload_state(&self) -> Result<UploadState> {
        (**self).upload_state().await
    }
    async fn next_upload(&self) -> Result<Option<LocalTransaction>> {
        (**self).next_upload().await
    }
    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
        (**self).finish_upload(transaction, outcome).await
    }
    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
        (**self).cover(upto, checkpoint).await
    }
    fn upload_changes(&self) -> BoxStream<'static, ()> {
        (**self).upload_changes()
    }
}
