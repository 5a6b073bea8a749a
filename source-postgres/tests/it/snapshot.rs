//! The first copy of the tables.

use std::time::Duration;

use syncline_core::SourceEvent;

use crate::bench_database::{Database, columns, tables};
use crate::replica::Replica;

const LISTS: &str = "CREATE TABLE lists (id text PRIMARY KEY, name text, n int);
    INSERT INTO lists SELECT 'id' || i, 'list ' || i, i FROM generate_series(1, 25000) i;";

#[tokio::test]
async fn a_snapshot_and_the_stream_make_an_equal_copy_under_writes() {
    let database = Database::new(LISTS).await;
    let writer = database.connect().await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            number += 1;
            writer
                .batch_execute(&format!(
                    "BEGIN; UPDATE lists SET name = 'changed {number}' WHERE n % 1000 = {number} % 1000;
                     DELETE FROM lists WHERE n = {number} * 7; INSERT INTO lists VALUES ('new{number}', NULL, -{number});
                     UPDATE lists SET id = 'moved{number}' WHERE n = {number} * 11 + 1; COMMIT"
                ))
                .await
                .unwrap();
        }
        number
    });
    let mut replica = Replica::new(database.source(), tables(&["lists"]));
    replica.run().await;
    stop.send(()).unwrap();
    assert!(writing.await.unwrap() > 0);
    replica.catch_up().await;
    replica.assert_equal(&database, "lists").await;
    assert!(replica.snapshot_rows >= 20_000);
}

#[tokio::test]
async fn an_interrupted_snapshot_goes_on_where_it_was() {
    let sql = format!(
        "{LISTS} CREATE TABLE other (id uuid PRIMARY KEY, v bigint);
        INSERT INTO other SELECT gen_random_uuid(), i FROM generate_series(1, 30000) i;"
    );
    let database = Database::new(&sql).await;
    let mut replica = Replica::new(database.source(), tables(&["lists", "other"]));
    for round in 1..=3 {
        replica.start().await.unwrap();
        let wanted = round * 11_000;
        replica.until("some rows are read", |replica| replica.snapshot_rows >= wanted).await;
        replica.crash();
        // Behind the cursor, before it and across it.
        database
            .execute(&format!(
                "UPDATE lists SET name = 'round {round}' WHERE n % 5 = {round}; DELETE FROM lists WHERE n % 97 = {round};
                 INSERT INTO lists VALUES ('a{round}', 'first', 0), ('z{round}', 'last', 0);
                 UPDATE lists SET id = 'zz' || id WHERE n % 89 = {round}; UPDATE other SET v = -v WHERE v % 3 = {round} % 3"
            ))
            .await;
    }
    replica.run().await;
    replica.assert_equal(&database, "lists").await;
    replica.assert_equal(&database, "other").await;
    assert!(replica.snapshot_rows < 110_000, "{} rows were read for 55000", replica.snapshot_rows);
    assert_eq!(replica.resets, 0);
}

#[tokio::test]
async fn a_table_without_an_order_is_read_in_one_go_and_again_after_a_crash() {
    let database = Database::new(
        "CREATE TABLE t (id numeric PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 40000) i;",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.start().await.unwrap();
    replica.until("some rows are read", |replica| replica.snapshot_rows >= 25_000).await;
    replica.crash();
    database.execute("DELETE FROM t WHERE id < 100").await;
    replica.run().await;
    assert_eq!(replica.resets, 1);
    assert_eq!(replica.rows("t").len(), 39_901);
}

fn is_done(event: &SourceEvent) -> bool {
    matches!(event, SourceEvent::SnapshotDone { .. })
}

#[tokio::test]
async fn a_crash_between_the_last_row_and_the_end_of_a_reading_is_made_good() {
    // So many rows that the last chunk is large enough to be told.
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 25000) i;",
    )
    .await;
    let source = database.source().poll_interval(Duration::from_millis(100));
    let mut replica = Replica::new(source, tables(&["t"]));
    replica.start().await.unwrap();
    replica.crash_before(is_done).await;
    assert_eq!(replica.rows("t").len(), 25_000);
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    assert_eq!(replica.snapshot_rows, 25_000, "nothing was read twice");

    // While the stream runs: a row is there that the stream has not passed yet.
    database.execute("ALTER TABLE t ADD c int DEFAULT 7").await;
    replica.crash_before(is_done).await;
    assert!(!replica.may_publish());
    database.execute("DELETE FROM t WHERE id < 100").await;
    replica.start().await.unwrap();
    assert!(!replica.may_publish());
    replica.catch_up().await;
    replica.assert_equal(&database, "t").await;
    assert_eq!(replica.resets, 1);
    // Before the table is emptied, too.
    database.execute("ALTER TABLE t ADD d int DEFAULT 8").await;
    replica.crash_before(|event| matches!(event, SourceEvent::TableReset { .. })).await;
    assert!(!replica.may_publish());
    replica.run().await;
    replica.until_equal(&database, "t").await;
}

