//! Under construction.

#[cfg(feature = "database")]
mod database;

#[cfg(feature = "database")]
pub use database::{
    BucketDiagnostics, Clear, Cleared, Column, ColumnType, Database, DatabaseDiagnostics, Durability, Error, Index,
    Opening, PreviousValues, Query, RejectedTransaction, Result, Schema, Table, Watch, WriteTransaction,
};
#[cfg(feature = "database")]
pub use rusqlite::{self, params};
