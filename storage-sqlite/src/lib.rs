//! SQLite for Syncline: the server's bucket store in one file, and the client's database.

#[cfg(feature = "bucket-store")]
mod bucket_store;
#[cfg(feature = "database")]
mod database;
mod failpoint;

// The tests inside share a module with those outside, which name the crate.
#[cfg(all(test, feature = "database"))]
extern crate self as syncline_storage_sqlite;

#[cfg(feature = "bucket-store")]
pub use bucket_store::{SqliteBucketStore, StoreInspection};
#[cfg(feature = "database")]
pub use database::{
    BucketDiagnostics, Clear, Cleared, Column, ColumnType, Database, DatabaseDiagnostics, Durability, Error, Index,
    Opening, PreviousValues, Query, RejectedTransaction, Result, Schema, Table, Watch, WriteTransaction,
};
#[cfg(feature = "database")]
pub use rusqlite::{self, params};
