//! Errors as SDKs understand them: a status, and a JSON body with a `PSYNC_…` code.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use syncline_core::{Error, ErrorKind};

/// An error as an HTTP answer: `{"error":{"name","code","status","description"}}`.
///
/// Made from a core [`Error`] by `?`. What is internal, and the causes of what is away, go to the log and not to the client.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: String,
    name: &'static str,
    description: String,
}

impl Problem {
    /// An answer of this status and code.
    pub fn new(status: StatusCode, code: impl Into<String>, description: impl Into<String>) -> Self {
        Self { status, code: code.into(), name: name_of(status), description: description.into() }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "PSYNC_S2002", format!("there is no {what}"))
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

fn name_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "ValidationError",
        StatusCode::UNAUTHORIZED => "AuthorizationError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceError",
        StatusCode::INTERNAL_SERVER_ERROR => "InternalServerError",
        _ => "RequestError",
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code) = match (error.kind(), error.code()) {
            // Told where it is counted, and not for each.
            (_, Some(code @ "PSYNC_S2304")) => (StatusCode::TOO_MANY_REQUESTS, code),
            (ErrorKind::Unauthorized, code) => {
                let code = code.unwrap_or("PSYNC_S2101");
                tracing::info!(code, %error, "a request is not authorized");
                (StatusCode::UNAUTHORIZED, code)
            }
            (ErrorKind::Invalid | ErrorKind::Protocol, code) => {
                let code = code.unwrap_or("PSYNC_S2001");
                tracing::info!(code, %error, "a request cannot be understood");
                (StatusCode::BAD_REQUEST, code)
            }
            (ErrorKind::Unavailable | ErrorKind::Closed, code) => {
                tracing::warn!(%error, "a request cannot be answered now");
                // Its causes name what is behind the server, and the client may be anybody.
                let code = code.unwrap_or("PSYNC_S2003");
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.message());
            }
            (_, code) => {
                tracing::error!(%error, "a request failed");
                return Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    code.unwrap_or("PSYNC_S2001"),
                    "an internal error; the server's log says more",
                );
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            // As the official service answers: without a body. Streams end all the time, so a place may be free soon.
            return (self.status, [(RETRY_AFTER, "5")]).into_response();
        }
        let body = json!({ "error": {
            "name": self.name,
            "code": self.code,
            "status": self.status.as_u16(),
            "description": self.description,
        }});
        (self.status, Json(body)).into_response()
    }
}
