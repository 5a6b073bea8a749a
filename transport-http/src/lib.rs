//! HTTP for Syncline: the axum router that serves clients, and the reqwest transport of a client.

#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use axum;
#[cfg(feature = "server")]
pub use server::{Authenticated, HttpLimits, Problem, router, router_with_limits};
