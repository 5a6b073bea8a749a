//! From a source in memory, through replicator, store and service, to the lines that a client decodes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use futures::future::{self, Either};
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::protocol::{BucketPosition, CheckpointLine, ClientLine, LineDecoder, SyncRequest};
use syncline_core::{
    BucketStore, Checksum, Clock, Credentials, ErrorKind, OperationKind, Replicator, SyncConfig, SyncService,
    SystemClock, Transport, WriteCheckpoint,
};

const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
";

fn source() -> MemorySource {
    MemorySource::new().table("lists", ["id", "name", "owner_id"])
}

fn list(id: &str, name: &str, owner: &str) -> serde_json::Value {
    json!({ "id": id, "name": name, "owner_id": owner })
}

/// Runs the test beside the replicator, for at most ten seconds.
fn beside<T>(replicator: &Replicator, test: impl Future<Output = T>) -> T {
    let (running, test) = (replicator.run(), test);
    futures::pin_mut!(running, test);
    let limit = SystemClock.sleep_until(SystemClock.now() + Duration::from_secs(10));
    block_on(async {
        match future::select(future::select(test, running), limit).await {
            Either::Left((Either::Left((outcome, _)), _)) => outcome,
            Either::Left((Either::Right((stopped, _)), _)) => panic!("replication stopped: {stopped:?}"),
            Either::Right(_) => panic!("not done in time; {:?}", replicator.status()),
        }
    })
}

/// A client that only follows its stream.
struct Follower {
    lines: futures::stream::BoxStream<'static, syncline_core::Result<syncline_core::Bytes>>,
    decoder: LineDecoder,
    target: CheckpointLine,
    rows: BTreeMap<String, String>,
    sums: BTreeMap<String, Checksum>,
    write_checkpoint: Option<WriteCheckpoint>,
}

impl Follower {
    async fn open(service: &SyncService, user: &str) -> Self {
        Self::open_with(service, user, Vec::new()).await
    }

    /// The same, which says that it has these buckets already.
    async fn open_with(service: &SyncService, user: &str, buckets: Vec<BucketPosition>) -> Self {
        let transport = MemoryTransport::new(service.clone());
        let request =
            SyncRequest { raw_data: true, client_id: Some("device".into()), buckets, ..SyncRequest::default() };
        let stream = transport.open(&request, &Credentials::new(user)).await.unwrap();
        Self {
            lines: stream.bytes,
            decoder: LineDecoder::new(stream.framing, 1 << 20),
            target: CheckpointLine::default(),
            rows: BTreeMap::new(),
            sums: BTreeMap::new(),
            write_checkpoint: None,
        }
    }

    /// Follows until a checkpoint is complete, and checks its sums.
    async fn checkpoint(&mut self) -> Vec<String> {
        loop {
            while let Some(line) = self.decoder.next().unwrap() {
                match line {
                    ClientLine::Checkpoint(line) => {
                        self.write_checkpoint = line.write_checkpoint;
                        self.target = line;
                    }
                    ClientLine::CheckpointDiff(diff) => {
                        self.write_checkpoint = diff.write_checkpoint;
                        for updated in diff.updated_buckets {
                            let known = &mut self.target.buckets;
                            known.retain(|bucket| bucket.bucket != updated.bucket);
                            known.push(updated);
                        }
                    }
                    ClientLine::Data(data) => {
                        for operation in data.operations {
                            *self.sums.entry(data.bucket.to_string()).or_default() += operation.checksum;
                            match operation.kind {
                                OperationKind::Put => {
                                    self.rows
                                        .insert(operation.object_id.to_string(), operation.data.unwrap().to_string());
                                }
                                _ => drop(self.rows.remove(&*operation.object_id)),
                            }
                        }
                    }
                    ClientLine::CheckpointComplete { .. } => {
                        for bucket in &self.target.buckets {
                            let sum = self.sums.get(&*bucket.bucket).copied().unwrap_or_default();
                            assert_eq!(sum, bucket.checksum, "of {}", bucket.bucket);
                        }
                        return self.rows.values().cloned().collect();
                    }
                    ClientLine::PartialCheckpointComplete { .. }
                    | ClientLine::TokenExpiresIn(_)
                    | ClientLine::Unknown => {}
                }
            }
            self.decoder.push(self.lines.next().await.expect("the stream goes on").unwrap());
        }
    }

