//! A whole client over the compact subprotocol: what it subscribes to and writes needs one connection.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use syncline_core::memory::{MemoryBucketStore, MemoryClientStore, MemorySource, TokenIsUser};
use syncline_core::{
    BoxError, Connector, Credentials, LocalTransaction, Replicator, SyncClient, SyncConfig, SyncService, Uploaded,
    WriteKind, async_trait,
};
use syncline_transport_ws::{CompactTransport, WebSocketEndpoint, WebSocketLimits};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::bench::LIMIT;

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
#[derive(Debug)]
struct Backend(MemorySource);

#[async_trait]
impl Connector for Backend {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new("anna"))
    }

    async fn upload(&self, writes: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        self.0.transaction(|tx| {
            for write in writes.crud.iter().filter(|write| write.op == WriteKind::Put) {
                let mut row = write.data.clone().unwrap_or_default();
                row.insert("id".into(), json!(write.id));
                tx.put(&write.table, Json::Object(row))?;
            }
            Ok(())
        })?;
        Ok(Uploaded::Applied)
    }
}

/// Waits until a table has these rows.
async fn until(store: &MemoryClientStore, table: &str, wanted: &[&str]) {
    let ids = |rows: Vec<Map<String, Json>>| -> Vec<String> {
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let deadline = Instant::now() + LIMIT;
    while ids(store.rows(table)) != wanted {
        assert!(Instant::now() < deadline, "{table} has {:?} instead of {wanted:?}", ids(store.rows(table)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_subscribes_unsubscribes_and_writes_on_one_connection() {
    let source =
        MemorySource::new().table("lists", ["id", "owner_id", "name"]).table("items", ["id", "list_id", "text"]);
    source.put("lists", json!({ "id": "l1", "owner_id": "anna", "name": "x" })).unwrap();
    for (id, list) in [("i1", "l1"), ("i2", "l2")] {
        source.put("items", json!({ "id": id, "list_id": list, "text": "x" })).unwrap();
    }
    let buckets = MemoryBucketStore::new();
    tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), buckets.clone()).run());
    let service = SyncService::new(buckets, TokenIsUser);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("ws://{}", listener.local_addr().unwrap());
    // A second connection would be refused.
    let limits = WebSocketLimits { connections: 1, ..WebSocketLimits::default() };
    let server = WebSocketEndpoint::new(service, limits);
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });

    let store = MemoryClientStore::new("device");
    let transport = CompactTransport::new(&endpoint).unwrap().compressed(true);
    let client = SyncClient::new(store.clone(), transport, Backend(source.clone()));
    let running = tokio::spawn(client.clone().run());
    until(&store, "lists", &["l1"]).await;
    let handle = timeout(LIMIT, client.subscribe("items", json!({ "list": "l1" })).ttl(Duration::ZERO)).await;
    let handle = handle.unwrap().unwrap();
    timeout(LIMIT, handle.ready()).await.unwrap().unwrap();
    until(&store, "items", &["i1"]).await;

    let list = json!({ "owner_id": "anna", "name": "mine" });
    store.put("lists", "l2", list.as_object().unwrap().clone());
    timeout(LIMIT, client.caught_up()).await.unwrap().unwrap();
    assert_eq!(source.rows("lists").len(), 2);
    // What comes after the write has come back shows that its number has: nothing is published before.
    source.put("lists", json!({ "id": "l3", "owner_id": "anna", "name": "x" })).unwrap();
    until(&store, "lists", &["l1", "l2", "l3"]).await;
    drop(handle);
    until(&store, "items", &[]).await;
    let status = client.current_status();
    assert!(status.connected && status.download_error.is_none(), "{status:?}");
    running.abort();
    drop(client);
}
