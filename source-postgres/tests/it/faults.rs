//! What goes wrong between us and a server.

use std::time::{Duration, Instant};

use postgres_fixture::{Cluster, ClusterOptions};
use syncline_core::{ErrorKind, RowKey, Source, SourceTable, TableId};

use crate::bench_database::{Database, LIMIT, tables};
use crate::replica::Replica;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i;";

async fn own(options: ClusterOptions) -> (Cluster, Database) {
    let cluster = options.start().await.unwrap();
    let url = cluster.fresh_database().await.unwrap();
    let database = Database::at(url, TABLE).await;
    (cluster, database)
}

async fn holders(database: &Database) -> Option<String> {
    database.value("SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()").await
}

#[tokio::test]
async fn a_terminated_walsender_is_replaced() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    for round in 0..3 {
        database
            .execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()",
            )
            .await;
        let error = replica.until_error().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        database.execute(&format!("INSERT INTO t VALUES (1000 + {round})")).await;
        replica.recover().await;
        replica.assert_equal(&database, "t").await;
    }
    assert_eq!(replica.resets, 0);
}

#[tokio::test]
async fn a_crash_and_a_restart_of_the_server_lose_nothing() {
    let (cluster, database) = own(ClusterOptions::new()).await;
    let url = database.url.clone();
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    for round in 0..2 {
        cluster.connect(&url).await.unwrap().execute("UPDATE t SET v = $1", &[&format!("{round}")]).await.unwrap();
        if round == 0 {
            cluster.crash().unwrap();
            cluster.start_again().await.unwrap();
        } else {
            // An orderly shutdown waits until all that was sent is confirmed.
            replica.catch_up().await;
            let began = Instant::now();
            let restart = cluster.restart();
            let pump = async {
                let error = replica.until_error().await;
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            };
            let (restarted, ()) = tokio::join!(restart, pump);
            restarted.unwrap();
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        }
        replica.recover().await;
    }
    // The bench's own connection died with the server.
    let database = Database { client: cluster.connect(&url).await.unwrap(), url };
    replica.assert_equal(&database, "t").await;
    assert_eq!((replica.resets, replica.lost), (0, None));
}

#[tokio::test]
async fn a_slot_that_a_hung_process_of_ours_holds_is_taken_over_within_two_seconds() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.hang();
    database.execute("INSERT INTO t VALUES (1000)").await;
    assert_eq!(holders(&database).await.as_deref(), Some("1"));
    // Another process: it shares nothing with the first but the store.
    replica.source = database.source();
    let began = Instant::now();
    replica.run().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    replica.assert_equal(&database, "t").await;
}

#[tokio::test]
async fn a_slot_that_another_store_uses_is_left_alone() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    let mut other = Replica::new(database.source(), tables(&["t"]));
    let error = other.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("in use by process"), "{error}");
    database.execute("INSERT INTO t VALUES (1000)").await;
    replica.catch_up().await;
    replica.assert_equal(&database, "t").await;
    // Not running is not the same as gone.
    replica.crash();
    let slot = replica.source.slot_name();
    database.wait_for(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'"), "f").await;
    let error = other.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(&format!("SELECT pg_drop_replication_slot('{slot}');")), "{error}");
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    // With a name of its own it goes on.
    let mut other = Replica::new(database.source().slot("other"), tables(&["t"]));
    other.run().await;
    other.assert_equal(&database, "t").await;
}

#[tokio::test]
async fn a_slot_that_was_made_before_a_crash_is_made_again_by_the_store_that_named_it() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let slot = replica.source.slot_name();
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    replica.open().await.unwrap();
    replica.step().await.unwrap();
    assert_eq!(database.value(&slots).await.as_deref(), Some("0"), "the name comes first");
    // The second opening makes the slot; what it tells is not stored.
    replica.open().await.unwrap();
    assert_eq!(database.value(&slots).await.as_deref(), Some("1"));
    replica.crash();
    database.execute("DELETE FROM t WHERE id < 50").await;
    // Another process.
    replica.source = database.source();
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    assert_eq!((database.value(&slots).await.as_deref(), replica.lost.as_deref()), (Some("1"), None));
}

