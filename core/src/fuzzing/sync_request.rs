//! Requests of clients that a server cannot trust.

use std::sync::LazyLock;

use crate::bucket::BucketPriority;
use crate::config::{ConfigRequest, StreamSubscription, SyncConfig};
use crate::error::ErrorKind;
use crate::identity::Identity;
use crate::protocol::{RequestedSubscription, SyncRequest};
use crate::server::{ServerSession, SessionLimits};
use crate::time::Time;

/// Buckets that a request may have.
const LIMIT: usize = 100;

/// Streams that make use of all that a client may send.
static CONFIG: LazyLock<SyncConfig> = LazyLock::new(|| {
    SyncConfig::parse(
        "
config: { edition: 3 }
streams:
  everybody:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
  lists:
    query: SELECT id, name FROM lists WHERE id = subscription.parameter('list') AND team IN auth.parameter('teams')
  many:
    query: SELECT id FROM items WHERE list_id IN subscription.parameter('lists') AND kind = connection.parameter('kind')
  some:
    query: SELECT id FROM items WHERE upper(subscription.parameter('a') ->> '$.b') = name AND connection.parameter('n') > 3
",
    )
    .unwrap_or_else(|problems| panic!("{problems}"))
});

/// The body of a request for a stream: what is read is written and read the same; it opens a session or is refused, and
/// yields at most so many buckets, the same each time.
pub fn sync_request(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<SyncRequest>(bytes) else { return };
    let written = serde_json::to_vec(&request).unwrap_or_else(|error| panic!("it cannot be written: {error}"));
    let read = serde_json::from_slice::<SyncRequest>(&written);
    assert_eq!(read.unwrap_or_else(|error| panic!("it cannot be read again: {error}")), request);

    let identity = Identity::new("anna").claim("teams", vec!["red", "blue"]);
    if let Err(error) = ServerSession::new(&identity, &request, SessionLimits::default(), Time(0)) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let include_defaults = request.streams.as_ref().is_none_or(|streams| streams.include_defaults);
    let subscriptions = request.streams.map(|streams| streams.subscriptions).unwrap_or_default();
    let subscriptions: Vec<_> = subscriptions
        .into_iter()
        .map(|RequestedSubscription { stream, parameters, override_priority }| StreamSubscription {
            stream,
            parameters,
            override_priority: override_priority.map(BucketPriority),
        })
        .collect();
    let asked = ConfigRequest {
        identity: &identity,
        parameters: &request.parameters,
        include_defaults,
        subscriptions: &subscriptions,
    };
    match CONFIG.resolve_within(&asked, LIMIT) {
        Ok(resolved) => {
            assert!(resolved.buckets.len() <= LIMIT);
            assert_eq!(CONFIG.resolve_within(&asked, LIMIT).ok(), Some(resolved));
        }
        Err(error) => assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, Some("PSYNC_S2305"))),
    }
}
