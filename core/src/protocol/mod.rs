//! The PowerSync sync protocol: one message model, and pure codecs beside it.

mod decode;
mod encode;
mod line;
mod request;

pub use decode::LineDecoder;
pub use encode::DataHeader;
pub use line::{
    BucketDescription, CheckpointDiffLine, CheckpointLine, ClientLine, DataLine, StreamDescription, StreamError,
    SubscriptionReason,
};
pub use request::{BucketPosition, Framing, RequestedStreams, RequestedSubscription, SyncRequest};
