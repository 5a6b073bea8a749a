//! The router over a service in memory, asked over real connections.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

mod bench;
mod recorded;
mod slow_readers;
mod streams;
