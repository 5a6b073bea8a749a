//! The replicator against a source that sends what a test tells it to, on a clock that a test moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::executor::{LocalPool, block_on};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use futures::task::LocalSpawnExt;

use super::{Replicator, row_image};
use crate::bucket_store::BucketStore;
use crate::clock::Clock;
use crate::config::SyncConfig;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::memory::MemoryBucketStore;
use crate::operation::OpId;
use crate::source::{Reread, SnapshotProgress, Source, SourceEvent, SourcePosition, SourceStart, SourceState};
use crate::table::{Field, RowKey, SourceColumn, SourceRow, SourceTable, TableId};
use crate::time::{Time, WallTime};
use crate::value::Value;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpointRequest};

const CONFIG: &str = "
config: { edition: 3 }
streams: { all: { auto_subscribe: true, query: 'SELECT id, n, big FROM t' } }
event_definitions: { write_checkpoints: { payloads: ['SELECT id AS user_id, n AS checkpoint FROM t WHERE big IS NULL'] } }
";

/// Sends the batches that it is given, one stream after the other.
#[derive(Debug, Clone, Default)]
struct Script(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sender: Mutex<Option<mpsc::UnboundedSender<Result<Vec<SourceEvent>>>>>,
    streams: AtomicUsize,
    acknowledged: Mutex<Vec<SourcePosition>>,
    rows: Mutex<BTreeMap<RowKey, SourceRow>>,
    rereads: AtomicUsize,
    /// Where the source stands when a row is read again.
    now: AtomicU64,
    refused_markers: AtomicUsize,
    markers: AtomicUsize,
}

impl Script {
    fn send(&self, batch: Vec<SourceEvent>) {
        let sender = self.0.sender.lock().expect("no test panicked");
        sender.as_ref().expect("a stream is open").unbounded_send(Ok(batch)).expect("somebody reads it");
    }
}

#[async_trait]
impl Source for Script {
    async fn events(&self, _: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        let (sender, batches) = mpsc::unbounded();
        *self.0.sender.lock().expect("no test panicked") = Some(sender);
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        Ok(batches.boxed())
    }

    fn acknowledge(&self, position: &SourcePosition) {
        self.0.acknowledged.lock().expect("no test panicked").push(position.clone());
    }

    async fn emit_marker(&self, _: &MarkerToken) -> Result<()> {
        let refused = &self.0.refused_markers;
        if refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(Error::unavailable("not now"));
        }
        self.0.markers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn reread(&self, _: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        self.0.rereads.fetch_add(1, Ordering::Relaxed);
        let rows = self.0.rows.lock().expect("no test panicked");
        let rows = keys.iter().map(|key| Some((table(), rows.get(key)?.clone()))).collect();
        Ok(Reread { rows, no_checkpoint_before: at(self.0.now.load(Ordering::Relaxed)) })
    }
}

/// Moves on by `step` milliseconds whenever it is asked; nobody sleeps longer than a moment.
#[derive(Debug, Clone)]
struct Ticking {
    now: Arc<AtomicU64>,
    step: u64,
}

