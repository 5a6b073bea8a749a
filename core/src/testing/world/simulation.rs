//! The machinery of a world: its processes over its ends, one step at a time, with the oracle looking on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value as Json;

use super::backend::Backend;
use super::bucket_disk::BucketDisk;
use super::client_end::ClientEnd;
use super::content::Row;
use super::database::{Change, Database};
use super::device::Device;
use super::executor::{Executor, Spawner};
use super::faults::Faults;
use super::ledger::{Fact, Ledger};
use super::link::{Link, Mode};
use super::lock;
use super::network::Network;
use super::oracle::{Failure, Oracle, Rule, View};
use super::process::Process;
use super::random::Random;
use super::server::Port;
use super::source::SimulatedSource;
use super::stores::WorldStores;
use super::timeline::Timeline;
use super::tokens::{Identities, Verifier};
use super::virtual_time::{ProcessClock, VirtualTime, WallOffset};
use crate::bucket_store::BucketStore;
use crate::client::SyncClient;
use crate::clock::Clock;
use crate::config::{StreamSubscription, SyncConfig};
use crate::identity::Identity;
use crate::local_transaction::LocalWrite;
use crate::replication::Replicator;
use crate::server::{ServiceLimits, SessionLimits, SyncService};

/// So many steps within one millisecond are a loop without end.
const BUSY: u64 = 100_000;

/// Everything there is.
pub(super) struct Simulation {
    pub(super) seed: u64,
    pub(super) config: SyncConfig,
    pub(super) executor: Executor,
    spawner: Spawner,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) ledger: Ledger,
    pub(super) database: Database,
    pub(super) faults: Faults,
    pub(super) disk: BucketDisk,
    stores: Arc<dyn WorldStores>,
    pub(super) port: Port,
    identities: Identities,
    backend: Backend,
    pub(super) devices: Vec<Device>,
    pub(super) clients: Vec<Option<SyncClient>>,
    pub(super) ends: Vec<ClientEnd>,
    pub(super) oracle: Oracle,
    pub(super) timeline: Timeline,
    pub(super) steps: u64,
    /// Steps since time last moved on.
    steps_at_once: u64,
    pub(super) server_wall: WallOffset,
    server_clock: ProcessClock,
    pub(super) compact_every: Option<Duration>,
    pub(super) limits: ServiceLimits,
    pub(super) token_life: Arc<Mutex<Option<Duration>>>,
    /// Processes that were crashed.
    pub(super) down: BTreeSet<Process>,
}

impl Simulation {
    /// A world in which nothing runs yet.
    pub(super) fn new(config: SyncConfig, seed: u64, rule: Option<Rule>, stores: Arc<dyn WorldStores>) -> Self {
        let random = Random::new(seed);
        let (time, ledger, database, faults) =
            (VirtualTime::default(), Ledger::default(), Database::default(), Faults::default());
        faults.set(|faults| {
            faults.source_delay = 2;
            faults.store_delay = 1;
            faults.device_delay = 1;
        });
        let executor = Executor::new(random.fork());
        let spawner = executor.spawner();
        let server_wall = WallOffset::default();
        let server_clock = ProcessClock::new(time.clone(), 0, server_wall.clone());
        let disk = BucketDisk {
            store: stores.bucket_store(Arc::new(server_clock.clone()), random.next()),
            time: time.clone(),
            random: random.fork(),
            ledger: ledger.clone(),
            faults: faults.clone(),
            database: database.clone(),
            durable: Arc::default(),
            known: Arc::default(),
        };
        let limits = ServiceLimits {
            // Small, so that small worlds have downloads of many reads and lines.
            session: SessionLimits { read_bytes: 400, line_operations: 3 },
            ..ServiceLimits::default()
        };
        Self {
            seed,
            oracle: Oracle::new(config.clone(), rule, database.clone()),
            config,
            port: Port::new(spawner.clone(), ledger.clone()),
            backend: Backend { database: database.clone(), ledger: ledger.clone() },
            executor,
            spawner,
            time,
            random,
            ledger,
            database,
            faults,
            disk,
            stores,
            identities: Identities::default(),
            devices: Vec::new(),
            clients: Vec::new(),
            ends: Vec::new(),
            timeline: Timeline::default(),
            steps: 0,
            steps_at_once: 0,
            server_wall,
            server_clock,
            compact_every: Some(Duration::from_secs(600)),
            limits,
            token_life: Arc::default(),
            down: BTreeSet::new(),
        }
    }

