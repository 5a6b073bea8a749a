//! A stream lives on under a new token of the same identity.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::time::WallTime;

/// What a token says of itself, and not of whom it is for.
const OF_THE_TOKEN: [&str; 4] = ["exp", "iat", "nbf", "jti"];

/// Gives a stream of [`SyncService::renewable_stream`](super::SyncService::renewable_stream) a new token. It does not keep the
/// stream alive.
#[derive(Debug)]
pub struct StreamRenewal {
    claims: Map<String, Json>,
    expiry: Arc<NewExpiry>,
}

/// When a stream is to end from now on, if that is not known to it yet.
#[derive(Debug, Default)]
pub(super) struct NewExpiry(Mutex<Option<Option<WallTime>>>);

impl StreamRenewal {
    pub(super) fn of(identity: &Identity) -> (Self, Arc<NewExpiry>) {
        let expiry = Arc::<NewExpiry>::default();
        (Self { claims: lasting(identity), expiry: Arc::clone(&expiry) }, expiry)
    }

    /// The stream ends with this identity's token, not with the one before. Everything that decides what the stream sends
    /// stays as it was, so the identity must be the same: only `exp`, `iat`, `nbf` and `jti` may differ.
    ///
    /// # Errors
    /// `Unauthorized` for another identity; the stream is as it was then.
    pub fn renew(&self, identity: &Identity) -> Result<()> {
        if lasting(identity) != self.claims {
            return Err(Error::unauthorized(
                "the new token is of another identity than the stream: open another stream",
            )
            .with_code("PSYNC_S2101"));
        }
        *self.expiry.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity.expiry());
        Ok(())
    }
}

impl NewExpiry {
    /// The new one, once.
    pub(super) fn take(&self) -> Option<Option<WallTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn lasting(identity: &Identity) -> Map<String, Json> {
    let claims = identity.claims().iter().filter(|(name, _)| !OF_THE_TOKEN.contains(&name.as_str()));
    claims.map(|(name, value)| (name.clone(), value.clone())).collect()
}