    async fn until(&mut self, rows: &[&str]) {
        while self.checkpoint().await != rows {}
    }
}

#[test]
fn each_user_sees_the_own_rows_and_a_row_moves_with_its_owner() {
    let (source, store) = (source(), MemoryBucketStore::new());
    source.put("lists", list("l1", "Groceries", "anna")).unwrap();
    source.put("lists", list("l2", "Garden", "ben")).unwrap();
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        let mut ben = Follower::open(&service, "ben").await;
        anna.until(&[r#"{"id":"l1","name":"Groceries"}"#]).await;
        ben.until(&[r#"{"id":"l2","name":"Garden"}"#]).await;
        source.put("lists", list("l1", "Groceries", "ben")).unwrap();
        anna.until(&[]).await;
        ben.until(&[r#"{"id":"l1","name":"Groceries"}"#, r#"{"id":"l2","name":"Garden"}"#]).await;
        source.delete("lists", "l2").unwrap();
        ben.until(&[r#"{"id":"l1","name":"Groceries"}"#]).await;
    });
}

#[test]
fn a_write_checkpoint_comes_back_with_everything_committed_before_it() {
    let (source, store) = (source(), MemoryBucketStore::new());
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        anna.checkpoint().await;
        for number in 0..20 {
            source.put("lists", list(&format!("l{number:02}"), "x", "anna")).unwrap();
            let transport = MemoryTransport::new(service.clone());
            let asked = transport.write_checkpoint("device", &Credentials::new("anna")).await.unwrap();
            while anna.write_checkpoint.is_none_or(|shown| shown < asked) {
                anna.checkpoint().await;
            }
            assert_eq!(anna.rows.len(), number + 1, "the write must be there when its checkpoint is");
        }
    });
}

/// The application's own write checkpoints, one row per client.
const CUSTOM: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
event_definitions:
  write_checkpoints:
    payloads:
      - SELECT user_id, client_id, checkpoint FROM checkpoints
  audited:
    payloads:
      - SELECT id FROM lists
";

fn source_with_checkpoints() -> MemorySource {
    source().table("checkpoints", ["id", "user_id", "client_id", "checkpoint"])
}

fn written(user: &str, checkpoint: impl Into<serde_json::Value>) -> serde_json::Value {
    json!({ "id": user, "user_id": user, "client_id": "device", "checkpoint": checkpoint.into() })
}

#[test]
fn a_write_checkpoint_of_the_backend_comes_with_everything_committed_before_it() {
    let (source, store) = (source_with_checkpoints(), MemoryBucketStore::new());
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CUSTOM).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        let mut ben = Follower::open(&service, "ben").await;
        anna.checkpoint().await;
        for number in 1..=20_usize {
            source.put("lists", list(&format!("l{number:02}"), "x", "anna")).unwrap();
            // As a number, and as the text that a decimal of a database is.
            let row = if number % 2 == 0 { written("anna", number) } else { written("anna", number.to_string()) };
            source.put("checkpoints", row).unwrap();
            while anna.write_checkpoint != Some(WriteCheckpoint(number as i64)) {
                anna.checkpoint().await;
            }
            assert_eq!(anna.rows.len(), number, "the write must be there when its checkpoint is");
        }
        // The number comes first in a transaction that is appended in parts.
        source
            .transaction(|transaction| {
                transaction.put("checkpoints", written("anna", 21))?;
                (0..12_000).try_for_each(|row| transaction.put("lists", list(&format!("many{row:05}"), "x", "anna")))
            })
            .unwrap();
        while anna.write_checkpoint != Some(WriteCheckpoint(21)) {
            anna.checkpoint().await;
        }
        assert_eq!(anna.rows.len(), 12_020);
        // By itself it is a change, and it is nobody else's.
        source.put("checkpoints", written("anna", 1_000)).unwrap();
        anna.checkpoint().await;
        assert_eq!(anna.write_checkpoint, Some(WriteCheckpoint(1_000)));
        source.put("lists", list("b", "x", "ben")).unwrap();
        ben.until(&[r#"{"id":"b","name":"x"}"#]).await;
        assert_eq!(ben.write_checkpoint, None);
        // The service gives numbers above those of the backend.
        let transport = MemoryTransport::new(service.clone());
        let asked = transport.write_checkpoint("device", &Credentials::new("anna")).await.unwrap();
        assert!(asked > WriteCheckpoint(1_000));
        while anna.write_checkpoint != Some(asked) {
            anna.checkpoint().await;
        }
        source.put("checkpoints", written("anna", 1_001)).unwrap();
        source.put("lists", list("last", "x", "anna")).unwrap();
        while !anna.rows.contains_key("last") {
            anna.checkpoint().await;
        }
        assert_eq!(anna.write_checkpoint, Some(asked), "it never falls");
    });
    assert_eq!(replicator.status().failed_rows, 0);
}

#[test]
fn a_write_checkpoint_that_the_first_copy_finds_is_shown_and_a_restart_changes_nothing() {
    let (source, store) = (source_with_checkpoints(), MemoryBucketStore::new());
    source.put("lists", list("l", "x", "anna")).unwrap();
    source.put("checkpoints", written("anna", 7)).unwrap();
    let config = SyncConfig::parse(CUSTOM).unwrap();
    let service = SyncService::new(store.clone(), TokenIsUser);
    let replicator = Replicator::new(source.clone(), config.clone(), store.clone());
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        anna.until(&[r#"{"id":"l","name":"x"}"#]).await;
        assert_eq!(anna.write_checkpoint, Some(WriteCheckpoint(7)));
    });
    let before = block_on(store.resume()).unwrap().checkpoint.unwrap().op_id;
    let again = Replicator::new(source.clone(), config, store.clone());
    source.put("checkpoints", written("anna", 7)).unwrap();
    beside(&again, async {
        while source.acknowledged() < 3 {
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(1)).await;
        }
    });
    assert_eq!(block_on(store.resume()).unwrap().checkpoint.unwrap().op_id, before, "nothing rose");
}

#[test]
fn a_write_checkpoint_that_cannot_be_used_is_counted_and_holds_up_nothing() {
    let (source, store) = (source_with_checkpoints(), MemoryBucketStore::new());
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CUSTOM).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        anna.checkpoint().await;
        source.put("checkpoints", written("anna", 3)).unwrap();
        source.put("checkpoints", written("anna", 0)).unwrap();
        source.put("checkpoints", written("anna", "many")).unwrap();
        source.put("checkpoints", json!({ "id": "nobody", "client_id": "device", "checkpoint": 4 })).unwrap();
        source.put("lists", list("l", "x", "anna")).unwrap();
        anna.until(&[r#"{"id":"l","name":"x"}"#]).await;
        assert_eq!(anna.write_checkpoint, Some(WriteCheckpoint(3)));
        source.put("checkpoints", written("anna", 4)).unwrap();
        while anna.write_checkpoint != Some(WriteCheckpoint(4)) {
            anna.checkpoint().await;
        }
    });
    assert_eq!(replicator.status().failed_rows, 3);
}

#[test]
fn what_is_durable_is_acknowledged_and_a_restart_changes_nothing() {
    let (source, store) = (source(), MemoryBucketStore::new());
    for number in 0..2_500 {
        source.put("lists", list(&format!("l{number:04}"), "x", "anna")).unwrap();
    }
    let config = SyncConfig::parse(CONFIG).unwrap();
    let service = SyncService::new(store.clone(), TokenIsUser);
    let replicator = Replicator::new(source.clone(), config.clone(), store.clone());
    let rows = beside(&replicator, async { Follower::open(&service, "anna").await.checkpoint().await });
    assert_eq!(rows.len(), 2_500);
    assert_eq!(source.acknowledged(), 2_500);
    let before = block_on(store.resume()).unwrap().checkpoint.unwrap().op_id;

    source.put("lists", list("l0000", "x", "anna")).unwrap();
    let again = Replicator::new(source.clone(), config, store.clone());
    beside(&again, async {
        while source.acknowledged() < 2_501 {
            future::ready(()).await;
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(1)).await;
        }
    });
    let after = block_on(store.resume()).unwrap().checkpoint.unwrap().op_id;
    assert_eq!(before, after, "an update that changes nothing must not make a checkpoint");
}

