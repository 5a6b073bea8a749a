//! Syncline's own subprotocol: all streams and questions on one connection that is kept.

mod calls;
mod link;
mod transport;

pub use transport::CompactTransport;
