//! The client with everything that it talks to in production, in memory: source, replicator, bucket store and service.

use std::time::Duration;

use futures::StreamExt;
use futures::executor::LocalPool;
use futures::task::SpawnExt;
use serde_json::{Map, Value as Json, json};
use syncline_core::memory::{MemoryBucketStore, MemoryClientStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::{
    BoxError, Connector, Credentials, Generation, LocalTransaction, Replicator, ServiceLimits, SyncClient, SyncConfig,
    SyncService, Uploaded, WriteKind, async_trait,
};

use crate::clock::VirtualClock;

const CONFIG: &str = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
  items:
    query: SELECT * FROM items WHERE list_id = subscription.parameter('list')
";

/// Anna's app: writes go straight into the source.
#[derive(Debug, Clone)]
struct Backend(MemorySource);

#[async_trait]
impl Connector for Backend {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new("anna"))
    }

    async fn upload(&self, writes: &LocalTransaction, _credentials: &Credentials) -> Result<Uploaded, BoxError> {
        self.0.transaction(|tx| {
            for write in &writes.crud {
                let mut row = write.data.clone().unwrap_or_default();
                row.insert("id".into(), json!(write.id));
                match write.op {
                    WriteKind::Put | WriteKind::Patch => tx.put(&write.table, Json::Object(row))?,
                    WriteKind::Delete => tx.delete(&write.table, &write.id)?,
                }
            }
            Ok(())
        })?;
        Ok(Uploaded::Applied)
    }
}

fn ids(rows: &[Map<String, Json>]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[test]
fn a_client_syncs_with_a_real_service() {
    let mut pool = LocalPool::new();
    let clock = VirtualClock::default();
    let source =
        MemorySource::new().table("lists", ["id", "owner_id", "name"]).table("items", ["id", "list_id", "text"]);
    let list = |id: &str, owner: &str| json!({"id": id, "owner_id": owner, "name": "x"});
    source.put("lists", list("l1", "anna")).unwrap();
    source.put("lists", list("l2", "ben")).unwrap();
    source.put("items", json!({"id": "i1", "list_id": "l1", "text": "milk"})).unwrap();
    source.put("items", json!({"id": "i2", "list_id": "l2", "text": "tea"})).unwrap();

    let buckets = MemoryBucketStore::with_clock(clock.clone(), Generation(1));
    let config = SyncConfig::parse(CONFIG).unwrap_or_else(|problems| panic!("{problems}"));
    let replicator = Replicator::with_clock(source.clone(), config, buckets.clone(), clock.clone());
    let service = SyncService::with(buckets, TokenIsUser, clock.clone(), ServiceLimits::default());
    let store = MemoryClientStore::new("device");
    let client = SyncClient::new(store.clone(), MemoryTransport::new(service), Backend(source.clone()))
        .clock(clock.clone())
        .seed(1);
    let spawner = pool.spawner();
    let _replicator = spawner.spawn_with_handle(replicator.run()).unwrap();
    let _client = spawner.spawn_with_handle(client.run()).unwrap();
    let limit = Duration::from_secs(30);
    let synced = |rows: usize, items: usize| {
        let store = store.clone();
        move || store.rows("lists").len() == rows && store.rows("items").len() == items
    };
    clock.run_until(&mut pool, limit, synced(1, 0));

    // A subscription brings rows; another list's stay away.
    let handle = pool.run_until(client.subscribe("items", json!({"list": "l1"})).into_future()).unwrap();
    clock.run_until(&mut pool, limit, synced(1, 1));
    assert_eq!(ids(&store.rows("items")), ["i1"]);
    pool.run_until(handle.ready()).unwrap();

    // A write is seen at once, goes up, comes back, and leaves the queue; so does a row that its owner gives away.
    store.put("lists", "l3", list("l3", "anna").as_object().unwrap().clone());
    store.put("lists", "l1", list("l1", "ben").as_object().unwrap().clone());
    assert_eq!(ids(&store.rows("lists")), ["l1", "l3"]);
    clock.run_until(&mut pool, limit, || ids(&store.rows("lists")) == ["l3"]);
    pool.run_until(client.caught_up()).unwrap();
    assert_eq!(source.rows("lists").len(), 3);

    // The stream of statuses ends up where the client is.
    let status = pool.run_until(client.status().next()).unwrap();
    assert!(status.connected && status.download_error.is_none() && status.upload_error.is_none(), "{status:?}");
    assert_eq!(status, client.current_status());
    assert_eq!(status.streams.iter().map(|one| one.stream.as_str()).collect::<Vec<_>>(), ["items", "my_lists"]);
    drop(handle);
}
