//! Replication: from a source, through the sync config, into the bucket store.

mod applier;
mod failed_rows;
mod membership;
mod progress;
mod replicator;
mod row_image;
mod status;
#[cfg(test)]
mod tests;
mod upkeep;

pub use replicator::Replicator;
pub use status::{ReplicationPhase, ReplicationStatus};
