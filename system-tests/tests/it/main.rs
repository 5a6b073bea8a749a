//! The whole way, with our own client: Postgres, replicator, store in a file, HTTP, the client's database, and back.
#![allow(clippy::unwrap_used)]

mod every_table;
mod forbidden_writes;
mod large_rows;
mod large_uploads;
mod rights;
