//! The server's side of sync: a sans-IO session per stream, the fan-out of checkpoints, and the service that runs both.

mod driver;
mod event;
mod fan_out;
mod interest;
mod renewal;
mod resolution;
mod send_budget;
mod service;
mod session;
mod shared_bucket;
mod shared_reads;
mod standing;
mod tracked_bucket;
mod tracked_buckets;
mod wanted;

pub use event::{CheckpointUpdate, ResolvedStreams, ServerCommand, ServerEvent, ServerLine, Touched};
pub use renewal::StreamRenewal;
pub use service::{Readiness, ServiceLimits, SyncService};
pub use session::{ServerSession, SessionLimits};
pub use shared_bucket::SharedBucket;
pub use wanted::WantedBucket;
