//! What a user may not write is refused by the backend, rolled back on the device, and seen by nobody.

use syncline_source_postgres::{PostgresBackend, WriteRule};
use syncline_storage_sqlite::{Schema, Table};
use system_tests::{Device, Server};

const TABLES: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, name text, owner_id text NOT NULL);
    CREATE TABLE plans (id text PRIMARY KEY, name text);
    INSERT INTO lists VALUES ('a', 'of anna', 'anna'), ('b', 'of ben', 'ben');
    INSERT INTO plans VALUES ('p', 'free');";
/// Everyone sees all lists, so that a device has rows of others that its user may try to change.
const CONFIG: &str = "
config: { edition: 3 }
streams:
  all:
    auto_subscribe: true
    queries:
      - SELECT * FROM lists
      - SELECT * FROM plans
";
const LISTS: &str = "SELECT group_concat(id || '/' || name || '/' || owner_id, ' ' ORDER BY id) FROM lists";
const BEFORE: &str = "a/of anna/anna b/of ben/ben";

fn rules(backend: PostgresBackend) -> PostgresBackend {
    backend.table("lists", WriteRule::owner("owner_id"))
}

fn schema() -> Schema {
    Schema::new().table(Table::new("lists").text("name").text("owner_id")).table(Table::new("plans").text("name"))
}

async fn in_postgres(server: &Server) -> String {
    server.text("SELECT string_agg(id || '/' || name || '/' || owner_id, ' ' ORDER BY id) FROM lists").await
}

/// Anna writes this, offline; sees it; goes online, and it is refused and rolled back. Returns the reason.
async fn refused(sql: &'static str, at_once: &str) -> String {
    let server = Server::start(TABLES, CONFIG, rules).await;
    let mut anna = Device::online(&server, "anna", schema()).await;
    let ben = Device::online(&server, "ben", schema()).await;
    for device in [&anna, &ben] {
        device.until(LISTS, BEFORE).await;
    }
    anna.disconnect().await;
    anna.write(sql).await;
    assert_eq!(anna.text(LISTS).await, at_once, "a local write shows at once");
    // What comes after it is not held up.
    anna.write("UPDATE lists SET name = 'renamed' WHERE id = 'a'").await;
    anna.connect();
    let reason = anna.until_rejected().await;
    anna.caught_up().await;
    let after = "a/renamed/anna b/of ben/ben";
    anna.until(LISTS, after).await;
    ben.until(LISTS, after).await;
    assert_eq!(in_postgres(&server).await, after);
    assert_eq!(anna.text("SELECT name FROM plans").await, "free");
    let rejected = anna.db.rejected().await.unwrap();
    assert_eq!((rejected.len(), rejected[0].transaction.crud.len()), (1, 1), "what was refused can be looked at");
    assert!(anna.db.queue(10).await.unwrap().is_empty());
    assert!(anna.sync.current_status().upload_error.is_none(), "a refusal is no error");
    reason
}

const NOT_ALLOWED: &str = "`lists`: you are not allowed to make this change";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_insert_a_row_as_another() {
    let reason = refused(
        "INSERT INTO lists (id, name, owner_id) VALUES ('c', 'forged', 'ben')",
        "a/of anna/anna b/of ben/ben c/forged/ben",
    );
    assert_eq!(reason.await, NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_change_the_row_of_another() {
    let reason = refused("UPDATE lists SET name = 'mine now' WHERE id = 'b'", "a/of anna/anna b/mine now/ben");
    assert_eq!(reason.await, NOT_ALLOWED);
    let reason = refused("DELETE FROM lists WHERE id = 'b'", "a/of anna/anna");
    assert_eq!(reason.await, NOT_ALLOWED);
    let reason = refused("UPDATE lists SET owner_id = 'anna' WHERE id = 'b'", "a/of anna/anna b/of ben/anna");
    assert_eq!(reason.await, NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_move_a_row_to_another() {
    let reason = refused("UPDATE lists SET owner_id = 'ben' WHERE id = 'a'", "a/of anna/ben b/of ben/ben");
    assert_eq!(reason.await, NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_backend_does_not_name_cannot_be_written() {
    let reason = refused("UPDATE plans SET name = 'unlimited' WHERE id = 'p'", BEFORE);
    assert_eq!(reason.await, "table `plans` cannot be written");
}
