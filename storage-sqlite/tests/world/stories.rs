//! A world over files, as a test of an application would use it.

use std::sync::Arc;

use serde_json::json;
use syncline_core::testing::World;
use syncline_core::{Identity, SyncConfig};

use crate::stores::SqliteStores;

#[test]
fn a_write_made_offline_arrives() {
    let config = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
";
    let config = SyncConfig::parse(config).unwrap_or_else(|problems| panic!("{problems}"));
    let mut world = World::over(config, 0, Arc::new(SqliteStores));
    let anna = world.client(Identity::new("anna"));
    world.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }));
    world.settle();
    assert_eq!(world.rows(anna, "lists"), [json!({ "id": "l1", "name": "Groceries" })]);
    world.disconnect(anna);
    world.write(anna, "lists", json!({ "id": "l2", "name": "Books", "owner_id": "anna" }));
    world.settle();
    assert_eq!((world.rows(anna, "lists").len(), world.source_rows("lists").len()), (2, 1));
    world.reconnect(anna);
    world.settle();
    assert_eq!(world.source_rows("lists").len(), 2);
}
