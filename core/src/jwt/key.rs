//! One key, and the algorithms that it may be used with.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::error::{Error, Result};

/// A key that verifies signatures. `Debug` does not show it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// A token with this id is verified by this key alone. Without one the key is tried for every token that has no key
    /// of its own.
    pub(super) id: Option<String>,
    /// Whether it is a shared secret.
    pub(super) is_secret: bool,
    /// Audiences instead of those that are configured.
    pub(super) audiences: Option<Vec<String>>,
    /// A lifetime instead of the one that is configured.
    pub(super) max_lifetime: Option<Duration>,
    algorithms: Vec<Algorithm>,
    verifying: DecodingKey,
}

/// A key as JSON (RFC 7517), as far as it concerns signatures.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Key {
    /// A shared secret for these algorithms.
    pub(super) fn secret(secret: &[u8], id: Option<String>, algorithms: Vec<Algorithm>) -> Result<Self> {
        if secret.len() < SHORTEST_SECRET {
            return Err(unusable(&format!(
                "a shared secret of {} bytes can be guessed, and must have {SHORTEST_SECRET} or more (RFC 7518, 3.2); \
                 make one with `openssl rand -base64 32`",
                secret.len()
            )));
        }
        let verifying = DecodingKey::from_secret(secret);
        Ok(Self { id, is_secret: true, audiences: None, max_lifetime: None, algorithms, verifying })
    }

    /// Whether tokens may be signed with this key and that algorithm.
    pub(super) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the signature is this key's. `algorithm` must be one that it accepts.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        // The provider is named, because the process may have several, and then there is none by default.
        (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.verifying)
            .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }
}

impl TryFrom<Jwk> for Key {
    type Error = Error;

    fn try_from(jwk: Jwk) -> Result<Self> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err(unusable("`use` is not `sig`"));
        }
        if jwk.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
            return Err(unusable("`key_ops` lacks `verify`"));
        }
        let family = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("oct", _) => HMAC.to_vec(),
            ("RSA", _) => vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
            ("EC", Some("P-256")) => vec![Algorithm::ES256],
            ("EC", Some("P-384")) => vec![Algorithm::ES384],
            ("OKP", Some("Ed25519")) => vec![Algorithm::EdDSA],
            (kty, crv) => return Err(unusable(&format!("type {kty} {} is not supported", crv.unwrap_or_default()))),
        };
        let algorithms = match &jwk.alg {
            None => family,
            Some(name) => {
                let algorithm = name.parse().ok().filter(|algorithm| family.contains(algorithm));
                vec![algorithm.ok_or_else(|| unusable(&format!("`alg` {name} does not fit its type")))?]
            }
        };
        let verifying = match jwk.kty.as_str() {
            "oct" => return Self::secret(&part(&jwk.k, "k", 1..=usize::MAX)?, jwk.kid, algorithms),
            "RSA" => {
                // Without leading zeros, so that the length is that of the number. Smaller keys are too weak, larger ones
                // slow enough to be a weapon.
                let modulus = part(&jwk.n, "n", 256..=512)?;
                let exponent = part(&jwk.e, "e", 1..=4)?;
                if modulus[0] == 0 || modulus.last().is_some_and(|byte| byte % 2 == 0) {
                    return Err(unusable("`n` is not the modulus of an RSA key"));
                }
                DecodingKey::from_rsa_raw_components(&modulus, &exponent)
            }
            "EC" => {
                let length = if algorithms == [Algorithm::ES256] { 32 } else { 48 };
                let mut point = vec![4];
                point.extend(part(&jwk.x, "x", length..=length)?);
                point.extend(part(&jwk.y, "y", length..=length)?);
                DecodingKey::from_ec_der(&point)
            }
            _ => DecodingKey::from_ed_der(&part(&jwk.x, "x", 32..=32)?),
        };
        if algorithms.iter().any(|algorithm| (DEFAULT_PROVIDER.verifier_factory)(algorithm, &verifying).is_err()) {
            return Err(unusable("it is not a point of its curve"));
        }
        Ok(Self { id: jwk.kid, is_secret: false, audiences: None, max_lifetime: None, algorithms, verifying })
    }
}

/// The algorithms of shared secrets.
pub(super) const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// Bytes that a shared secret must have: those of the smallest hash. Whoever has one token can try secrets at home.
const SHORTEST_SECRET: usize = 32;

/// A part of a key, in base64url with or without padding.
fn part(text: &Option<String>, name: &str, lengths: std::ops::RangeInclusive<usize>) -> Result<Vec<u8>> {
    let text = text.as_deref().ok_or_else(|| unusable(&format!("it lacks `{name}`")))?;
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .ok()
        .filter(|bytes| lengths.contains(&bytes.len()))
        .ok_or_else(|| unusable(&format!("`{name}` is not base64url, or has an unsuitable length")))
}

fn unusable(what: &str) -> Error {
    Error::invalid(format!("a key cannot be used: {what}"))
}
