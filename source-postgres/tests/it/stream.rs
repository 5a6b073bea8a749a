//! Changes as they come.

use std::time::{Duration, Instant};

use syncline_core::{
    Field, MarkerToken, RowKey, Source, SourceTable, TableId, TableSelection, TimePrecision, Value, ValueOptions,
};

use crate::bench_database::{Database, tables};
use crate::replica::Replica;

#[tokio::test]
async fn values_that_are_stored_out_of_line_are_kept() {
    // 12 kB that do not compress.
    let big = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400))";
    let database = Database::new(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, a int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE f (id int PRIMARY KEY, a int, big text); ALTER TABLE f ALTER big SET STORAGE EXTERNAL;
         ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 1, {big}); INSERT INTO f VALUES (1, 1, {big});"
    ))
    .await;
    let mut replica = Replica::new(database.source(), tables(&["t", "f"]));
    replica.run().await;
    for sql in [
        "UPDATE t SET a = 2; UPDATE f SET a = 2",
        "UPDATE t SET id = 2; UPDATE f SET id = 2",
        "BEGIN; UPDATE t SET id = 3; UPDATE t SET id = 4, a = 5; UPDATE f SET id = 3; COMMIT",
        "UPDATE t SET big = NULL; UPDATE f SET big = 'x'",
    ] {
        database.execute(sql).await;
        replica.catch_up().await;
        replica.assert_equal(&database, "t").await;
        replica.assert_equal(&database, "f").await;
    }
    assert_eq!(replica.rereads, 0);
}

#[tokio::test]
async fn a_row_that_is_not_stored_is_read_again_after_its_change() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, a int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         INSERT INTO t SELECT i, 0, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100))
             FROM generate_series(1, 50) i;",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    for round in 1..=20 {
        replica.forget("t");
        database.execute(&format!("UPDATE t SET a = {round}; UPDATE t SET id = id + 100 WHERE id % 7 = 1")).await;
        replica.catch_up().await;
        replica.assert_equal(&database, "t").await;
    }
    assert!(replica.rereads >= 1000);
}

#[tokio::test]
async fn an_idle_stream_passes_the_position_of_a_row_that_was_read_again() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    let id = TableId(database.value("SELECT 't'::regclass::oid").await.unwrap().parse().unwrap());
    let table = SourceTable { id, schema: "public".into(), name: "t".into(), columns: Vec::new() };
    let answer = replica.source.reread(&table, &[RowKey { table: id, key: "1".into() }]).await.unwrap();
    assert!(answer.rows[0].is_some());
    let held = answer.no_checkpoint_before;
    replica.until("the stream passes it", |replica| replica.position() >= Some(&held)).await;
}

#[tokio::test]
async fn keys_swap_and_move_within_a_transaction() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 9) i;",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    database
        .execute(
            "BEGIN; UPDATE t SET id = 100 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 100;
             UPDATE t SET id = id WHERE id = 3; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 'again');
             INSERT INTO t VALUES (50, 'x'); DELETE FROM t WHERE id = 50; UPDATE t SET id = id + 1000 WHERE id > 5; COMMIT",
        )
        .await;
    database
        .execute(
            "BEGIN; INSERT INTO t VALUES (70, ''); SAVEPOINT a; INSERT INTO t VALUES (71, ''); ROLLBACK TO a;
             INSERT INTO t VALUES (72, NULL); COMMIT; BEGIN; INSERT INTO t VALUES (73, ''); ROLLBACK",
        )
        .await;
    replica.catch_up().await;
    replica.assert_equal(&database, "t").await;
}

