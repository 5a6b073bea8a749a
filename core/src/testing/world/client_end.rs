//! What stays of a client when its application is not running, apart from its store.

use super::link::Link;
use super::virtual_time::WallOffset;
use crate::config::StreamSubscription;

/// A device and its user.
#[derive(Debug)]
pub(super) struct ClientEnd {
    pub(super) link: Link,
    /// The device's idea of the time of day.
    pub(super) wall: WallOffset,
    /// What the application subscribes to when it runs, and the task that holds it.
    pub(super) subscriptions: Vec<(StreamSubscription, Option<u64>)>,
}
