//! What a token must state beside a genuine signature.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::key::Key;
use crate::error::{Error, Result};
use crate::time::WallTime;

/// Clocks of issuers and of this machine may differ by this much.
const TOLERANCE_SECONDS: f64 = 60.0;

/// What is asked of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOptions {
    /// A token must be made for one of these: its `aud`, or one of them. None are accepted while this is empty.
    pub audiences: Vec<String>,
    /// The longest time from `iat` to `exp`; one day unless changed.
    pub max_lifetime: Duration,
}

impl Default for JwtOptions {
    fn default() -> Self {
        Self { audiences: Vec::new(), max_lifetime: Duration::from_secs(86_400) }
    }
}

/// Checks the claims of a token whose signature `key` made.
pub(super) fn check(claims: &Map<String, Json>, key: &Key, now: WallTime, options: &JwtOptions) -> Result<()> {
    let now = now.unix_seconds() as f64;
    check_audience(claims, key.audiences.as_deref().unwrap_or(&options.audiences))?;
    if !claims.contains_key("sub") {
        return Err(missing("sub"));
    }
    let issued = seconds(claims, "iat")?.ok_or_else(|| missing("iat"))?;
    let expires = seconds(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    if seconds(claims, "nbf")?.is_some_and(|start| start > now + TOLERANCE_SECONDS) {
        return Err(refused("the token is not valid yet"));
    }
    if expires <= now - TOLERANCE_SECONDS {
        return Err(Error::unauthorized("the token has expired").with_code("PSYNC_S2103"));
    }
    let longest = key.max_lifetime.unwrap_or(options.max_lifetime).as_secs();
    let lifetime = expires - issued;
    if lifetime > longest as f64 {
        let message = format!("the token is valid for {lifetime} s, but at most {longest} s are accepted");
        return Err(Error::unauthorized(message).with_code("PSYNC_S2104"));
    }
    match claims.get("parameters") {
        None | Some(Json::Object(_)) => Ok(()),
        Some(_) => Err(refused("the claim `parameters` must be an object")),
    }
}

fn check_audience(claims: &Map<String, Json>, accepted: &[String]) -> Result<()> {
    let is_accepted = |value: &Json| value.as_str().is_some_and(|value| accepted.iter().any(|name| name == value));
    let message = match claims.get("aud") {
        None => "the token lacks the claim `aud`".into(),
        Some(Json::Array(values)) if values.iter().any(is_accepted) => return Ok(()),
        Some(value) if is_accepted(value) => return Ok(()),
        Some(value) => format!("the token is made for another audience: {value}"),
    };
    Err(Error::unauthorized(message).with_code("PSYNC_S2105"))
}

/// A time in seconds since the Unix epoch; a fraction is allowed.
fn seconds(claims: &Map<String, Json>, claim: &str) -> Result<Option<f64>> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(refused(format!("the claim `{claim}` must be a number"))),
        },
    }
}

fn missing(claim: &str) -> Error {
    refused(format!("the token lacks the claim `{claim}`"))
}

/// A token that is refused for a reason without a code of its own.
pub(super) fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::unauthorized(message).with_code("PSYNC_S2101")
}