    // ---- processes -----------------------------------------------------------------------------------------------

    pub(super) fn start_replicator(&mut self) {
        let source = SimulatedSource::new(
            self.database.clone(),
            self.time.clone(),
            self.random.fork(),
            self.ledger.clone(),
            self.faults.clone(),
            Arc::clone(&self.disk.durable),
        );
        let clock = self.clock(&WallOffset::default());
        let replicator = Replicator::with_clock(source, self.config.clone(), self.disk.clone(), clock)
            .compact_every(self.compact_every);
        self.run(Process::Replicator, async move { replicator.run().await });
    }

    pub(super) fn start_server(&mut self) {
        let clock = self.clock(&self.server_wall.clone());
        self.server_clock = clock.clone();
        let verifier = Verifier { identities: self.identities.clone(), clock: clock.clone() };
        let service = SyncService::with(self.disk.clone(), verifier, clock.clone(), self.limits);
        self.port.listen(Some((service, clock)));
        self.ledger.note("server starts");
    }

    /// Adds a client, which does not run yet.
    pub(super) fn add_client(&mut self, identity: Identity) -> usize {
        let number = self.ends.len();
        let client_id = client_id(number);
        self.identities.add(identity.clone());
        self.oracle.add_client(identity, &client_id);
        let link = Link::new(self.time.clone(), self.random.fork());
        link.lock().delay = 5;
        self.devices.push(Device {
            client: number,
            store: self.stores.client_store(&client_id),
            time: self.time.clone(),
            random: self.random.fork(),
            ledger: self.ledger.clone(),
            faults: self.faults.clone(),
        });
        self.ends.push(ClientEnd { link, wall: WallOffset::default(), subscriptions: Vec::new() });
        self.clients.push(None);
        number
    }

    pub(super) fn start_client(&mut self, client: usize) {
        let clock = self.clock(&self.ends[client].wall.clone());
        let network = Network {
            client,
            link: self.ends[client].link.clone(),
            port: self.port.clone(),
            backend: self.backend.clone(),
            ledger: self.ledger.clone(),
            spawner: self.spawner.clone(),
            issuer: ProcessClock::new(self.time.clone(), 0, WallOffset::default()),
            token_life: Arc::clone(&self.token_life),
        };
        let sync = SyncClient::new(self.devices[client].clone(), network.clone(), network)
            .clock(clock)
            .seed(self.random.next());
        self.clients[client] = Some(sync.clone());
        self.run(Process::Client(client), async move { sync.run().await });
        for index in 0..self.ends[client].subscriptions.len() {
            self.hold(client, index);
        }
    }

    /// Gives replicator and server a new store and another config; both were stopped before and start again.
    pub(super) fn switch_config(&mut self, config: SyncConfig, rule: Option<Rule>) {
        // Outside of the world's time.
        let reset = self.disk.store.reset().now_or_never();
        assert!(matches!(reset, Some(Ok(()))), "the store of a world can be reset: {reset:?}");
        self.look_at_store();
        self.ledger.record(Fact::StoreReset);
        self.config = config.clone();
        self.oracle.switch(config, rule);
    }

    /// The same with a config that means what the one before does: the store stays. Both processes were stopped before.
    pub(super) fn reword_config(&mut self, config: SyncConfig, rule: Option<Rule>) {
        self.config = config.clone();
        self.oracle.switch(config, rule);
    }

    fn run(&self, process: Process, future: impl Future<Output = crate::error::Result<()>> + Send + 'static) {
        let ledger = self.ledger.clone();
        ledger.note(format!("{process} starts"));
        self.spawner.spawn(process, async move {
            let outcome = future.await;
            let why = outcome.map_or_else(|error| format!("{error:#}: {error:?}"), |()| "it is done".to_owned());
            ledger.record(Fact::Stopped { process, why });
        });
    }

