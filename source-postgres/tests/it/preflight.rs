//! What is checked before anything is made, and what the complaints say.

use postgres_fixture::ClusterOptions;
use syncline_core::{ErrorKind, SourceSchema, SyncConfig, TableSelection};
use syncline_source_postgres::PostgresSource;

use crate::bench_database::{Database, columns, tables};
use crate::replica::Replica;

/// The complaint about a database; no slot is left behind.
async fn complaint(database: &Database, source: PostgresSource, names: &[&str]) -> String {
    complaint_about(database, source, tables(names)).await
}

async fn complaint_about(database: &Database, source: PostgresSource, selection: TableSelection) -> String {
    let mut replica = Replica::new(source, selection);
    let error = replica.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(database.value(slots).await.as_deref(), Some("0"));
    error.to_string()
}

fn assert_says(complaint: &str, parts: &[&str]) {
    for part in parts {
        assert!(complaint.contains(part), "`{part}` is not in: {complaint}");
    }
}

#[tokio::test]
async fn tables_and_publication_are_checked_together() {
    let database = Database::new(
        "CREATE TABLE good (id int PRIMARY KEY, v text); CREATE TABLE hidden (id int PRIMARY KEY);
         CREATE TABLE keyless (id int); CREATE VIEW seen AS SELECT * FROM good; CREATE UNLOGGED TABLE quick (id int PRIMARY KEY);
         CREATE TABLE made (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED);
         CREATE PUBLICATION chosen FOR TABLE good, keyless, made WITH (publish = 'insert, update');",
    )
    .await;
    let names = ["good", "hidden", "keyless", "seen", "quick", "nowhere"];
    let mut selection = tables(&names);
    selection.patterns.extend(columns("made", &["g"]).patterns);
    let told = complaint_about(&database, database.source().publication("chosen"), selection).await;
    assert_says(
        &told,
        &[
            "leaves out delete and truncate",
            "ALTER PUBLICATION \"chosen\" SET (publish = 'insert, update, delete, truncate');",
            "table public.hidden is not in publication chosen: run `ALTER PUBLICATION \"chosen\" ADD TABLE \"public\".\"hidden\";`",
            "table public.keyless has no key",
            "public.seen is not a table",
            "ALTER TABLE \"public\".\"quick\" SET LOGGED;",
            "column `g` of table public.made is generated",
            "there is no table public.nowhere",
        ],
    );
    let told = complaint(&database, database.source().publication("no \"such"), &["good"]).await;
    assert_says(&told, &["CREATE PUBLICATION \"no \"\"such\" FOR TABLE \"public\".\"good\";"]);

    let mut replica = Replica::new(database.source(), columns("good", &["id", "w"]));
    let error = replica.start().await.unwrap_err();
    assert_says(&error.to_string(), &["table public.good has no column `w`"]);
}

#[tokio::test]
async fn rights_are_checked() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE open (id int PRIMARY KEY)").await;
    let name = database.value("SELECT current_database()").await.unwrap();
    database
        .execute(&format!(
            "CREATE ROLE weak_{name} LOGIN; CREATE ROLE sender_{name} LOGIN REPLICATION; GRANT SELECT ON open TO sender_{name}"
        ))
        .await;
    let source =
        |role: &str| PostgresSource::new(&database.url.replace("postgres@", &format!("{role}_{name}@"))).unwrap();
    let told = complaint(&database, source("weak"), &["t"]).await;
    assert_says(&told, &["may not replicate", "REPLICATION;"]);
    let told = complaint(&database, source("sender"), &["t", "open"]).await;
    assert_says(&told, &["may not read table public.t", "GRANT SELECT ON \"public\".\"t\""]);
    assert!(!told.contains("public.open"), "{told}");
    database.execute("ALTER TABLE open ENABLE ROW LEVEL SECURITY").await;
    let told = complaint(&database, source("sender"), &["open"]).await;
    assert_says(&told, &["row security is on for table public.open", "BYPASSRLS;"]);
    database.execute("ALTER TABLE open DISABLE ROW LEVEL SECURITY").await;
    let mut replica = Replica::new(source("sender"), tables(&["open"]));
    replica.run().await;
}

