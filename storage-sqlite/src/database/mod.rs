//! The client's database: a standard SQLite file with typed tables, an upload queue and what was downloaded.
//!
//! One writer thread and a few reader threads own the connections; nothing needs an async runtime. The application reads
//! and writes real tables; plain SQL triggers capture its writes into the upload queue, whoever makes them. Downloads are
//! appended to a log beside the tables and shown by a publish, in one transaction (C1), which is prepared in many short
//! ones if it is large (C4).

mod bucket_table;
mod budget;
mod capture;
mod changes;
mod checkpointer;
#[cfg(test)]
mod checkpointer_tests;
mod clear;
mod client_store;
mod connection;
mod diagnostics;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "../../tests/it/feed.rs"]
mod feed;
mod handle;
mod layout;
mod lease;
mod migration;
mod opening;
mod operation_log;
mod preparation;
#[cfg(test)]
mod preparation_tests;
mod publish;
mod query;
mod queue_runs;
mod reader;
mod replay;
mod resolve;
mod row;
mod row_index;
mod row_writer;
mod schema;
mod shadow;
mod shadow_index;
mod show;
mod slice;
mod sorted_run;
mod stage;
mod subscriptions;
mod superseded;
mod survey;
mod table_sql;
mod upgrade;
mod upload_queue;
mod watch;
mod work_queue;
mod write_transaction;
mod writer;

pub use clear::{Clear, Cleared};
pub use diagnostics::{BucketDiagnostics, DatabaseDiagnostics};
pub use error::{Error, Result};
pub use handle::Database;
pub use opening::{Durability, Opening};
pub use query::Query;
pub use schema::{Column, ColumnType, Index, PreviousValues, Schema, Table};
pub use upload_queue::RejectedTransaction;
pub use watch::Watch;
pub use write_transaction::WriteTransaction;