impl Clock for Ticking {
    fn now(&self) -> Time {
        Time(self.now.fetch_add(self.step, Ordering::Relaxed))
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        if self.step == 0 && self.now.load(Ordering::Relaxed) < time.0 {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    script: Script,
    store: MemoryBucketStore,
    step: u64,
    pool: LocalPool,
    replicator: Replicator,
}

impl Bench {
    /// A clock of this step; 0 stands still.
    fn new(step: u64) -> Self {
        let (script, store) = (Script::default(), MemoryBucketStore::new());
        let replicator = replicator(&script, &store, step);
        let mut bench = Self { script, store, step, pool: LocalPool::new(), replicator };
        bench.start();
        bench.send(vec![
            SourceEvent::SnapshotDone { no_checkpoint_before: at(1), state: state() },
            SourceEvent::Progress { position: at(1), awaited: false },
        ]);
        bench
    }

    fn start(&mut self) {
        let running = self.replicator.run();
        self.pool.spawner().spawn_local(async move { drop(running.await) }).expect("a pool that runs");
        self.pool.run_until_stalled();
    }

    /// Dropped at once, as in a crash, and started again.
    fn restart(&mut self) {
        self.pool = LocalPool::new();
        self.replicator = replicator(&self.script, &self.store, self.step);
        self.start();
    }

    fn send(&mut self, batch: Vec<SourceEvent>) {
        self.script.send(batch);
        self.pool.run_until_stalled();
    }

    fn published(&self) -> Option<OpId> {
        block_on(self.store.resume()).expect("a store").checkpoint.map(|checkpoint| checkpoint.op_id)
    }

    /// The write checkpoint that a stream of this user may show now.
    fn shown(&self, user: &str) -> Option<i64> {
        let client = ClientKey::new(&Identity::new(user), None);
        let shown = block_on(self.store.write_checkpoints(OpId(u64::MAX), &[client])).expect("a store");
        shown[0].map(|number| number.0)
    }

    /// The last column of a stored row.
    fn big(&self, id: &str) -> Option<Value> {
        let rows = block_on(self.store.current_rows(&[key(id)])).expect("a store");
        rows[0].as_ref().and_then(|row| row_image::decode(&row.image, &key(id).key).expect("sound").pop())
    }
}

fn replicator(script: &Script, store: &MemoryBucketStore, step: u64) -> Replicator {
    let clock = Ticking { now: Arc::default(), step };
    // Upkeep would go round and round on a clock whose every sleep is over at once.
    Replicator::with_clock(script.clone(), SyncConfig::parse(CONFIG).expect("a config"), store.clone(), clock)
        .compact_every(None)
}

fn at(position: u64) -> SourcePosition {
    SourcePosition(Bytes::copy_from_slice(&position.to_be_bytes()))
}

fn state() -> SourceState {
    SourceState(Bytes::from_static(b"s"))
}

fn table() -> Arc<SourceTable> {
    let column = |name: &str| SourceColumn { name: name.into(), key: name == "id", type_name: "text".into() };
    let columns = ["id", "n", "big"].map(column).into();
    Arc::new(SourceTable { id: TableId(1), schema: "public".into(), name: "t".into(), columns })
}

fn key(id: &str) -> RowKey {
    RowKey { table: TableId(1), key: Bytes::copy_from_slice(id.as_bytes()) }
}

fn row(id: &str, n: i64, big: Field) -> SourceRow {
    SourceRow { key: key(id), fields: vec![Field::Value(id.into()), Field::Value(Value::Integer(n)), big] }
}

fn put(row: SourceRow, old: Option<&str>) -> SourceEvent {
    SourceEvent::Put { table: table(), row, old_key: old.map(key) }
}

fn commit(position: u64) -> SourceEvent {
    SourceEvent::Commit { position: at(position), committed_at: None, state: None }
}

/// Transactions of so many rows each, in batches that end where it happens.
fn backlog(transactions: u64, rows: u64) -> Vec<Vec<SourceEvent>> {
    let events: Vec<SourceEvent> = (0..transactions)
        .flat_map(|number| {
            let row = move |n: u64| row(&format!("{number}.{n}"), 0, Field::Value(Value::Null));
            (0..rows).map(move |n| put(row(n), None)).chain([commit(10 + number)])
        })
        .collect();
    events.chunks(5_000).map(<[SourceEvent]>::to_vec).collect()
}

fn big(text: &str) -> Field {
    Field::Value(text.into())
}

#[test]
fn a_backlog_is_committed_on_the_way_wherever_its_batches_end() {
    let mut bench = Bench::new(0);
    let before = bench.replicator.status().commits;
    // All of them are there before the first is dealt with.
    backlog(60, 1_000).into_iter().for_each(|batch| bench.script.send(batch));
    bench.pool.run_until_stalled();
    let commits = bench.replicator.status().commits - before;
    assert!((2..=4).contains(&commits), "{commits} commits for 60 transactions");
    let acknowledged = bench.script.0.acknowledged.lock().expect("no test panicked").clone();
    assert!(acknowledged.contains(&at(29)) && acknowledged.last() == Some(&at(69)), "{acknowledged:?}");
}

#[test]
fn small_transactions_share_a_commit_until_it_is_time_and_a_lone_one_waits_for_nobody() {
    let mut bench = Bench::new(0);
    let before = bench.replicator.status().commits;
    backlog(3_000, 1).into_iter().for_each(|batch| bench.script.send(batch));
    bench.pool.run_until_stalled();
    assert_eq!(bench.replicator.status().commits, before + 1, "time stood still");
    bench.send(vec![put(row("lone", 1, Field::Value(Value::Null)), None), commit(5_000)]);
    assert_eq!(bench.replicator.status().commits, before + 2);

    // A millisecond passes with each transaction, at least.
    let mut bench = Bench::new(1);
    let before = bench.replicator.status().commits;
    backlog(3_000, 1).into_iter().for_each(|batch| bench.script.send(batch));
    bench.pool.run_until_stalled();
    let commits = bench.replicator.status().commits - before;
    assert!((8..=40).contains(&commits), "{commits} commits in 3 s or a little more");
}

#[test]
fn half_a_table_is_not_shown_after_a_crash() {
    let mut bench = Bench::new(0);
    bench.send(vec![put(row("a", 1, big("x")), None), commit(2)]);
    let before = bench.published();
    assert!(before.is_some());
    bench.send(vec![
        SourceEvent::TableReset { table: TableId(1) },
        SourceEvent::SnapshotProgress { state: state(), progress: SnapshotProgress::default() },
    ]);
    bench.restart();
    bench.send(vec![put(row("b", 1, big("x")), None), commit(3)]);
    assert_eq!(bench.published(), before, "the table is empty but for one row");
    assert_eq!(bench.replicator.status().blocked_by, Some("a snapshot is not complete"));
    bench.send(vec![SourceEvent::SnapshotDone { no_checkpoint_before: at(3), state: state() }]);
    assert!(bench.published() > before);
}

#[test]
fn what_was_committed_before_a_snapshot_is_shown_before_it() {
    let mut bench = Bench::new(0);
    let before = bench.published();
    bench.send(vec![
        put(row("a", 1, big("x")), None),
        commit(2),
        SourceEvent::SnapshotProgress { state: state(), progress: SnapshotProgress::default() },
    ]);
    assert!(bench.published() > before);
}

#[test]
fn a_value_that_was_not_sent_is_not_taken_from_a_row_that_took_over_the_key() {
    let mut bench = Bench::new(0);
    // When the table was read, what had been `a` was `b`, and another row was `a`.
    bench.script.0.rows.lock().expect("no test panicked").insert(key("b"), row("b", 1, big("old")));
    bench.script.0.now.store(20, Ordering::Relaxed);
    bench.send(vec![
        SourceEvent::SnapshotRows {
            table: table(),
            rows: vec![row("a", 2, big("new")), row("b", 1, big("old")), row("x", 2, big("new"))],
        },
        SourceEvent::SnapshotDone { no_checkpoint_before: at(20), state: state() },
        put(row("b", 1, Field::Unchanged), Some("a")),
        commit(12),
        put(row("a", 2, big("new")), None),
        commit(13),
    ]);
    assert_eq!((bench.big("a"), bench.big("b")), (Some("new".into()), Some("old".into())));
    assert_eq!(bench.script.0.rereads.load(Ordering::Relaxed), 1);

    // Behind what was read, the stored row is the right one again.
    bench.send(vec![
        SourceEvent::Progress { position: at(20), awaited: false },
        put(row("c", 1, Field::Unchanged), Some("b")),
        commit(21),
    ]);
    assert_eq!((bench.big("b"), bench.big("c")), (None, Some("old".into())));
    assert_eq!(bench.script.0.rereads.load(Ordering::Relaxed), 1);

    // The same where a single row was read again: `d` is not stored, and by then another row was `d`.
    let rows = [row("d", 4, big("newer")), row("e", 3, big("older"))];
    bench.script.0.rows.lock().expect("no test panicked").extend(rows.map(|row| (row.key.clone(), row)));
    bench.script.0.now.store(40, Ordering::Relaxed);
    bench.send(vec![
        put(row("d", 3, Field::Unchanged), None),
        commit(30),
        put(row("e", 3, Field::Unchanged), Some("d")),
        commit(31),
    ]);
    assert_eq!(bench.big("e"), Some("older".into()));
    assert_eq!(bench.script.0.rereads.load(Ordering::Relaxed), 3);
}

#[test]
fn a_write_checkpoint_in_a_row_is_shown_with_the_state_that_the_row_is_part_of() {
    let mut bench = Bench::new(0);
    let row = |n| row("u", n, Field::Value(Value::Null));
    // Its table was read at a moment that the stream reaches later, and what it is about may lie between.
    bench.send(vec![
        SourceEvent::SnapshotRows { table: table(), rows: vec![row(7)] },
        SourceEvent::SnapshotDone { no_checkpoint_before: at(20), state: state() },
        put(row(3), None),
        commit(12),
    ]);
    assert_eq!(bench.shown("u"), None);
    bench.send(vec![put(row(7), None), commit(20)]);
    assert_eq!(bench.shown("u"), Some(7));

    // Half of a transaction, a crash, and the same again from where the store stands.
    bench.send(vec![put(row(8), None)]);
    bench.restart();
    assert_eq!(bench.shown("u"), Some(7));
    bench.send(vec![put(row(3), None), commit(12), put(row(7), None), commit(20)]);
    assert_eq!(bench.shown("u"), Some(7), "it never falls");
    bench.send(vec![put(row(8), None), put(row(9), None), put(row(8), None)]);
    assert_eq!(bench.shown("u"), Some(7));
    bench.send(vec![commit(21)]);
    assert_eq!(bench.shown("u"), Some(9));
}

#[test]
fn a_row_that_no_client_could_take_is_left_out_and_counted_while_the_others_go_on() {
    let mut bench = Bench::new(0);
    bench.send(vec![put(row("a", 1, big("x")), None), put(row("b", 1, big("x")), None), commit(2)]);
    let huge = Field::Value("x".repeat(121 << 20).into());
    bench.send(vec![put(row("a", 2, huge), None), put(row("b", 2, big("y")), None), commit(3)]);
    assert_eq!((bench.big("a"), bench.big("b")), (None, Some("y".into())));
    assert_eq!(bench.replicator.status().failed_rows, 1);
    // It has left its bucket, and comes back when it has become smaller.
    bench.send(vec![put(row("a", 3, big("z")), None), commit(4)]);
    assert_eq!(bench.big("a"), Some("z".into()));
}

#[test]
fn a_marker_that_cannot_be_sent_is_sent_later_while_the_stream_goes_on() {
    let mut bench = Bench::new(1);
    bench.script.0.refused_markers.store(3, Ordering::Relaxed);
    let client = ClientKey("c".into());
    let request = bench.store.request_write_checkpoint(&client, WriteCheckpointRequest::Next);
    block_on(request).expect("a store");
    bench.send(vec![put(row("a", 1, big("x")), None), commit(2)]);
    assert_eq!(bench.script.0.markers.load(Ordering::Relaxed), 1);
    assert_eq!(bench.script.0.streams.load(Ordering::Relaxed), 1, "the stream was not opened again");
}

#[test]
fn a_stream_that_ends_once_something_is_stored_is_opened_at_once_and_any_other_after_a_while() {
    let mut bench = Bench::new(0);
    let end = |bench: &mut Bench| {
        drop(bench.script.0.sender.lock().expect("no test panicked").take());
        bench.pool.run_until_stalled();
        bench.script.0.streams.load(Ordering::Relaxed)
    };
    bench.send(vec![SourceEvent::SnapshotProgress { state: state(), progress: SnapshotProgress::default() }]);
    assert_eq!(end(&mut bench), 2);
    assert_eq!(end(&mut bench), 2, "nothing came of the second one, and time stands still");
}
