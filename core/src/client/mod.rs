//! The client: keeps a [`ClientStore`] in step with a server, and brings its local writes to a backend.
//!
//! [`ClientSession`] is the protocol as a plain state machine; [`SyncClient`] carries out what it asks for.

mod connection;
mod credentials;
mod download;
mod driver;
mod event;
mod handle;
mod options;
mod reconnect;
mod session;
mod status;
mod status_feed;
mod subscription;
mod upload;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::task::AtomicWaker;
use serde_json::{Map, Value as Json};

use crate::client_store::{ClientStore, StoreLease, UploadState};
use crate::clock::{Clock, SystemClock};
use crate::connector::Connector;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Transport;

pub use event::{Call, ClientCommand, ClientEvent, StoreCommand, StoreReply};
pub use handle::{StreamHandle, Subscribe};
pub use options::{ClientLimits, ClientOptions};
pub use session::ClientSession;
pub use status::{DownloadProgress, StreamStatus, SyncProblem, SyncStatus};
pub use status_feed::StatusUpdates;
pub use subscription::HeldSubscription;

use driver::Driver;
use status_feed::StatusFeed;
use subscription::SubscriptionKey;

/// How long a run waits for another engine to leave the store: one that was aborted, or another process that ends.
const LEASE_WAIT: Duration = Duration::from_secs(10);
/// How often it looks.
const LEASE_LOOK: Duration = Duration::from_millis(50);

/// Keeps a store in step with a server. A handle: clones are the same client.
///
/// [`run`](Self::run) does the work and is to be spawned; everything else may be called before, meanwhile and after.
#[derive(Debug, Clone)]
pub struct SyncClient {
    store: Arc<dyn ClientStore>,
    transport: Arc<dyn Transport>,
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    options: ClientOptions,
    seed: Option<u64>,
    shared: Arc<Shared>,
}

/// What clones and the running driver share.
#[derive(Debug, Default)]
struct Shared {
    running: AtomicBool,
    feed: Arc<StatusFeed>,
    handles: Mutex<BTreeMap<SubscriptionKey, Held>>,
    /// Handles were made or dropped since the driver looked.
    changed: AtomicBool,
    /// Back-offs are to end.
    retry: AtomicBool,
    runner: AtomicWaker,
}

#[derive(Debug)]
struct Held {
    subscription: HeldSubscription,
    handles: usize,
}

impl SyncClient {
    /// A client of this store, which reaches a server by `transport` and its application by `connector`. Touches nothing
    /// until it runs.
    pub fn new(
        store: impl ClientStore + 'static,
        transport: impl Transport + 'static,
        connector: impl Connector + 'static,
    ) -> Self {
        Self {
            store: Arc::new(store),
            transport: Arc::new(transport),
            connector: Arc::new(connector),
            clock: Arc::new(SystemClock),
            options: ClientOptions::default(),
            seed: None,
            shared: Arc::default(),
        }
    }

    /// Another clock than that of the system, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What the spread of retries is derived from, together with the id of the database. Default: the time of day.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Parameters of the connection, for the sync config. Default: none.
    #[must_use]
    pub fn parameters(mut self, parameters: Map<String, Json>) -> Self {
        self.options.parameters = parameters;
        self
    }

    /// Whether streams with `auto_subscribe` are wanted. Default: true.
    #[must_use]
    pub fn include_defaults(mut self, include: bool) -> Self {
        self.options.include_defaults = include;
        self
    }

