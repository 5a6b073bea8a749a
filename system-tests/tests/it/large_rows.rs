//! A row of 20 MB, down in each format and by each transport, and up.

use syncline_source_postgres::WriteRule;
use syncline_storage_sqlite::{Schema, Table};
use syncline_transport_http::HttpTransport;
use syncline_transport_ws::WebSocketTransport;
use system_tests::{Device, Server};

const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT * FROM documents WHERE owner_id = auth.user_id()
";
const TABLE: &str = "
    CREATE TABLE documents (id text PRIMARY KEY, owner_id text NOT NULL, body text);
    INSERT INTO documents VALUES ('before', 'anna', repeat('0123456789', 2000000));";
const SIZES: &str = "SELECT string_agg(id || ' ' || length(body), ', ' ORDER BY id) FROM documents";

fn schema() -> Schema {
    Schema::new().table(Table::new("documents").text("owner_id").text("body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_in_one_row_come_and_go() {
    let server = Server::start(TABLE, CONFIG, |backend| backend.table("documents", WriteRule::owner("owner_id"))).await;
    let bson = HttpTransport::new(&server.endpoint).unwrap();
    let ndjson = bson.clone().prefer_ndjson();
    // No frame of RSocket is so large: such a line comes in fragments.
    let websocket = WebSocketTransport::new(&server.endpoint, bson.clone()).unwrap();
    let mut devices = [
        Device::over(bson, &server, "anna", schema()).await,
        Device::over(ndjson, &server, "anna", schema()).await,
        Device::over(websocket, &server, "anna", schema()).await,
    ];
    for device in &mut devices {
        device.connect();
    }
    // Read by the snapshot, then by the stream, beside a small row that it must not hold up.
    let mut expected = "before 20000000".to_owned();
    for device in &devices {
        device.until(SIZES, &expected).await;
    }
    server.execute("INSERT INTO documents VALUES ('live', 'anna', repeat('9876543210', 2000000))").await;
    server.execute("INSERT INTO documents VALUES ('small', 'anna', 'x')").await;
    // An update that does not touch the text does not bring it again from Postgres.
    server.execute("UPDATE documents SET id = 'after' WHERE id = 'before'").await;
    expected = "after 20000000, live 20000000, small 1".into();
    for device in &devices {
        device.until(SIZES, &expected).await;
        assert_eq!(device.text("SELECT substr(body, -10) FROM documents WHERE id = 'live'").await, "9876543210");
    }
    // Written on a device, of characters that JSON writes longer than they are.
    devices[0]
        .write(
            "INSERT INTO documents (id, owner_id, body)
             VALUES ('up', 'anna', replace(hex(zeroblob(5000000)), '00', 'é\"'))",
        )
        .await;
    devices[0].caught_up().await;
    expected.push_str(", up 10000000");
    assert_eq!(server.text(SIZES).await, expected);
    assert_eq!(server.text("SELECT right(body, 4) FROM documents WHERE id = 'up'").await, "é\"é\"");
    for device in &devices {
        device.until(SIZES, &expected).await;
    }
    // The write checkpoint that it asks for by HTTP comes back over WebSocket.
    devices[2].write("DELETE FROM documents WHERE id = 'small'").await;
    devices[2].caught_up().await;
    expected = expected.replace("small 1, ", "");
    for device in &devices {
        device.until(SIZES, &expected).await;
    }
    // JSON in JSON writes each of these four times as long.
    server.execute("INSERT INTO documents VALUES ('worst', 'anna', repeat('\"', 17000000))").await;
    expected.push_str(", worst 17000000");
    for device in &devices {
        device.until(SIZES, &expected).await;
    }
    assert!(!server.has_stopped());
}
