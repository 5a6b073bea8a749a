//! The client's side: a conversation without a socket, and what carries it.

mod conversation;
mod endpoint;
mod pump;
mod transport;
mod watched;

pub use transport::WebSocketTransport;
