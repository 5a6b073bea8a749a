//! Tokens and keys that anyone can send.

use std::sync::LazyLock;

use crate::error::ErrorKind;
use crate::jwt::{JwtOptions, KeySet};
use crate::time::WallTime;

/// The time at which the tokens of the seeds are valid.
const NOW: WallTime = WallTime(1_800_000_000_000);
/// A secret that nobody keeps.
const SECRET: &[u8] = b"a secret of the tests, long enough for all";
/// The tokens that were made with the secret and with the keys: their header and payload, as they are signed.
const GENUINE: &str = include_str!("../../tests/data/keys/genuine-tokens.txt");

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let published = KeySet::from_published_jwks(include_str!("../../tests/data/keys/jwks.json"));
    let secret = KeySet::from_secret(SECRET, None);
    published.and_then(|published| Ok(published.and(secret?))).unwrap_or_else(|error| panic!("{error}"))
});

/// A token: nobody is let in whose token was not made with one of the keys.
pub fn token(bytes: &[u8]) {
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let options = JwtOptions { audiences: vec!["app".into()], ..JwtOptions::default() };
    match KEYS.verify(token, NOW, &options) {
        Ok(identity) => {
            let signed = token.rsplit_once('.').map(|(signed, _)| signed);
            let is_genuine = GENUINE.lines().any(|genuine| Some(genuine) == signed);
            assert!(is_genuine, "{} is let in with {token}", identity.user_id());
            assert!(KEYS.has_key_for(token));
        }
        Err(error) => {
            let code = error.code().unwrap_or_default();
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
            assert!(code.starts_with("PSYNC_S21"), "{code}: {error}");
        }
    }
}

/// Keys as an issuer publishes them and as a server is configured with them: refused, or usable. No published key is a
/// shared secret, so none makes a token of the secret genuine.
pub fn published_keys(bytes: &[u8]) {
    let Ok(json) = std::str::from_utf8(bytes) else { return };
    let configured = KeySet::from_jwks(json);
    let published = KeySet::from_published_jwks(json);
    let options = JwtOptions { audiences: vec!["app".into()], ..JwtOptions::default() };
    for keys in configured.iter().chain(&published) {
        // Signed with nothing, by an algorithm that each key of its family accepts.
        for token in ["eyJhbGciOiJIUzI1NiJ9.e30.", "eyJhbGciOiJSUzI1NiJ9.e30.AA", "eyJhbGciOiJFZERTQSJ9.e30.AA"] {
            assert!(keys.verify(token, NOW, &options).is_err());
        }
    }
    if let Ok(published) = published {
        assert!(!published.has_key_for("eyJhbGciOiJIUzI1NiJ9.e30."), "a published key is a secret");
    }
}
