//! The whole way down: a database, a sync config, a bucket store.

use std::time::{Duration, Instant};

use futures::StreamExt;
use postgres_fixture::Cluster;
use syncline_core::memory::MemoryBucketStore;
use syncline_core::{BucketStore, ClientKey, Replicator, SyncConfig, WriteCheckpointRequest};

use crate::bench_database::{Database, LIMIT};

const CONFIG: &str =
    "config: { edition: 3 }\nstreams:\n  everything:\n    auto_subscribe: true\n    query: SELECT * FROM \"%\"\n";

#[tokio::test]
async fn a_write_checkpoint_comes_back_after_the_write_and_soon_after_a_fault() {
    let database = Database::new(
        "CREATE TABLE lists (id text PRIMARY KEY, name text); INSERT INTO lists VALUES ('a', 'first');
         CREATE TABLE keyless (n int);",
    )
    .await;
    let store = MemoryBucketStore::default();
    let replicator = Replicator::new(database.source(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let running = tokio::spawn(replicator.run());
    let client = ClientKey("someone".into());
    let mut checkpoints = store.checkpoints();
    let mut last = None;
    for round in 0..3 {
        if round == 2 {
            database
                .execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()",
                )
                .await;
        }
        database.execute(&format!("INSERT INTO lists VALUES ('{round}', 'x')")).await;
        let began = Instant::now();
        let wanted = store.request_write_checkpoint(&client, WriteCheckpointRequest::Next).await.unwrap();
        loop {
            let published = tokio::time::timeout(LIMIT, checkpoints.next()).await.unwrap().unwrap().unwrap();
            let at = published.checkpoint.op_id;
            assert!(last <= Some(at), "a checkpoint went back");
            last = Some(at);
            let shown = store.write_checkpoints(at, std::slice::from_ref(&client)).await.unwrap();
            if shown[0] >= Some(wanted) {
                // The row it waits for is below it: three rows of the snapshot and of the rounds so far.
                assert!(at.0 >= round + 2, "{at:?}");
                break;
            }
        }
        assert!(round != 2 || began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert!(!running.is_finished());
    running.abort();
}

/// Postgres ends only when the reader of its log has confirmed all of it, even where nothing concerns that reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_does_not_wait_for_an_idle_replicator() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.fresh_database().await.unwrap();
    let database = Database::at(url.clone(), "CREATE TABLE lists (id text PRIMARY KEY); CREATE SCHEMA other").await;
    let store = MemoryBucketStore::default();
    let replicator = Replicator::new(database.source(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let mut checkpoints = store.checkpoints();
    let running = tokio::spawn(replicator.run());
    for round in 0..3 {
        let database = cluster.connect(&url).await.unwrap();
        database.batch_execute(&format!("INSERT INTO lists VALUES ('{round}')")).await.unwrap();
        tokio::time::timeout(LIMIT, checkpoints.next()).await.unwrap().unwrap().unwrap();
        // It makes log that nobody replicates.
        database.batch_execute("CREATE TABLE other.t (n int); DROP TABLE other.t").await.unwrap();
        let began = Instant::now();
        cluster.restart().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "round {round}: {:?}", began.elapsed());
    }
    assert!(!running.is_finished());
    running.abort();
}
