//! The trait of a client's connection to a server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::connector::Credentials;
use crate::error::Result;
use crate::protocol::{Framing, SyncRequest};
use crate::write_checkpoint::WriteCheckpoint;

/// An open stream of lines.
pub struct LineStream {
    /// How the bytes are cut into lines.
    pub framing: Framing,
    /// Bytes as they arrive, cut anywhere; together they are those that the service made for this framing. It ends without an
    /// error when the server ends it, after a whole line. Anything else that ends it is an error, after which nothing comes.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for LineStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineStream").field("framing", &self.framing).finish_non_exhaustive()
    }
}

/// How a client reaches a server. `transport_tests!` (feature `testing`) checks what is promised here.
///
/// # Contract
/// - A request arrives with all that it holds, and is served for the identity of the credentials that it came with.
/// - Every call has a time limit of its own, and a stream without a byte for about a minute fails: a half-open connection
///   is never waited for (C5).
/// - A connection that breaks, and a stream that fails at the server, is an error: never the end of a stream.
/// - Any number of streams may be open; one that is not read holds up no other, and still has everything when it is.
///
/// # Errors
/// `Unauthorized` if the credentials were refused; `Unavailable` if the server is away, closes or has no room; `Protocol` for
/// an answer that makes no sense.
///
/// # Cancel safety
/// Dropping a future or a stream ends the request, and with it the session at the server, as soon as the server can know.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Opens a sync stream.
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream>;

    /// Asks for a write checkpoint: the number that will come back in the stream when everything that was acknowledged
    /// before this call has come back.
    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint>;
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        (**self).open(request, credentials).await
    }
    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        (**self).write_checkpoint(client_id, credentials).await
    }
}
