//! The official Node SDK, unmodified, against a Syncline server and a real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod later_backend;
mod stack;

use sdk_tests::{NodeClient, Wire};
use serde_json::{Value as Json, json};

use crate::later_backend::LaterBackend;
use crate::stack::Stack;

const BSON: &str = "application/vnd.powersync.bson-stream";
const NDJSON: &str = "application/x-ndjson";

const SEED: &str = "
    INSERT INTO lists VALUES ('l1', 'Groceries', 'anna'), ('l2', 'Books', 'anna'), ('l3', 'Käse & Brot ☕', 'ben');
    INSERT INTO todos VALUES ('t1', 'l1', 'milk', false, 1.5, 'anna'), ('t2', 'l1', NULL, true, NULL, 'anna'),
        ('t3', 'l2', 'Moby Dick', false, -0.25, 'anna'), ('t4', 'l3', 'Emmentaler', false, 3, 'ben');";

/// The media types and codings of the streams that a client has opened.
async fn streams(client: &mut NodeClient) -> Vec<(String, Option<String>)> {
    let responses = client.responses().await.unwrap();
    let streams = responses.iter().filter(|response| response["path"] == "/sync/stream" && response["status"] == 200);
    streams
        .map(|response| {
            let kind = response["type"].as_str().unwrap_or_default().split(';').next().unwrap_or_default();
            (kind.to_owned(), response["encoding"].as_str().map(str::to_owned))
        })
        .collect()
}

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

#[tokio::test]
async fn two_users_get_their_own_rows_live() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", Wire::default()).await;
    let mut ben = stack.client("ben", Wire::default()).await;
    stack.connect(&mut anna, "anna").await;
    stack.connect(&mut ben, "ben").await;
    anna.first_sync().await.unwrap();
    ben.first_sync().await.unwrap();
    stack.agree(&mut anna, "anna", &[]).await;
    stack.agree(&mut ben, "ben", &[]).await;
    assert_eq!(anna.query("SELECT count(*) AS n FROM lists").await.unwrap(), json!([{ "n": 2 }]));

    stack.sql("INSERT INTO lists VALUES ('l4', 'Films', 'anna')").await;
    stack.agree(&mut anna, "anna", &[]).await;
    stack.sql("UPDATE lists SET name = 'Shopping' WHERE id = 'l1'; DELETE FROM lists WHERE id = 'l4'").await;
    stack.agree(&mut anna, "anna", &[]).await;

    // A row moves from one user to the other.
    stack.sql("UPDATE lists SET owner_id = 'ben' WHERE id = 'l2'").await;
    stack.agree(&mut anna, "anna", &[]).await;
    stack.agree(&mut ben, "ben", &[]).await;
    assert_eq!(anna.query("SELECT id FROM lists").await.unwrap(), json!([{ "id": "l1" }]));
    assert_eq!(ben.query("SELECT id FROM lists ORDER BY id").await.unwrap(), json!([{ "id": "l2" }, { "id": "l3" }]));
    anna.close().await.unwrap();
    ben.close().await.unwrap();
}

#[tokio::test]
async fn offline_writes_arrive_and_come_back_by_a_write_checkpoint() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", Wire::default()).await;
    stack.connect(&mut anna, "anna").await;
    anna.first_sync().await.unwrap();
    anna.disconnect().await.unwrap();
    anna.transaction(&[
        ("INSERT INTO lists (id, name, owner_id) VALUES ('l5', ?, 'anna')", json!(["Übersee"])),
        ("UPDATE lists SET name = 'Food' WHERE id = 'l1'", json!([])),
        ("DELETE FROM lists WHERE id = 'l2'", json!([])),
    ])
    .await
    .unwrap();
    let local = anna.query("SELECT id, name FROM lists ORDER BY id").await.unwrap();
    assert_eq!(local, json!([{ "id": "l1", "name": "Food" }, { "id": "l5", "name": "Übersee" }]));
    assert_eq!(stack.rows("SELECT id FROM lists WHERE id = 'l5' OR name = 'Food'").await, json!([]));

    stack.connect(&mut anna, "anna").await;
    anna.uploaded().await.unwrap();
    let stored = stack.rows("SELECT id, name FROM lists WHERE owner_id = 'anna' ORDER BY id").await;
    assert_eq!(stored, local);
    // The SDK shows nothing new before its write checkpoint has come: so that one has come.
    stack.sql("UPDATE lists SET name = 'Essen' WHERE id = 'l1'").await;
    stack.agree(&mut anna, "anna", &[]).await;
    let responses = anna.responses().await.unwrap();
    let asked = responses
        .iter()
        .any(|response: &Json| response["path"] == "/write-checkpoint2.json" && response["status"] == 200);
    assert!(asked, "no write checkpoint was asked for: {responses:?}");
    anna.close().await.unwrap();
}

