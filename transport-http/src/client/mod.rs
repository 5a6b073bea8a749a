//! The transport of a client over HTTP.

mod answer;
mod transport;
mod upload;

pub use transport::{HttpTransport, http_client};
pub use upload::upload;
