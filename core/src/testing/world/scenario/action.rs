//! What happens to a world from outside: what users do, and what goes wrong.

use std::fmt;

use super::super::database::Change;
use super::super::process::Process;
use crate::local_transaction::LocalWrite;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Somebody else commits a transaction in the source.
    Commit(Vec<Change>),
    /// A user writes, in one local transaction.
    Write(usize, Vec<LocalWrite>),
    /// An application subscribes to the items of a list, perhaps with a priority of its own.
    Subscribe(usize, String, Option<u8>),
    /// An application leaves one of its streams.
    Unsubscribe(usize, usize),
    /// A process ends where it is.
    Crash(Process),
    /// A process dies in the middle of what it next does to its store, as by a power loss.
    CrashAmid(Process),
    /// A process that was crashed starts again.
    Restart(Process),
    /// The network of a client.
    Network(usize, NetworkFault),
    /// Whether replication can reach the database.
    SourceAway(bool),
    /// The connection of replication to the database breaks.
    SourceCut,
    /// The slot is dropped: the history is lost.
    DropSlot,
    /// Replicator and server go on with the other config, over a new store.
    SwitchConfig,
    /// Replicator and server go on with the same config, whose text alone is another.
    Reword(u64),
    /// A table must be read anew.
    ReadAnew(&'static str),
    /// So many markers' answers in a thousand are lost.
    MarkerAnswersLost(u64),
    /// The longest time of a call of the bucket store, in milliseconds, and how many in a thousand fail.
    BucketDisk(u64, u64),
    /// The same of clients' stores.
    DeviceDisk(u64, u64),
    /// So many signals in a thousand of changed upload queues are lost.
    SignalsLost(u64),
    /// The server's clock jumps to so many milliseconds before or after the true time of day.
    ServerClock(i64),
    /// A client's clock does.
    ClientClock(usize, i64),
}

/// What happens to the network of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkFault {
    /// Everything is as it should be again.
    Up,
    /// Nothing gets through, and everybody knows.
    Cut,
    /// Nothing gets through, and nobody knows.
    Silent,
    /// What is open is dead, and nobody knows; new connections work.
    HalfOpen,
    /// A message takes up to so many milliseconds.
    Slow(u64),
    /// Of a thousand so many answers are lost, requests repeated, pieces of streams damaged.
    Unreliable(u64, u64, u64),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(changes) => write!(f, "commit of {} changes", changes.len()),
            Self::Write(client, writes) => write!(f, "client {client} writes {} rows", writes.len()),
            Self::Subscribe(client, list, priority) => {
                write!(f, "client {client} subscribes to items of {list} with priority {priority:?}")
            }
            Self::Unsubscribe(client, index) => write!(f, "client {client} leaves subscription {index}"),
            Self::Crash(process) => write!(f, "{process} crashes"),
            Self::CrashAmid(process) => write!(f, "{process} crashes amid its next write"),
            Self::Restart(process) => write!(f, "{process} starts again"),
            Self::Network(client, fault) => write!(f, "network of client {client}: {fault:?}"),
            Self::BucketDisk(slow, fails) => write!(f, "bucket store: up to {slow} ms, {fails} ‰ fail"),
            Self::DeviceDisk(slow, fails) => write!(f, "devices: up to {slow} ms, {fails} ‰ fail"),
            other => write!(f, "{other:?}"),
        }
    }
}
