//! What the stores of a world must be able to do besides being stores: die with their process, and be looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::bucket_store::BucketStore;
use crate::client_store::ClientStore;
use crate::clock::Clock;
use crate::local_transaction::{LocalTransaction, LocalWrite};

/// Where the data of a world is: makes its bucket store and the store of each of its clients, each empty.
///
/// Every run over one of these makes stores of its own, so that it can be shared by many runs.
pub trait WorldStores: Send + Sync + fmt::Debug {
    /// The bucket store of a new world. What is random in it comes from `chance`, what is time from `clock`: one seed makes
    /// one run.
    fn bucket_store(&self, clock: Arc<dyn Clock>, chance: u64) -> Arc<dyn WorldBucketStore>;

    /// The store of a new client with this id.
    fn client_store(&self, client_id: &str) -> Arc<dyn WorldClientStore>;

    /// The arguments of `cargo nextest run` for the test that runs one seed over these stores, from `WORLD_FROM`.
    fn test(&self) -> &str;
}

/// A store whose process dies now and then, at a moment that the world chooses, and comes back with what is on its disk.
///
/// # Contract
/// Each call is done when its future is polled for the first time, and wakes whoever waits for one of its streams before it
/// returns: the world adds delays and failures of its own, and runs the same every time.
pub trait Mortal: fmt::Debug {
    /// The process is about to die in the middle of one call: `chance` says how far that comes. Returns whether the call is
    /// to be made at all; nobody hears of its outcome, and [`crash`](Self::crash) follows at once.
    fn brace(&self, chance: u64) -> bool;

    /// The process dies: what it had not yet written is lost. All handles but this one are gone by now, and it is used
    /// again at once, as a process that starts anew would. `chance` decides about what a disk may keep or lose.
    fn crash(&self, chance: u64);
}

/// The bucket store of a world.
pub trait WorldBucketStore: BucketStore + Mortal {}

impl<T: BucketStore + Mortal> WorldBucketStore for T {}

/// The store of a client of a world, with the application on it.
pub trait WorldClientStore: ClientStore + Mortal {
    /// The application writes, in one local transaction. Returns what was queued of it, if anything: a write that changes
    /// nothing need not be.
    fn write(&self, writes: Vec<LocalWrite>) -> Option<LocalTransaction>;

    /// All rows that the application sees, by table and id. Neither `id` nor columns that are NULL need be in them.
    fn visible_rows(&self) -> BTreeMap<(String, String), Map<String, Json>>;

    /// Whether a transaction is in the upload queue, sent or not.
    fn is_queued(&self, transaction_id: Option<i64>) -> bool;

    /// The transactions that the backend refused, with its reasons.
    fn rejected(&self) -> Vec<(LocalTransaction, String)>;
}
