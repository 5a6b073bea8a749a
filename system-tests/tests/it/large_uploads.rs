//! What a device wrote offline in one transaction arrives, however large, or says why it cannot.

use syncline_core::{LocalTransaction, Uploaded};
use syncline_source_postgres::{PostgresBackend, WriteRule};
use syncline_storage_sqlite::{Schema, Table};
use syncline_transport_http::Upload;
use syncline_transport_http::axum::routing::post;
use syncline_transport_http::axum::{Json, Router};
use system_tests::{Device, Server};

const TABLE: &str = "CREATE TABLE notes (id text PRIMARY KEY, owner_id text NOT NULL, body text)";
const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE owner_id = auth.user_id()
";
const ROWS: usize = 10_000;
/// 10 MB in one transaction.
const IMPORT: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
    INSERT INTO notes (id, owner_id, body) SELECT 'n' || i, 'anna', hex(zeroblob(512)) || i FROM n";
const ONE: &str = "INSERT INTO notes (id, owner_id, body) VALUES ('one', 'anna', 'short')";

fn schema() -> Schema {
    Schema::new().table(Table::new("notes").text("owner_id").text("body"))
}

fn rules(backend: PostgresBackend) -> PostgresBackend {
    backend.table("notes", WriteRule::owner("owner_id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_one_local_transaction_arrive_and_reach_another_device() {
    let server = Server::start(TABLE, CONFIG, rules).await;
    let mut phone = Device::offline(&server, "anna", schema()).await;
    phone.write(IMPORT).await;
    phone.write(ONE).await;
    phone.connect();
    phone.caught_up().await;
    let sums = "SELECT count(*) || ' ' || sum(length(body)) FROM notes";
    let here = phone.text(sums).await;
    assert!(here.starts_with(&(ROWS + 1).to_string()), "{here}");
    assert_eq!(server.text(sums).await, here);
    assert!(phone.db.rejected().await.unwrap().is_empty());
    let tablet = Device::online(&server, "anna", schema()).await;
    tablet.until(sums, &here).await;
}

/// Backends that are not ours to fix: one that limits bodies as axum does by itself, one with a limit of its own.
fn other_backends() -> Router {
    let plain = |Json(_): Json<LocalTransaction>| async { Json(Uploaded::Applied) };
    let limited = |Upload(_): Upload<100_000>| async { Json(Uploaded::Applied) };
    Router::new().route("/plain", post(plain)).route("/limited", post(limited))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_takes_no_large_body_is_named_and_nothing_is_lost() {
    let server = Server::start_with(TABLE, CONFIG, rules, other_backends()).await;
    let mut phone = Device::offline(&server, "anna", schema()).await;
    phone.write(IMPORT).await;
    phone.upload_to(format!("{}/plain", server.endpoint));
    phone.connect();
    let message = phone.until_upload_error().await;
    for part in ["upload of 1", "bytes", "raise the limit", "Upload"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(phone.db.queue(10).await.unwrap().len(), 1, "it stays in the queue");
    phone.upload_to(format!("{}/api/upload", server.endpoint));
    phone.caught_up().await;
    assert_eq!(server.text("SELECT count(*)::text FROM notes").await, ROWS.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_of_the_endpoint_a_transaction_is_rejected_and_the_next_goes_through() {
    let server = Server::start_with(TABLE, CONFIG, rules, other_backends()).await;
    let mut phone = Device::offline(&server, "anna", schema()).await;
    phone.upload_to(format!("{}/limited", server.endpoint));
    phone.write(IMPORT).await;
    phone.connect();
    let rejected = phone.until_rejected().await;
    assert!(rejected.contains("100000 bytes") && rejected.contains("several transactions"), "{rejected}");
    phone.upload_to(format!("{}/api/upload", server.endpoint));
    phone.write(ONE).await;
    phone.caught_up().await;
    assert_eq!(phone.text("SELECT group_concat(id) FROM notes").await, "one", "the rejected one is rolled back");
    assert_eq!(server.text("SELECT string_agg(id, ',') FROM notes").await, "one");
}
