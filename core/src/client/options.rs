//! Settings of a client: what it asks the server for, and the bounds of its waits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json};

/// What a client asks the server for, and its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientOptions {
    /// Parameters of the connection, for the sync config. Default: none.
    pub parameters: Map<String, Json>,
    /// Whether streams with `auto_subscribe` are wanted. Default: true.
    pub include_defaults: bool,
    /// Notes for the server's log. Default: none.
    pub app_metadata: BTreeMap<String, String>,
    /// The bounds.
    pub limits: ClientLimits,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            parameters: Map::new(),
            include_defaults: true,
            app_metadata: BTreeMap::new(),
            limits: ClientLimits::default(),
        }
    }
}

/// The bounds of a client's waits and buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// For the connector to give credentials. Default: 30 s.
    pub credentials: Duration,
    /// For a stream to open. Default: 30 s.
    pub open: Duration,
    /// Without a byte, after which a stream is given up. Default: 60 s.
    pub idle: Duration,
    /// For the connector to upload one local transaction; one that is large gets a second more for each 16 KiB, as a bad
    /// line needs. Default: 60 s.
    pub upload: Duration,
    /// For the server to answer with a write checkpoint, and between two requests while one is awaited. Default: 10 s.
    pub write_checkpoint: Duration,
    /// The first and the longest delay before a stream is opened again. Default: 0.25 s and 20 s.
    pub reconnect: (Duration, Duration),
    /// The first and the longest delay before an upload is tried again. Default: 1 s and 20 s.
    pub retry_upload: (Duration, Duration),
    /// Bytes of data lines that are staged in one transaction. Default: 1 MiB.
    pub stage_bytes: usize,
    /// Bytes of data lines that may wait for the store before the stream is no longer read. Default: 4 MiB.
    pub buffered_bytes: usize,
    /// Bytes of the longest line that is accepted. Default: 256 MiB, which every row fits that our server replicates
    /// (at most 120 MiB of JSON text, which a line in JSON doubles at worst).
    pub line_bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            credentials: Duration::from_secs(30),
            open: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            upload: Duration::from_secs(60),
            write_checkpoint: Duration::from_secs(10),
            reconnect: (Duration::from_millis(250), Duration::from_secs(20)),
            retry_upload: (Duration::from_secs(1), Duration::from_secs(20)),
            stage_bytes: 1 << 20,
            buffered_bytes: 4 << 20,
            line_bytes: 256 << 20,
        }
    }
}