    fn clock(&self, wall: &WallOffset) -> ProcessClock {
        ProcessClock::new(self.time.clone(), self.random.below(1 << 40), wall.clone())
    }

    // ---- applications --------------------------------------------------------------------------------------------

    /// Makes local writes in one transaction; their numbers are given by the store.
    pub(super) fn write(&mut self, client: usize, writes: Vec<LocalWrite>) -> Result<(), Failure> {
        if self.faults.dies_now(Process::Client(client)) {
            self.die_while_writing(client, writes);
            return self.observe();
        }
        match self.devices[client].store.write(writes) {
            Some(transaction) => self.ledger.record(Fact::Wrote { client, transaction }),
            None => self.ledger.note(format!("client {client} writes what changes nothing")),
        }
        self.observe()
    }

    pub(super) fn subscribe(&mut self, client: usize, subscription: StreamSubscription) {
        self.ledger
            .note(format!("client {client} subscribes to {} {:?}", subscription.stream, subscription.parameters));
        self.ends[client].subscriptions.push((subscription, None));
        if self.clients[client].is_some() {
            self.hold(client, self.ends[client].subscriptions.len() - 1);
        }
        self.tell_wanted(client);
    }

    pub(super) fn unsubscribe(&mut self, client: usize, index: usize) {
        let subscriptions = &mut self.ends[client].subscriptions;
        if index < subscriptions.len() {
            let (subscription, task) = subscriptions.remove(index);
            self.ledger.note(format!("client {client} leaves {} {:?}", subscription.stream, subscription.parameters));
            if let Some(task) = task {
                self.executor.end(task);
            }
            self.tell_wanted(client);
        }
    }

    fn tell_wanted(&mut self, client: usize) {
        let wanted = self.ends[client].subscriptions.iter().map(|(one, _)| one.clone()).collect();
        self.oracle.wants(client, wanted);
    }

    /// Holds a subscription for as long as the application runs.
    fn hold(&mut self, client: usize, index: usize) {
        let Some(sync) = self.clients[client].clone() else { return };
        let Some((subscription, task)) = self.ends[client].subscriptions.get_mut(index) else { return };
        let StreamSubscription { stream, parameters, override_priority } = subscription.clone();
        let time = self.time.clone();
        let held = async move {
            loop {
                let parameters = Json::Object(parameters.clone().unwrap_or_default());
                let mut subscribe = sync.subscribe(stream.clone(), parameters).ttl(Duration::ZERO);
                if let Some(priority) = override_priority {
                    subscribe = subscribe.priority(priority);
                }
                // An application whose disk was full tries again.
                if let Ok(handle) = subscribe.await {
                    futures::future::pending::<()>().await;
                    drop(handle);
                }
                time.delay(500).await;
            }
        };
        *task = Some(self.spawner.spawn(Process::Client(client), held));
    }

    /// Commits a transaction at the source.
    pub(super) fn commit(&mut self, changes: &[Change]) {
        let commits = self.database.commit(changes);
        let what: Vec<String> = changes.iter().map(describe).collect();
        self.ledger.record(Fact::SourceCommitted { commits, what: what.join(", ") });
    }

    // ---- steps ---------------------------------------------------------------------------------------------------

    /// Takes one step: one task is polled, or time moves on to the next timer, but not beyond `until`. Returns whether
    /// there was anything to do.
    pub(super) fn step(&mut self, until: u64) -> Result<bool, Failure> {
        match self.executor.step() {
            Some((process, task)) => {
                self.timeline.mix(task);
                if let Process::Client(client) = process {
                    self.timeline.mix(client as u64);
                }
                self.bury();
            }
            None => match self.time.next() {
                Some(at) if at <= until => {
                    if at > self.time.now() {
                        self.steps_at_once = 0;
                    }
                    self.time.advance(at);
                }
                _ => return Ok(false),
            },
        }
        self.steps += 1;
        self.steps_at_once += 1;
        if self.steps_at_once > BUSY {
            // S9: whoever never rests lets nobody else have their turn.
            let what = format!("{BUSY} steps without a pause");
            return Err(Failure { invariant: "S9", what });
        }
        self.observe()?;
        Ok(true)
    }

