//! A whole world in one thread, in virtual time: source, replicator, server, network, devices and their users.
//!
//! The parts in the middle are those that run in production: [`Replicator`](crate::Replicator),
//! [`SyncService`](crate::SyncService) and [`SyncClient`](crate::SyncClient). Only the ends are simulated, and chance, which
//! comes from a seed alone, decides which of them goes first. After every step an oracle checks what Syncline promises.

mod backend;
mod bucket_disk;
mod client_end;
mod content;
mod crashes;
mod database;
mod device;
mod executor;
mod faults;
mod ledger;
mod link;
mod memory_stores;
mod network;
mod oracle;
mod pipe;
mod process;
mod random;
mod read_state;
mod scenario;
mod server;
mod simulation;
mod source;
#[cfg(test)]
mod source_tests;
mod stores;
mod timeline;
mod tokens;
mod virtual_time;

pub(crate) use random::Random;
pub use scenario::{Report, Scenario};
pub use stores::{Mortal, WorldBucketStore, WorldClientStore, WorldStores};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value as Json};

use self::database::Change;
use self::link::Mode;
use self::memory_stores::MemoryStores;
use self::oracle::Failure;
use self::simulation::Simulation;
use crate::config::{StreamSubscription, SyncConfig};
use crate::identity::Identity;
use crate::local_transaction::{LocalWrite, WriteKind};

/// Virtual time in which a world must settle, in milliseconds.
const SETTLED_WITHIN: u64 = 180_000;

/// A simulated world for tests of a sync config, and of whatever an application makes of it: an ordinary `#[test]`, without
/// a runtime, a port or a sleep.
///
/// ```
/// use serde_json::json;
/// use syncline_core::testing::World;
/// use syncline_core::{Identity, SyncConfig};
///
/// const SYNC_CONFIG: &str = "
/// config: { edition: 3 }
/// streams:
///   my_lists:
///     auto_subscribe: true
///     query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
/// ";
///
/// let mut world = World::new(SyncConfig::parse(SYNC_CONFIG)?);
/// let anna = world.client(Identity::new("anna"));
/// world.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }));
/// world.settle(); // runs source, server and clients until nothing is left to do
/// assert_eq!(world.rows(anna, "lists"), [json!({ "id": "l1", "name": "Groceries" })]);
///
/// world.disconnect(anna);
/// world.write(anna, "lists", json!({ "id": "l2", "name": "Books", "owner_id": "anna" }));
/// world.settle(); // checks the promised invariants after each step, and panics with the seed
/// assert_eq!(world.source_rows("lists").len(), 1);
/// world.reconnect(anna);
/// world.settle();
/// assert_eq!(world.source_rows("lists").len(), 2);
/// # Ok::<(), syncline_core::Diagnostics>(())
/// ```
///
/// # Panics
/// Each method panics if a promise is broken, with the seed and a timeline of what happened.
#[derive(Debug)]
pub struct World(Simulation);

/// A client of a [`World`]: a user's application on a device, with a database of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorldClient(usize);

impl World {
    /// A world whose server has this config. Its source has no rows yet; a table is there as soon as a row is put into it.
    pub fn new(config: SyncConfig) -> Self {
        Self::seeded(config, 0)
    }

    /// The same in which chance takes another course: what is under way at the same time ends in another order.
    pub fn seeded(config: SyncConfig, seed: u64) -> Self {
        Self::over(config, seed, Arc::new(MemoryStores))
    }

    /// The same over stores of one's own, instead of those in memory.
    pub fn over(config: SyncConfig, seed: u64, stores: Arc<dyn WorldStores>) -> Self {
        let mut simulation = Simulation::new(config, seed, None, stores);
        simulation.start_replicator();
        simulation.start_server();
        Self(simulation)
    }

    /// Adds a client of this user and starts it. It is connected.
    pub fn client(&mut self, identity: Identity) -> WorldClient {
        let client = self.0.add_client(identity);
        self.0.start_client(client);
        WorldClient(client)
    }

