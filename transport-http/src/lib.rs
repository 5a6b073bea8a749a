//! HTTP for Syncline: the axum router that serves clients, and the reqwest transport of a client.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "server", feature = "client"))]
mod tls;

#[cfg(feature = "server")]
pub use axum;
#[cfg(feature = "client")]
pub use client::{HttpTransport, http_client, upload};
/// The HTTP client that [`HttpTransport::client`] takes.
#[cfg(feature = "client")]
pub use reqwest;
/// The TLS implementation whose configuration [`HttpTransport::tls`] takes.
#[cfg(feature = "client")]
pub use rustls;
#[cfg(feature = "server")]
pub use server::{
    Authenticated, Connection, HttpLimits, JwtAuthenticator, Listener, Problem, Upload, UploadRejection, bearer_token,
    cors, router, router_with_limits, serve,
};
