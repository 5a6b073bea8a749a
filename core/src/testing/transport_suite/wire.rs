//! What a transport's author supplies: a wire between a service and its clients.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::server::SyncService;
use crate::transport::Transport;

/// A wire between services and clients: it serves the former and connects the latter.
///
/// Whatever fails panics: it is the test that is broken then.
#[async_trait]
pub trait Wire: Send + Sync + fmt::Debug {
    /// Serves this service where clients can reach it, until the wire is dropped, and makes a transport that does.
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport>;

    /// How long anything may take before a case fails: half a minute is a good answer. No case waits for it unless it fails.
    fn patience(&self) -> Duration;
}

/// A wire that can break, since it goes over a network.
#[async_trait]
pub trait Network: Wire {
    /// A transport to where nobody is.
    async fn connect_to_nobody(&self) -> Arc<dyn Transport>;

    /// Like [`connect`](Wire::connect), with a transport that waits for a silent server for a second or two, for the answer
    /// to a request as well as in a stream.
    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport>;

    /// Breaks all connections that are open, in sight of both ends: each learns of it at once. New ones can be made.
    async fn cut(&self);

    /// From now on nothing passes through any connection, open or new, and neither end learns of it.
    async fn stall(&self);
}