    /// Inserts or replaces a row in the source, in a transaction of its own. `row` is an object with a text `id`.
    pub fn put(&mut self, table: &str, row: Json) {
        let row = object(table, row);
        self.0.commit(&[Change::Put { table: table.to_owned(), row }]);
        self.look();
    }

    /// Deletes a row in the source, if there is one.
    pub fn delete(&mut self, table: &str, id: &str) {
        self.0.commit(&[Change::Delete { table: table.to_owned(), id: id.to_owned() }]);
        self.look();
    }

    /// All rows of a table in the source, by id.
    pub fn source_rows(&self, table: &str) -> Vec<Json> {
        self.0.database.content_at(u64::MAX).rows(table).into_iter().map(Json::Object).collect()
    }

    /// Runs everything until nothing is left to do: every commit is published, every client that has a network shows
    /// what the source has for it, and all its writes have come back.
    pub fn settle(&mut self) {
        let settled = self.0.settle(SETTLED_WITHIN);
        self.check(settled);
    }

    /// The rows of a table as a client's application sees them, by id.
    pub fn rows(&self, client: WorldClient, table: &str) -> Vec<Json> {
        self.0.rows(client.0, table).into_iter().map(Json::Object).collect()
    }

    /// Inserts or replaces a row in a client's database, in a local transaction of its own. It is uploaded to the
    /// source as soon as the client has a network.
    pub fn write(&mut self, client: WorldClient, table: &str, row: Json) {
        let mut row = object(table, row);
        let Some(Json::String(id)) = row.remove("id") else { panic!("a row of `{table}` must have a text `id`") };
        self.write_one(client, WriteKind::Put, table, id, Some(row));
    }

    /// Deletes a row in a client's database.
    pub fn remove(&mut self, client: WorldClient, table: &str, id: &str) {
        self.write_one(client, WriteKind::Delete, table, id.to_owned(), None);
    }

    /// Subscribes a client to a stream; `parameters` is an object, or null for none.
    pub fn subscribe(&mut self, client: WorldClient, stream: &str, parameters: Json) {
        let parameters = match parameters {
            Json::Null => Map::new(),
            parameters => object(stream, parameters),
        };
        let stream = stream.to_owned();
        let subscription = StreamSubscription { stream, parameters: Some(parameters), override_priority: None };
        self.0.subscribe(client.0, subscription);
        self.look();
    }

    /// Takes a client's network away: what is open breaks, and nothing can be reached.
    pub fn disconnect(&mut self, client: WorldClient) {
        self.0.ledger.note(format!("client {} is disconnected", client.0));
        self.0.ends[client.0].link.set_mode(Mode::Cut);
        self.look();
    }

    /// Gives it back, as an application does that hears of it.
    pub fn reconnect(&mut self, client: WorldClient) {
        self.0.ledger.note(format!("client {} is connected again", client.0));
        self.0.ends[client.0].link.set_mode(Mode::Up);
        if let Some(sync) = &self.0.clients[client.0] {
            sync.retry_now();
        }
        self.look();
    }

    fn write_one(
        &mut self,
        client: WorldClient,
        op: WriteKind,
        table: &str,
        id: String,
        data: Option<Map<String, Json>>,
    ) {
        let write = LocalWrite { op_id: 0, op, table: table.into(), id, tx_id: None, data, old: None, metadata: None };
        let written = self.0.write(client.0, vec![write]);
        self.check(written);
    }

    fn look(&mut self) {
        let seen = self.0.observe();
        self.check(seen);
    }

    fn check(&self, verdict: Result<(), Failure>) {
        if let Err(failure) = verdict {
            panic!("{failure}\nin a world with seed {}:\n{}", self.0.seed, self.0.timeline);
        }
    }
}

fn object(of: &str, json: Json) -> Map<String, Json> {
    match json {
        Json::Object(object) => object,
        other => panic!("what is given for `{of}` must be an object: {other}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The world has one thread; a panic in it ends the test.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