#[tokio::test]
async fn the_server_is_checked() {
    let cluster = ClusterOptions::new().setting("wal_level", "replica").start().await.unwrap();
    let database = Database::at(cluster.fresh_database().await.unwrap(), "CREATE TABLE t (id int PRIMARY KEY)").await;
    let told = complaint(&database, database.source(), &["t"]).await;
    assert_says(&told, &["wal_level is replica", "ALTER SYSTEM SET wal_level = logical;"]);

    let cluster = ClusterOptions::new().setting("max_replication_slots", "0").start().await.unwrap();
    let database = Database::at(cluster.fresh_database().await.unwrap(), "CREATE TABLE t (id int PRIMARY KEY)").await;
    let error = Replica::new(database.source(), tables(&["t"])).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_says(&error.to_string(), &["all 0 replication slots are in use", "max_replication_slots"]);
}

#[tokio::test]
async fn rows_that_row_security_would_hide_are_an_error_while_they_are_read() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100000) i",
    )
    .await;
    let name = database.value("SELECT current_database()").await.unwrap();
    database.execute(&format!("CREATE ROLE plain_{name} LOGIN REPLICATION; GRANT SELECT ON t TO plain_{name}")).await;
    let url = database.url.replace("postgres@", &format!("plain_{name}@"));
    let mut replica = Replica::new(PostgresSource::new(&url).unwrap(), tables(&["t"]));
    replica.start().await.unwrap();
    replica.step().await.unwrap();
    // Between two chunks.
    database.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
    let error = replica.until_error().await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_says(&error.to_string(), &[&format!("`ALTER ROLE \"plain_{name}\" BYPASSRLS;`")]);
}

#[tokio::test]
async fn text_of_no_encoding_and_a_generated_key_are_refused() {
    let database = Database::new("CREATE TABLE t (a int, g int GENERATED ALWAYS AS (a) STORED PRIMARY KEY)").await;
    let told = complaint(&database, database.source(), &["t"]).await;
    assert_says(&told, &["column `g` of table public.t is generated"]);

    let name = format!("{}_ascii", database.value("SELECT current_database()").await.unwrap());
    let collation = "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    database.execute(&format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' {collation}")).await;
    let database = Database::at(format!("{}_ascii", database.url), "CREATE TABLE t (id int PRIMARY KEY)").await;
    let told = complaint(&database, database.source(), &["t"]).await;
    assert_says(&told, &["SQL_ASCII", "UTF8"]);
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY)").await;
    let told = complaint(&database, database.source().slot("Not-a-slot"), &["t"]).await;
    assert_says(&told, &["`Not-a-slot`"]);
    let source = PostgresSource::new(&format!("{}_missing", database.url)).unwrap();
    let told = complaint(&database, source, &["t"]).await;
    assert_says(&told, &["does not exist"]);
}

#[tokio::test]
async fn a_prefix_takes_what_can_be_replicated() {
    let database = Database::new(
        "CREATE TABLE x_good (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED); INSERT INTO x_good VALUES (1);
         CREATE UNLOGGED TABLE x_quick (id int PRIMARY KEY); CREATE TABLE x_keyless (id int); CREATE VIEW x_view AS SELECT 1 AS id;",
    )
    .await;
    let source = database.source().poll_interval(std::time::Duration::from_millis(100));
    let mut replica = Replica::new(source, tables(&["x_%"]));
    replica.run().await;
    assert_eq!(replica.rows("x_good").len(), 1);
    // They are mended while the stream runs.
    database.execute("INSERT INTO x_quick VALUES (1); ALTER TABLE x_quick SET LOGGED").await;
    database.execute("INSERT INTO x_keyless VALUES (1); ALTER TABLE x_keyless ADD PRIMARY KEY (id)").await;
    replica.until_equal(&database, "x_quick").await;
    replica.until_equal(&database, "x_keyless").await;
}

