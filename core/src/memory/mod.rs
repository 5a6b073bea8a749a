//! Parts in memory: for tests, first steps and examples. They run the same code as the real ones.

mod source;
mod transport;

pub use source::{MemorySource, MemoryTransaction};
pub use transport::{MemoryTransport, TokenIsUser};
