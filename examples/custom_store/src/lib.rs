//! # A bucket store of one's own
//!
//! What a server needs of a store is the trait [`BucketStore`](syncline_core::BucketStore). This one holds everything in
//! memory, and what happened in a journal: a file to which each commit is appended, and synced, before it counts. Opening
//! does again what the journal says and so arrives at the same state. It is short and durable; it is for data that fits into
//! memory, and to be read before one writes a store of one's own.
//!
//! - `journal.rs`: the file, and what a power loss leaves of it
//! - `state.rs`: all that a store knows, and what each event does to it
//! - `store.rs`: the trait; what is durable and who is told
//!
//! How it does what is owed: *a commit is one durable step*, because it is one record, and a record that was cut is not there.
//! *Ids rise and are never reused*, because they are counted in the state. *Reads never wait for the disk*: a writer holds
//! one lock from beginning to end, and the other only to change the state. *Compaction changes nothing that a client ends up
//! with*, so that it need not be in the journal. Whether the store owes nothing else is for `bucket_store_tests!` to say, in
//! `tests/conformance.rs`.
//!
//! The core brings parts: `Staged`, `StoredBucket`, `StoredLookups` and `MarkerRequests` for those who keep everything in memory,
//! `CheckpointFeed` and `MarkerFeed` for those who wait. A store that keeps its buckets elsewhere uses `ChunkBuilder` for
//! operations as they are sent, and `BucketRead` and `Compactor`, of which `StoredBucket` is made.
//!
//! What it leaves out: the journal shrinks only when it is opened; a commit blocks its thread while the disk syncs, where a
//! larger store gives the disk a thread of its own; after a write that failed it takes no more until it is opened again; and
//! buckets of definitions that left the config stay.

mod journal;
mod state;
mod store;

pub use store::JournalStore;
