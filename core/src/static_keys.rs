//! An authenticator with keys that do not change.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::identity::{Authenticator, Identity};
use crate::jwt::{JwtOptions, KeySet};

/// Verifies tokens by configured keys: for keys that an application holds itself. Name at least one
/// [`audience`](Self::audience): without one every token is refused. Cloning copies nothing.
#[derive(Debug, Clone)]
pub struct StaticKeys {
    keys: Arc<KeySet>,
    options: JwtOptions,
    clock: Arc<dyn Clock>,
}

impl StaticKeys {
    /// An authenticator with these keys.
    pub fn new(keys: KeySet) -> Self {
        Self { keys: Arc::new(keys), options: JwtOptions::default(), clock: Arc::new(SystemClock) }
    }

    /// Accepts tokens made for this audience too.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.options.audiences.push(audience.into());
        self
    }

    /// The longest time that a token may be valid, from `iat` to `exp`; one day unless changed.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.options.max_lifetime = lifetime;
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

#[async_trait]
impl Authenticator for StaticKeys {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        self.keys.verify(token, self.clock.wall(), &self.options)
    }
}