#[tokio::test]
async fn a_write_that_the_backend_applies_later_is_shown_until_then_and_comes_back_by_its_own_write_checkpoint() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut backend = LaterBackend::start().await;
    let mut anna = stack.client("anna", Wire::default()).await;
    let mut other = stack.client("another device", Wire::default()).await;
    stack.connect_with_later(&mut anna, "anna", backend.url()).await;
    stack.connect(&mut other, "anna").await;
    anna.first_sync().await.unwrap();
    other.first_sync().await.unwrap();
    stack.agree(&mut anna, "anna", &[]).await;
    for round in 1..=3 {
        let name = json!([format!("written {round}")]);
        anna.execute("UPDATE lists SET name = ? WHERE id = 'l1'", name.clone()).await.unwrap();
        let (client, checkpoint) = backend.uploaded().await;
        anna.uploaded().await.unwrap();
        // What others write meanwhile comes to every device but this one, which would lose sight of its own write.
        stack.sql(&format!("INSERT INTO lists VALUES ('m{round}', 'meanwhile', 'anna')")).await;
        stack.agree(&mut other, "anna", &[]).await;
        let local = "SELECT count(*) AS n, (SELECT name FROM lists WHERE id = 'l1') AS name FROM lists";
        assert_eq!(anna.query(local).await.unwrap(), json!([{ "n": 1 + round, "name": name[0] }]));
        stack
            .sql(&format!(
                "UPDATE lists SET name = 'written {round}, and corrected' WHERE id = 'l1';
                 INSERT INTO checkpoints VALUES ('anna', '{client}', {checkpoint})
                     ON CONFLICT (user_id, client_id) DO UPDATE SET checkpoint = excluded.checkpoint"
            ))
            .await;
        stack.agree(&mut anna, "anna", &[]).await;
    }
    let responses = anna.responses().await.unwrap();
    let of_service = ["/write-checkpoint2.json", "/sync/checkpoint-request"];
    let asked = responses.iter().any(|response| of_service.iter().any(|path| response["path"] == *path));
    assert!(!asked, "it waited for a number of the service: {responses:?}");
    anna.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn a_refused_write_is_rolled_back() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", Wire::default()).await;
    stack.connect(&mut anna, "anna").await;
    anna.first_sync().await.unwrap();
    // As another user, to another user, and of another user.
    anna.execute("INSERT INTO lists (id, name, owner_id) VALUES ('l6', 'Mine?', 'ben')", json!([])).await.unwrap();
    anna.execute("UPDATE lists SET owner_id = 'ben' WHERE id = 'l1'", json!([])).await.unwrap();
    anna.uploaded().await.unwrap();
    stack.agree(&mut anna, "anna", &[]).await;
    let owners = stack.rows("SELECT id, owner_id FROM lists ORDER BY id").await;
    let expected = json!([
        { "id": "l1", "owner_id": "anna" }, { "id": "l2", "owner_id": "anna" }, { "id": "l3", "owner_id": "ben" },
    ]);
    assert_eq!(owners, expected);
    anna.close().await.unwrap();
}

#[tokio::test]
async fn a_subscription_brings_the_rows_that_its_parameters_name() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", Wire::default()).await;
    stack.connect(&mut anna, "anna").await;
    anna.first_sync().await.unwrap();
    stack.agree(&mut anna, "anna", &[]).await;
    anna.subscribe("todos_of_list", json!({ "list": "l1" })).await.unwrap();
    stack.agree(&mut anna, "anna", &["l1"]).await;
    anna.subscribe("todos_of_list", json!({ "list": "l2" })).await.unwrap();
    stack.agree(&mut anna, "anna", &["l1", "l2"]).await;
    stack.sql("UPDATE todos SET list_id = 'l9' WHERE id = 't1'; UPDATE todos SET done = true WHERE id = 't3'").await;
    stack.agree(&mut anna, "anna", &["l1", "l2"]).await;
    // Somebody else's list is named, and nothing of it comes.
    anna.subscribe("todos_of_list", json!({ "list": "l3" })).await.unwrap();
    stack.agree(&mut anna, "anna", &["l1", "l2", "l3"]).await;
    anna.unsubscribe("todos_of_list", json!({ "list": "l1" })).await.unwrap();
    stack.agree(&mut anna, "anna", &["l2", "l3"]).await;
    anna.close().await.unwrap();
}

