//! Uploads against a real Postgres.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "backend")]

mod bench;
mod conflicts;
mod faults;
mod privacy;
mod rules;
mod values;
