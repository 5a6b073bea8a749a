//! Who is asking: the verified claims of a token.

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use crate::error::Result;
use crate::time::WallTime;

/// A user whose token was verified. Everything that decides what a user sees comes from here (S7).
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    claims: Map<String, Json>,
    expires_at: Option<WallTime>,
}

impl Identity {
    /// An identity with this `sub` and no other claim, which does not expire.
    pub fn new(subject: impl Into<String>) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".into(), Json::String(subject.into()));
        Self { claims, expires_at: None }
    }

    /// An identity of the payload of a verified token; its expiry is the claim `exp`.
    pub fn from_claims(claims: Map<String, Json>) -> Self {
        let expires_at =
            claims.get("exp").and_then(|exp| exp.as_f64()).map(|seconds| WallTime((seconds * 1000.0) as i64));
        Self { claims, expires_at }
    }

    /// The same identity with one more claim.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// The same identity, which expires then.
    #[must_use]
    pub fn expires_at(mut self, at: WallTime) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// All claims, `sub` included.
    pub fn claims(&self) -> &Map<String, Json> {
        &self.claims
    }

    /// When streams of this identity must have ended (within 60 s, S7).
    pub fn expiry(&self) -> Option<WallTime> {
        self.expires_at
    }

    /// The user id as text: `sub` itself if it is a string, its JSON text otherwise.
    pub fn user_id(&self) -> String {
        match self.claims.get("sub") {
            None => "null".into(),
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// Turns a token into an [`Identity`].
///
/// # Contract
/// An identity is returned only if the token is genuine and not expired. Nothing else in Syncline checks tokens.
///
/// # Errors
/// `Unauthorized` with a `PSYNC_S21…` code if the token is refused; `Unavailable` if keys cannot be had.
#[async_trait]
pub trait Authenticator: Send + Sync + std::fmt::Debug {
    /// Verifies one token, given without its scheme (`Token `, `Bearer `).
    async fn authenticate(&self, token: &str) -> Result<Identity>;
}

#[async_trait]
impl<T: Authenticator + ?Sized> Authenticator for std::sync::Arc<T> {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        (**self).authenticate(token).await
    }
}
