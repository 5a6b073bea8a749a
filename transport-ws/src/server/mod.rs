//! The server's side: connections as state machines, and what carries them.

mod compact;
mod connection;
mod document;
mod endpoint;
mod limits;
mod lines;
mod refusal;
mod socket;
mod subprotocol;
mod task;

pub use endpoint::{WebSocketEndpoint, router, router_with_limits, serve};
pub use limits::WebSocketLimits;
