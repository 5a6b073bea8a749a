//! What a client sends to open a stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// How lines are cut out of a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One JSON text per line; the data of an operation is a string that holds JSON.
    Ndjson,
    /// The same, with the data of an operation as a nested object: for clients that do not send `raw_data`.
    NdjsonNested,
    /// BSON documents one after another.
    Bson,
    /// Postcard values, each behind its length: what Syncline's own WebSocket protocol carries (`docs/protocol.md`).
    Compact,
}

/// The body of `POST /sync/stream`. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Where the client stands, bucket by bucket.
    #[serde(default, deserialize_with = "null_is_default")]
    pub buckets: Vec<BucketPosition>,
    /// Always true in practice; checksums are always sent.
    #[serde(default)]
    pub include_checksum: bool,
    /// Whether the data of operations shall be strings that hold JSON.
    #[serde(default)]
    pub raw_data: bool,
    /// Needed by old services together with BSON.
    #[serde(default)]
    pub binary_data: bool,
    /// The id of the client's database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Parameters of the connection.
    #[serde(default, deserialize_with = "null_is_default")]
    pub parameters: Map<String, Json>,
    /// For the log only.
    #[serde(default, deserialize_with = "null_is_default")]
    pub app_metadata: BTreeMap<String, String>,
    /// Which streams are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<RequestedStreams>,
}

/// The position of a client in one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPosition {
    /// The bucket's name.
    pub name: String,
    /// Operations after this id are wanted: a decimal string.
    pub after: String,
}

/// Which streams are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedStreams {
    /// Whether streams with `auto_subscribe` are included.
    #[serde(default = "yes")]
    pub include_defaults: bool,
    /// Explicit subscriptions; replies name them by their index.
    #[serde(default)]
    pub subscriptions: Vec<RequestedSubscription>,
}

/// One explicit subscription. All three keys are required on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedSubscription {
    /// The stream's name.
    pub stream: String,
    /// Its parameters.
    pub parameters: Option<Map<String, Json>>,
    /// A priority that overrides that of the config.
    pub override_priority: Option<u8>,
}

fn yes() -> bool {
    true
}

/// The official service refuses `null` here; some SDKs send it.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