#[tokio::test]
async fn a_selection_that_matches_nothing_yet_is_complete() {
    let database = Database::new(
        "CREATE TABLE p (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r); CREATE TABLE other (id int PRIMARY KEY)",
    )
    .await;
    for names in [&["nothing_%"][..], &["p"]] {
        let source =
            database.source().slot(format!("{}_{}", database.source().slot_name(), names.len() + names[0].len()));
        let mut replica = Replica::new(source, tables(names));
        replica.run().await;
        assert!(replica.may_publish());
        // Its state is known after a restart.
        replica.crash();
        replica.run().await;
        assert_eq!(replica.lost, None);
    }
    database.execute("CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); INSERT INTO p VALUES (1, 'a')").await;
    let mut replica = Replica::new(database.source(), tables(&["p"]));
    replica.run().await;
    replica.assert_equal(&database, "p").await;
}

#[tokio::test]
async fn composite_keys_and_odd_names() {
    let database = Database::new(
        r#"CREATE TABLE "Tab""le ü" ("select" int, "B b" text, "ünï" text, PRIMARY KEY ("B b", "select"));
           INSERT INTO "Tab""le ü" SELECT i % 10, 'k''\ ' || i / 10, 'v' || i FROM generate_series(0, 19999) i;"#,
    )
    .await;
    let name = "Tab\"le ü";
    let mut replica = Replica::new(database.source(), tables(&[name]));
    replica.run().await;
    replica.assert_equal(&database, name).await;
    database
        .execute(
            r#"UPDATE "Tab""le ü" SET "select" = 100 WHERE "ünï" = 'v7'; DELETE FROM "Tab""le ü" WHERE "select" = 3;
               UPDATE "Tab""le ü" SET "ünï" = NULL WHERE "select" = 4"#,
        )
        .await;
    replica.catch_up().await;
    replica.assert_equal(&database, name).await;
}

#[tokio::test]
async fn only_columns_that_are_read_are_sent() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, g int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO t VALUES (1, 'a', 'b');",
    )
    .await;
    let mut replica = Replica::new(database.source(), columns("t", &["b"]));
    replica.run().await;
    database.execute("INSERT INTO t VALUES (2, 'a', 'c')").await;
    replica.catch_up().await;
    let rows = replica.rows("t");
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.keys().eq(["b"])), "{rows:?}");
}

#[tokio::test]
async fn three_hundred_tables() {
    let mut sql = String::new();
    for table in 0..300 {
        sql.push_str(&format!(
            "CREATE TABLE t{table} (id int PRIMARY KEY, v text); INSERT INTO t{table} VALUES (1, 'x'), (2, 'y');"
        ));
    }
    let database = Database::new(&sql).await;
    let mut replica = Replica::new(database.source(), tables(&["t%"]));
    let began = std::time::Instant::now();
    replica.run().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    database.execute("UPDATE t299 SET v = 'z'; DELETE FROM t0 WHERE id = 1").await;
    replica.catch_up().await;
    for table in ["t0", "t150", "t299"] {
        replica.assert_equal(&database, table).await;
    }
}

#[tokio::test]
async fn limits_that_a_host_sets_for_statements_do_not_end_a_reading() {
    let database = Database::new(LISTS).await;
    let name = database.value("SELECT current_database()").await.unwrap();
    database.execute(&format!("ALTER DATABASE {name} SET statement_timeout = '1ms'")).await;
    // Since 17 there is one for transactions.
    if database.value("SELECT current_setting('transaction_timeout', true)").await.is_some() {
        database.execute(&format!("ALTER DATABASE {name} SET transaction_timeout = '1ms'")).await;
    }
    let mut replica = Replica::new(database.source(), tables(&["lists"]));
    replica.run().await;
    replica.assert_equal(&database, "lists").await;
}

#[tokio::test]
async fn a_transaction_that_runs_while_the_slot_is_made_is_not_missed() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let writer = database.connect().await;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let commit = async {
        // The slot waits for the transaction; it ends only when the wait has been seen.
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted";
        database.wait_for(waiting, "1").await;
        writer.batch_execute("COMMIT").await.unwrap();
    };
    let (started, ()) = tokio::join!(replica.start(), commit);
    started.unwrap();
    replica.catch_up().await;
    replica.assert_equal(&database, "t").await;
}

#[tokio::test]
async fn a_table_in_another_schema() {
    let database = Database::new(
        r#"CREATE SCHEMA "My.Schema"; CREATE TABLE "My.Schema"."t.x" (id int PRIMARY KEY, v text);
           INSERT INTO "My.Schema"."t.x" VALUES (1, 'a'); CREATE TABLE "t.x" (id int PRIMARY KEY); INSERT INTO "t.x" VALUES (7);"#,
    )
    .await;
    let mut selection = tables(&["t.x"]);
    selection.patterns[0].schema = Some("My.Schema".into());
    let mut replica = Replica::new(database.source(), selection);
    replica.run().await;
    database.execute(r#"INSERT INTO "My.Schema"."t.x" VALUES (2, 'b'); INSERT INTO "t.x" VALUES (8)"#).await;
    replica.catch_up().await;
    let mut texts: Vec<_> = replica.rows("t.x").iter().map(|row| format!("{:?}", row["v"])).collect();
    texts.sort();
    assert_eq!(texts, [r#"Text("a")"#, r#"Text("b")"#]);
}
