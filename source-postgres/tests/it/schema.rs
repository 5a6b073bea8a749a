//! Changes of tables, of which the log says little or nothing.

use std::time::Duration;

use crate::bench_database::{Database, columns, tables};
use crate::replica::Replica;

async fn replica(database: &Database, names: &[&str]) -> Replica {
    let source = database.source().poll_interval(Duration::from_millis(200));
    let mut replica = Replica::new(source, tables(names));
    replica.run().await;
    replica
}

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'a' || i FROM generate_series(1, 1000) i;";

#[tokio::test]
async fn a_column_that_was_added() {
    let database = Database::new(TABLE).await;
    let mut replica = replica(&database, &["t"]).await;
    // Empty: nothing is read again, whether the log or the catalog is faster.
    database.execute("ALTER TABLE t ADD n text; UPDATE t SET n = 'x' WHERE id = 5; INSERT INTO t VALUES (2000)").await;
    replica.catch_up().await;
    assert_eq!(replica.resets, 0);
    assert_eq!(replica.rows("t").iter().filter(|row| row.get("n").is_some_and(|n| !n.is_null())).count(), 1);
    // With a default, constant or not: existing rows get a value that the log does not tell.
    for (resets, sql) in
        [(1, "ALTER TABLE t ADD c int DEFAULT 7"), (2, "ALTER TABLE t ADD r text DEFAULT md5(random()::text)")]
    {
        database.execute(sql).await;
        replica.until_equal(&database, "t").await;
        replica.until("it was read again", |replica| replica.resets == resets).await;
    }
    database.execute("UPDATE t SET a = 'late' WHERE id = 9").await;
    replica.catch_up().await;
    replica.assert_equal(&database, "t").await;
    assert_eq!(replica.resets, 2);
}

#[tokio::test]
async fn columns_that_are_not_read_may_do_what_they_like() {
    let database = Database::new(TABLE).await;
    let source = database.source().poll_interval(Duration::from_millis(100));
    let mut replica = Replica::new(source, columns("t", &["id", "a"]));
    replica.run().await;
    database
        .execute(
            "ALTER TABLE t ADD c int DEFAULT 7; UPDATE t SET c = 8; ALTER TABLE t DROP c; ALTER TABLE t ADD c text",
        )
        .await;
    replica.catch_up().await;
    database.execute("VACUUM FULL t").await;
    database.execute("DELETE FROM t WHERE id > 10").await;
    // The catalog is looked at twice, so that what came of the first look is done.
    for _ in 0..2 {
        let since = database.value("SELECT clock_timestamp()").await.unwrap();
        let looked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncline' AND datname = current_database() \
                 AND query = 'ROLLBACK' AND query_start > '{since}'"
        );
        database.wait_for(&looked, "1").await;
    }
    replica.catch_up().await;
    assert_eq!((replica.resets, replica.rows("t").len()), (0, 10));
}

#[tokio::test]
async fn a_type_that_was_changed_and_a_column_that_was_renamed() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY, v int, w int); INSERT INTO t SELECT i, i, i FROM generate_series(1, 100) i").await;
    let mut replica = replica(&database, &["t"]).await;
    for sql in [
        "ALTER TABLE t ALTER v TYPE text USING 'v' || v",
        "ALTER TABLE t ALTER w TYPE int USING w + 1",
        "ALTER TABLE t RENAME w TO x",
        "BEGIN; ALTER TABLE t DROP v; ALTER TABLE t ADD v text DEFAULT 'new'; COMMIT",
        "BEGIN; ALTER TABLE t ADD z int; INSERT INTO t VALUES (500, 1, 'a', 9); ALTER TABLE t DROP z; INSERT INTO t VALUES (501); COMMIT",
    ] {
        database.execute(sql).await;
        database.execute("UPDATE t SET id = id WHERE id = 1").await;
        replica.until_equal(&database, "t").await;
    }
}