    /// Runs until that time.
    pub(super) fn run_until(&mut self, time: u64) -> Result<(), Failure> {
        while self.step(time)? {}
        self.time.advance(time);
        self.observe()
    }

    /// Lets the oracle look at what happened.
    pub(super) fn observe(&mut self) -> Result<(), Failure> {
        let facts = self.ledger.take();
        let now = self.time.now();
        let view = View {
            database: &self.database,
            store: &*self.disk.store,
            devices: &self.devices,
            clients: &self.clients,
            now,
            server_wall: self.server_clock.wall(),
        };
        for fact in facts {
            if !matches!(fact, Fact::Touched { .. } | Fact::Appended { .. }) {
                self.timeline.push(now, fact.to_string());
            }
            self.oracle.take(&fact, &view)?;
        }
        self.oracle.after_step(&view)
    }

    /// Asks the oracle something about the world as it is.
    pub(super) fn ask<T>(&mut self, question: impl FnOnce(&mut Oracle, &View<'_>) -> T) -> T {
        let view = View {
            database: &self.database,
            store: &*self.disk.store,
            devices: &self.devices,
            clients: &self.clients,
            now: self.time.now(),
            server_wall: self.server_clock.wall(),
        };
        question(&mut self.oracle, &view)
    }

    /// Why there is something left to do, if so; clients without a network have nothing to do.
    pub(super) fn unsettled(&mut self) -> Option<String> {
        if !self.executor.is_idle() || !self.time.is_calm() {
            return Some("something is under way".to_owned());
        }
        if let Some(why) = self.ask(|oracle, view| oracle.missing_in_store(view)) {
            return Some(format!("the bucket store lacks something: {why}"));
        }
        for client in 0..self.clients.len() {
            let Some(sync) = self.clients[client].clone() else { continue };
            if self.ends[client].link.mode() != Mode::Up {
                continue;
            }
            let status = sync.current_status();
            if !status.connected || status.downloading.is_some() {
                return Some(format!("client {client} is not connected, or still downloads: {status:?}"));
            }
            if let Some(why) = self.ask(|oracle, view| oracle.missing_at(view, client)) {
                return Some(why);
            }
        }
        None
    }

    /// Runs until nothing is left to do, at most for so many milliseconds.
    pub(super) fn settle(&mut self, limit: u64) -> Result<(), Failure> {
        let end = self.time.now() + limit;
        loop {
            let why = if self.executor.is_idle() { self.unsettled() } else { Some(String::new()) };
            let Some(why) = why else { return Ok(()) };
            if !self.step(end)? {
                let what = format!("not settled after {} s: {why}", limit / 1_000);
                return Err(Failure { invariant: "S10 or C5", what });
            }
        }
    }

    pub(super) fn rows(&self, client: usize, table: &str) -> Vec<Row> {
        let rows = self.devices[client].store.visible_rows().into_iter().filter(|((of, _), _)| of == table);
        rows.map(|((_, id), mut row)| {
            row.insert("id".to_owned(), Json::String(id));
            row
        })
        .collect()
    }

    /// Tokens last so long from now on; those that were given out stay.
    pub(super) fn limit_tokens(&self, life: Option<Duration>) {
        *lock(&self.token_life) = life;
    }
}

pub(super) fn client_id(client: usize) -> String {
    format!("device-{client}")
}

fn describe(change: &Change) -> String {
    match change {
        Change::Put { table, row } => format!("put {table} {}", Json::Object(row.clone())),
        Change::Patch { table, id, columns } => format!("patch {table}/{id} {}", Json::Object(columns.clone())),
        Change::Rename { table, from, to } => format!("rename {table}/{from} to {to}"),
        Change::Delete { table, id } => format!("delete {table}/{id}"),
        Change::Truncate { table } => format!("truncate {table}"),
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.seed).field("steps", &self.steps).finish_non_exhaustive()
    }
}
