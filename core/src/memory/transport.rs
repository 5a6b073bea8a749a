//! A client's connection to a service in the same process.

use async_trait::async_trait;

use crate::connector::Credentials;
use crate::error::Result;
use crate::identity::{Authenticator, Identity};
use crate::protocol::{Framing, SyncRequest};
use crate::server::SyncService;
use crate::transport::{LineStream, Transport};
use crate::write_checkpoint::{WriteCheckpoint, WriteCheckpointRequest};

/// Connects clients to a [`SyncService`] without a network: same tokens, same lines.
#[derive(Debug, Clone)]
pub struct MemoryTransport(SyncService);

impl MemoryTransport {
    /// A transport to this service.
    pub fn new(service: SyncService) -> Self {
        Self(service)
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        let identity = self.0.authenticate(&credentials.token).await?;
        let framing = if request.raw_data { Framing::Ndjson } else { Framing::NdjsonNested };
        Ok(LineStream { framing, bytes: self.0.stream(identity, request.clone(), framing)? })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        let identity = self.0.authenticate(&credentials.token).await?;
        self.0.request_write_checkpoint(&identity, Some(client_id), WriteCheckpointRequest::Next).await
    }
}

/// Believes every token and takes it for the user's id. For tests and first steps: there is nothing secret about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenIsUser;

#[async_trait]
impl Authenticator for TokenIsUser {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        Ok(Identity::new(token))
    }
}