#[tokio::test]
async fn every_format_and_coding_brings_the_same_rows() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    stack
        .sql("INSERT INTO lists SELECT 'n' || i, repeat(i::text, i % 50), 'anna' FROM generate_series(1, 2000) i")
        .await;
    let gzip = Some("gzip");
    let cases = [
        // What the SDK asks for by itself.
        (Wire::default(), BSON, gzip),
        (Wire { accept: None, encoding: Some("zstd"), websocket: false }, BSON, Some("zstd")),
        (Wire { accept: None, encoding: Some("identity"), websocket: false }, BSON, None),
        (Wire { accept: Some(NDJSON), encoding: None, websocket: false }, NDJSON, gzip),
        (Wire { accept: Some(NDJSON), encoding: Some("zstd"), websocket: false }, NDJSON, Some("zstd")),
        (Wire { accept: Some(NDJSON), encoding: Some("identity"), websocket: false }, NDJSON, None),
    ];
    for (number, (wire, media_type, coding)) in cases.into_iter().enumerate() {
        let mut client = stack.client(&format!("client{number}"), wire).await;
        stack.connect(&mut client, "anna").await;
        client.first_sync().await.unwrap();
        stack.agree(&mut client, "anna", &[]).await;
        stack.sql(&format!("INSERT INTO lists VALUES ('live{number}', 'live', 'anna')")).await;
        stack.agree(&mut client, "anna", &[]).await;
        let streams = streams(&mut client).await;
        assert_eq!(streams, [(media_type.to_owned(), coding.map(str::to_owned))], "{wire:?}");
        client.close().await.unwrap();
    }
}

/// What the SDK does where it cannot read a stream over HTTP.
const WEBSOCKET: Wire = Wire { accept: None, encoding: None, websocket: true };

#[tokio::test]
async fn rows_and_writes_pass_over_websocket_as_well() {
    let stack = Stack::start().await;
    stack.sql(SEED).await;
    // More lines than the SDK takes at once.
    stack.sql("INSERT INTO lists SELECT 'n' || i, repeat('x', 1000), 'anna' FROM generate_series(1, 20000) i").await;
    let mut anna = stack.client("anna", WEBSOCKET).await;
    let mut ben = stack.client("ben", WEBSOCKET).await;
    stack.connect(&mut anna, "anna").await;
    stack.connect(&mut ben, "ben").await;
    anna.first_sync().await.unwrap();
    ben.first_sync().await.unwrap();
    stack.agree(&mut anna, "anna", &[]).await;
    stack.agree(&mut ben, "ben", &[]).await;
    anna.subscribe("todos_of_list", json!({ "list": "l1" })).await.unwrap();
    stack.agree(&mut anna, "anna", &["l1"]).await;
    stack.sql("UPDATE lists SET name = 'Shopping', owner_id = 'ben' WHERE id = 'l2'").await;
    stack.agree(&mut anna, "anna", &["l1"]).await;
    stack.agree(&mut ben, "ben", &[]).await;

    anna.execute("UPDATE lists SET name = 'Food' WHERE id = 'l1'", json!([])).await.unwrap();
    anna.uploaded().await.unwrap();
    assert_eq!(stack.rows("SELECT name FROM lists WHERE id = 'l1'").await, json!([{ "name": "Food" }]));
    // The SDK shows nothing new before its write checkpoint has come.
    stack.sql("UPDATE lists SET name = 'Essen' WHERE id = 'l1'").await;
    stack.agree(&mut anna, "anna", &["l1"]).await;
    assert_eq!(streams(&mut anna).await, [], "nothing was streamed over HTTP");
    anna.close().await.unwrap();
    ben.close().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_found_again_and_nothing_is_lost() {
    for wire in [Wire::default(), WEBSOCKET] {
        a_killed_server_is_found_again(wire).await;
    }
}

async fn a_killed_server_is_found_again(wire: Wire) {
    let mut stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", wire).await;
    stack.connect(&mut anna, "anna").await;
    anna.first_sync().await.unwrap();
    anna.subscribe("todos_of_list", json!({ "list": "l1" })).await.unwrap();
    for round in 0..3 {
        anna.connected(true).await.unwrap();
        stack.kill_server().await;
        anna.connected(false).await.unwrap();
        let name = json!([format!("written offline {round}")]);
        let insert = format!("INSERT INTO lists (id, name, owner_id) VALUES ('off{round}', ?, 'anna')");
        anna.execute(&insert, name).await.unwrap();
        let meanwhile = format!(
            "UPDATE todos SET title = 'round {round}' WHERE list_id = 'l1'; INSERT INTO lists VALUES ('on{round}', '', 'anna')"
        );
        stack.sql(&meanwhile).await;
        stack.start_server().await;
        anna.uploaded().await.unwrap();
        stack.agree(&mut anna, "anna", &["l1"]).await;
        let count = anna.query("SELECT count(*) AS n FROM lists").await.unwrap();
        assert_eq!(count, json!([{ "n": 2 + 2 * (round + 1) }]));
    }
    anna.close().await.unwrap();
}

#[tokio::test]
async fn a_restarted_postgres_is_found_again() {
    let mut stack = Stack::start().await;
    stack.sql(SEED).await;
    let mut anna = stack.client("anna", Wire::default()).await;
    stack.connect(&mut anna, "anna").await;
    anna.first_sync().await.unwrap();
    stack.crash_postgres().await;
    stack.sql("INSERT INTO lists VALUES ('l7', 'after the crash', 'anna')").await;
    stack.agree(&mut anna, "anna", &[]).await;
    anna.close().await.unwrap();
}
