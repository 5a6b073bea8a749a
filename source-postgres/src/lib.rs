//! Postgres for Syncline: [`PostgresSource`] replicates a plain database from its write-ahead log, and
//! `PostgresBackend` applies uploads to it (feature `backend`).
//!
//! The server needs `wal_level = logical` and a publication; nothing else is installed or changed there. See
//! [`PostgresSource`] for what it promises.

#[cfg(feature = "backend")]
mod backend;
mod catalog;
mod config;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod layout;
mod link;
mod lsn;
mod output;
mod pgoutput;
mod preflight;
mod reread;
mod schema;
mod session;
mod slot;
mod snapshot;
mod source;
mod state;
mod transactions;
mod value;
mod visibility;
mod walsender;

#[cfg(feature = "backend")]
pub use backend::{PostgresBackend, WritableTable, Write, WriteRule, connect};
pub use config::PostgresConfig;
pub use lsn::Lsn;
pub use source::PostgresSource;
