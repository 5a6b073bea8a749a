//! Processes that are killed at bad moments. After each scenario every table of every client is what Postgres holds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod figures;
mod history;
mod patience;
mod postgres;
mod process;
mod stack;
mod traffic;

mod downloads;
mod outages;
mod snapshot;
mod streaming;
mod together;
mod writes;