#[test]
fn a_lost_history_is_read_again_from_its_beginning() {
    let store = MemoryBucketStore::new();
    let config = SyncConfig::parse(CONFIG).unwrap();
    let service = SyncService::new(store.clone(), TokenIsUser);
    let before = source();
    before.put("lists", list("l1", "kept", "anna")).unwrap();
    before.put("lists", list("l2", "lost", "anna")).unwrap();
    let replicator = Replicator::new(before, config.clone(), store.clone());
    let rows = beside(&replicator, async { Follower::open(&service, "anna").await.checkpoint().await });
    assert_eq!(rows.len(), 2);
    // Another database in its place, which knows nothing of what was read.
    let after = source();
    after.put("lists", list("l1", "kept", "anna")).unwrap();
    let replicator = Replicator::new(after, config, store.clone());
    beside(&replicator, async {
        loop {
            let mut anna = Follower::open(&service, "anna").await;
            if anna.checkpoint().await == [r#"{"id":"l1","name":"kept"}"#] {
                break;
            }
            SystemClock.sleep_until(SystemClock.now() + Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_changed_config_is_refused_by_name_and_a_renamed_stream_is_not() {
    let (source, store) = (source(), MemoryBucketStore::new());
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let service = SyncService::new(store.clone(), TokenIsUser);
    beside(&replicator, async { Follower::open(&service, "anna").await.checkpoint().await });

    let changed = CONFIG.replace("SELECT id, name", "SELECT *");
    let refused = Replicator::new(source.clone(), SyncConfig::parse(&changed).unwrap(), store.clone());
    let error = block_on(refused.run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("mine"), "{error}");

    let renamed = CONFIG.replace("mine:", "own:");
    let accepted = Replicator::new(source, SyncConfig::parse(&renamed).unwrap(), store);
    beside(&accepted, async { Follower::open(&service, "anna").await.checkpoint().await });
}

#[test]
fn a_client_that_names_the_bucket_of_another_gets_nothing_of_it() {
    let (source, store) = (source(), MemoryBucketStore::new());
    source.put("lists", list("l1", "Groceries", "anna")).unwrap();
    source.put("lists", list("l2", "Garden", "ben")).unwrap();
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        anna.until(&[r#"{"id":"l1","name":"Groceries"}"#]).await;
        let name = anna.target.buckets[0].bucket.to_string();
        let mut ben =
            Follower::open_with(&service, "ben", vec![BucketPosition { name: name.clone(), after: "0".into() }]).await;
        ben.until(&[r#"{"id":"l2","name":"Garden"}"#]).await;
        source.put("lists", list("l3", "Books", "anna")).unwrap();
        source.put("lists", list("l4", "Tools", "ben")).unwrap();
        ben.until(&[r#"{"id":"l2","name":"Garden"}"#, r#"{"id":"l4","name":"Tools"}"#]).await;
        assert!(ben.target.buckets.iter().all(|bucket| *bucket.bucket != *name), "not even its checksum");
    });
}

#[test]
fn closing_ends_every_stream() {
    let (source, store) = (source(), MemoryBucketStore::new());
    let replicator = Replicator::new(source, SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let service = SyncService::new(store, TokenIsUser);
    beside(&replicator, async {
        let mut anna = Follower::open(&service, "anna").await;
        let mut ben = Follower::open(&service, "ben").await;
        anna.checkpoint().await;
        ben.checkpoint().await;
        service.close().await;
        assert!(anna.lines.next().await.is_none());
        assert!(ben.lines.next().await.is_none());
    });
}
