//! Verification of tokens (JWT): pure, over keys that somebody else has fetched or configured.
//!
//! Keys: `oct` (HS256, HS384, HS512), RSA of 2048 to 4096 bits (RS256, RS384, RS512), P-256 (ES256), P-384 (ES384) and
//! Ed25519 (EdDSA). The algorithm is always one of the key's own; what a token claims only chooses among those, so that a
//! public key can never be taken for a shared secret.
//!
//! A token must state `sub`, `iat`, `exp` and `aud`; see [`JwtOptions`] for what is checked of them.

mod claims;
mod key;
mod key_set;

pub use claims::JwtOptions;
pub use key_set::KeySet;
