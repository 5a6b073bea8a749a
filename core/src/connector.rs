//! The trait that an application implements: credentials, and where its writes go.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::local_transaction::{LocalTransaction, Uploaded};

/// What a client shows to a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The token, without a scheme.
    pub token: String,
}

impl Credentials {
    /// Credentials of this token.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: token.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The application's side of a client: its tokens and its backend.
///
/// # Contract
/// `upload` returns `Applied` only after the writes are committed in the source database. It is called for one
/// transaction at a time, oldest first, and may be called again for one that was applied when its answer was lost.
///
/// # Errors
/// Any error means: try again later, with back-off. The queue never stalls on a refusal: that is
/// [`Uploaded::Rejected`].
///
/// # Cancel safety
/// Both futures may be dropped at any point, for example after their time limit; the call is then made again.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// Asked on connect, again before the token expires, and after it was refused; kept in between.
    async fn credentials(&self) -> Result<Credentials, BoxError>;

    /// Brings one local transaction to the backend.
    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError>;
}

#[async_trait]
impl<T: Connector + ?Sized> Connector for Arc<T> {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        (**self).credentials().await
    }
    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        (**self).upload(writes, credentials).await
    }
}