#[tokio::test]
async fn the_tables_that_there_are_can_be_had_for_warnings() {
    let database = Database::new(
        "CREATE TABLE t (id int PRIMARY KEY, gone int, \"Name\" text); ALTER TABLE t DROP gone;
         CREATE SCHEMA other; CREATE TABLE other.p (id int, r int) PARTITION BY LIST (r); CREATE VIEW v AS SELECT 1 AS id;",
    )
    .await;
    let schema = database.source().schema().await.unwrap();
    let expected = SourceSchema::new().table("public", "t", ["id", "Name"]).table("other", "p", ["id", "r"]);
    assert_eq!(schema, expected);
}

#[tokio::test]
async fn a_migration_under_way_is_waited_for() {
    let database = Database::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let source = database.source().poll_interval(std::time::Duration::from_millis(100));
    let mut replica = Replica::new(source, tables(&["t"]));
    replica.run().await;
    database.execute("ALTER TABLE t DROP CONSTRAINT t_pkey").await;
    let error = replica.until_error().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_says(&error.to_string(), &["table public.t has no key"]);
    assert!(replica.start().await.unwrap_err().is_transient());
    database.execute("INSERT INTO t VALUES (2); ALTER TABLE t ADD PRIMARY KEY (id)").await;
    replica.recover().await;
    replica.until_equal(&database, "t").await;
    // Gone altogether, and back.
    database.execute("DROP TABLE t").await;
    replica.until("its rows go", |replica| replica.rows("t").is_empty()).await;
    replica.crash();
    replica.run().await;
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (3)").await;
    replica.until_equal(&database, "t").await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_in_a_line_each() {
    let cluster = ClusterOptions::new().setting("wal_level", "replica").start().await.unwrap();
    let url = cluster.fresh_database().await.unwrap();
    let database = Database::at(url, "CREATE TABLE keyless (id int); CREATE TABLE hidden (id int PRIMARY KEY)").await;
    database
        .execute(
            "DROP PUBLICATION syncline; CREATE ROLE weak LOGIN; GRANT SELECT ON keyless TO weak;
             SELECT pg_create_physical_replication_slot('taken')",
        )
        .await;
    let source = PostgresSource::new(&database.url.replace("postgres@", "weak@")).unwrap().slot("taken");
    let mut selection = tables(&["keyless", "nowhere"]);
    selection.patterns.extend(columns("hidden", &["id", "w"]).patterns);
    let expected = [
        "wal_level is replica",
        "role weak may not replicate",
        "there is no publication `syncline`",
        "there is no table public.nowhere",
        "table public.hidden has no column `w`",
        "this role may not read table public.hidden",
        "table public.keyless has no key",
        "replication slot taken is that of a standby",
    ];
    let checked = source.check(&selection).await.unwrap_err();
    let run = Replica::new(source.clone(), selection.clone()).start().await.unwrap_err();
    for error in [checked, run] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let lines: Vec<&str> = error.message().lines().collect();
        assert_eq!(lines[0], "8 things are wrong:");
        assert_eq!(lines.len(), 9, "{error}");
        for part in expected {
            let found = lines.iter().filter(|line| line.starts_with("- ") && line.contains(part)).count();
            assert_eq!(found, 1, "`{part}`: {error}");
        }
    }
}

