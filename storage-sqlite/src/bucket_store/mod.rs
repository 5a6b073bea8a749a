//! The server's bucket store in one SQLite file.
//!
//! One thread writes and a few read; the async side waits for their answers and needs no runtime. What one source
//! transaction appends stays inside one write transaction, spilled chunk by chunk, so that memory is bounded; readers
//! see only what lies at or below the published checkpoint, since everything is cut by operation ids. Requests for write
//! checkpoints live in a small file of their own beside it: they must be durable at once, also while a large source
//! transaction is open.

mod appending;
mod bucket_cache;
mod compacting;
mod files;
mod inspection;
mod meta;
mod reading;
mod row_codec;
mod schema;
mod sqlite_error;
mod store;
mod sweep_lookups;
#[cfg(test)]
mod tests;
mod wal;
mod workers;
mod write_requests;
mod writer;

pub use inspection::StoreInspection;
pub use store::SqliteBucketStore;