    /// A note for the server's log. Default: none.
    #[must_use]
    pub fn app_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.app_metadata.insert(name.into(), value.into());
        self
    }

    /// Other bounds than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: ClientLimits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Synchronises until dropped. Being offline is a [status](Self::status), not an error: it reconnects by itself.
    ///
    /// # Errors
    /// Only what needs a person: `Invalid` if another engine has the store (another `run` of this client, another client
    /// over the same file, another process) and keeps it for 10 s, or if the store refuses what it is given, `Data` if the
    /// store is damaged, `Internal`. Ends with `Ok` when the store is closed.
    ///
    /// # Cancel safety
    /// May be dropped at any point and run again: everything that matters is in the store. So may a task that runs it be
    /// aborted and another be spawned at once: the second waits until the first has gone.
    pub fn run(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let client = self.clone();
        async move {
            let _running = client.begin().await?;
            let mut driver = Driver::new(&client);
            driver.start();
            poll_fn(|cx| driver.poll(cx)).await
        }
    }

    /// Waits, within a bound, until no other engine has the store.
    async fn begin(&self) -> Result<Running> {
        let give_up = self.clock.now() + LEASE_WAIT;
        loop {
            let busy = if self.shared.running.swap(true, Ordering::AcqRel) {
                Error::unavailable("this client runs already: spawn `run()` once")
            } else {
                // Dropped with an error, it says that this run has ended.
                let mut running = Running { shared: Arc::clone(&self.shared), lease: None };
                match self.store.lease().await {
                    Ok(lease) => {
                        running.lease = Some(lease);
                        return Ok(running);
                    }
                    Err(error) if error.kind() == ErrorKind::Unavailable => error,
                    Err(error) if error.kind() == ErrorKind::Closed => return Ok(running),
                    Err(error) => return Err(error),
                }
            };
            if self.clock.now() >= give_up {
                return Err(Error::invalid("another sync engine uses this database").caused_by(busy));
            }
            self.clock.sleep_until(self.clock.now() + LEASE_LOOK).await;
        }
    }

    /// Subscribes to a stream: `parameters` is an object, or null for none. Await what it returns; that waits for the
    /// store only, never for the network.
    pub fn subscribe(&self, stream: impl Into<String>, parameters: impl Into<Json>) -> Subscribe {
        Subscribe::new(self.clone(), stream.into(), parameters.into())
    }

    /// The status now, and after each change the newest one.
    pub fn status(&self) -> StatusUpdates {
        self.shared.feed.updates()
    }

    /// The status now.
    pub fn current_status(&self) -> SyncStatus {
        SyncStatus::clone(&self.shared.feed.current())
    }

    /// Ends all back-offs: the network may be back.
    pub fn retry_now(&self) {
        self.shared.retry.store(true, Ordering::Release);
        self.shared.runner.wake();
    }

    /// Waits until every local write made so far, and until then, has been uploaded and has come back. Waits for as long as
    /// there is no connection; something must [run](Self::run) the client.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn caught_up(&self) -> Result<()> {
        let mut changes = self.store.upload_changes();
        loop {
            let UploadState { queued, uncovered, awaited, .. } = self.store.upload_state().await?;
            if queued == 0 && uncovered.is_none() && awaited.is_none() {
                return Ok(());
            }
            let pause = self.clock.sleep_until(self.clock.now() + Duration::from_secs(1));
            match select(changes.next(), pause).await {
                // Without signals, time is the only one.
                Either::Left((None, pause)) => pause.await,
                Either::Left((Some(()), _)) | Either::Right(_) => {}
            }
        }
    }
}

impl Shared {
    fn handles(&self) -> MutexGuard<'_, BTreeMap<SubscriptionKey, Held>> {
        // Nothing that may panic runs under the lock.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What handles hold now.
    fn held(&self) -> Vec<HeldSubscription> {
        self.handles().values().map(|held| held.subscription.clone()).collect()
    }

    /// One more handle; returns the subscription that all handles of this key make together.
    fn hold(&self, key: &SubscriptionKey, wanted: HeldSubscription) -> HeldSubscription {
        let mut handles = self.handles();
        let held = handles.entry(key.clone()).or_insert_with(|| Held { subscription: wanted.clone(), handles: 0 });
        held.handles += 1;
        held.subscription.ttl = held.subscription.ttl.max(wanted.ttl);
        held.subscription.priority = match (held.subscription.priority, wanted.priority) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        held.subscription.clone()
    }

    fn release(&self, key: &SubscriptionKey) {
        let mut handles = self.handles();
        if let Some(held) = handles.get_mut(key) {
            held.handles -= 1;
            if held.handles == 0 {
                handles.remove(key);
                drop(handles);
                self.handles_changed();
            }
        }
    }

    fn handles_changed(&self) {
        self.changed.store(true, Ordering::Release);
        self.runner.wake();
    }
}

/// A run of a client. However it ends, the next may begin, and the status says that nothing goes on.
struct Running {
    shared: Arc<Shared>,
    lease: Option<StoreLease>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut status = SyncStatus::clone(&self.shared.feed.current());
        status.connected = false;
        status.connecting = false;
        status.uploading = false;
        status.downloading = None;
        status.store_stalled_since = None;
        self.shared.feed.show(&status);
        // Before the next run of this client may begin.
        self.lease = None;
        self.shared.running.store(false, Ordering::Release);
    }
}
