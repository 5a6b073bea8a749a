//! The verified identity of a request, for any route of an application.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use syncline_core::{Error, Identity, SyncService};

use super::problem::Problem;

/// Extracts the identity from `Authorization: Token …` (or `Bearer …`), verified by the service's authenticator.
///
/// For routes whose state holds a [`SyncService`]. Answers 401 with a `PSYNC_S21…` code otherwise.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Identity);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    SyncService: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        authenticate(parts, &SyncService::from_ref(state)).await.map(Self)
    }
}

/// Verifies the token of a request.
pub(super) async fn authenticate(parts: &Parts, service: &SyncService) -> Result<Identity, Problem> {
    Ok(service.authenticate(bearer_token(&parts.headers)?).await?)
}

/// The token in `Authorization: Token …` (or `Bearer …`), not verified: for an application that has an
/// [`Authenticator`](syncline_core::Authenticator) and no [`SyncService`].
///
/// # Errors
/// 401 with `PSYNC_S2106` if there is none.
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, Problem> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let missing = || {
        Error::unauthorized("the header `Authorization: Token <token>` is missing or malformed")
            .with_code("PSYNC_S2106")
    };
    Ok(token_of(header).ok_or_else(missing)?)
}

/// The token of a header; the scheme is case-sensitive, as it is in the official service.
fn token_of(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let sound = matches!(scheme, "Token" | "Bearer") && !token.is_empty() && !token.contains(char::is_whitespace);
    sound.then_some(token)
}

#[cfg(test)]
mod tests {
    use super::token_of;

    #[test]
    fn both_schemes_are_read_and_nothing_else() {
        assert_eq!(token_of("Token abc"), Some("abc"));
        assert_eq!(token_of("Bearer abc"), Some("abc"));
        for header in ["", "token abc", "Basic abc", "Token", "Token ", "Token a b", "Token  a"] {
            assert_eq!(token_of(header), None, "{header}");
        }
    }
}
