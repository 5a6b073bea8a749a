//! The official Node SDK, unmodified, against a Syncline server.
#![allow(clippy::unwrap_used)]

use sdk_tests::{NodeClient, Wire};
use serde_json::json;

#[tokio::test]
async fn the_sdk_works_offline() {
    let directory = tempfile::tempdir().unwrap();
    let tables = json!({ "lists": { "name": "text" } });
    let mut client = NodeClient::open(&directory.path().join("client.db"), tables, Wire::default()).await.unwrap();
    client.execute("INSERT INTO lists (id, name) VALUES ('l1', ?)", json!(["Groceries"])).await.unwrap();
    client.until("SELECT id, name FROM lists", json!([{ "id": "l1", "name": "Groceries" }])).await.unwrap();
    assert!(client.execute("INSERT INTO nothing VALUES (1)", json!([])).await.is_err());
    client.close().await.unwrap();
}
