//! Under construction.

#[cfg(feature = "backend")]
mod backend;

#[cfg(feature = "backend")]
pub use backend::{PostgresBackend, WritableTable, Write, WriteRule};