#[tokio::test]
async fn truncate_empties_all_tables_that_it_names() {
    let database = Database::new(
        "CREATE TABLE pa (id int PRIMARY KEY); CREATE TABLE ch (id int PRIMARY KEY, pa int REFERENCES pa);
         CREATE TABLE x (id int PRIMARY KEY); INSERT INTO pa VALUES (1); INSERT INTO ch VALUES (1, 1);",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["pa", "ch"]));
    replica.run().await;
    database
        .execute("BEGIN; INSERT INTO pa VALUES (9); TRUNCATE pa, x CASCADE; INSERT INTO pa VALUES (10); COMMIT")
        .await;
    replica.catch_up().await;
    replica.assert_equal(&database, "pa").await;
    replica.assert_equal(&database, "ch").await;
}

#[tokio::test]
async fn a_table_whose_identity_is_an_index_or_the_whole_row() {
    let database = Database::new(
        "CREATE TABLE i (id int, code text NOT NULL UNIQUE, v text); ALTER TABLE i REPLICA IDENTITY USING INDEX i_code_key;
         CREATE TABLE f (a int, b text); ALTER TABLE f REPLICA IDENTITY FULL;
         INSERT INTO i VALUES (1, 'x', 'a'), (2, 'y', 'b'); INSERT INTO f VALUES (1, 'x'), (NULL, 'y'), (2, NULL);",
    )
    .await;
    let mut replica = Replica::new(database.source(), tables(&["i", "f"]));
    replica.run().await;
    replica.assert_equal(&database, "f").await;
    database
        .execute(
            "UPDATE i SET code = 'z' WHERE id = 1; DELETE FROM i WHERE id = 2; UPDATE f SET a = 5 WHERE a IS NULL;
             DELETE FROM f WHERE a = 2; INSERT INTO f VALUES (NULL, NULL)",
        )
        .await;
    replica.catch_up().await;
    replica.assert_equal(&database, "i").await;
    replica.assert_equal(&database, "f").await;
}

#[tokio::test]
async fn snapshot_and_stream_give_the_same_values_whatever_the_role_is_set_to() {
    let database = Database::new(
        "CREATE TYPE mood AS ENUM ('sad', 'ha''ppy'); CREATE DOMAIN rating AS float8;
         CREATE TYPE address AS (street text, no int);
         CREATE TABLE t (id timestamptz PRIMARY KEY, n int, b bool, i8 int8, f float8, nu numeric, by bytea, j json, jb jsonb,
             d date, ts timestamp, ti time, iv interval, u uuid, m mood, r rating, a address, ia int[], ta text[][],
             rng int4range, mr int4multirange, l pg_lsn, mo money, c char(4));
         CREATE FUNCTION add(n int) RETURNS void LANGUAGE sql AS $$
             INSERT INTO t VALUES ('2024-01-02 03:04:05.6+00'::timestamptz + n * interval '1 day', n, true,
                 9007199254740993, 0.1, 1.10, '\\x00ff', '{\"a\": 1.0,  \"a\": 2}', '{\"b\":1,\"a\":1.0}', 'infinity',
                 '2024-05-06 07:08:09.5', '24:00:00', '1 mon -2 days 00:00:01.5',
                 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'ha''ppy', 'NaN', ('a \"b\"', 5), '{1,NULL}', '{{a,\"b,c\"},{d,e}}',
                 '[1,5)', '{[1,2),[4,5)}', '16/B374D848', 12.5, 'ab') $$; SELECT add(1);",
    )
    .await;
    let name = database.value("SELECT quote_ident(current_database())").await.unwrap();
    for setting in [
        "DateStyle TO 'SQL, DMY'",
        "TimeZone TO 'America/New_York'",
        "IntervalStyle TO 'iso_8601'",
        "bytea_output TO 'escape'",
        "extra_float_digits TO -5",
        "search_path TO nowhere",
    ] {
        database.execute(&format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    database.execute("SELECT add(2)").await;
    replica.catch_up().await;
    let mut rows = replica.rows("t");
    assert_eq!(rows.len(), 2);
    rows.sort_by_key(|row| format!("{:?}", row["n"]));
    let text = |row: usize, name: &str| rows[row][name].as_text().map(str::to_owned);
    assert_eq!(text(0, "id").as_deref(), Some("2024-01-03T03:04:05.600000Z"));
    assert_eq!(text(1, "id").as_deref(), Some("2024-01-04T03:04:05.600000Z"));
    for row in &mut rows {
        row.remove("id");
        row.remove("n");
        let Some(Value::Real(real)) = row.remove("r") else { panic!("a domain is its base type") };
        assert!(real.is_nan());
    }
    assert_eq!(rows[0], rows[1]);
    let row = &rows[0];
    for (name, value) in [
        ("b", Value::Integer(1)),
        ("i8", Value::Integer(9_007_199_254_740_993)),
        ("f", Value::Real(0.1)),
        ("nu", "1.10".into()),
        ("by", Value::Blob(vec![0, 0xFF].into())),
        ("j", r#"{"a": 1.0,  "a": 2}"#.into()),
        ("jb", r#"{"a": 1.0, "b": 1}"#.into()),
        ("d", "9999-12-31".into()),
        ("ts", "2024-05-06T07:08:09.500000".into()),
        ("ti", "24:00:00.000000".into()),
        ("iv", "1 mon -2 days +00:00:01.5".into()),
        ("u", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".into()),
        ("m", "ha'ppy".into()),
        ("a", r#"{"street":"a \"b\"","no":5}"#.into()),
        ("ia", "[1,null]".into()),
        ("ta", r#"[["a","b,c"],["d","e"]]"#.into()),
        ("rng", r#"{"lower":1,"upper":5,"lower_exclusive":0,"upper_exclusive":1}"#.into()),
        ("l", "00000016/B374D848".into()),
        ("mo", "$12.50".into()),
        ("c", "ab  ".into()),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
}

#[tokio::test]
async fn values_look_as_the_options_say_in_a_snapshot_in_the_stream_and_when_they_are_read_again() {
    let legacy = ValueOptions { iso8601_timestamps: false, custom_types: false, max_precision: None };
    let seconds = ValueOptions { max_precision: Some(TimePrecision::Seconds), ..ValueOptions::default() };
    let range = r#"{"lower":1,"upper":5,"lower_exclusive":0,"upper_exclusive":1}"#;
    let rating = Value::Real(4.5);
    for (values, expected) in [
        (legacy, ["2024-01-02 01:04:05.6Z".into(), "06:07:08.5".into(), "4.5".into(), "[1,5)".into()]),
        (seconds, ["2024-01-02T01:04:05Z".into(), "06:07:08".into(), rating, range.into()]),
    ] {
        let database = Database::new(
            "CREATE DOMAIN rating AS float8;
             CREATE TABLE t (id int PRIMARY KEY, at timestamptz, clock time, r rating, span int4range);
             INSERT INTO t VALUES (1, '2024-01-02 03:04:05.6+02', '06:07:08.5', 4.5, '[1,5)');",
        )
        .await;
        let mut replica = Replica::new(database.source(), TableSelection { values, ..tables(&["t"]) });
        replica.run().await;
        database.execute("INSERT INTO t SELECT 2, at, clock, r, span FROM t").await;
        replica.catch_up().await;
        let rows = replica.rows("t");
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert_eq!(["at", "clock", "r", "span"].map(|name| row[name].clone()), expected);
        }
        let id = TableId(database.value("SELECT 't'::regclass::oid").await.unwrap().parse().unwrap());
        let table = SourceTable { id, schema: "public".into(), name: "t".into(), columns: Vec::new() };
        let reread = replica.source.reread(&table, &[RowKey { table: id, key: "1".into() }]).await.unwrap();
        let (_, row) = reread.rows[0].clone().unwrap();
        assert_eq!(row.fields[1..], expected.map(Field::Value));
    }
}

#[tokio::test]
async fn a_marker_comes_back_soon_and_after_what_was_committed_before() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    let mut fastest = Duration::MAX;
    for number in 0..20 {
        database.execute(&format!("INSERT INTO t VALUES ({number})")).await;
        let began = Instant::now();
        let token = MarkerToken(format!("{number} 'ü").into());
        replica.source.emit_marker(&token).await.unwrap();
        replica.until("the marker comes", |replica| replica.markers.contains(&token)).await;
        fastest = fastest.min(began.elapsed());
        assert_eq!(replica.rows("t").len(), number + 1);
    }
    assert!(fastest < Duration::from_millis(60), "the fastest of 20 markers took {fastest:?}");
}

#[tokio::test]
async fn what_is_acknowledged_is_confirmed_and_an_idle_stream_moves_on() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE unread (id int)").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let slot = replica.source.slot_name();
    replica.run().await;
    database.execute("INSERT INTO t VALUES (1)").await;
    let after = database.value("SELECT pg_current_wal_lsn()").await.unwrap();
    replica.catch_up().await;
    let confirmed =
        format!("SELECT confirmed_flush_lsn >= '{after}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
    database.wait_for(&confirmed, "t").await;

    // Changes that nobody reads, and another database's: the position moves without a commit.
    database.execute("INSERT INTO unread SELECT generate_series(1, 1000)").await;
    let other = postgres_fixture::shared().await.fresh_database().await.unwrap();
    let other = postgres_fixture::shared().await.connect(&other).await.unwrap();
    other.batch_execute("CREATE TABLE x AS SELECT generate_series(1, 10000)").await.unwrap();
    let after = database.value("SELECT pg_current_wal_lsn()").await.unwrap();
    let commits = replica.commits;
    let wanted = after.parse::<syncline_source_postgres::Lsn>().unwrap().position();
    replica.until("the idle position moves", |replica| replica.position() >= Some(&wanted)).await;
    assert_eq!(replica.commits, commits);
    let confirmed =
        format!("SELECT confirmed_flush_lsn >= '{after}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
    database.wait_for(&confirmed, "t").await;
}

#[tokio::test]
async fn what_was_received_and_not_acknowledged_is_not_confirmed() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    let slot = replica.source.slot_name();
    replica.run().await;
    replica.hold_acknowledgements();
    database.execute("INSERT INTO t VALUES (1)").await;
    let after = database.value("SELECT pg_current_wal_lsn()").await.unwrap();
    replica.catch_up().await;
    let told = |what: &str| {
        format!(
            "SELECT {what} FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = '{slot}'"
        )
    };
    database.wait_for(&told(&format!("write_lsn >= '{after}'")), "t").await;
    assert_eq!(database.value(&told(&format!("flush_lsn < '{after}'"))).await.as_deref(), Some("t"));
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_but_is_not_sent_twice() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.hold_acknowledgements();
    for number in 0..20 {
        database.execute(&format!("INSERT INTO t VALUES ({number})")).await;
    }
    replica.catch_up().await;
    let commits = replica.commits;
    replica.crash();
    database.execute("INSERT INTO t VALUES (100)").await;
    replica.run().await;
    replica.assert_equal(&database, "t").await;
    // The new row, the marker, and the nudge at the start.
    assert!(replica.commits <= commits + 3, "{} commits were replayed", replica.commits - commits - 3);
}
