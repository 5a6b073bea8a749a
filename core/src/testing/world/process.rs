//! What can be crashed by itself.

use std::fmt;

/// A process of the simulated world: its tasks end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Process {
    /// What carries messages, and the application's backend. Never crashed.
    World,
    /// The replicator.
    Replicator,
    /// The sync service with its streams.
    Server,
    /// What replicator and service run in together with their bucket store, which is lost with it and opened again. It has
    /// no tasks of its own.
    Host,
    /// An application on a device, by the number of its client.
    Client(usize),
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("world"),
            Self::Replicator => f.write_str("replicator"),
            Self::Server => f.write_str("server"),
            Self::Host => f.write_str("host of the bucket store"),
            Self::Client(number) => write!(f, "client {number}"),
        }
    }
}
