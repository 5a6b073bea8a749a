//! Repetition, concurrency, and a database that is away.

use std::time::Duration;

use futures::future::join_all;
use postgres_fixture::{Cluster, ClusterOptions};
use serde_json::json;
use syncline_core::{ErrorKind, Identity, Uploaded};
use syncline_source_postgres::{PostgresBackend, WriteRule};

use crate::bench::{Bench, TABLES, patch, put, transaction};

const APPLIED: &str =
    "CREATE TABLE syncline_applied (user_id text NOT NULL, client_id text NOT NULL, op_id bigint NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (user_id, client_id, op_id));
    CREATE TABLE counted (id text PRIMARY KEY, n int, owner_id text);
    CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := OLD.n + 1; RETURN NEW; END $$;
    CREATE TRIGGER count_up BEFORE UPDATE ON counted FOR EACH ROW EXECUTE FUNCTION count_up();
    INSERT INTO counted VALUES ('c', 0, 'anna')";

#[tokio::test]
async fn with_an_idempotency_table_a_repetition_is_not_executed() {
    let bench = Bench::new(APPLIED)
        .await
        .with(|backend| backend.table("counted", WriteRule::everyone()).idempotency_table("public.syncline_applied"));
    bench.backend.check().await.unwrap();
    let write = json!([patch("counted", "c", json!({"owner_id": "anna"}))]);
    let together = join_all((0..8).map(|_| bench.applied("anna", write.clone())));
    together.await;
    assert_eq!(bench.rows("SELECT n FROM counted").await, [json!({"n": 1})]);
    // The key of one user is not that of another, who might have guessed it.
    bench.applied("ben", write.clone()).await;
    assert_eq!(bench.rows("SELECT n FROM counted").await, [json!({"n": 2})]);
    // A rejected transaction leaves no key behind.
    let mut refused = json!([patch("counted", "c", json!({"n": "x"}))]);
    refused[0]["op_id"] = json!(2);
    bench.rejected("anna", refused).await;
    assert_eq!(bench.rows("SELECT op_id FROM syncline_applied").await.len(), 2);
}

#[tokio::test]
async fn concurrent_uploads_to_the_same_rows_all_come_through() {
    let bench = Bench::new(TABLES).await.with(|backend| {
        backend.table("lists", WriteRule::owner("owner_id")).resolver("lists", syncline_core::LastWriteWins)
    });
    let plain = bench.backend.clone().table("lists", WriteRule::owner("owner_id"));
    let uploads = (0..40).map(|n| {
        let backend = if n % 2 == 0 { bench.backend.clone() } else { plain.clone() };
        async move {
            let (first, second) = if n % 3 == 0 { ("x", "y") } else { ("y", "x") };
            let list =
                |id: &str| put("lists", id, json!({"name": format!("{id}{n}"), "owner_id": "anna", "position": n}));
            let writes = transaction(json!([list(first), list(second), patch("lists", first, json!({"position": n}))]));
            // Deadlocks are expected; what gives up is repeated, as a client does.
            loop {
                match backend.apply(&Identity::new("anna"), &writes).await {
                    Ok(uploaded) => return uploaded,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            }
        }
    });
    let all = tokio::time::timeout(Duration::from_secs(60), join_all(uploads)).await.unwrap();
    assert!(all.iter().all(|uploaded| *uploaded == Uploaded::Applied));
    let rows = bench.rows("SELECT id, position FROM lists ORDER BY id").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["position"], rows[1]["position"], "one transaction was the last for both");
}

#[tokio::test]
async fn a_row_that_another_inserts_meanwhile_is_not_overwritten_unjudged() {
    let bench = Bench::new(TABLES).await.with(|backend| backend.table("lists", WriteRule::owner("owner_id")));
    bench.client.batch_execute("BEGIN; INSERT INTO lists VALUES ('x', 'Ben''s', 'ben')").await.unwrap();
    let observer = postgres_fixture::shared().await.connect(&bench.url).await.unwrap();
    let upload =
        async { bench.rejected("anna", json!([put("lists", "x", json!({"name": "mine", "owner_id": "anna"}))])).await };
    let commit = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while observer.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(tokio::time::Instant::now() < deadline, "the upload waits for the other insertion");
            tokio::task::yield_now().await;
        }
        bench.client.batch_execute("COMMIT").await.unwrap();
    };
    let (reason, ()) = tokio::join!(upload, commit);
    assert_eq!(reason, "`lists`: you are not allowed to make this change");
    assert_eq!(bench.rows("SELECT owner_id FROM lists").await, [json!({"owner_id": "ben"})]);
}

