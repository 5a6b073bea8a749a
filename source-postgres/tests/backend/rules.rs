//! Who may write what.

use serde_json::json;
use syncline_source_postgres::{PostgresBackend, WritableTable, WriteRule};

use crate::bench::{Bench, TABLES, delete, patch, put};

const T1: &str = "00000000-0000-0000-0000-000000000001";
const T2: &str = "00000000-0000-0000-0000-000000000002";

async fn owned() -> Bench {
    Bench::new(TABLES).await.with(|backend| {
        backend.table("lists", WriteRule::owner("owner_id")).table("todos", WriteRule::owner("owner_id"))
    })
}

#[tokio::test]
async fn writes_of_one_transaction_are_applied_in_order_and_may_be_repeated() {
    let bench = owned().await;
    let writes = json!([
        put("lists", "l1", json!({"name": "Groceries", "owner_id": "anna"})),
        put("todos", T1, json!({"list_id": "l1", "title": "milk", "done": 0, "owner_id": "anna"})),
        put("todos", T2, json!({"list_id": "l1", "title": "bread", "owner_id": "anna"})),
        patch("todos", T1, json!({"done": 1, "title": "Milk"})),
        patch("todos", T1, json!({})),
        delete("todos", T2),
        patch("todos", T2, json!({"title": "gone"})),
    ]);
    for _ in 0..2 {
        bench.applied("anna", writes.clone()).await;
        assert_eq!(
            bench.rows("SELECT * FROM todos").await,
            [json!({"id": T1, "list_id": "l1", "title": "Milk", "done": true, "owner_id": "anna"})]
        );
        assert_eq!(bench.rows("SELECT name FROM lists").await, [json!({"name": "Groceries"})]);
    }
    bench.applied("anna", json!([])).await;
}

#[tokio::test]
async fn many_writes_keep_their_order() {
    let bench = owned().await;
    let mut writes = vec![put("lists", "l", json!({"name": "start", "owner_id": "anna", "position": 0}))];
    for n in 1..=500 {
        writes.push(patch("lists", "l", json!({"name": format!("n{n}"), "position": n})));
        writes.push(put("lists", &format!("l{n}"), json!({"name": format!("l{n}"), "owner_id": "anna"})));
        writes.push(delete("lists", &format!("l{}", n - 1)));
    }
    bench.applied("anna", json!(writes)).await;
    assert_eq!(
        bench.rows("SELECT id, name FROM lists ORDER BY id").await,
        [json!({"id": "l", "name": "n500"}), json!({"id": "l500", "name": "l500"})]
    );
}

#[tokio::test]
async fn a_row_of_another_can_be_neither_written_nor_taken_nor_given() {
    let bench = owned().await;
    bench.applied("ben", json!([put("lists", "b", json!({"name": "Ben's", "owner_id": "ben"}))])).await;
    bench.applied("anna", json!([put("lists", "a", json!({"name": "Anna's", "owner_id": "anna"}))])).await;
    for write in [
        put("lists", "x", json!({"name": "for Ben", "owner_id": "ben"})),
        put("lists", "b", json!({"name": "mine now", "owner_id": "anna"})),
        patch("lists", "b", json!({"name": "hello"})),
        patch("lists", "b", json!({"owner_id": "anna"})),
        patch("lists", "a", json!({"owner_id": "ben"})),
        delete("lists", "b"),
    ] {
        // The first write is fine, and is rolled back with the second one.
        let writes = json!([patch("lists", "a", json!({"name": "changed"})), write]);
        let reason = bench.rejected("anna", writes).await;
        assert_eq!(reason, "`lists`: you are not allowed to make this change", "{write}");
    }
    assert_eq!(
        bench.rows("SELECT id, name, owner_id FROM lists ORDER BY id").await,
        [
            json!({"id": "a", "name": "Anna's", "owner_id": "anna"}),
            json!({"id": "b", "name": "Ben's", "owner_id": "ben"})
        ]
    );
}

#[tokio::test]
async fn the_owner_may_come_from_a_default_or_a_trigger() {
    let bench = Bench::new(&format!(
        "{TABLES}
        CREATE FUNCTION give() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.owner_id := 'ben'; RETURN NEW; END $$;
        CREATE TRIGGER give BEFORE UPDATE ON todos FOR EACH ROW WHEN (NEW.title = 'give away') EXECUTE FUNCTION give()"
    ))
    .await
    .with(|backend| backend.table("todos", WriteRule::owner("owner_id")));
    bench.applied("anna", json!([put("todos", T1, json!({"title": "by default"}))])).await;
    bench.rejected("ben", json!([put("todos", T2, json!({"title": "by default"}))])).await;
    bench.rejected("anna", json!([patch("todos", T1, json!({"title": "give away"}))])).await;
    assert_eq!(bench.rows("SELECT title FROM todos").await, [json!({"title": "by default"})]);
}

