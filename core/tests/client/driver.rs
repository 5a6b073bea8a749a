//! The driver, over the store in memory and against a server in memory, on a clock that waits for nobody.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::LocalPool;
use futures::task::{LocalSpawnExt, SpawnExt};
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use syncline_core::memory::MemoryClientStore;
use syncline_core::{ErrorKind, Result, SyncClient, SyncStatus};

use crate::clock::VirtualClock;
use crate::server::{Fault, Server};

const SECOND: Duration = Duration::from_secs(1);

struct Device {
    pool: LocalPool,
    clock: VirtualClock,
    store: MemoryClientStore,
    server: Server,
    client: SyncClient,
    ended: Arc<Mutex<Option<Result<()>>>>,
}

impl Device {
    fn new() -> Self {
        let (clock, store, server) = (VirtualClock::default(), MemoryClientStore::new("device"), Server::new());
        let client = SyncClient::new(store.clone(), server.clone(), server.clone()).clock(clock.clone()).seed(1);
        Self { pool: LocalPool::new(), clock, store, server, client, ended: Arc::default() }
    }

    /// Starts the client; dropping what is returned stops it.
    fn run(&self) -> futures::future::RemoteHandle<()> {
        let (run, ended) = (self.client.run(), Arc::clone(&self.ended));
        let run = async move { *ended.lock().unwrap() = Some(run.await) };
        self.pool.spawner().spawn_with_handle(run).unwrap()
    }

    fn rows(&self) -> Vec<Map<String, Json>> {
        self.store.rows("t")
    }

    fn status(&self) -> SyncStatus {
        self.client.current_status()
    }

    fn put(&self, id: &str, row: Json) {
        self.store.put("t", id, row.as_object().unwrap().clone());
    }

    fn is_current(&self) -> bool {
        let idle = self.client.caught_up().now_or_never().is_some_and(|idle| idle.is_ok());
        idle && self.rows() == self.server.rows() && self.status().connected
    }

    /// Runs until the client shows what the server has, and its uploads have come back.
    fn settle(&mut self, limit: Duration) -> Duration {
        let clock = self.clock.clone();
        let (store, server, client) = (self.store.clone(), self.server.clone(), self.client.clone());
        clock.run_until(&mut self.pool, limit, move || {
            let idle = client.caught_up().now_or_never().is_some_and(|idle| idle.is_ok());
            idle && store.rows("t") == server.rows() && client.current_status().connected
        })
    }
}

#[test]
fn rows_come_down_and_writes_go_up_and_come_back() {
    let mut device = Device::new();
    device.server.put("1", json!({"n": 1}));
    device.put("2", json!({"n": 2}));
    assert_eq!(device.rows().len(), 1, "a local write is seen before anything runs");
    let _run = device.run();
    device.settle(SECOND);
    assert_eq!(device.rows().len(), 2);
    device.server.put("3", json!({"n": 3}));
    device.put("1", json!({"n": 9}));
    device.settle(SECOND);
    assert_eq!(device.server.rows(), device.rows());
    assert_eq!(device.server.requests().len(), 1, "one stream for it all");
    let status = device.status();
    assert!(status.connected && !status.uploading && status.downloading.is_none() && status.last_synced_at.is_some());
}

#[test]
fn a_refused_write_is_recorded_and_rolled_back() {
    let mut device = Device::new();
    device.server.refuse("bad");
    device.put("bad", json!({"n": 1}));
    device.put("good", json!({"n": 2}));
    let _run = device.run();
    device.settle(SECOND);
    assert_eq!(device.rows().len(), 1);
    let rejected = device.store.rejected();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].1, "refused");
}

#[test]
fn a_stopped_client_goes_on_where_it_was() {
    let mut device = Device::new();
    device.server.put("1", json!({"n": 1}));
    let run = device.run();
    device.settle(SECOND);
    drop(run);
    device.pool.run_until_stalled();
    assert!(!device.status().connected, "who does not run is not connected");
    device.server.put("2", json!({"n": 2}));
    device.put("3", json!({"n": 3}));
    let _run = device.run();
    device.settle(SECOND);
    let requests = device.server.requests();
    assert_eq!(requests[1].buckets[0].after, "1", "only what is missing is asked for");
}

