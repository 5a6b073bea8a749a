//! Tokens of the application, and how the server verifies them: by its own time of day.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::lock;
use super::virtual_time::ProcessClock;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::identity::{Authenticator, Identity};
use crate::time::WallTime;

/// Who each client is. A handle.
#[derive(Debug, Clone, Default)]
pub(super) struct Identities(Arc<Mutex<Vec<Identity>>>);

impl Identities {
    pub(super) fn add(&self, identity: Identity) {
        lock(&self.0).push(identity);
    }

    pub(super) fn of(&self, client: usize) -> Option<Identity> {
        lock(&self.0).get(client).cloned()
    }
}

/// A token for a client, which ends then.
pub(super) fn token(client: usize, expires_at: Option<WallTime>) -> String {
    match expires_at {
        Some(at) => format!("{client}.{}", at.0),
        None => format!("{client}.never"),
    }
}

/// What the server knows of tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) identities: Identities,
    pub(super) clock: ProcessClock,
}

#[async_trait]
impl Authenticator for Verifier {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        let refused = || Error::unauthorized("the token is not one of ours").with_code("PSYNC_S2101");
        let (client, end) = token.split_once('.').ok_or_else(refused)?;
        let identity = client.parse().ok().and_then(|client| self.identities.of(client)).ok_or_else(refused)?;
        if end == "never" {
            return Ok(identity);
        }
        let at = WallTime(end.parse().map_err(|_| refused())?);
        if at <= self.clock.wall() {
            return Err(Error::unauthorized("the token has expired").with_code("PSYNC_S2103"));
        }
        Ok(identity.expires_at(at))
    }
}
