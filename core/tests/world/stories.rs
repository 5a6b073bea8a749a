//! Tests of a sync config as an application would write them.

use serde_json::json;
use syncline_core::testing::World;
use syncline_core::{Identity, SyncConfig};

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
  items:
    query: SELECT id, text FROM items WHERE list_id = subscription.parameter('list')
";

// region: test
#[test]
fn a_list_is_seen_by_its_owner_alone_and_follows_a_change_of_owner() {
    let mut world = World::new(SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|d| panic!("{d}")));
    let anna = world.client(Identity::new("anna"));
    let ben = world.client(Identity::new("ben").claim("role", "guest"));

    world.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }));
    world.settle(); // runs source, server and clients until nothing is left to do
    assert_eq!(world.rows(anna, "lists"), [json!({ "id": "l1", "name": "Groceries" })]);
    assert_eq!(world.rows(ben, "lists"), [json!(null); 0]);

    world.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "ben" }));
    world.settle();
    assert!(world.rows(anna, "lists").is_empty());
    assert_eq!(world.rows(ben, "lists").len(), 1);
}
// endregion: test

#[test]
fn a_write_made_offline_arrives() {
    let mut world = World::new(SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|d| panic!("{d}")));
    let anna = world.client(Identity::new("anna"));
    world.disconnect(anna);
    world.write(anna, "lists", json!({ "id": "l2", "name": "Books", "owner_id": "anna" }));
    world.settle();
    assert!(world.source_rows("lists").is_empty());
    world.reconnect(anna);
    world.settle(); // checks the promised invariants after each step, and panics with the seed
    assert_eq!(world.source_rows("lists").len(), 1);
}

#[test]
fn rows_come_and_go_with_subscriptions_and_deletions_whatever_the_order_of_things() {
    for seed in 0..20 {
        let mut world = World::seeded(SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|d| panic!("{d}")), seed);
        for number in 0..30 {
            world.put("items", json!({ "id": format!("i{number}"), "list_id": "l1", "text": "x" }));
        }
        let anna = world.client(Identity::new("anna"));
        world.settle();
        assert!(world.rows(anna, "items").is_empty());
        world.subscribe(anna, "items", json!({ "list": "l1" }));
        world.settle();
        assert_eq!(world.rows(anna, "items").len(), 30);
        world.delete("items", "i3");
        world.remove(anna, "items", "i4");
        world.settle();
        assert_eq!(world.rows(anna, "items").len(), 28);
        assert_eq!(world.source_rows("items").len(), 28);
    }
}
