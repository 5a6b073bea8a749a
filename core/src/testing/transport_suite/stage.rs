//! What a case works with: a service over a store in memory, the transport under test, and the one in memory beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::wire::Wire;
use crate::bucket::BucketId;
use crate::bucket_store::{AppendBatch, BucketStore, Commit, Deploy};
use crate::clock::{Clock, SystemClock};
use crate::config::SyncConfig;
use crate::connector::Credentials;
use crate::error::{Error, Result};
use crate::identity::{Authenticator, Identity};
use crate::memory::{MemoryBucketStore, MemoryTransport};
use crate::operation::NewOperation;
use crate::protocol::SyncRequest;
use crate::server::{ServiceLimits, SyncService};
use crate::testing::deadline::{Deadline, pause};
use crate::time::WallTime;
use crate::transport::Transport;
use crate::write_checkpoint::MarkerToken;

const CONFIG: &str = "
config: { edition: 3 }
streams:
  notes:
    auto_subscribe: true
    query: SELECT id, text FROM notes WHERE owner_id = auth.user_id()
  texts:
    auto_subscribe: true
    query: SELECT id, text FROM texts WHERE language = connection.parameter('language')
  topics:
    query: SELECT id, text FROM topics WHERE topic = subscription.parameter('topic')
";

/// A service and two ways to it.
pub(super) struct Stage {
    pub(super) store: MemoryBucketStore,
    pub(super) service: SyncService,
    /// The transport under test.
    pub(super) transport: Arc<dyn Transport>,
    /// The one that it is compared with.
    pub(super) here: MemoryTransport,
    patience: Duration,
}

impl Stage {
    pub(super) async fn new(wire: &dyn Wire) -> Self {
        Self::with(wire, ServiceLimits::default()).await
    }

    pub(super) async fn with(wire: &dyn Wire, limits: ServiceLimits) -> Self {
        let (store, service) = Self::service(limits).await;
        let transport = wire.connect(service.clone()).await;
        Self::of(store, service, transport, wire.patience())
    }

    pub(super) fn of(
        store: MemoryBucketStore,
        service: SyncService,
        transport: Arc<dyn Transport>,
        patience: Duration,
    ) -> Self {
        let here = MemoryTransport::new(service.clone());
        Self { store, service, transport, here, patience }
    }

    /// A service, its config deployed, and the store behind it.
    pub(super) async fn service(limits: ServiceLimits) -> (MemoryBucketStore, SyncService) {
        let store = MemoryBucketStore::new();
        let config = SyncConfig::parse(CONFIG).unwrap_or_else(|problems| panic!("{problems}"));
        let forms = config.definitions().iter().map(|definition| definition.form().clone()).collect();
        let deploy = Deploy { text: config.text().clone(), forms };
        let commit = Commit { deploy: Some(deploy), publish: true, ..Commit::default() };
        ok(store.commit(commit).await);
        let service = SyncService::with_limits(store.clone(), Tokens, limits);
        (store, service)
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// Publishes rows: the stream whose bucket they are in, the parameter of that bucket, their id, and their text.
    pub(super) async fn publish(&self, rows: &[(&str, &str, String, String)]) {
        let resume = ok(self.store.resume().await);
        let deployed = resume.config.unwrap_or_else(|| panic!("a config is deployed"));
        let config = SyncConfig::parse(CONFIG).unwrap_or_else(|problems| panic!("{problems}"));
        let operation = |(stream, parameter, id, text): &(&str, &str, String, String)| {
            let is = |name: &str| name.split('|').next() == Some(*stream);
            let at = config.definitions().iter().position(|definition| is(definition.name()));
            let definition = at.and_then(|at| deployed.definitions.get(at));
            let definition = definition.unwrap_or_else(|| panic!("there is no stream {stream}")).id;
            let parameters = serde_json::json!([parameter]).to_string().into();
            let data = serde_json::json!({ "id": id, "text": text }).to_string();
            let bucket = BucketId { definition, parameters };
            NewOperation::put(
                bucket,
                (*stream).into(),
                id.clone().into(),
                format!("key of {id}").into(),
                Bytes::from(data),
            )
        };
        let operations = rows.iter().map(operation).collect();
        ok(self.store.append(AppendBatch { operations, ..AppendBatch::default() }).await);
        let published = ok(self.store.commit(Commit { publish: true, ..Commit::default() }).await);
        assert!(published.is_some(), "rows make a checkpoint");
    }

    /// Publishes one note of a user.
    pub(super) async fn note(&self, user: &str, id: &str, text: &str) {
        self.publish(&[("notes", user, id.to_owned(), text.to_owned())]).await;
    }

    /// Publishes that these markers have come back.
    pub(super) async fn come_back(&self, markers: Vec<MarkerToken>) {
        ok(self.store.commit(Commit { markers, publish: true, ..Commit::default() }).await);
    }

    /// Waits until so many streams are open at the service.
    pub(super) async fn streams_are(&self, count: usize) {
        let deadline = self.deadline();
        while self.service.readiness().streams != count {
            let open = self.service.readiness().streams;
            assert!(!deadline.has_passed(), "{open} streams are open at the service instead of {count}");
            pause().await;
        }
    }
}

pub(super) fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("this should not fail: {error:?}"))
}

/// A request as clients make it.
pub(super) fn request() -> SyncRequest {
    SyncRequest { include_checksum: true, raw_data: true, client_id: Some("device".into()), ..SyncRequest::default() }
}

/// A token of this user.
pub(super) fn token(user: &str) -> Credentials {
    Credentials::new(format!("good.{user}"))
}

/// A token of this user that is good for so long.
pub(super) fn short_lived(user: &str, life: Duration) -> Credentials {
    let end = SystemClock.wall().0.saturating_add_unsigned(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    Credentials::new(format!("until.{end}.{user}"))
}

/// A token that nobody believes.
pub(super) fn forged() -> Credentials {
    Credentials::new("forged.anna")
}

/// Knows the tokens of the suite.
#[derive(Debug)]
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        let until = token.strip_prefix("until.").and_then(|rest| rest.split_once('.'));
        match (token.strip_prefix("good."), until) {
            (Some(user), _) => Ok(Identity::new(user)),
            (None, Some((end, user))) => {
                let end = end.parse().map_err(|error| Error::unauthorized("no time").caused_by(error))?;
                Ok(Identity::new(user).expires_at(WallTime(end)))
            }
            (None, None) => Err(Error::unauthorized("this token was not made by us").with_code("PSYNC_S2101")),
        }
    }
}
