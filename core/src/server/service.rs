//! The service: what a transport needs to serve clients.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::driver::StreamDriver;
use super::fan_out::FanOut;
use super::renewal::StreamRenewal;
use super::send_budget::SendBudget;
use super::session::SessionLimits;
use super::shared_bucket::SharedBuckets;
use super::shared_reads::SharedReads;
use crate::bucket_store::BucketStore;
use crate::checkpoint::DeployedConfig;
use crate::clock::{Clock, SystemClock};
use crate::config::SyncConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Authenticator, Identity};
use crate::protocol::{Framing, SyncRequest};
use crate::write_checkpoint::{ClientKey, WriteCheckpoint, WriteCheckpointRequest};

/// Serves sync streams from a [`BucketStore`] to whom an [`Authenticator`] knows.
///
/// A handle: cheap to clone, all clones are the same service. It follows whatever config is deployed in the store.
#[derive(Clone, Debug)]
pub struct SyncService(Arc<Inner>);

/// Limits of a service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Open streams; one more is refused with `PSYNC_S2304` (429). Default 20 000.
    pub streams: usize,
    /// Open streams of one user (`sub`); one more is refused in the same way. Default 1000.
    pub streams_per_user: usize,
    /// Buckets of one stream; a request that yields more is refused with `PSYNC_S2305` (400). Default 10 000.
    pub buckets_per_stream: usize,
    /// Explicit subscriptions of one stream; a request with more is refused with `PSYNC_S2305` (400). Default 1000.
    pub subscriptions_per_stream: usize,
    /// Bytes of encoded lines that all streams together hold for clients that have not taken them yet; the next line waits
    /// until some are taken, or their client is cut off. Lines of less than 16 KiB are not counted. Default 256 MiB; a
    /// single line may be larger.
    pub buffered_bytes: usize,
    /// Limits of each stream.
    pub session: SessionLimits,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            streams: 20_000,
            streams_per_user: 1_000,
            buckets_per_stream: 10_000,
            subscriptions_per_stream: 1_000,
            buffered_bytes: 256 << 20,
            session: SessionLimits::default(),
        }
    }
}

/// Whether a service can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// The service exists.
    pub started: bool,
    /// It is not closing, and its store works as far as it knows.
    pub ready: bool,
    /// Open streams.
    pub streams: usize,
}

pub(super) struct Inner {
    pub(super) store: Arc<dyn BucketStore>,
    pub(super) reads: SharedReads,
    pub(super) buckets: Arc<SharedBuckets>,
    pub(super) fan_out: Arc<FanOut>,
    pub(super) sends: SendBudget,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: ServiceLimits,
    authenticator: Arc<dyn Authenticator>,
    compiled: Mutex<Option<(Arc<DeployedConfig>, SyncConfig)>>,
    streams: Arc<OpenStreams>,
    closing: AtomicBool,
    /// The store answered last with an error that does not pass.
    store_failed: AtomicBool,
}

impl SyncService {
    /// A service of these parts. Touches nothing before the first stream.
    pub fn new(store: impl BucketStore + 'static, authenticator: impl Authenticator + 'static) -> Self {
        Self::with(store, authenticator, SystemClock, ServiceLimits::default())
    }

    /// The same with other limits.
    pub fn with_limits(
        store: impl BucketStore + 'static,
        authenticator: impl Authenticator + 'static,
        limits: ServiceLimits,
    ) -> Self {
        Self::with(store, authenticator, SystemClock, limits)
    }

    /// The same on another clock, with other limits.
    pub fn with(
        store: impl BucketStore + 'static,
        authenticator: impl Authenticator + 'static,
        clock: impl Clock + 'static,
        limits: ServiceLimits,
    ) -> Self {
        let store: Arc<dyn BucketStore> = Arc::new(store);
        Self(Arc::new(Inner {
            reads: SharedReads::new(Arc::clone(&store)),
            buckets: Arc::default(),
            fan_out: Arc::new(FanOut::new(Arc::clone(&store))),
            sends: SendBudget::new(limits.buffered_bytes),
            store,
            clock: Arc::new(clock),
            limits,
            authenticator: Arc::new(authenticator),
            compiled: Mutex::default(),
            streams: Arc::default(),
            closing: AtomicBool::new(false),
            store_failed: AtomicBool::new(false),
        }))
    }

    /// Verifies a token, given without its scheme.
    ///
    /// # Errors
    /// `Unauthorized` with a `PSYNC_S21…` code; `Unavailable` if keys cannot be had.
    pub async fn authenticate(&self, token: &str) -> Result<Identity> {
        self.0.authenticator.authenticate(token).await
    }

    /// Opens a stream of encoded lines, in pieces of about 32 KiB; a piece ends with a whole line.
    ///
    /// The stream works only while it is polled. It ends without an error when the token expires, when the config
    /// changes, and when the service closes; the client connects again. Poll it until it is pending before doing anything
    /// that may wait for the client: then it never holds up other streams.
    ///
    /// # Errors
    /// `Invalid` for a malformed request and one with too many subscriptions; `Unavailable` with `PSYNC_S2304` if there are too many streams, with
    /// `PSYNC_S2003` if the service closes.
    pub fn stream(
        &self,
        identity: Identity,
        request: SyncRequest,
        framing: Framing,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.driver(identity, request, framing).map(lines)
    }

    /// The same, and what gives the stream a new token before its own ends.
    ///
    /// # Errors
    /// As those of [`stream`](Self::stream).
    pub fn renewable_stream(
        &self,
        identity: Identity,
        request: SyncRequest,
        framing: Framing,
    ) -> Result<(BoxStream<'static, Result<Bytes>>, StreamRenewal)> {
        let (renewal, expiry) = StreamRenewal::of(&identity);
        Ok((lines(self.driver(identity, request, framing)?.renewed_by(expiry)), renewal))
    }

