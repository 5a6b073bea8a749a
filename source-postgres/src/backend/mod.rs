//! The backend of an application: applies uploaded local transactions to Postgres under write rules.

mod agreed_tls;
mod applier;
mod catalog;
mod plan;
mod pool;
mod postgres_backend;
mod refusal;
mod statement;
mod table_name;
mod writable_table;
mod write_rule;

pub use pool::connect;
pub use postgres_backend::PostgresBackend;
pub use writable_table::WritableTable;
pub use write_rule::{Write, WriteRule};
