//! The service over a store in memory: what it sends when, and when it ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;
mod clock;
mod downloads;
mod limits;
mod renewal;
mod slow_store;
mod slow_stores;
