//! The whole way, with our own client: Postgres, replicator, store in a file, HTTP, the client's database, and back.
#![allow(clippy::unwrap_used)]

mod large_uploads;