#[test]
fn a_store_has_one_engine_at_a_time() {
    let mut device = Device::new();
    let _run = device.run();
    device.settle(SECOND);
    let other = SyncClient::new(device.store.clone(), device.server.clone(), device.server.clone());
    for second in [device.client.clone(), other.clock(device.clock.clone())] {
        let ended = Arc::new(Mutex::new(None));
        let (run, told) = (second.run(), Arc::clone(&ended));
        let run = async move { *told.lock().unwrap() = Some(run.await) };
        device.pool.spawner().spawn_local(run).unwrap();
        device.clock.clone().run_until(&mut device.pool, 20 * SECOND, || ended.lock().unwrap().is_some());
        let error = ended.lock().unwrap().take().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("another sync engine"), "{error}");
    }
    assert!(device.status().connected, "the first goes on");
    assert_eq!(device.server.requests().len(), 1);
}

#[test]
fn a_run_that_is_spawned_before_the_last_one_is_gone_waits_for_it() {
    let mut device = Device::new();
    let first = device.run();
    device.settle(SECOND);
    let second = device.run();
    device.pool.run_until_stalled();
    device.server.put("1", json!({"n": 1}));
    device.put("2", json!({"n": 2}));
    drop(first);
    device.settle(SECOND);
    assert_eq!(device.rows().len(), 2);
    assert!(device.ended.lock().unwrap().is_none(), "the second goes on");
    drop(second);
}

#[test]
fn a_stream_is_ready_when_its_rows_are_here() {
    let mut device = Device::new();
    let _run = device.run();
    device.settle(SECOND);
    let handle = device.pool.run_until(device.client.subscribe("known", json!({"a": 1})).into_future()).unwrap();
    let wrong = device.pool.run_until(device.client.subscribe("unknown", Json::Null).into_future()).unwrap();
    assert!(handle.ready().now_or_never().is_none());
    let (ready, refused) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(None)));
    let (told_ready, told_refused) = (Arc::clone(&ready), Arc::clone(&refused));
    let wait = async move {
        handle.ready().await.unwrap();
        *told_ready.lock().unwrap() = true;
        *told_refused.lock().unwrap() = wrong.ready().await.err();
        (handle, wrong)
    };
    let handles = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&handles);
    let wait = wait.map(move |both| *kept.lock().unwrap() = Some(both));
    device.pool.spawner().spawn_local(wait).unwrap();
    device.clock.clone().run_until(&mut device.pool, SECOND, || refused.lock().unwrap().is_some());
    assert!(*ready.lock().unwrap());
    assert_eq!(refused.lock().unwrap().as_ref().unwrap().kind(), ErrorKind::Invalid);
    let subscriptions = |device: &Device| {
        let request = device.server.requests().pop().unwrap();
        request.streams.unwrap().subscriptions.into_iter().map(|one| one.stream).collect::<Vec<_>>()
    };
    assert_eq!(subscriptions(&device), ["known", "unknown"]);
    assert!(device.status().streams.iter().all(|stream| stream.held));
    // The handles go; a day later the subscriptions have ended, without a word from anyone.
    handles.lock().unwrap().take();
    device.clock.run_for(&mut device.pool, Duration::from_secs(3600));
    assert_eq!(subscriptions(&device).len(), 2);
    device.clock.run_for(&mut device.pool, Duration::from_secs(86_400));
    assert_eq!(subscriptions(&device).len(), 0);
    let refused = device.pool.run_until(device.client.subscribe("known", json!([1])).into_future());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn the_status_is_told_once_per_change() {
    let mut device = Device::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let watch = device.client.status().for_each(move |status| {
        told.lock().unwrap().push(status);
        futures::future::ready(())
    });
    device.pool.spawner().spawn_local(watch).unwrap();
    device.pool.run_until_stalled();
    let run = device.run();
    device.settle(SECOND);
    device.clock.run_for(&mut device.pool, 30 * SECOND);
    drop(run);
    device.pool.run_until_stalled();
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(!seen[0].connected && seen.iter().any(|status| status.connected));
    assert!(!seen.last().unwrap().connected);
}