#[tokio::test]
async fn tables_that_come_go_and_change_their_names() {
    let database = Database::new(
        "CREATE TABLE test_a (id int PRIMARY KEY); INSERT INTO test_a VALUES (1);
        CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'x'), (2, 'y')",
    )
    .await;
    let mut replica = replica(&database, &["test_%"]).await;
    // Each once with a write and once without.
    for write in ["UPDATE {} SET v = v", "SELECT 1"] {
        let then = |table: &str| write.replace("{}", table);
        database.execute("ALTER TABLE other RENAME TO test_b").await;
        database.execute(&then("test_b")).await;
        replica.until_equal(&database, "test_b").await;
        database.execute("ALTER TABLE test_b RENAME TO test_c").await;
        database.execute(&then("test_c")).await;
        replica.until_equal(&database, "test_c").await;
        replica.eventually("the old name is empty", |replica| replica.rows("test_b").is_empty()).await;
        database.execute("ALTER TABLE test_c RENAME TO other").await;
        database.execute(&then("other")).await;
        replica.eventually("it is gone", |replica| replica.rows("test_c").is_empty()).await;
    }
    database.execute("CREATE TABLE test_new (id int PRIMARY KEY, v text); INSERT INTO test_new VALUES (1, 'a')").await;
    replica.until_equal(&database, "test_new").await;
    database
        .execute("BEGIN; CREATE TABLE test_big (id int PRIMARY KEY, v text); INSERT INTO test_big SELECT generate_series(1, 5000); COMMIT")
        .await;
    replica.until_equal(&database, "test_big").await;
    database.execute("DROP TABLE test_new").await;
    replica.eventually("it is gone", |replica| replica.rows("test_new").is_empty()).await;
    replica.assert_equal(&database, "test_a").await;
}

#[tokio::test]
async fn a_table_that_was_dropped_and_made_again() {
    let database =
        Database::new("CREATE TABLE t (id text PRIMARY KEY, d text); INSERT INTO t VALUES ('t1', 'a'), ('t2', 'b')")
            .await;
    let mut replica = replica(&database, &["t"]).await;
    replica.crash();
    database
        .execute(
            "UPDATE t SET d = 'backlog'; BEGIN; DROP TABLE t; CREATE TABLE t (id text PRIMARY KEY, d text);
             INSERT INTO t VALUES ('t3', 'c'); COMMIT; INSERT INTO t VALUES ('t4', 'd')",
        )
        .await;
    replica.run().await;
    replica.until_equal(&database, "t").await;
    assert_eq!(replica.rows("t").len(), 2);
}

#[tokio::test]
async fn a_backlog_from_before_a_change() {
    let database = Database::new(TABLE).await;
    let mut replica = replica(&database, &["t"]).await;
    replica.crash();
    database
        .execute(
            "UPDATE t SET a = 'before' WHERE id < 50; ALTER TABLE t ADD c int DEFAULT 7; DELETE FROM t WHERE id > 900",
        )
        .await;
    replica.run().await;
    replica.until_equal(&database, "t").await;
    // Killed between the rows of the old form and the reading that mends them.
    replica.crash();
    database.execute("UPDATE t SET a = 'again' WHERE id < 50; ALTER TABLE t ADD e int DEFAULT 8; UPDATE t SET a = 'x' WHERE id = 3").await;
    replica.start().await.unwrap();
    replica.step().await.unwrap();
    replica.crash();
    replica.run().await;
    replica.until_equal(&database, "t").await;
}

#[tokio::test]
async fn another_key() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY, k text NOT NULL); INSERT INTO t SELECT i, 'k' || i FROM generate_series(1, 100) i").await;
    let mut replica = replica(&database, &["t"]).await;
    database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (k)").await;
    database.execute("UPDATE t SET k = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2").await;
    replica.until_equal(&database, "t").await;
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL").await;
    database.execute("UPDATE t SET k = 'again' WHERE id = 1; DELETE FROM t WHERE id = 3").await;
    replica.catch_up().await;
    replica.until_equal(&database, "t").await;
}

#[tokio::test]
async fn a_publication_that_loses_and_regains_a_table() {
    let database = Database::new(TABLE).await;
    database.execute("CREATE PUBLICATION chosen FOR TABLE t").await;
    let source = database.source().publication("chosen").poll_interval(Duration::from_secs(600));
    let mut replica = Replica::new(source, tables(&["t"]));
    replica.run().await;
    replica.crash();
    database
        .execute(
            "ALTER PUBLICATION chosen DROP TABLE t; UPDATE t SET a = 'unseen' WHERE id = 1; DELETE FROM t WHERE id = 2;
             ALTER PUBLICATION chosen ADD TABLE t",
        )
        .await;
    replica.run().await;
    replica.until_equal(&database, "t").await;
    assert_eq!(replica.resets, 1);
}

