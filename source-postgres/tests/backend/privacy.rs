//! What a rejection tells.

use serde_json::json;
use syncline_core::{ErrorKind, Identity};
use syncline_source_postgres::WriteRule;

use crate::bench::{Bench, TABLES, delete, patch, put, transaction};

#[tokio::test]
async fn the_database_tells_its_reason_only_to_those_who_may_write_the_row() {
    let bench = Bench::new(TABLES).await.with(|backend| backend.table("lists", WriteRule::owner("owner_id")));
    bench.applied("ben", json!([put("lists", "b", json!({"name": "secret", "owner_id": "ben"}))])).await;
    bench.applied("anna", json!([put("lists", "a", json!({"name": "open", "owner_id": "anna"}))])).await;
    let not_allowed = "`lists`: you are not allowed to make this change";
    // Whether Ben has a list of that name, or a row with that id that violates something, is not for Anna.
    for write in [
        put("lists", "x", json!({"name": "secret", "owner_id": "ben"})),
        put("lists", "x", json!({"name": "free", "owner_id": "ben"})),
        patch("lists", "b", json!({"name": ""})),
        put("lists", "b", json!({"name": "", "owner_id": "anna"})),
        put("lists", "b", json!({"name": "open", "owner_id": "anna"})),
    ] {
        assert_eq!(bench.rejected("anna", json!([write])).await, not_allowed, "{write}");
    }
    for (write, reason) in [
        (put("lists", "x", json!({"name": "open", "owner_id": "anna"})), "duplicate key value"),
        (put("lists", "x", json!({"name": "", "owner_id": "anna"})), "check constraint"),
        (patch("lists", "a", json!({"name": null})), "null value in column \"name\""),
    ] {
        let refused = bench.rejected("anna", json!([write])).await;
        assert!(refused.contains(reason), "{refused}");
        assert!(!refused.contains("open"), "no row is quoted: {refused}");
    }
}

#[tokio::test]
async fn constraints_triggers_and_policies_reject() {
    let bench = Bench::new(&format!(
        "{TABLES}
        CREATE TABLE audit (id text PRIMARY KEY, list text REFERENCES lists DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'lists are full' USING ERRCODE = 'PT409'; END $$;
        CREATE TRIGGER no BEFORE INSERT ON lists FOR EACH ROW WHEN (NEW.position = 99) EXECUTE FUNCTION no();
        CREATE TABLE guarded (id text PRIMARY KEY, owner_id text);
        ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON guarded USING (owner_id = current_setting('app.claims', true)::jsonb ->> 'sub');
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'web_role') THEN CREATE ROLE web_role LOGIN; END IF;
        END $$;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO web_role"
    ))
    .await;
    let url = bench.url.replacen("postgres://postgres@", "postgres://web_role@", 1);
    assert_ne!(url, bench.url);
    let everyone = WriteRule::everyone;
    let backend = syncline_source_postgres::PostgresBackend::new(&url)
        .unwrap()
        .table("lists", everyone())
        .table("audit", everyone())
        .table("guarded", everyone())
        .claims_setting("app.claims");
    let bench = bench.with(|_| backend);
    let reason =
        bench.rejected("anna", json!([put("lists", "l", json!({"name": "n", "owner_id": "o", "position": 99}))]));
    assert_eq!(reason.await, "`lists`: lists are full");
    let reason = bench.rejected("anna", json!([put("audit", "x", json!({"list": "none"}))])).await;
    assert!(reason.contains("violates foreign key constraint"), "{reason}");
    bench.applied("o'anna\\", json!([put("guarded", "g", json!({"owner_id": "o'anna\\"}))])).await;
    let reason = bench.rejected("ben", json!([put("guarded", "h", json!({"owner_id": "anna"}))])).await;
    assert!(reason.contains("row-level security"), "{reason}");
    let reason = bench.rejected("ben", json!([put("guarded", "g", json!({"owner_id": "ben"}))])).await;
    assert!(reason.contains("row-level security"), "{reason}");
    bench.applied("ben", json!([delete("guarded", "g")])).await;
    assert_eq!(bench.rows("SELECT id FROM guarded").await, [json!({"id": "g"})]);
}

#[tokio::test]
async fn a_missing_privilege_rejects_nothing_and_is_named() {
    let bench = Bench::new(&format!(
        "{TABLES}
        CREATE TABLE syncline_applied (user_id text, client_id text, op_id bigint, PRIMARY KEY (user_id, client_id, op_id));
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'not on Sundays'; END $$;
        CREATE TRIGGER no BEFORE INSERT ON lists FOR EACH ROW WHEN (NEW.position = 99) EXECUTE FUNCTION no();
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weak_role') THEN CREATE ROLE weak_role LOGIN; END IF;
        END $$;
        GRANT SELECT, INSERT ON lists TO weak_role; GRANT UPDATE (name) ON lists TO weak_role"
    ))
    .await;
    let url = bench.url.replacen("postgres://postgres@", "postgres://weak_role@", 1);
    assert_ne!(url, bench.url);
    let backend = syncline_source_postgres::PostgresBackend::new(&url).unwrap().table("lists", WriteRule::everyone());
    let bench = bench.with(|_| backend);
    let write = |position| json!([put("lists", "l", json!({"name": "n", "owner_id": "o", "position": position}))]);
    for _ in 0..2 {
        let uploaded = bench.backend.apply(&Identity::new("anna"), &transaction(write(1))).await;
        let error = uploaded.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("lacks a privilege"), "{error}");
    }
    let error = bench.backend.check().await.unwrap_err().to_string();
    assert!(error.contains("grant it DELETE, UPDATE (owner_id), UPDATE (\"position\")"), "{error}");
    bench.client.batch_execute("GRANT UPDATE, DELETE ON lists TO weak_role").await.unwrap();
    bench.backend.check().await.unwrap();
    let reason = bench.rejected("anna", write(99)).await;
    assert_eq!(reason, "`lists`: not on Sundays");
    // What was not rejected is applied as soon as the privilege is there.
    bench.applied("anna", write(1)).await;
    assert_eq!(bench.rows("SELECT position FROM lists").await, [json!({"position": 1})]);

    let bench = bench.with(|backend| backend.idempotency_table("public.syncline_applied"));
    bench.client.batch_execute("GRANT SELECT ON syncline_applied TO weak_role").await.unwrap();
    let error = bench.backend.check().await.unwrap_err().to_string();
    assert!(error.contains("grant it INSERT"), "{error}");
    bench.client.batch_execute("GRANT INSERT ON syncline_applied TO weak_role").await.unwrap();
    bench.backend.check().await.unwrap();
}
