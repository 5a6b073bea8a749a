//! Replication into a store whose disk is full: it says so, waits, and goes on.

use std::time::Duration;

use futures::StreamExt;
use rusqlite::Connection;
use serde_json::json;
use syncline_core::memory::{MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::protocol::SyncRequest;
use syncline_core::{BucketStore, Credentials, ReplicationPhase, Replicator, SyncConfig, SyncService, Transport};
use tokio::time::{sleep, timeout};

use crate::SqliteBucketStore;

const LIMIT: Duration = Duration::from_secs(30);
const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE owner_id = auth.user_id()
";

/// How many pages the file may have: as a disk that is full, and then is not.
async fn pages(store: &SqliteBucketStore, pages: i64) {
    let limit = store.with_writer(move |writer| {
        writer.connection.pragma_update(None, "max_page_count", pages).unwrap();
        Ok(())
    });
    limit.await.unwrap();
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_reports_a_full_disk_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.db");
    let store = SqliteBucketStore::open(&path).await.unwrap();
    let source = MemorySource::new().table("notes", ["id", "owner_id", "body"]);
    let put = |name: &str| {
        let row = json!({ "id": name, "owner_id": "anna", "body": "x".repeat(20_000) });
        source.put("notes", row).unwrap();
    };
    put("before");
    let replicator = Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone());
    let running = tokio::spawn(replicator.run());
    until("the first row", || source.acknowledged() == 1).await;

    pages(&store, 60).await;
    for number in 0..500 {
        put(&format!("n{number}"));
    }
    // It tries again and again, and says why.
    let (mut attempts, mut last) = (0, ReplicationPhase::Streaming);
    until("three attempts", || {
        let phase = replicator.status().phase;
        attempts += usize::from(phase == ReplicationPhase::Waiting && last != phase);
        last = phase;
        attempts == 3
    })
    .await;
    let error = replicator.status().error.unwrap();
    assert!(error.contains("the disk is full, free some space"), "{error}");
    assert!(!running.is_finished());
    // What is shown is what a crash would leave behind, and no more is acknowledged.
    let published = store.checkpoints().next().await.unwrap().unwrap().checkpoint.op_id;
    let acknowledged = source.acknowledged();
    assert!(acknowledged < 501, "{acknowledged}");
    let file = Connection::open(&path).unwrap();
    let durable: i64 = file.query_row("SELECT published_op FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(published.0, u64::try_from(durable).unwrap());
    drop(file);
    // Streams are served meanwhile.
    let transport = MemoryTransport::new(SyncService::new(store.clone(), TokenIsUser));
    let mut stream = transport.open(&SyncRequest::default(), &Credentials::new("anna")).await.unwrap();
    assert!(timeout(LIMIT, stream.bytes.next()).await.unwrap().unwrap().is_ok());

    pages(&store, 1_000_000).await;
    until("all rows", || source.acknowledged() == 501).await;
    assert_eq!(replicator.status().error, None);
    running.abort();
}
