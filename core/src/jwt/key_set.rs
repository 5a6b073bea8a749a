//! Keys, and the verification of a token by one of them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::claims::{self, JwtOptions, refused};
use super::key::{HMAC, Jwk, Key};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::time::WallTime;

/// Longer tokens are refused unread: none is needed, and each costs time to decode.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// Keys that verify tokens. `Debug` does not show them.
///
/// Which key: if the token names one (`kid`) that is here, it is the only one that counts. Otherwise the keys without an
/// id are tried, as far as they fit the token's algorithm. A key that has an id never verifies a token that names none.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// No keys: every token is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys that were configured: one JWK, or a set (`{"keys": […]}`), shared secrets (`oct`) included.
    ///
    /// # Errors
    /// `Invalid` if it is neither, or if any key cannot be used.
    pub fn from_jwks(json: &str) -> Result<Self> {
        let keys = parse_keys(json)
            .map_err(|error| Error::invalid("the keys are no JWK and no set of them").caused_by(error))?;
        let keys = keys.into_iter().map(|key| {
            Jwk::deserialize(key)
                .map_err(|error| Error::invalid("a key is no JWK").caused_by(error))
                .and_then(Key::try_from)
        });
        Ok(Self { keys: keys.collect::<Result<_>>()? })
    }

    /// Keys that an issuer publishes: a set, of which the public keys for signatures are taken and all others are
    /// ignored, shared secrets too: a published one is no secret.
    ///
    /// # Errors
    /// `Unavailable` (`PSYNC_S2204`) if it is no set of keys.
    pub fn from_published_jwks(json: &str) -> Result<Self> {
        let unreadable = || Error::unavailable("the published keys are no set of JWKs").with_code("PSYNC_S2204");
        let Json::Object(mut set) = serde_json::from_str(json).map_err(|error| unreadable().caused_by(error))? else {
            return Err(unreadable());
        };
        let Some(Json::Array(keys)) = set.remove("keys") else { return Err(unreadable()) };
        let usable = |key| Jwk::deserialize(key).ok().and_then(|jwk| Key::try_from(jwk).ok());
        Ok(Self { keys: keys.into_iter().filter_map(usable).filter(|key| !key.is_secret).collect() })
    }

    /// One shared secret for HS256, HS384 and HS512, for tokens with this `kid`, or for those without a key of their own.
    /// It must be random (`openssl rand -base64 32`): whoever guesses it can be anyone.
    ///
    /// # Errors
    /// `Invalid` if it has fewer than 32 bytes.
    pub fn from_secret(secret: &[u8], key_id: Option<&str>) -> Result<Self> {
        Ok(Self { keys: vec![Key::secret(secret, key_id.map(Into::into), HMAC.to_vec())?] })
    }

    /// The JWT secret of a Supabase project, as its settings show it: HS256, audience `authenticated`, and a lifetime of
    /// up to seven days and twenty minutes, whatever the options say.
    ///
    /// # Errors
    /// `Invalid` if it has fewer than 32 bytes.
    pub fn from_supabase_secret(secret: &str) -> Result<Self> {
        let mut key = Key::secret(secret.as_bytes(), None, vec![Algorithm::HS256])?;
        key.restrict_to_supabase();
        Ok(Self { keys: vec![key] })
    }

    /// The same keys, under the rules for tokens of a Supabase project: audience `authenticated`, and its lifetime.
    #[must_use]
    pub fn for_supabase(mut self) -> Self {
        self.keys.iter_mut().for_each(Key::restrict_to_supabase);
        self
    }

    /// These keys and those. Of two keys with one id the first counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether any key would be tried for this token. If not, its issuer may have published a new one.
    pub fn has_key_for(&self, token: &str) -> bool {
        Token::parse(token).is_ok_and(|token| {
            token.algorithm.is_some_and(|algorithm| self.candidates(&token.header).any(|key| key.accepts(algorithm)))
        })
    }

    /// The identity of a genuine token that is valid now. Its expiry is the token's `exp`, which may lie up to 60 s back:
    /// clocks differ.
    ///
    /// # Errors
    /// `Unauthorized`, with the code `PSYNC_S2103` if the token has expired, `PSYNC_S2104` if it is valid for too long,
    /// `PSYNC_S2105` if it is for another audience, `PSYNC_S2106` if it is empty, and `PSYNC_S2101` for everything else.
    pub fn verify(&self, token: &str, now: WallTime, options: &JwtOptions) -> Result<Identity> {
        let token = Token::parse(token)?;
        let key = self.key_of(&token)?;
        let claims: Map<String, Json> = serde_json::from_slice(&decode(token.payload)?)
            .map_err(|error| malformed("its payload is no JSON object").caused_by(error))?;
        claims::check(&claims, key, now, options)?;
        Ok(Identity::from_claims(claims))
    }

    /// The key that made the signature.
    fn key_of(&self, token: &Token<'_>) -> Result<&Key> {
        let algorithm = token
            .algorithm
            .ok_or_else(|| refused(format!("the algorithm {:?} of the token is not accepted", token.header.alg)))?;
        let signature = decode(token.signature)?;
        let mut tried = false;
        for key in self.candidates(&token.header) {
            if !key.accepts(algorithm) {
                // A key that the token names decides alone, so this one is missing only among keys that it does not name.
                if key.id.is_some() {
                    return Err(refused(format!(
                        "the token's key does not accept the algorithm {:?}",
                        token.header.alg
                    )));
                }
                continue;
            }
            tried = true;
            if key.verifies(algorithm, token.message.as_bytes(), &signature) {
                return Ok(key);
            }
        }
        Err(refused(if tried { "the signature of the token is wrong" } else { "no key is known for the token" }))
    }

    /// The keys that count for a token: the one that it names, or those without an id.
    fn candidates(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let id = header.kid.as_deref();
        let named = self.keys.iter().find(|key| id.is_some() && key.id.as_deref() == id);
        let others = self.keys.iter().filter(move |key| named.is_none() && key.id.is_none());
        named.into_iter().chain(others)
    }
}

impl Key {
    fn restrict_to_supabase(&mut self) {
        self.audiences = Some(vec!["authenticated".into()]);
        self.max_lifetime = Some(Duration::from_secs(7 * 86_400 + 20 * 60));
    }
}

/// A token taken apart; nothing of it is verified.
struct Token<'a> {
    /// What is signed: header and payload as they stand.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
    header: Header,
    /// What `alg` names, if it is known at all.
    algorithm: Option<Algorithm>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood. None is.
    #[serde(default)]
    crit: Option<Json>,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Result<Self> {
        if token.is_empty() {
            return Err(Error::unauthorized("a token is required").with_code("PSYNC_S2106"));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("it is too long"));
        }
        let three_parts = || malformed("it has no three parts");
        let (message, signature) = token.rsplit_once('.').ok_or_else(three_parts)?;
        let (header, payload) = message.split_once('.').ok_or_else(three_parts)?;
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|error| malformed("its header cannot be read").caused_by(error))?;
        if header.crit.is_some() {
            return Err(malformed("it demands an extension"));
        }
        let algorithm = header.alg.parse().ok();
        Ok(Self { message, payload, signature, header, algorithm })
    }
}

fn parse_keys(json: &str) -> serde_json::Result<Vec<Json>> {
    match serde_json::from_str(json)? {
        Json::Object(mut set) if set.contains_key("keys") => {
            serde_json::from_value(set.remove("keys").unwrap_or_default())
        }
        key => Ok(vec![key]),
    }
}

fn decode(part: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("a part of it is not base64url"))
}

fn malformed(what: &str) -> Error {
    refused(format!("the token is malformed: {what}"))
}