#[tokio::test]
async fn rows_that_were_written_while_a_table_was_unlogged() {
    let database = Database::new(&format!(
        "{TABLE} CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n SELECT generate_series(1, 10)"
    ))
    .await;
    let unlog =
        |table: &str, write: &str| format!("ALTER TABLE {table} SET UNLOGGED; {write}; ALTER TABLE {table} SET LOGGED");
    // Between two looks.
    let source = database.source().poll_interval(Duration::from_secs(600));
    let mut replica = Replica::new(source, tables(&["t", "n"]));
    replica.run().await;
    replica.crash();
    database.execute(&unlog("t", "UPDATE t SET a = 'unseen' WHERE id = 1; DELETE FROM t WHERE id = 2")).await;
    database.execute(&unlog("n", "DELETE FROM n WHERE id = 3")).await;
    replica.run().await;
    replica.until_equal(&database, "t").await;
    replica.until_equal(&database, "n").await;
    assert_eq!(replica.resets, 2);
    // What only looks like it: the log tells of a truncation, and VACUUM FULL changes nothing.
    database.execute("TRUNCATE n; INSERT INTO n VALUES (1)").await;
    database.execute("VACUUM FULL t").await;
    replica.catch_up().await;
    replica.crash();
    replica.run().await;
    replica.assert_equal(&database, "n").await;
    assert_eq!(replica.resets, 2);

    // Seen so: replication waits until it is logged again, and does not forget it over a restart.
    replica.source = database.source().poll_interval(Duration::from_millis(100));
    replica.crash();
    replica.run().await;
    database.execute("ALTER TABLE t SET UNLOGGED; DELETE FROM t WHERE id = 3").await;
    assert!(replica.until_error().await.is_transient());
    assert!(!replica.may_publish());
    replica.crash();
    let error = replica.start().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("SET LOGGED"), "{error}");
    database.execute("ALTER TABLE t SET LOGGED").await;
    replica.recover().await;
    replica.until_equal(&database, "t").await;
    replica.crash();
    // Seen for the first time at a start.
    database.execute("ALTER TABLE t SET UNLOGGED; DELETE FROM t WHERE id = 4").await;
    replica.start().await.unwrap();
    assert!(replica.until_error().await.is_transient());
    assert!(!replica.may_publish());
    database.execute("ALTER TABLE t SET LOGGED").await;
    replica.recover().await;
    replica.until_equal(&database, "t").await;
}

#[tokio::test]
async fn a_partition_that_was_out_of_its_table_or_of_the_publication() {
    let database = Database::new(
        "CREATE TABLE p (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b');
         INSERT INTO p SELECT i, (ARRAY['a', 'b'])[i % 2 + 1], 'v' FROM generate_series(1, 100) i;
         CREATE PUBLICATION root FOR TABLE p; CREATE PUBLICATION leaves FOR TABLE p_a, p_b;",
    )
    .await;
    let source = |publication: &str| {
        let source =
            database.source().publication(publication).slot(format!("{}_{publication}", database.source().slot_name()));
        source.poll_interval(Duration::from_secs(600))
    };
    let mut root = Replica::new(source("root"), tables(&["p"]));
    let mut leaves = Replica::new(source("leaves"), tables(&["p"]));
    root.run().await;
    leaves.run().await;
    root.crash();
    leaves.crash();
    database
        .execute(
            "ALTER TABLE p DETACH PARTITION p_b; UPDATE p_b SET v = 'unseen'; DELETE FROM p_b WHERE id < 20;
             ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b')",
        )
        .await;
    root.run().await;
    root.until_equal(&database, "p").await;
    assert_eq!(root.resets, 1);
    leaves.run().await;
    leaves.until_equal(&database, "p").await;
    leaves.crash();
    leaves.resets = 0;
    database
        .execute("ALTER PUBLICATION leaves DROP TABLE p_a; DELETE FROM p_a; ALTER PUBLICATION leaves ADD TABLE p_a")
        .await;
    leaves.run().await;
    leaves.until_equal(&database, "p").await;
    assert_eq!(leaves.resets, 1);
}

