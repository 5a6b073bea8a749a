//! The client's database, from outside: capture, publishing, schema changes, watching, crashes.
#![cfg(feature = "database")]
#![allow(clippy::unwrap_used)]

mod capture;
mod concurrency;
mod conformance;
mod crash;
mod disk_full;
mod feed;
mod large;
mod migration;
mod partial;
mod publish;
mod queue;
mod upgrade;
mod vectors;
mod watch;
