//! The replicator's upkeep of its store, in virtual time.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "client/clock.rs"]
mod clock;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::LocalPool;
use futures::stream::BoxStream;
use futures::task::LocalSpawnExt;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource};
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketStore, Checkpoint, ClientKey, Clock, Commit, CompactLimits, Compacted,
    CurrentRow, Error, Generation, LookupChange, LookupKey, LookupRows, MarkerToken, OpId, OperationChunk, Published,
    ReadRequest, Replicator, Result, Resume, RowKey, SyncConfig, Time, WriteCheckpoint, WriteCheckpointRequest,
    async_trait,
};

use clock::VirtualClock;

const CONFIG: &str = "
config: { edition: 3 }
streams:
  all:
    auto_subscribe: true
    query: SELECT id, name FROM lists
";
const MINUTE: Duration = Duration::from_secs(60);
const DEFAULT: Duration = Duration::from_secs(600);

/// A store in memory that notes when it is compacted, and compacts as a test says.
#[derive(Debug, Clone)]
struct Watched {
    store: MemoryBucketStore,
    clock: VirtualClock,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When a slice began, and how many operations it was allowed.
    slices: Vec<(Time, u64)>,
    freed: u64,
    failing: bool,
    /// What is left of a sweep, and how long an operation takes; none: the store's own compaction.
    imagined: Option<(u64, Duration)>,
}

#[async_trait]
impl BucketStore for Watched {
    async fn resume(&self) -> Result<Resume> {
        self.store.resume().await
    }
    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        self.store.current_rows(keys).await
    }
    async fn append(&self, batch: AppendBatch) -> Result<()> {
        self.store.append(batch).await
    }
    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.store.commit(commit).await
    }
    async fn reset(&self) -> Result<()> {
        self.store.reset().await
    }
    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.store.checkpoints()
    }
    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        self.store.lookup(at, keys).await
    }
    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        self.store.lookup_changes(since, at, keys).await
    }
    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        self.store.checksums(at, buckets).await
    }
    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        self.store.read(requests).await
    }
    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        self.store.request_write_checkpoint(client, request).await
    }
    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        self.store.write_checkpoints(at, clients).await
    }
    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.store.pending_markers()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        let began = self.clock.now();
        let imagined = {
            let mut seen = self.seen.lock().unwrap();
            seen.slices.push((began, limits.max_operations));
            if seen.failing {
                return Err(Error::unavailable("the disk is full"));
            }
            seen.imagined
        };
        if let Some((left, takes)) = imagined {
            let operations = left.min(limits.max_operations);
            self.clock.sleep_until(began + takes * u32::try_from(operations).unwrap()).await;
            if let Some((left, _)) = &mut self.seen.lock().unwrap().imagined {
                *left -= operations;
            }
            return Ok(Compacted { operations, bytes_freed: 0, more: left > operations });
        }
        let done = self.store.compact(limits).await?;
        self.seen.lock().unwrap().freed += done.bytes_freed;
        Ok(done)
    }
}

struct Fixture {
    clock: VirtualClock,
    pool: LocalPool,
    source: MemorySource,
    store: Watched,
    replicator: Replicator,
}

impl Fixture {
    fn start(option: impl FnOnce(Replicator) -> Replicator) -> Self {
        let (clock, pool) = (VirtualClock::default(), LocalPool::new());
        let source = MemorySource::new().table("lists", ["id", "name"]);
        let store = Watched {
            store: MemoryBucketStore::with_clock(clock.clone(), Generation(7)),
            clock: clock.clone(),
            seen: Arc::default(),
        };
        let config = SyncConfig::parse(CONFIG).unwrap();
        let replicator = option(Replicator::with_clock(source.clone(), config, store.clone(), clock.clone()));
        let running = replicator.run();
        pool.spawner().spawn_local(async move { running.await.unwrap() }).unwrap();
        Self { clock, pool, source, store, replicator }
    }

    fn put(&self, name: &str) {
        self.source.put("lists", json!({ "id": "l1", "name": name })).unwrap();
    }

    fn run_for(&mut self, time: Duration) {
        self.clock.run_for(&mut self.pool, time);
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.store.seen.lock().unwrap())
    }
}

#[test]
fn what_is_superseded_goes_away_by_itself() {
    let mut fixture = Fixture::start(|replicator| replicator);
    for number in 0..500 {
        fixture.put(&format!("name {number}"));
        fixture.pool.run_until_stalled();
    }
    fixture.run_for(DEFAULT - MINUTE);
    assert!(fixture.seen(|seen| seen.slices.is_empty()), "it waits for its time");
    fixture.run_for(MINUTE);
    assert!(fixture.seen(|seen| seen.freed) > 499 * 8, "of each operation but the last");
    fixture.run_for(DEFAULT);
    assert_eq!(fixture.seen(|seen| seen.slices.len()), 2);
}

#[test]
fn the_interval_is_the_hosts_to_choose() {
    let mut often = Fixture::start(|replicator| replicator.compact_every(MINUTE));
    often.run_for(MINUTE * 10);
    assert_eq!(often.seen(|seen| seen.slices.len()), 10);
    let mut never = Fixture::start(|replicator| replicator.compact_every(None));
    never.run_for(DEFAULT * 100);
    assert!(never.seen(|seen| seen.slices.is_empty()));
}

#[test]
fn a_failure_stops_nothing_and_is_tried_again() {
    let mut fixture = Fixture::start(|replicator| replicator.compact_every(MINUTE));
    fixture.seen(|seen| seen.failing = true);
    fixture.put("one");
    fixture.run_for(MINUTE * 5);
    assert_eq!(fixture.seen(|seen| seen.slices.len()), 5);
    fixture.put("two");
    fixture.pool.run_until_stalled();
    assert_eq!(fixture.replicator.status().rows, 2, "replication goes on");
    fixture.seen(|seen| seen.failing = false);
    let Fixture { clock, pool, store, .. } = &mut fixture;
    clock.run_until(pool, MINUTE, || store.seen.lock().unwrap().freed > 0);
}

#[test]
fn slow_slices_become_small_ones_with_time_for_replication_between_them() {
    let mut fixture = Fixture::start(|replicator| replicator.compact_every(MINUTE));
    // A million operations of a millisecond each, as if the rows were huge.
    fixture.seen(|seen| seen.imagined = Some((1_000_000, Duration::from_millis(1))));
    fixture.run_for(MINUTE * 2);
    let slices = fixture.seen(|seen| std::mem::take(&mut seen.slices));
    assert_eq!(slices[0].1, 1_000, "the first is small");
    assert!(slices.len() > 100 && slices[1..].iter().all(|(_, operations)| *operations <= 50), "{slices:?}");
    for pair in slices.windows(2) {
        let took = Duration::from_millis(pair[0].1);
        assert!(pair[1].0.since(pair[0].0) >= took * 2, "half of the time is replication's: {pair:?}");
    }
    // Where they are quick, they grow.
    fixture.seen(|seen| seen.imagined = Some((1_000_000, Duration::ZERO)));
    fixture.run_for(MINUTE * 2);
    assert_eq!(fixture.seen(|seen| seen.slices.last().copied()).unwrap().1, 20_000);
}
