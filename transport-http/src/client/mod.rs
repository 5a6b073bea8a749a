//! The transport of a client over HTTP.

mod answer;
mod transport;

pub use transport::{HttpTransport, http_client};
