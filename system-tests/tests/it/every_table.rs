//! Every table of a large database, by one line of config.

use std::time::{Duration, Instant};

use syncline_storage_sqlite::{Schema, Table};
use system_tests::{Device, Server};

const TABLES: usize = 300;
const CONFIG: &str = "
config: { edition: 3 }
streams:
  everything:
    auto_subscribe: true
    query: SELECT * FROM \"%\"
";

/// Tables `t000` to `t299`, of a different shape and with different rows each.
fn tables() -> String {
    let mut sql = String::new();
    for number in 0..TABLES {
        let extra = match number % 3 {
            0 => ", n integer",
            1 => ", at timestamptz, flag boolean",
            _ => "",
        };
        sql += &format!("CREATE TABLE t{number:03} (id text PRIMARY KEY, label text{extra});");
        let (columns, values) = match number % 3 {
            0 => (", n", ", i * 7"),
            1 => (", at, flag", ", '2024-01-02 03:04:05Z'::timestamptz + i * interval '1 hour', i % 2 = 0"),
            _ => ("", ""),
        };
        let rows = 1 + number % 17;
        sql += &format!(
            "INSERT INTO t{number:03} (id, label{columns})
             SELECT 'r' || i, 'table {number} row ' || i{values} FROM generate_series(1, {rows}) AS i;"
        );
    }
    sql
}

fn schema() -> Schema {
    let table = |number: usize| {
        let table = Table::new(format!("t{number:03}")).text("label");
        match number % 3 {
            0 => table.integer("n"),
            1 => table.text("at").integer("flag"),
            _ => table,
        }
    };
    // Two that come later, which an app may declare before they exist.
    let later = ["new_table", "renamed"].map(|name| Table::new(name).text("label"));
    (0..TABLES).map(table).chain(later).fold(Schema::new(), Schema::table)
}

/// What a table holds, as one text that both databases write alike.
fn contents(number: usize, postgres: bool) -> String {
    let columns = match number % 3 {
        0 => "n",
        1 if postgres => "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || '/' || flag::int",
        1 => "at || '/' || flag",
        _ => "''",
    };
    let aggregate = if postgres { "string_agg(x, ';' ORDER BY x)" } else { "group_concat(x, ';')" };
    let order = if postgres { "" } else { " ORDER BY x" };
    format!(
        "SELECT coalesce({aggregate}, '') FROM
         (SELECT id || '/' || coalesce(label, 'NULL') || '/' || {columns} AS x FROM t{number:03}{order}) AS rows"
    )
}

async fn assert_same(server: &Server, device: &Device) {
    for number in 0..TABLES {
        let there = server.text(&contents(number, true)).await;
        assert_eq!(device.text(&contents(number, false)).await, there, "table {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_tables_sync_by_one_line_and_stay_in_sync() {
    let server = Server::start(&tables(), CONFIG, |backend| backend).await;
    let began = Instant::now();
    let device = Device::online(&server, "anna", schema()).await;
    let total: usize = (0..TABLES).map(|number| 1 + number % 17).sum();
    let count = (0..TABLES).map(|number| format!("(SELECT count(*) FROM t{number:03})")).collect::<Vec<_>>();
    device.until(&format!("SELECT CAST({} AS text)", count.join(" + ")), &total.to_string()).await;
    let took = began.elapsed();
    assert_same(&server, &device).await;
    println!("{TABLES} tables with {total} rows were there after {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");

    // Live changes, in some of them, within one transaction.
    server
        .execute(
            "BEGIN;
             INSERT INTO t000 VALUES ('new', 'live', 5);
             UPDATE t150 SET label = 'changed' WHERE id = 'r1';
             DELETE FROM t298 WHERE id = 'r1';
             TRUNCATE t001;
             INSERT INTO t299 VALUES ('last', NULL);
             COMMIT",
        )
        .await;
    device.until("SELECT CAST(count(*) AS text) FROM t299 WHERE id = 'last'", "1").await;
    assert_same(&server, &device).await;

    // A table that is made later, and one that gets another name.
    server.execute("CREATE TABLE new_table (id text PRIMARY KEY, label text)").await;
    server.execute("INSERT INTO new_table VALUES ('n1', 'made later')").await;
    device.until("SELECT group_concat(label) FROM new_table", "made later").await;
    let rows = server.text("SELECT count(*)::text FROM t002").await;
    server.execute("ALTER TABLE t002 RENAME TO renamed").await;
    server.execute("UPDATE renamed SET label = label || '!'").await;
    device.until("SELECT CAST(count(*) AS text) FROM renamed WHERE label LIKE '%!'", &rows).await;
    device.until("SELECT CAST(count(*) AS text) FROM t002", "0").await;
    assert!(!server.has_stopped());
}
