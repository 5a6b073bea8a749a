//! RSocket over WebSocket for Syncline, as the official SDKs for JavaScript and Kotlin may use it.

pub mod frame;
#[cfg(test)]
mod hex;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use server::WebSocketLimits;
