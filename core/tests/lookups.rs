//! Rights that come from other rows: whoever gains or loses them has and loses the rows with the same checkpoint.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use syncline_core::testing::World;
use syncline_core::{Identity, SyncConfig};

const SYNC_CONFIG: &str = "
config: { edition: 3 }
with:
  my_teams: SELECT team FROM members WHERE user_id = auth.user_id()
streams:
  notes:
    auto_subscribe: true
    queries:
      - SELECT id, text FROM notes WHERE team IN my_teams
      - SELECT comments.id, comments.text FROM comments JOIN notes ON notes.id = comments.note WHERE notes.team IN my_teams
";

fn world() -> World {
    let mut world = World::new(SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|d| panic!("{d}")));
    world.put("notes", json!({ "id": "n1", "team": "red", "text": "of red" }));
    world.put("notes", json!({ "id": "n2", "team": "blue", "text": "of blue" }));
    world.put("comments", json!({ "id": "c1", "note": "n1", "text": "on n1" }));
    world
}

fn texts(world: &World, client: syncline_core::testing::WorldClient, table: &str) -> Vec<String> {
    world.rows(client, table).iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_member_sees_what_the_team_has_from_joining_to_leaving() {
    let mut world = world();
    let anna = world.client(Identity::new("anna"));
    world.settle();
    assert!(world.rows(anna, "notes").is_empty());

    world.put("members", json!({ "id": "m1", "user_id": "anna", "team": "red" }));
    world.settle();
    assert_eq!(
        (texts(&world, anna, "notes"), texts(&world, anna, "comments")),
        (vec!["of red".into()], vec!["on n1".into()])
    );

    world.put("members", json!({ "id": "m1", "user_id": "anna", "team": "blue" }));
    world.settle();
    assert_eq!((texts(&world, anna, "notes"), texts(&world, anna, "comments")), (vec!["of blue".into()], vec![]));

    world.delete("members", "m1");
    world.settle();
    assert!(world.rows(anna, "notes").is_empty());
}

#[test]
fn a_chain_of_lookups_follows_a_change_in_its_middle() {
    let mut world = world();
    let anna = world.client(Identity::new("anna"));
    world.put("members", json!({ "id": "m1", "user_id": "anna", "team": "red" }));
    world.settle();
    assert_eq!(texts(&world, anna, "comments"), ["on n1"]);
    // The note goes to another team, and its comments with it.
    world.put("notes", json!({ "id": "n1", "team": "blue", "text": "of blue now" }));
    world.settle();
    assert!(world.rows(anna, "comments").is_empty());
    assert!(world.rows(anna, "notes").is_empty());
}

#[test]
fn two_ways_to_a_bucket_are_closed_one_by_one() {
    let mut world = world();
    let anna = world.client(Identity::new("anna"));
    for id in ["m1", "m2"] {
        world.put("members", json!({ "id": id, "user_id": "anna", "team": "red" }));
    }
    world.settle();
    world.delete("members", "m1");
    world.settle();
    assert_eq!(texts(&world, anna, "notes"), ["of red"]);
    world.delete("members", "m2");
    world.settle();
    assert!(world.rows(anna, "notes").is_empty());
}
