//! What browsers may do: any origin may call, with the headers that SDKs send, without cookies.

use std::time::Duration;

use axum::http::Method;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use tower_http::cors::{Any, CorsLayer};

/// The layer around all routes of the router. An application puts it around routes of its own that browsers call from
/// another origin, such as its upload endpoint: `Router::layer(cors())`.
///
/// Any origin may call, with the headers that SDKs send and without cookies: a request counts by its token alone.
pub fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .expose_headers([CONTENT_TYPE])
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION, USER_AGENT, HeaderName::from_static("x-user-agent")])
        .max_age(Duration::from_secs(3_600))
}
