//! What a client session is told, and what it asks for.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::client_store::{ClientState, PublishOutcome, PublishRequest, TargetCheckpoint, UploadSequence, UploadState};
use crate::connector::Credentials;
use crate::error::Result;
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::protocol::{ClientLine, DataLine, SyncRequest};
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

use super::subscription::HeldSubscription;

/// Something that happened, for [`ClientSession::handle`](super::ClientSession::handle).
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// Time passed: [`poll_timeout`](super::ClientSession::poll_timeout) was reached.
    Tick,
    /// The answer to the one outstanding [`ClientCommand::Store`].
    Store(StoreReply),
    /// The answer to [`ClientCommand::FetchCredentials`].
    Credentials(Result<Credentials>),
    /// The stream that [`ClientCommand::Open`] asked for is open.
    Opened,
    /// Bytes came that do not end a line yet.
    Heard,
    /// Lines that arrived together, in order.
    Lines(Vec<ClientLine>),
    /// The stream could not be opened, broke, or was ended by the server (`Ok`).
    StreamEnded(Result<()>),
    /// The answer to [`ClientCommand::Upload`].
    Uploaded(Result<Uploaded>),
    /// The answer to [`ClientCommand::RequestWriteCheckpoint`].
    WriteCheckpoint(Result<WriteCheckpoint>),
    /// The upload queue changed, whoever changed it.
    UploadQueueChanged,
    /// The subscriptions that handles hold now; new ones are in the store already.
    Subscriptions(Vec<HeldSubscription>),
    /// The network may be back: everything that waits out a back-off is tried now.
    RetryNow,
}

/// What a driver is to do, from [`ClientSession::poll`](super::ClientSession::poll).
#[derive(Debug, Clone)]
pub enum ClientCommand {
    /// Call the store and answer with [`ClientEvent::Store`]. The next one comes only after that answer.
    Store(StoreCommand),
    /// Ask the connector; answer with [`ClientEvent::Credentials`].
    FetchCredentials,
    /// Open a stream; answer with [`ClientEvent::Opened`] and what follows it.
    Open {
        /// The body of the request.
        request: Arc<SyncRequest>,
        /// What to show.
        credentials: Credentials,
    },
    /// Drop the stream, or the attempt to open it. Nothing of it may be told any more.
    CloseStream,
    /// Give a local transaction to the connector; answer with [`ClientEvent::Uploaded`].
    Upload {
        /// The transaction.
        transaction: Arc<LocalTransaction>,
        /// What to show.
        credentials: Credentials,
    },
    /// Ask the server for a write checkpoint; answer with [`ClientEvent::WriteCheckpoint`].
    RequestWriteCheckpoint {
        /// The id of the client's database.
        client_id: Arc<str>,
        /// What to show.
        credentials: Credentials,
    },
    /// Drop a call whose time is up. Its answer may not be told any more.
    Abandon(Call),
    /// The session ended; nothing follows. `Err` needs a person, `Ok` means that the store was closed.
    Stop(Result<()>),
}

/// A call over the network, beside the stream. At most one of each kind is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`ClientCommand::FetchCredentials`].
    Credentials,
    /// [`ClientCommand::Upload`].
    Upload,
    /// [`ClientCommand::RequestWriteCheckpoint`].
    WriteCheckpoint,
}

/// One call of a [`ClientStore`](crate::ClientStore).
#[derive(Debug, Clone)]
pub enum StoreCommand {
    /// `resume`.
    Resume {
        /// The time of day.
        now: WallTime,
    },
    /// `begin_checkpoint`.
    BeginCheckpoint(Arc<TargetCheckpoint>),
    /// `stage`.
    Stage(Vec<DataLine>),
    /// `publish`.
    Publish(PublishRequest),
    /// `next_upload`.
    LoadUpload,
    /// `finish_upload`.
    FinishUpload {
        /// The transaction that was sent.
        transaction: Arc<LocalTransaction>,
        /// What became of it.
        outcome: Uploaded,
    },
    /// `upload_state`.
    LoadUploadState,
    /// `cover`.
    Cover {
        /// The newest entry that is covered.
        upto: UploadSequence,
        /// By what.
        checkpoint: WriteCheckpoint,
    },
    /// `subscribe`, to renew or end a subscription.
    SaveSubscription {
        /// The stream.
        stream: String,
        /// Its parameters.
        parameters: Map<String, Json>,
        /// A priority that overrides that of the config.
        priority: Option<BucketPriority>,
        /// The new end; `None` ends it now.
        expires_at: Option<WallTime>,
    },
}

/// The answer to a [`StoreCommand`].
#[derive(Debug, Clone)]
pub enum StoreReply {
    /// To `Resume`.
    Resumed(Result<ClientState>),
    /// To `BeginCheckpoint`.
    Begun(Result<()>),
    /// To `Stage`.
    Staged(Result<()>),
    /// To `Publish`.
    Published(Result<PublishOutcome>),
    /// To `LoadUpload`.
    UploadLoaded(Result<Option<LocalTransaction>>),
    /// To `FinishUpload`.
    UploadFinished(Result<()>),
    /// To `LoadUploadState`.
    UploadStateLoaded(Result<UploadState>),
    /// To `Cover`.
    Covered(Result<()>),
    /// To `SaveSubscription`.
    SubscriptionSaved(Result<()>),
}
