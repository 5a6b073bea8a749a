//! Verifies tokens by keys that are configured or that an issuer publishes.

use std::sync::Arc;
use std::time::Duration;

use syncline_core::jwt::{JwtOptions, KeySet};
use syncline_core::{Authenticator, Clock, Identity, Result, SystemClock, async_trait};

use super::published_keys::PublishedKeys;

/// Verifies JSON Web Tokens: by a set of keys behind a URL (JWKS), by configured keys, by a shared secret, or by several of
/// these. Name at least one [`audience`](Self::audience): without one every token is refused.
///
/// A handle: cheap to clone. Must be used inside a tokio runtime, because keys are fetched in a task of their own.
///
/// ```
/// use syncline_transport_http::JwtAuthenticator;
///
/// # fn example() -> syncline_core::Result<()> {
/// let keys = JwtAuthenticator::jwks("https://id.example.com/.well-known/jwks.json")?.audience("todo-app");
/// # let _ = keys;
/// # Ok(())
/// # }
/// ```
///
/// # Fetching
/// Keys are fetched when the first token comes, and again beside requests when they are older than 5 minutes. If that
/// fails they stay in use until they are an hour old. A token by an unknown key has the URL looked at again, so that a new
/// key of the issuer is known at once; a limit keeps tokens by invented keys from causing many fetches. Redirects are not
/// followed, and private addresses are refused unless [allowed](Self::allow_private_networks). Of published keys only
/// public ones for signatures count: a published secret is none.
#[derive(Debug, Clone)]
pub struct JwtAuthenticator {
    configured: KeySet,
    published: Vec<Arc<PublishedKeys>>,
    options: Arc<JwtOptions>,
    allow_private: bool,
    clock: Arc<dyn Clock>,
}

impl JwtAuthenticator {
    fn new(configured: KeySet) -> Self {
        Self {
            configured,
            published: Vec::new(),
            options: Arc::default(),
            allow_private: false,
            clock: Arc::new(SystemClock),
        }
    }

    /// Keys that an issuer publishes under this URL as a JWKS. Nothing is fetched yet.
    ///
    /// # Errors
    /// `Invalid` if it is no `http` or `https` URL.
    pub fn jwks(url: &str) -> Result<Self> {
        Self::new(KeySet::new()).and_jwks(url)
    }

    /// Configured keys: one JWK or a set of them (`{"keys": […]}`), shared secrets (`oct`) included.
    ///
    /// # Errors
    /// `Invalid` if any of them cannot be used.
    pub fn keys(jwks: &str) -> Result<Self> {
        Ok(Self::new(KeySet::from_jwks(jwks)?))
    }

    /// A shared secret, for tokens signed by HS256 (or HS384, HS512). It must be random: `openssl rand -base64 32`.
    ///
    /// # Errors
    /// `Invalid` if it has fewer than 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self> {
        Ok(Self::new(KeySet::from_secret(secret.as_ref(), None)?))
    }

    /// A shared secret in base64, of either alphabet, with or without padding.
    ///
    /// # Errors
    /// `Invalid` if it is no base64, or has fewer than 32 bytes.
    pub fn hs256_base64(secret: &str) -> Result<Self> {
        let url_alphabet = secret.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
        Self::keys(&serde_json::json!({ "kty": "oct", "k": url_alphabet }).to_string())
    }

    /// The JWT secret of a Supabase project: tokens of the audience `authenticated`, valid for up to a week.
    ///
    /// # Errors
    /// `Invalid` if it has fewer than 32 bytes.
    pub fn supabase(secret: &str) -> Result<Self> {
        Ok(Self::new(KeySet::from_supabase_secret(secret)?))
    }

    /// These keys, and those of one more URL.
    ///
    /// # Errors
    /// `Invalid` if it is no `http` or `https` URL.
    pub fn and_jwks(mut self, url: &str) -> Result<Self> {
        self.published.push(Arc::new(PublishedKeys::new(url, self.allow_private, self.clock.clone())?));
        Ok(self)
    }

    /// These keys, and those. The options of `self` count.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.configured = self.configured.and(other.configured);
        self.published.extend(other.published);
        self.rebuilt()
    }

    /// Accepts tokens for this audience too: one of them must be in the token's `aud`.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.options).audiences.push(audience.into());
        self
    }

    /// The longest time that a token may be valid, from `iat` to `exp`. Default: one day.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        Arc::make_mut(&mut self.options).max_lifetime = lifetime;
        self
    }

    /// Lets keys be fetched from loopback, link-local and private addresses: for an issuer in one's own network, and for
    /// development.
    #[must_use]
    pub fn allow_private_networks(mut self) -> Self {
        self.allow_private = true;
        self.rebuilt()
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self.rebuilt()
    }

    fn rebuilt(mut self) -> Self {
        for keys in &mut self.published {
            *keys = Arc::new(keys.again(self.allow_private, self.clock.clone()));
        }
        self
    }

    fn verify(&self, keys: &KeySet, token: &str) -> Result<Identity> {
        keys.verify(token, self.clock.wall(), &self.options)
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, token: &str) -> Result<Identity> {
        let configured = self.verify(&self.configured, token);
        // What is no token at all is not worth a look at what is published.
        if configured.is_ok() || self.published.is_empty() || token.split('.').count() != 3 {
            return configured;
        }
        let mut refusal = configured;
        let mut known = self.configured.has_key_for(token);
        for published in &self.published {
            match published.keys().await {
                Ok(keys) if keys.has_key_for(token) => {
                    known = true;
                    refusal = self.verify(&keys, token);
                    if refusal.is_ok() {
                        return refusal;
                    }
                }
                Ok(_) => {}
                // Whether the token is genuine is not known then.
                Err(error) => refusal = Err(error),
            }
        }
        if !known {
            // The issuer may have a new key.
            for published in &self.published {
                if let Some(keys) = published.newer_keys().await
                    && keys.has_key_for(token)
                {
                    return self.verify(&keys, token);
                }
            }
        }
        refusal
    }
}
