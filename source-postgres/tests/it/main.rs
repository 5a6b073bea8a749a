//! The source against real servers.
#![allow(clippy::unwrap_used)]

mod bench_database;
mod replica;
mod snapshot;
mod stream;
