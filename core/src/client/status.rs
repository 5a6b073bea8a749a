//! What a client knows about its synchronisation, for the application to show.

use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::client_store::UploadState;
use crate::error::{Error, ErrorKind};
use crate::time::WallTime;

/// The state of a client's synchronisation. Being offline is a state, not an error.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SyncStatus {
    /// A stream is open.
    pub connected: bool,
    /// A stream is being opened, or is about to be.
    pub connecting: bool,
    /// A checkpoint is being downloaded.
    pub downloading: Option<DownloadProgress>,
    /// A local transaction is on its way to the backend.
    pub uploading: bool,
    /// The upload queue, as it was last seen.
    pub uploads: UploadState,
    /// Since when a complete checkpoint waits for local writes to be uploaded and to come back (C3).
    pub held_by_uploads_since: Option<WallTime>,
    /// When a full checkpoint was last shown; known offline too, and never goes back.
    pub last_synced_at: Option<WallTime>,
    /// What keeps the client from downloading; cleared when a checkpoint is complete.
    pub download_error: Option<SyncProblem>,
    /// What keeps the client from uploading; cleared by the next success.
    pub upload_error: Option<SyncProblem>,
    /// Since when the local database has not answered a call, if that is long.
    pub store_stalled_since: Option<WallTime>,
    /// The streams that the application subscribed to, then those that the server subscribed it to.
    pub streams: Vec<StreamStatus>,
}

/// How much of a checkpoint was received, in operations. Estimates: servers merge operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DownloadProgress {
    /// Operations received.
    pub received: u64,
    /// Operations to be received in all; never below `received`.
    pub total: u64,
}

/// What keeps a client from synchronising, for now or until somebody acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncProblem {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// What failed.
    pub message: String,
    /// Since when attempts have failed.
    pub since: WallTime,
}

impl SyncProblem {
    /// Puts `error` in `place`; the time at which the trouble began stays.
    pub(super) fn report(place: &mut Option<Self>, error: &Error, wall: WallTime) {
        let since = place.as_ref().map_or(wall, |problem| problem.since);
        *place = Some(Self { kind: error.kind(), message: error.to_string(), since });
    }
}

/// A stream of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStatus {
    /// Its name.
    pub stream: String,
    /// The parameters of the subscription; `None` if the server subscribed the client by itself.
    pub parameters: Option<Map<String, Json>>,
    /// Whether the config subscribes everyone to it.
    pub is_default: bool,
    /// Whether it is part of the checkpoint that the server last announced.
    pub active: bool,
    /// A priority that overrides that of the config.
    pub priority: Option<BucketPriority>,
    /// Whether a handle holds it.
    pub held: bool,
    /// When it ends, unless a handle holds it. `None` if it is not a subscription of the application.
    pub expires_at: Option<WallTime>,
    /// When its rows were last complete.
    pub last_synced_at: Option<WallTime>,
    /// Why it yields no rows.
    pub error: Option<String>,
}