#[tokio::test]
async fn a_store_that_starts_over_has_no_slot_when_it_forgets_its_own() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.crash();
    replica.source = database.source().slot("renamed");
    replica.open().await.unwrap();
    replica.until("the history is lost", |replica| replica.lost.is_some()).await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(database.value(slots).await.as_deref(), Some("0"));
    // Killed before it forgot: the loss is found again.
    replica.lost = None;
    replica.open().await.unwrap();
    replica.until("the history is lost", |replica| replica.lost.is_some()).await;
    replica.start_over();
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    assert_eq!(database.value(slots).await.as_deref(), Some("1"));
}

/// Starts and expects that the history is lost, then starts over.
async fn start_over(replica: &mut Replica, database: &Database, reason: &str) {
    replica.crash();
    replica.start().await.unwrap();
    replica.until("the history is lost", |replica| replica.lost.is_some()).await;
    let told = replica.lost.clone().unwrap();
    assert!(told.contains(reason), "{told}");
    replica.start_over();
    replica.run().await;
    replica.assert_equal(database, "t").await;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(database.value(slots).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_slot_that_was_dropped_or_moved_on_is_lost_history() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let slot = replica.source.slot_name();
    replica.run().await;

    replica.crash();
    let idle = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    database.wait_for(&idle, "f").await;
    database.execute(&format!("SELECT pg_drop_replication_slot('{slot}'); DELETE FROM t WHERE id < 50")).await;
    start_over(&mut replica, &database, "is gone").await;

    replica.crash();
    database.wait_for(&idle, "f").await;
    // In a statement of its own, so that it is committed before the slot moves.
    database.execute("DELETE FROM t WHERE id < 60").await;
    database.execute(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())")).await;
    start_over(&mut replica, &database, "stands at").await;
}

#[tokio::test]
async fn a_state_of_another_version_is_lost_history_and_the_slot_is_made_again() {
    let database = Database::new(TABLE).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.crash();
    replica.age_state();
    // Another process.
    replica.source = database.source();
    start_over(&mut replica, &database, "another version").await;
}

#[tokio::test]
async fn a_slot_that_was_moved_on_while_the_tables_were_read_is_lost_history() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100000) i;",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let slot = replica.source.slot_name();
    replica.start().await.unwrap();
    // Far from done: no more than a few batches are read ahead.
    replica.until("some rows are read", |replica| replica.snapshot_rows >= 10_000).await;
    database.execute("DELETE FROM t WHERE id < 50").await;
    database.execute(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())")).await;
    replica.until("the history is lost", |replica| replica.lost.is_some()).await;
    replica.start_over();
    replica.run().await;
    replica.assert_equal(&database, "t").await;
}

#[tokio::test]
async fn a_publication_that_was_made_again_is_lost_history() {
    let database = Database::new(TABLE).await;
    let source = database.source().poll_interval(Duration::from_millis(100));
    let mut replica = Replica::new(source, tables(&["t"]));
    replica.run().await;

    replica.crash();
    database.execute("DROP PUBLICATION syncline; DELETE FROM t WHERE id < 10").await;
    let error = replica.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it is waited for");
    assert!(error.to_string().contains("CREATE PUBLICATION \"syncline\" FOR TABLE \"public\".\"t\";"), "{error}");
    database.execute("CREATE PUBLICATION syncline FOR ALL TABLES").await;
    start_over(&mut replica, &database, "made again").await;

    // While streaming: the error says what to do, and nothing is thrown away before it is done.
    database.execute("DROP PUBLICATION syncline; INSERT INTO t VALUES (5000)").await;
    let error = replica.until_error().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(replica.lost, None, "{error}");
    assert!(!replica.rows("t").is_empty(), "{error}");
    database.execute("CREATE PUBLICATION syncline FOR ALL TABLES").await;
    start_over(&mut replica, &database, "made again").await;
}