#[test]
fn a_half_open_connection_is_given_up_after_a_minute() {
    let mut device = Device::new();
    let _run = device.run();
    device.settle(SECOND);
    device.server.fault(Fault::Hang);
    device.server.put("1", json!({"n": 1}));
    device.clock.run_for(&mut device.pool, 59 * SECOND);
    assert!(device.status().connected);
    device.clock.run_for(&mut device.pool, 2 * SECOND);
    assert!(!device.status().connected);
    device.server.fault(Fault::None);
    device.settle(30 * SECOND);
}

#[test]
fn after_each_kind_of_fault_the_client_is_current_within_thirty_seconds() {
    let faults = [Fault::Refuse, Fault::Hang, Fault::Unauthorized, Fault::Cut, Fault::Damage, Fault::LoseAnswers];
    for fault in faults {
        let mut device = Device::new();
        let _run = device.run();
        device.settle(SECOND);
        device.server.fault(fault);
        device.server.end_streams();
        device.server.put("1", json!({"n": 1}));
        device.put("2", json!({"n": 2}));
        device.clock.run_for(&mut device.pool, 300 * SECOND);
        assert!(!device.is_current(), "{fault:?} is no fault");
        device.server.fault(Fault::None);
        device.settle(30 * SECOND);
        assert_eq!(device.server.uploads().len(), 1, "{fault:?}");
    }
}

#[test]
fn a_hint_that_the_network_is_back_ends_all_delays() {
    let mut device = Device::new();
    device.server.fault(Fault::Refuse);
    let _run = device.run();
    device.put("1", json!({"n": 1}));
    device.clock.run_for(&mut device.pool, 300 * SECOND);
    let status = device.status();
    assert!(status.download_error.is_some() && status.upload_error.is_some());
    device.server.fault(Fault::None);
    device.client.retry_now();
    assert_eq!(device.settle(SECOND), Duration::ZERO);
    let status = device.status();
    assert!(status.download_error.is_none() && status.upload_error.is_none());
}

fn fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(vec![
        Fault::None,
        Fault::Refuse,
        Fault::Hang,
        Fault::Unauthorized,
        Fault::Cut,
        Fault::Damage,
        Fault::LoseAnswers,
    ])
}

#[derive(Debug, Clone)]
enum Act {
    Fault(Fault),
    Local(u8, i64),
    Remote(u8, i64),
    Restart,
    End,
    Pass(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => fault().prop_map(Act::Fault),
        4 => (0..5u8, any::<i64>()).prop_map(|(id, n)| Act::Local(id, n)),
        4 => (0..5u8, any::<i64>()).prop_map(|(id, n)| Act::Remote(id, n)),
        1 => Just(Act::Restart),
        1 => Just(Act::End),
        4 => (0..100_000u32).prop_map(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// C2, C3, C5: whatever happened, every local write arrives, in order and with one effect, and the client is current
    /// within 30 seconds after the faults end.
    #[test]
    fn after_any_faults_the_client_is_current_within_thirty_seconds(acts in prop::collection::vec(act(), 1..40)) {
        let mut device = Device::new();
        let mut run = Some(device.run());
        let mut written = Vec::new();
        for act in acts {
            match act {
                Act::Fault(fault) => device.server.fault(fault),
                Act::Local(id, n) => {
                    let row = json!({ "n": n }).as_object().unwrap().clone();
                    written.push(device.store.put("t", &id.to_string(), row));
                    // C1: one's own writes are seen at once, and stay.
                    let seen = device.rows().into_iter().find(|row| row["id"] == json!(id.to_string()));
                    prop_assert_eq!(&seen.unwrap()["n"], &json!(n));
                }
                Act::Remote(id, n) => device.server.put(&format!("r{id}"), json!({ "n": n })),
                Act::Restart => {
                    drop(run.take());
                    device.pool.run_until_stalled();
                    run = Some(device.run());
                }
                Act::End => device.server.end_streams(),
                Act::Pass(millis) => device.clock.run_for(&mut device.pool, Duration::from_millis(millis.into())),
            }
            device.pool.run_until_stalled();
            prop_assert!(device.ended.lock().unwrap().is_none(), "no fault of the network ends a run");
        }
        device.server.fault(Fault::None);
        device.settle(30 * SECOND);
        prop_assert_eq!(device.server.uploads(), written);
        drop(run);
    }
}
