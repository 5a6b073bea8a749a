//! Parts in memory: for tests, first steps and examples. They run the same code as the real ones.

mod bucket_store;
mod client_store;
mod marker_requests;
mod source;
mod staged;
mod stored_bucket;
mod stored_lookups;
mod transport;

pub use bucket_store::MemoryBucketStore;
pub use client_store::MemoryClientStore;
pub use marker_requests::MarkerRequests;
pub use source::{MemorySource, MemoryTransaction};
pub use staged::Staged;
pub use stored_bucket::StoredBucket;
pub use stored_lookups::StoredLookups;
pub use transport::{MemoryTransport, TokenIsUser};