    fn driver(&self, identity: Identity, request: SyncRequest, framing: Framing) -> Result<StreamDriver> {
        let inner = &self.0;
        if inner.closing.load(Ordering::Acquire) {
            return Err(Error::unavailable("the service is shutting down").with_code("PSYNC_S2003"));
        }
        check_client_id(request.client_id.as_deref())?;
        let permit = StreamPermit::take(&inner.streams, &inner.limits, identity.user_id())?;
        StreamDriver::new(Arc::clone(inner), identity, request, framing, permit)
    }

    /// Records a request for a write checkpoint: its number comes back in the client's stream once everything that was
    /// committed in the source before this call has come back (S6).
    ///
    /// # Errors
    /// `Invalid` for a client id that is too long and a number that is too large; `Unavailable` if the store is away, and
    /// with `PSYNC_S2304` if the user has too many clients.
    pub async fn request_write_checkpoint(
        &self,
        identity: &Identity,
        client_id: Option<&str>,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        check_client_id(client_id)?;
        let client = ClientKey::new(identity, client_id);
        self.0.store.request_write_checkpoint(&client, request).await
    }

    /// Whether it can serve.
    pub fn readiness(&self) -> Readiness {
        Readiness {
            started: true,
            ready: !self.0.closing.load(Ordering::Acquire) && !self.0.store_failed.load(Ordering::Relaxed),
            streams: self.0.streams.state().count,
        }
    }

    /// Ends all streams, cleanly, and opens no more. Returns at once; streams end when they are next polled, and all are
    /// woken.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.fan_out.close();
    }
}

impl Inner {
    /// Notes how the store answered: one that is closed, or has lost a thread, serves nobody any more.
    pub(super) fn note<T>(&self, answer: &Result<T>) {
        let failed =
            answer.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Internal | ErrorKind::Closed));
        if self.store_failed.swap(failed, Ordering::Relaxed) != failed {
            tracing::warn!(failed, "the bucket store changed between working and failing");
        }
    }

    /// The compiled form of a deployed config, made once.
    pub(super) fn compiled(&self, deployed: &Arc<DeployedConfig>) -> Result<SyncConfig> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*compiled
            && (Arc::ptr_eq(of, deployed) || **of == **deployed)
        {
            return Ok(config.clone());
        }
        let config = SyncConfig::parse(&deployed.text).map_err(|diagnostics| {
            Error::data("the deployed sync config cannot be read").caused_by(diagnostics).with_code("PSYNC_S2302")
        })?;
        *compiled = Some((Arc::clone(deployed), config.clone()));
        Ok(config)
    }
}

fn lines(driver: StreamDriver) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold(driver, |mut driver| async move {
        let item = driver.next().await?;
        Some((item, driver))
    })
    .boxed()
}

/// SDKs send a UUID; what a client makes up is kept for long.
const CLIENT_ID_BYTES: usize = 128;

fn check_client_id(client_id: Option<&str>) -> Result<()> {
    match client_id {
        Some(id) if id.len() > CLIENT_ID_BYTES => {
            let message = format!("`client_id` is longer than {CLIENT_ID_BYTES} bytes");
            Err(Error::invalid(message).with_code("PSYNC_S2001"))
        }
        _ => Ok(()),
    }
}

/// Streams that are open, in all and by user.
#[derive(Debug, Default)]
struct OpenStreams(Mutex<OpenCounts>);

#[derive(Debug, Default)]
struct OpenCounts {
    count: usize,
    by_user: BTreeMap<String, usize>,
    refusals: Refusals,
}

/// Refusals are told of when they begin, and again a thousand refusals later: whoever is refused comes back soon.
#[derive(Debug, Default)]
struct Refusals(u64);

impl Refusals {
    const TOLD_EVERY: u64 = 1_000;

    fn tell(&mut self, reason: &str) {
        if self.0.is_multiple_of(Self::TOLD_EVERY) {
            tracing::warn!(reason, refused_before = self.0, "a stream is refused with 429");
        }
        self.0 += 1;
    }
}

impl OpenStreams {
    fn state(&self) -> MutexGuard<'_, OpenCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one open stream; dropping it gives it back.
#[derive(Debug)]
pub(super) struct StreamPermit {
    open: Arc<OpenStreams>,
    user: String,
}

impl StreamPermit {
    fn take(open: &Arc<OpenStreams>, limits: &ServiceLimits, user: String) -> Result<Self> {
        let mut state = open.state();
        let of_user = state.by_user.get(&user).copied().unwrap_or(0);
        let refused = if state.count >= limits.streams {
            Some(format!("there are {} streams already (`ServiceLimits::streams`)", state.count))
        } else if of_user >= limits.streams_per_user {
            Some(format!("user {user} has {of_user} streams already (`ServiceLimits::streams_per_user`)"))
        } else {
            None
        };
        if let Some(reason) = refused {
            state.refusals.tell(&reason);
            return Err(Error::unavailable(reason).with_code("PSYNC_S2304"));
        }
        state.count += 1;
        state.by_user.insert(user.clone(), of_user + 1);
        Ok(Self { open: Arc::clone(open), user })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut state = self.open.state();
        state.count -= 1;
        if let Some(of_user) = state.by_user.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                state.by_user.remove(&self.user);
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncService").field("store", &self.store).field("limits", &self.limits).finish_non_exhaustive()
    }
}
