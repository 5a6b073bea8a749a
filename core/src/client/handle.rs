//! Subscribing to a stream, and the handle that keeps it.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::error::{Error, Result};

use super::subscription::{DEFAULT_TTL, HeldSubscription, SubscriptionKey, end_of, lease};
use super::{Shared, SyncClient};

/// A subscription about to be made, from [`SyncClient::subscribe`]: set options, then `.await` it.
///
/// # Errors
/// `Invalid` if the parameters are not an object; otherwise what the store says.
///
/// # Cancel safety
/// Dropped before it is done, it may leave a subscription that ends after its time to live.
#[derive(Debug)]
#[must_use = "nothing is subscribed to before this is awaited"]
pub struct Subscribe {
    client: SyncClient,
    stream: String,
    parameters: Json,
    priority: Option<BucketPriority>,
    ttl: Duration,
}

impl Subscribe {
    pub(super) fn new(client: SyncClient, stream: String, parameters: Json) -> Self {
        Self { client, stream, parameters, priority: None, ttl: DEFAULT_TTL }
    }

    /// How long the subscription lasts after its last handle is gone. Default: one day. Of several handles the longest
    /// time counts.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// A priority in place of that of the config. Of several handles the most urgent one counts.
    pub fn priority(mut self, priority: BucketPriority) -> Self {
        self.priority = Some(priority);
        self
    }

    async fn subscribe(self) -> Result<StreamHandle> {
        let Self { client, stream, parameters, priority, ttl } = self;
        let parameters = match parameters {
            Json::Object(parameters) => parameters,
            Json::Null => Map::new(),
            _ => return Err(Error::invalid(format!("the parameters of stream `{stream}` must be an object"))),
        };
        let key = SubscriptionKey::new(&stream, &parameters);
        let held = client.shared.hold(&key, HeldSubscription { stream, parameters, priority, ttl });
        let handle = StreamHandle { key, shared: Arc::clone(&client.shared) };
        let expires_at = end_of(client.clock.wall(), lease(held.ttl));
        client.store.subscribe(&held.stream, &held.parameters, held.priority, Some(expires_at)).await?;
        client.shared.handles_changed();
        Ok(handle)
    }
}

impl IntoFuture for Subscribe {
    type Output = Result<StreamHandle>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.subscribe())
    }
}

/// A handle of a subscription: while one exists, the subscription is renewed. After the last one is dropped it lasts for
/// its time to live, in which its rows stay and are kept up to date.
#[derive(Debug)]
pub struct StreamHandle {
    key: SubscriptionKey,
    shared: Arc<Shared>,
}

impl StreamHandle {
    /// Waits until the rows of this stream have been complete at least once, now or in an earlier run. Waits for as long
    /// as there is no connection; something must [run](SyncClient::run) the client.
    ///
    /// # Errors
    /// `Invalid` if the server says that the stream or its parameters are wrong.
    pub async fn ready(&self) -> Result<()> {
        let mut updates = self.shared.feed.updates();
        while let Some(status) = updates.next().await {
            let own = status.streams.iter().find(|one| {
                one.parameters
                    .as_ref()
                    .is_some_and(|parameters| SubscriptionKey::new(&one.stream, parameters) == self.key)
            });
            match own {
                Some(own) if own.last_synced_at.is_some() => return Ok(()),
                Some(own) => {
                    if let Some(error) = &own.error {
                        return Err(Error::invalid(error.clone()));
                    }
                }
                None => {}
            }
        }
        Err(Error::closed("the client is gone"))
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.shared.release(&self.key);
    }
}
