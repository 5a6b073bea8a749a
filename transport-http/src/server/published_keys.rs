//! Keys that an issuer publishes under a URL: fetched when they are needed, kept, and refreshed beside requests.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Client, StatusCode, Url, redirect};
use syncline_core::jwt::KeySet;
use syncline_core::{Clock, Error, Result, Time};
use tokio::sync::watch;
use tokio::time::timeout;

use super::address_guard::AddressGuard;
use super::refresh_schedule::{Age, RefreshSchedule};
use crate::tls;

/// How long a request waits for keys.
const WAIT: Duration = Duration::from_secs(3);
/// How long one fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 256 << 10;

/// One URL of keys.
pub(super) struct PublishedKeys {
    url: Url,
    guard: AddressGuard,
    client: OnceLock<Client>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Counts fetches that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    schedule: RefreshSchedule,
    keys: Arc<KeySet>,
    /// Why the last fetch failed.
    failure: Option<Error>,
}

impl State {
    /// The keys, unless they are too old to be trusted.
    fn usable_keys(&self, now: Time) -> Option<Arc<KeySet>> {
        (self.schedule.age(now) != Age::Unusable).then(|| self.keys.clone())
    }
}

impl PublishedKeys {
    /// Reads the URL; fetches nothing.
    ///
    /// # Errors
    /// `Invalid` if it is no URL of keys.
    pub(super) fn new(url: &str, allow_private: bool, clock: Arc<dyn Clock>) -> Result<Self> {
        let url =
            Url::parse(url).map_err(|error| Error::invalid("the URL of the keys is malformed").caused_by(error))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(Error::invalid("the URL of the keys must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("the URL of the keys must not contain a login"));
        }
        Ok(Self::at(url, allow_private, clock))
    }

    fn at(url: Url, allow_private: bool, clock: Arc<dyn Clock>) -> Self {
        let guard = AddressGuard { allow_private };
        Self { url, guard, client: OnceLock::new(), clock, state: Mutex::default(), ended: watch::Sender::new(0) }
    }

    /// The same URL with other options and nothing fetched.
    pub(super) fn again(&self, allow_private: bool, clock: Arc<dyn Clock>) -> Self {
        Self::at(self.url.clone(), allow_private, clock)
    }

    /// The keys. Waits up to 3 s if there are none yet; old ones are refreshed beside.
    ///
    /// # Errors
    /// `Unavailable` with `PSYNC_S2204` if there are none.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<KeySet>> {
        let age = self.state().schedule.age(self.clock.now());
        match age {
            Age::Fresh => {}
            Age::Stale => drop(self.refresh()),
            Age::Unusable => self.wait(self.refresh()).await,
        }
        let state = self.state();
        if let Some(keys) = state.usable_keys(self.clock.now()) {
            return Ok(keys);
        }
        let error = Error::unavailable("the keys that verify tokens cannot be fetched").with_code("PSYNC_S2204");
        Err(match &state.failure {
            Some(failure) => error.caused_by(failure.clone()),
            None => error,
        })
    }

    /// The keys after another look at what is published, unless there were too many looks lately.
    pub(super) async fn newer_keys(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        self.wait(self.refresh()).await;
        self.state().usable_keys(self.clock.now())
    }

    /// Starts a fetch, if it is time for one. `Some` if one is under way.
    fn refresh(self: &Arc<Self>) -> Option<watch::Receiver<u64>> {
        let mut state = self.state();
        let ended = self.ended.subscribe(); // before the fetch can end
        if state.schedule.start(self.clock.now()) {
            tokio::spawn(Fetch(self.clone()).run());
        }
        state.schedule.is_running().then_some(ended)
    }

    async fn wait(&self, ended: Option<watch::Receiver<u64>>) {
        let Some(mut ended) = ended else { return };
        // Late or not: what is there afterwards counts.
        if timeout(WAIT, ended.changed()).await.is_err() {
            tracing::debug!(url = %self.url, "the keys take long to arrive");
        }
    }

    async fn fetch(&self) -> Result<KeySet> {
        let failed = |what: String| Error::unavailable(what).with_code("PSYNC_S2204");
        // A name goes through the guard's resolver, an address does not.
        let host = self.url.host_str().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if address.is_some_and(|address| !self.guard.allows(address)) {
            return Err(failed(format!("{host} is not a public address")));
        }
        let unreachable =
            |error: reqwest::Error| failed(format!("{} cannot be fetched", self.url)).caused_by(error.without_url());
        let request = self.client()?.get(self.url.clone()).header("accept", "application/json");
        let response = request.send().await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(failed(format!("{} answers with status {}", self.url, response.status())));
        }
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(unreachable)?;
            if body.len() + piece.len() > MAX_BYTES {
                return Err(failed(format!("{} sends more than {MAX_BYTES} bytes", self.url)));
            }
            body.extend_from_slice(&piece);
        }
        let text =
            std::str::from_utf8(&body).map_err(|error| failed("the keys are no text".into()).caused_by(error))?;
        KeySet::from_published_jwks(text)
    }

    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls::public_authorities()?)
            .dns_resolver(Arc::new(self.guard))
            .redirect(redirect::Policy::none())
            .no_proxy() // a proxy would resolve names past the guard
            .connect_timeout(CONNECT_LIMIT)
            .timeout(FETCH_LIMIT)
            .build()
            .map_err(|error| Error::internal("the client for keys cannot be made").caused_by(error))?;
        Ok(self.client.get_or_init(|| client))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch that was started; it ends even if its task is dropped.
struct Fetch(Arc<PublishedKeys>);

impl Fetch {
    async fn run(self) {
        let result = self.0.fetch().await;
        let mut state = self.0.state();
        match result {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(url = %self.0.url, "no usable key is published");
                }
                state.keys = Arc::new(keys);
                state.failure = None;
                state.schedule.ended(self.0.clock.now(), true);
            }
            Err(error) => {
                tracing::warn!(%error, "the keys that verify tokens cannot be refreshed");
                state.failure = Some(error);
            }
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.schedule.is_running() {
            state.schedule.ended(self.0.clock.now(), false);
        }
        drop(state);
        self.0.ended.send_modify(|count| *count += 1);
    }
}

impl fmt::Debug for PublishedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishedKeys").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}
