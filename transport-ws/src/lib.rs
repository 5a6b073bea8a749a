//! RSocket over WebSocket for Syncline, as the official SDKs for JavaScript and Kotlin may use it.

#[cfg(feature = "client")]
mod client;
pub mod frame;
#[cfg(test)]
mod hex;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use axum;
#[cfg(feature = "client")]
pub use client::WebSocketTransport;
/// The TLS implementation whose configuration [`WebSocketTransport::tls`] takes.
#[cfg(feature = "client")]
pub use rustls;
#[cfg(feature = "server")]
pub use server::{WebSocketLimits, router, router_with_limits, serve};
