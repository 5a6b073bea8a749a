//! The client's side: conversations without a socket, and what carries them.

mod compact;
mod conversation;
mod endpoint;
mod pump;
mod refusal;
mod transport;
mod watched;

pub use compact::CompactTransport;
pub use transport::WebSocketTransport;
