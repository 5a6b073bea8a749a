//! The fuzz targets of this crate: whatever the bytes are, nothing panics, and what each function says holds.
//!
//! `fuzz/` runs them under libFuzzer, `core/tests/fuzzing.rs` over their seeds and mutations of them on any toolchain.
//! Each is one function, so that both run the same.

mod client_session;
mod local_transaction;
mod protocol_lines;
mod scenario;
mod server_session;
mod stored_chunk;
mod sync_config;
mod sync_request;
#[cfg(feature = "jwt")]
mod token;

pub use client_session::client_session;
pub use local_transaction::local_transaction;
pub use protocol_lines::{bson_lines, compact_lines, ndjson_lines};
pub use scenario::scenario;
pub use server_session::server_session;
pub use stored_chunk::stored_chunk;
pub use sync_config::{sync_config, sync_config_sql};
pub use sync_request::sync_request;
#[cfg(feature = "jwt")]
pub use token::{published_keys, token};