#[tokio::test]
async fn a_slot_that_the_server_gave_up_is_lost_history() {
    let options = ClusterOptions::new()
        .setting("max_slot_wal_keep_size", "16MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let (_cluster, database) = own(options).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.crash();
    let slot = replica.source.slot_name();
    lose(&database, &slot).await;
    database.execute("DELETE FROM t WHERE id < 10").await;
    start_over(&mut replica, &database, "max_slot_wal_keep_size").await;
}

#[tokio::test]
async fn a_slot_that_is_lost_during_the_first_reading_needs_a_person() {
    let options = ClusterOptions::new()
        .setting("max_slot_wal_keep_size", "16MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let (_cluster, database) = own(options).await;
    database.execute("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1000, 60000) i").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.start().await.unwrap();
    replica.until("some rows are read", |replica| replica.snapshot_rows > 20_000).await;
    replica.crash();
    let slot = replica.source.slot_name();
    lose(&database, &slot).await;
    let error = replica.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("for the first time"), "{error}");
    database.execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    start_over(&mut replica, &database, "is gone").await;
}

/// Writes until the server gives the slot up.
async fn lose(database: &Database, slot: &str) {
    let status = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'");
    for _ in 0..20 {
        database.execute("CREATE TABLE w AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)").await;
        database.execute("DROP TABLE w; SELECT pg_switch_wal(); CHECKPOINT").await;
        if database.value(&status).await.as_deref() == Some("lost") {
            break;
        }
    }
    database.wait_for(&status, "lost").await;
}

#[tokio::test]
async fn another_cluster_is_lost_history() {
    let (_one, first) = own(ClusterOptions::new()).await;
    let (_other, second) = own(ClusterOptions::new().own_identity(true)).await;
    let mut replica = Replica::new(first.source(), tables(&["t"]));
    replica.run().await;
    replica.crash();
    replica.source = second.source();
    second.execute("DELETE FROM t WHERE id < 10").await;
    start_over(&mut replica, &second, "another cluster").await;
}

// In threads, since copying the replica at a commit takes longer than the server's patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_not_disconnected_and_confirms_nothing() {
    let (cluster, database) = own(ClusterOptions::new().setting("wal_sender_timeout", "2s")).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    let slot = replica.source.slot_name();
    let confirmed = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
    database.execute("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1000, 250000) i").await;
    replica.step().await.unwrap();
    let durable = replica.position().cloned();
    // Answered beyond twice the server's patience, with far more on the way than the queue takes.
    let since = database.value("SELECT clock_timestamp() + interval '4 s'").await.unwrap();
    let answered = format!("SELECT count(*) FROM pg_stat_replication WHERE reply_time > '{since}'");
    database.wait_for(&answered, "1").await;
    let confirmed: syncline_source_postgres::Lsn = database.value(&confirmed).await.unwrap().parse().unwrap();
    assert!(Some(confirmed.position()) <= durable);
    assert_eq!(holders(&database).await.as_deref(), Some("1"));
    replica.catch_up().await;
    assert_eq!(replica.rows("t").len(), 249_101);
    let log = cluster.log().unwrap();
    assert!(!log.contains("terminating walsender"), "{log}");
}

