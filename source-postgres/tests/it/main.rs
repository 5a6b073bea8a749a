//! The source against real servers.
#![allow(clippy::unwrap_used)]

mod bench_database;
mod failover;
mod faults;
mod login;
mod preflight;
mod replica;
mod replicator;
mod schema;
mod snapshot;
mod stream;
mod suite;
