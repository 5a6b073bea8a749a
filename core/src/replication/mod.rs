//! Replication: from a source, through the sync config, into the bucket store.

mod applier;
mod failed_rows;
mod membership;
mod overlay;
mod progress;
mod replicator;
mod row_evaluator;
mod row_image;
mod status;
mod store_call;
#[cfg(test)]
mod tests;
mod upkeep;

pub use replicator::Replicator;
pub use status::{ReplicationPhase, ReplicationStatus};