#[tokio::test]
async fn a_slot_of_somebody_else_is_told() {
    let (cluster, other) = (ClusterOptions::new().start().await.unwrap(), "CREATE TABLE t (id int PRIMARY KEY)");
    let one = Database::at(cluster.fresh_database().await.unwrap(), "CREATE TABLE t (id int PRIMARY KEY)").await;
    let two = Database::at(cluster.fresh_database().await.unwrap(), other).await;
    two.execute("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await;
    let selection = tables(&["t"]);
    let source = one.source().slot("theirs");
    let name = two.value("SELECT current_database()").await.unwrap();
    assert_says(
        &source.check(&selection).await.unwrap_err().to_string(),
        &[&format!("slot theirs belongs to database {name}"), "SELECT pg_drop_replication_slot('theirs');"],
    );
    // In its own database it may be that of the store which is asked for.
    two.source().slot("theirs").check(&selection).await.unwrap();
    let told = two.source().slot("Theirs").check(&selection).await.unwrap_err();
    assert_says(&told.to_string(), &["`Theirs` cannot be the name"]);
}

#[tokio::test]
async fn an_unknown_name_is_told_with_its_place_in_the_config() {
    let database = Database::new(
        "CREATE TABLE lists (id int PRIMARY KEY, name text, owner_id text); CREATE TABLE todos (id int PRIMARY KEY, list_id int)",
    )
    .await;
    let text = "config: { edition: 3 }
streams:
  my_lists:
    query: SELECT id, nam FROM lists WHERE owner = auth.user_id()
  others:
    queries:
      - SELECT * FROM lits
      - |
        SELECT * FROM todos
        WHERE lst_id = subscription.parameter('list') AND auth.user_id() = owner_id
";
    let config = SyncConfig::parse(text).unwrap();
    let error = database.source().check(config.selection()).await.unwrap_err();
    let lines: Vec<&str> = error.message().lines().skip(1).collect();
    let column = |at: &str, table: &str, column: &str, near: &str| {
        format!(
            "- sync config {at}: table public.{table} has no column `{column}`, which the sync config reads: add it, or \
             correct the config{near}"
        )
    };
    assert_eq!(
        lines,
        [
            column("4:23 (stream my_lists)", "lists", "nam", ", did you mean `name`?"),
            column("4:44 (stream my_lists)", "lists", "owner", ""),
            "- sync config 7:23 (stream others): there is no table public.lits: create it, or take it out of the sync \
             config, did you mean public.lists?"
                .to_owned(),
            column("10:15 (stream others)", "todos", "lst_id", ", did you mean `list_id`?"),
            column("10:76 (stream others)", "todos", "owner_id", ""),
        ]
    );
}

/// The statements that a complaint tells to run.
fn remedies(complaint: &str) -> Vec<String> {
    complaint.split('`').skip(1).step_by(2).filter(|text| text.ends_with(';')).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_remedy_works_as_it_is_printed() {
    let cluster = ClusterOptions::new().start().await.unwrap();
    let database = Database::at(
        cluster.fresh_database().await.unwrap(),
        "CREATE SCHEMA \"In side\"; CREATE TABLE \"In side\".\"T\" (id int PRIMARY KEY); CREATE TABLE keyless (id int, v text);
         CREATE TABLE guarded (id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
         CREATE UNLOGGED TABLE quick (id int PRIMARY KEY);
         CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE \"In side\".part PARTITION OF parted FOR VALUES IN (1);",
    )
    .await;
    database
        .execute(
            "CREATE ROLE \"odd \"\"role\" LOGIN; DROP PUBLICATION syncline;
             GRANT SELECT ON keyless, guarded, quick, parted TO \"odd \"\"role\"",
        )
        .await;
    let source = PostgresSource::new(&database.url.replace("postgres@", "odd%20%22role@")).unwrap();
    let mut selection = tables(&["T", "keyless", "guarded", "quick", "parted"]);
    selection.patterns[0].schema = Some("In side".into());
    let mut rounds = 0;
    // Those that depend on others come later: a table is published only where there is a publication.
    while let Err(error) = source.check(&selection).await {
        let statements = remedies(error.message());
        assert!(rounds < 3 && !statements.is_empty(), "{error}");
        for statement in statements {
            database.execute(&statement).await;
        }
        rounds += 1;
    }
    assert!(rounds > 0);
    Replica::new(source, selection).run().await;

    // Where a host has a role in place of the right.
    database.execute("CREATE ROLE rds_replication; CREATE ROLE hosted LOGIN").await;
    let source = PostgresSource::new(&database.url.replace("postgres@", "hosted@")).unwrap();
    let error = source.check(&TableSelection::default()).await.unwrap_err();
    assert_eq!(remedies(error.message()), ["GRANT rds_replication TO \"hosted\";"]);
    database.execute(&remedies(error.message())[0]).await;
    source.check(&TableSelection::default()).await.unwrap();
}