#[tokio::test]
async fn triggers_that_suppress_a_write_do_not_stop_the_queue() {
    let bench = Bench::new(&format!(
        "{TABLES} CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER skip BEFORE INSERT ON lists FOR EACH ROW EXECUTE FUNCTION skip()"
    ))
    .await
    .with(|backend| backend.table("lists", WriteRule::owner("owner_id")));
    bench.applied("anna", json!([put("lists", "x", json!({"name": "n", "owner_id": "anna"}))])).await;
    assert!(bench.rows("SELECT 1 FROM lists").await.is_empty());
}

#[tokio::test]
async fn a_refusal_behind_a_suppressed_write_is_a_refusal() {
    let bench = Bench::new(&format!(
        "{TABLES} CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER skip BEFORE INSERT ON lists FOR EACH ROW WHEN (NEW.position = 0) EXECUTE FUNCTION skip()"
    ))
    .await
    .with(|backend| backend.table("lists", WriteRule::owner("owner_id")));
    let list = |id: &str, name: &str, position: i32| {
        put("lists", id, json!({"name": name, "owner_id": "anna", "position": position}))
    };
    // Both are sent before the first answer is read.
    let reason = bench.rejected("anna", json!([list("x", "x", 0), list("y", "", 1)])).await;
    assert!(reason.contains("check constraint"), "{reason}");
    // The row that is found where one was suppressed is the transaction's own.
    bench.applied("anna", json!([list("x", "x", 0), list("x", "x", 1)])).await;
    assert_eq!(bench.rows("SELECT id, position FROM lists").await, [json!({"id": "x", "position": 1})]);
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_used_again_when_it_is_back() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.create_database("app").await.unwrap();
    cluster.connect(&url).await.unwrap().batch_execute(TABLES).await.unwrap();
    let backend = PostgresBackend::new(&url).unwrap().table("lists", WriteRule::owner("owner_id"));
    let anna = Identity::new("anna");
    let write = |name: &str| transaction(json!([put("lists", "x", json!({"name": name, "owner_id": "anna"}))]));
    assert_eq!(backend.apply(&anna, &write("one")).await.unwrap(), Uploaded::Applied);
    cluster.crash().unwrap();
    assert_eq!(backend.apply(&anna, &write("two")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    cluster.start_again().await.unwrap();
    assert_eq!(backend.apply(&anna, &write("three")).await.unwrap(), Uploaded::Applied);
    // Its connections were cut while they were idle: nobody notices.
    cluster.restart().await.unwrap();
    assert_eq!(backend.apply(&anna, &write("four")).await.unwrap(), Uploaded::Applied);
}

#[tokio::test]
async fn a_lock_is_waited_for_only_so_long() {
    let bench = Bench::new(TABLES).await.with(|backend| {
        backend.table("lists", WriteRule::owner("owner_id")).time_limit(Duration::from_millis(600)).connections(1)
    });
    let write = json!([put("lists", "x", json!({"name": "n", "owner_id": "anna"}))]);
    bench.applied("anna", write.clone()).await;
    bench.client.batch_execute("BEGIN; SELECT FROM lists FOR UPDATE").await.unwrap();
    let error = bench.backend.apply(&Identity::new("anna"), &transaction(write.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    bench.client.batch_execute("COMMIT").await.unwrap();
    // The one connection there may be is free again.
    bench.applied("anna", write).await;
}

#[tokio::test]
async fn a_dropped_upload_leaves_nothing_behind() {
    let bench =
        Bench::new(TABLES).await.with(|backend| backend.table("lists", WriteRule::owner("owner_id")).connections(1));
    bench.client.batch_execute("BEGIN; LOCK TABLE lists").await.unwrap();
    let write = json!([put("lists", "x", json!({"name": "n", "owner_id": "anna"}))]);
    let dropped = tokio::time::timeout(Duration::from_millis(100), bench.upload("anna", write.clone())).await;
    assert!(dropped.is_err());
    bench.client.batch_execute("COMMIT").await.unwrap();
    bench.applied("anna", json!([put("lists", "y", json!({"name": "m", "owner_id": "anna"}))])).await;
    assert_eq!(bench.rows("SELECT id FROM lists").await, [json!({"id": "y"})]);
}

#[tokio::test]
async fn it_logs_in_with_a_password_over_tls_as_the_url_says() {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let cluster = ClusterOptions::new()
        .password("p:w @")
        .tls(certificate.cert.pem(), certificate.signing_key.serialize_pem())
        .hba("hostssl all all all scram-sha-256\n")
        .start()
        .await
        .unwrap();
    let url = cluster.url();
    let check = |mode: &str| {
        let backend = PostgresBackend::new(&format!("{url}?sslmode={mode}")).unwrap();
        async move { backend.check().await }
    };
    check("require").await.unwrap();
    assert_eq!(check("disable").await.unwrap_err().kind(), ErrorKind::Unavailable);
    check("verify-full").await.unwrap_err();
    let wrong = PostgresBackend::new(&url.replace("p%3Aw", "other")).unwrap();
    assert!(!wrong.check().await.unwrap_err().to_string().contains("other"));
}