#[tokio::test]
async fn a_filter_and_a_list_of_columns() {
    let database = Database::new(
        "CREATE TABLE rf (id int PRIMARY KEY, s text, x text); INSERT INTO rf VALUES (1, 'a', 'x'), (200, 'b', 'x')",
    )
    .await;
    database.execute("CREATE PUBLICATION chosen FOR TABLE rf (id, s) WHERE (id < 100)").await;
    let source = database.source().publication("chosen").poll_interval(Duration::from_millis(200));
    let mut replica = Replica::new(source, columns("rf", &["id", "s"]));
    replica.run().await;
    let ids = |replica: &Replica| {
        let mut ids: Vec<String> = replica.rows("rf").iter().map(|row| format!("{:?}", row["id"])).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&replica), ["Integer(1)"]);
    database.execute("UPDATE rf SET id = 201 WHERE id = 1").await;
    replica.catch_up().await;
    assert!(ids(&replica).is_empty());
    database.execute("UPDATE rf SET id = 2 WHERE id = 201; UPDATE rf SET x = 'y'").await;
    replica.catch_up().await;
    assert_eq!(ids(&replica), ["Integer(2)"]);
    database.execute("ALTER PUBLICATION chosen SET TABLE rf WHERE (id < 1000)").await;
    replica.until("the row is read", |replica| replica.rows("rf").len() == 2).await;
}

#[tokio::test]
async fn partitions_are_one_table() {
    let database = Database::new(
        "CREATE TABLE p (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b (v text, region text NOT NULL, id int NOT NULL,
             PRIMARY KEY (id, region)); ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b');
         INSERT INTO p SELECT i, (ARRAY['a', 'b'])[i % 2 + 1], 'v' || i FROM generate_series(1, 1000) i;",
    )
    .await;
    let mut replica = replica(&database, &["p"]).await;
    replica.assert_equal(&database, "p").await;
    database
        .execute(
            "UPDATE p SET region = 'b' WHERE id = 2; UPDATE p SET v = 'x' WHERE id = 3; DELETE FROM p WHERE id = 4",
        )
        .await;
    replica.catch_up().await;
    replica.assert_equal(&database, "p").await;
    assert_eq!(replica.resets, 0);
    // A new partition is not a reason to read the others again.
    database
        .execute("CREATE TABLE p_c PARTITION OF p FOR VALUES IN ('c'); INSERT INTO p VALUES (5000, 'c', 'new')")
        .await;
    replica.until_equal(&database, "p").await;
    database
        .execute(
            "CREATE TABLE p_d (id int, region text, v text, PRIMARY KEY (id, region));
             INSERT INTO p_d SELECT i, 'd', 'd' FROM generate_series(1, 100) i; ALTER TABLE p ATTACH PARTITION p_d FOR VALUES IN ('d')",
        )
        .await;
    replica.until_equal(&database, "p").await;
    assert_eq!(replica.resets, 0);
    // One that is truncated, and one that leaves.
    database.execute("TRUNCATE p_a").await;
    replica.until_equal(&database, "p").await;
    database.execute("ALTER TABLE p DETACH PARTITION p_b").await;
    replica.until_equal(&database, "p").await;
    database.execute("TRUNCATE p; INSERT INTO p VALUES (1, 'a', 'last')").await;
    replica.until_equal(&database, "p").await;
    assert_eq!(replica.rows("p").len(), 1);
}

#[tokio::test]
async fn more_is_read_after_a_change_of_the_selection() {
    let database =
        Database::new(&format!("{TABLE} CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")).await;
    let mut replica = Replica::new(database.source(), columns("t", &["id"]));
    replica.run().await;
    replica.crash();
    database.execute("DELETE FROM t WHERE id < 10").await;
    replica.selection = tables(&["t", "u"]);
    replica.run().await;
    replica.until_equal(&database, "t").await;
    replica.assert_equal(&database, "u").await;
    // And less.
    replica.crash();
    replica.selection = tables(&["u"]);
    replica.run().await;
    assert!(replica.rows("t").is_empty());
}
