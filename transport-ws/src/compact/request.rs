//! What a stream is asked for, as it is in a frame.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use syncline_core::protocol::{BucketPosition, RequestedStreams, RequestedSubscription, SyncRequest};
use syncline_core::{Error, OpId, Result};

// region: request
/// A [`SyncRequest`], without what lines say of themselves here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Where the client stands, bucket by bucket.
    pub positions: Vec<Position>,
    /// The id of the client's database.
    pub client_id: Option<String>,
    /// Parameters of the connection: a JSON object.
    pub parameters: String,
    /// For the log only.
    pub metadata: BTreeMap<String, String>,
    /// Which streams are wanted; none means those with `auto_subscribe`.
    pub streams: Option<Streams>,
}

/// The position of a client in one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The bucket's name.
    pub bucket: String,
    /// Operations after this id are wanted.
    pub after: u64,
}

/// Which streams are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Whether streams with `auto_subscribe` are included.
    pub include_defaults: bool,
    /// Explicit subscriptions; lines name them by their index.
    pub subscriptions: Vec<Subscription>,
}

/// One explicit subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The stream's name.
    pub stream: String,
    /// Its parameters: a JSON object.
    pub parameters: Option<String>,
    /// A priority that overrides that of the config.
    pub priority: Option<u8>,
}
// endregion: request

impl Request {
    /// The request in its form for a frame.
    ///
    /// # Errors
    /// `Invalid` if a position is no number.
    pub fn of(request: &SyncRequest) -> Result<Self> {
        let position = |BucketPosition { name, after }: &BucketPosition| {
            let OpId(after) = OpId::parse(after)
                .ok_or_else(|| Error::invalid(format!("{after:?} is no position in the bucket {name:?}")))?;
            Ok(Position { bucket: name.clone(), after })
        };
        let subscription = |subscription: &RequestedSubscription| Subscription {
            stream: subscription.stream.clone(),
            parameters: subscription.parameters.as_ref().map(text_of),
            priority: subscription.override_priority,
        };
        Ok(Self {
            positions: request.buckets.iter().map(position).collect::<Result<_>>()?,
            client_id: request.client_id.clone(),
            parameters: text_of(&request.parameters),
            metadata: request.app_metadata.clone(),
            streams: request.streams.as_ref().map(|streams| Streams {
                include_defaults: streams.include_defaults,
                subscriptions: streams.subscriptions.iter().map(subscription).collect(),
            }),
        })
    }

    /// The request that it states.
    ///
    /// # Errors
    /// `Invalid` if parameters are no JSON object.
    pub fn read(self) -> Result<SyncRequest> {
        let subscription = |subscription: Subscription| {
            Ok(RequestedSubscription {
                stream: subscription.stream,
                parameters: subscription.parameters.as_deref().map(object_of).transpose()?,
                override_priority: subscription.priority,
            })
        };
        let streams = |streams: Streams| -> Result<_> {
            Ok(RequestedStreams {
                include_defaults: streams.include_defaults,
                subscriptions: streams.subscriptions.into_iter().map(subscription).collect::<Result<_>>()?,
            })
        };
        let position = |Position { bucket, after }| BucketPosition { name: bucket, after: after.to_string() };
        Ok(SyncRequest {
            buckets: self.positions.into_iter().map(position).collect(),
            include_checksum: true,
            raw_data: true,
            binary_data: true,
            client_id: self.client_id,
            parameters: object_of(&self.parameters)?,
            app_metadata: self.metadata,
            streams: self.streams.map(streams).transpose()?,
        })
    }
}

fn text_of(object: &Map<String, Json>) -> String {
    // The order of keys is that of the map, and numbers are written as they were read.
    Json::Object(object.clone()).to_string()
}

fn object_of(text: &str) -> Result<Map<String, Json>> {
    serde_json::from_str(text).map_err(|error| Error::invalid("parameters are no JSON object").caused_by(error))
}