#[tokio::test]
async fn an_address_where_nobody_listens_may_come_back() {
    let source = syncline_source_postgres::PostgresSource::new("postgres://u@127.0.0.1:1/db").unwrap();
    let mut replica = Replica::new(source.clone(), tables(&["t"]));
    assert_eq!(replica.start().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let token = syncline_core::MarkerToken("x".into());
    assert_eq!(source.emit_marker(&token).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// From now on no commit is acknowledged but those of this client, which do not wait.
async fn lose_the_standby(database: &Database) {
    database.execute("SET synchronous_commit = local").await;
    database.execute("ALTER SYSTEM SET synchronous_standby_names = 'nosuch'").await;
    database.execute("SELECT pg_reload_conf()").await;
    // The checkpointer makes it true for commits, at its own time.
    let probe = database.connect().await;
    let pid: i32 = probe.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "commits are not held back");
        let commit = probe.batch_execute("SELECT pg_logical_emit_message(true, 'probe', '')");
        tokio::pin!(commit);
        tokio::select! {
            result = &mut commit => result.unwrap(),
            () = database.wait_for(&waits, "1") => {
                // It gives up waiting, and is as if it had been acknowledged.
                database.execute(&format!("SELECT pg_cancel_backend({pid})")).await;
                commit.await.unwrap();
                return;
            }
        }
    }
}

async fn give_up_the_standby(database: &Database) {
    database.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    database.execute("SELECT pg_reload_conf()").await;
}

/// A commit is in the log and waits for the standby.
async fn wait_for_a_held_commit(database: &Database) {
    database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1").await;
}

#[tokio::test]
async fn a_standby_that_is_missing_holds_back_neither_a_start_nor_a_marker() {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    lose_the_standby(&database).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    database.execute("INSERT INTO t VALUES (1000)").await;
    replica.catch_up().await;
    replica.crash();
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(database.value(held).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_row_that_an_earlier_stream_sent_is_not_read_before_it_is_visible() {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    lose_the_standby(&database).await;
    let writer = database.connect().await;
    let write = async { writer.batch_execute("UPDATE t SET v = 'new' WHERE id = 1").await.unwrap() };
    let watch = async {
        wait_for_a_held_commit(&database).await;
        let new = Some(&syncline_core::Value::from("new"));
        replica.until("it comes", |replica| replica.rows("t").iter().any(|row| row.get("v") == new)).await;
        replica.crash();
        replica.source = database.source();
        replica.start().await.unwrap();
        let id = TableId(database.value("SELECT 't'::regclass::oid").await.unwrap().parse().unwrap());
        let table = SourceTable { id, schema: "public".into(), name: "t".into(), columns: Vec::new() };
        let keys = [RowKey { table: id, key: "1".into() }];
        let early = tokio::time::timeout(Duration::from_millis(500), replica.source.reread(&table, &keys));
        assert!(early.await.is_err(), "the row was read while it was still the old one");
        give_up_the_standby(&database).await;
    };
    tokio::join!(write, watch);
}

#[tokio::test]
async fn the_first_rows_of_a_new_partition_come_with_their_transaction() {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    database
        .execute(
            "CREATE TABLE p (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
             CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); INSERT INTO p VALUES (1, 'a')",
        )
        .await;
    let mut replica = Replica::new(database.source(), tables(&["p"]));
    replica.run().await;
    lose_the_standby(&database).await;
    let writer = database.connect().await;
    let sql = "CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b'); INSERT INTO p VALUES (2, 'b')";
    let write = async { writer.batch_execute(sql).await.unwrap() };
    let watch = async {
        wait_for_a_held_commit(&database).await;
        // It is in the stream, but the catalog does not show the partition yet.
        let reading = tokio::time::timeout(Duration::from_millis(500), async {
            loop {
                replica.step().await.unwrap();
            }
        });
        let outcome: Result<(), _> = reading.await;
        assert!(outcome.is_err());
        give_up_the_standby(&database).await;
    };
    tokio::join!(write, watch);
    replica.catch_up().await;
    replica.assert_equal(&database, "p").await;
}

#[tokio::test]
async fn reading_waits_for_a_commit_that_a_standby_holds_back() {
    held_back("", 1).await;
}

#[tokio::test]
async fn reading_waits_for_a_commit_of_which_only_a_part_has_come() {
    held_back("INSERT INTO t SELECT i, 'x' FROM generate_series(10000, 20000) i", 10_002).await;
}

async fn held_back(more: &str, rows: usize) {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    database.execute("ALTER TABLE t ALTER v SET STORAGE EXTERNAL").await;
    database.execute("UPDATE t SET v = repeat('x', 5000) WHERE id = 1").await;
    replica.catch_up().await;
    lose_the_standby(&database).await;
    replica.forget("t");

    // Its commit is in the stream, but no query sees it.
    let writer = database.connect().await;
    let sql = format!("UPDATE t SET id = 7000 WHERE id = 1; {more}");
    let write = async { writer.batch_execute(&sql).await.unwrap() };
    let watch = async {
        wait_for_a_held_commit(&database).await;
        let reading = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                replica.step().await.unwrap();
            }
        });
        let outcome: Result<(), _> = reading.await;
        assert!(outcome.is_err());
        assert_eq!(replica.rereads, 1, "the row is being read again, and waits");
        assert!(replica.rows("t").is_empty());
        give_up_the_standby(&database).await;
    };
    tokio::join!(write, watch);
    // The batch in which the read was interrupted is not durable: it comes again.
    replica.crash();
    replica.forget("t");
    replica.run().await;
    let found = replica.rows("t");
    let large = found.iter().filter(|row| row["v"].size() == 5000).count();
    assert_eq!((found.len(), large), (rows, 1));
}
