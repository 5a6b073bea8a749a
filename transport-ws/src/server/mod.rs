//! The server's side: connections as state machines, and what carries them.

mod connection;
mod document;
mod limits;
mod lines;
mod refusal;

pub use limits::WebSocketLimits;
