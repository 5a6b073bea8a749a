//! Limits of the server's side.

use std::time::Duration;

/// Limits of connections, and of the streams in them.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketLimits {
    /// Bytes of a frame, and of a request that comes in several; more closes the connection with 1009. Default 1 MiB.
    pub request_bytes: usize,
    /// Time for the WebSocket handshake, for SETUP and for the check of its token together; who takes longer is closed with
    /// 1008. By the compact subprotocol a token must have been accepted by then. Default 15 s.
    pub setup_time: Duration,
    /// A client that takes nothing for so long while there is something for it is cut off: one that does not read, and
    /// one that grants a stream nothing. So is a connection that has no stream for so long. Default 60 s.
    pub patience: Duration,
    /// Clients state how long they may be silent, and are cut off after that; this is the most. By the compact subprotocol it is
    /// 90 s, or this if it is less. Default 5 min.
    pub lifetime: Duration,
    /// Open connections; one more is refused with `PSYNC_S2304`. Default 20 000, at most 2^24.
    pub connections: usize,
    /// Open streams of one connection; one more is refused with `PSYNC_S2304`. SDKs have one. By the compact
    /// subprotocol a question for a write checkpoint counts as well, and clients rely on eight. Default 8.
    pub streams_per_connection: usize,
}

impl Default for WebSocketLimits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            setup_time: Duration::from_secs(15),
            patience: Duration::from_secs(60),
            lifetime: Duration::from_secs(300),
            connections: 20_000,
            streams_per_connection: 8,
        }
    }
}