#[tokio::test]
async fn tables_and_columns_that_are_not_named_cannot_be_written() {
    let bench = owned().await.with(|backend| {
        backend
            .table_with(WritableTable::new("notes", WriteRule::read_only()).stored_as("public.lists"))
            .columns("todos", ["title", "owner_id"])
    });
    let reason = |writes| bench.rejected("anna", writes);
    let data = json!({"id": "x"});
    let unknown = reason(json!([put("pg_authid", "x", data.clone())])).await;
    assert_eq!(unknown, "table `pg_authid` cannot be written");
    assert_eq!(reason(json!([delete("notes", "x")])).await, "table `notes` is read-only");
    assert_eq!(reason(json!([put("todos", T1, json!({"done": 1}))])).await, "`todos`: column `done` cannot be written");
    let quote = "name\" = 'x' --";
    assert_eq!(
        reason(json!([patch("lists", "l", json!({ quote: 1 }))])).await,
        format!("`lists`: there is no column `{quote}`")
    );
    assert_eq!(
        reason(json!([patch("lists", "l", json!({"id": "other"}))])).await,
        "`lists`: the id of a row cannot be changed"
    );
    bench.applied("anna", json!([put("todos", T1, json!({"id": T1, "title": "ok"}))])).await;
}

#[tokio::test]
async fn a_table_that_is_read_only_stays_so_in_a_combination() {
    let owner = || WriteRule::owner("owner_id");
    for rule in [
        WriteRule::read_only().and(WriteRule::everyone()),
        WriteRule::everyone().and(WriteRule::read_only()),
        WriteRule::read_only().or(WriteRule::read_only()),
        WriteRule::everyone().and(WriteRule::read_only().and(owner())),
    ] {
        let bench = Bench::new(TABLES).await.with(|backend| backend.table("lists", rule.clone()));
        let write = put("lists", "l", json!({"name": "n", "owner_id": "anna"}));
        assert_eq!(bench.rejected("anna", json!([write])).await, "table `lists` is read-only", "{rule:?}");
        assert!(bench.rows("SELECT 1 FROM lists").await.is_empty());
    }
    let bench = Bench::new(TABLES).await.with(|backend| backend.table("lists", WriteRule::read_only().or(owner())));
    bench.applied("anna", json!([put("lists", "l", json!({"name": "n", "owner_id": "anna"}))])).await;
    bench.rejected("ben", json!([delete("lists", "l")])).await;
}

#[tokio::test]
async fn custom_rules_see_identity_and_both_rows() {
    let bench = Bench::new(TABLES).await.with(|backend| {
        let rule = WriteRule::check(|write| {
            let position = |row: Option<&serde_json::Map<_, _>>| {
                row.map_or(0, |row: &serde_json::Map<String, serde_json::Value>| row["position"].as_i64().unwrap_or(0))
            };
            write.identity.claims().get("role") == Some(&json!("admin"))
                || position(write.after) >= position(write.before)
        });
        backend.table("lists", rule)
    });
    let list = |position| json!([put("lists", "l", json!({"name": "l", "owner_id": "o", "position": position}))]);
    bench.applied("anna", list(2)).await;
    bench.applied("anna", list(3)).await;
    bench.rejected("anna", list(1)).await;
    bench.rejected("anna", json!([delete("lists", "l")])).await;
    let admin = syncline_core::Identity::new("root").claim("role", "admin");
    let uploaded = bench.backend.apply(&admin, &crate::bench::transaction(list(1))).await.unwrap();
    assert_eq!(uploaded, syncline_core::Uploaded::Applied);
}

#[tokio::test]
async fn a_table_may_be_stored_elsewhere_under_odd_names() {
    let bench = Bench::new(
        r#"CREATE SCHEMA "My App"; CREATE TABLE "My App"."the ""list""" ("Key" text PRIMARY KEY, t text, "syncline before" text)"#,
    )
    .await
    .with(|backend| {
        let table = WritableTable::new("lists", WriteRule::check(|_| true));
        backend.table_with(table.stored_as("My App.the \"list\"").id_column("Key"))
    });
    bench.backend.check().await.unwrap();
    bench.applied("anna", json!([put("lists", "k", json!({"t": "1", "syncline before": "2"}))])).await;
    bench.applied("anna", json!([put("lists", "k", json!({"t": "3"})), put("lists", "k", json!({}))])).await;
    assert_eq!(
        bench.rows(r#"SELECT * FROM "My App"."the ""list""""#).await,
        [json!({"Key": "k", "t": "3", "syncline before": "2"})]
    );
}

#[tokio::test]
async fn a_set_up_that_does_not_fit_is_named() {
    let bench = Bench::new("CREATE TABLE a (id text, x text); CREATE TABLE b (id text PRIMARY KEY)").await;
    let check = |backend: PostgresBackend| async move { backend.check().await.unwrap_err().to_string() };
    let backend = || bench.backend.clone();
    let everyone = WriteRule::everyone;
    let error = check(backend().table("missing", everyone())).await;
    assert!(error.contains("there is no table \"missing\""), "{error}");
    let error = check(backend().table("a", everyone())).await;
    assert!(error.contains("unique index"), "{error}");
    let error = check(backend().table("b", WriteRule::owner("owner_id"))).await;
    assert!(error.contains("`owner_id`"), "{error}");
    let error = check(backend().table("b", everyone()).columns("b", ["title"])).await;
    assert!(error.contains("`title`"), "{error}");
    let error = check(backend().columns("b", ["title"])).await;
    assert!(error.contains("name table `b` before"), "{error}");
    let error = check(backend().table("b", everyone()).idempotency_table("syncline_applied")).await;
    assert!(error.contains("syncline_applied"), "{error}");
    backend().table("b", everyone()).check().await.unwrap();
}
