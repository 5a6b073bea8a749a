//! Writes that meet rows that have changed meanwhile.

use serde_json::{Value as Json, json};
use syncline_core::{Conflict, ConflictResolver, RejectIfChanged, Resolution, WriteKind};
use syncline_source_postgres::WriteRule;

use crate::bench::{Bench, delete, patch, put};

const DOCS: &str = "CREATE TABLE docs (id text PRIMARY KEY, title text, stars int DEFAULT 0, done bool DEFAULT false,
                                       tags jsonb, at timestamptz, owner_id text DEFAULT 'anna', gone bool)";

async fn docs(resolver: impl ConflictResolver + 'static) -> Bench {
    Bench::new(DOCS)
        .await
        .with(|backend| backend.table("docs", WriteRule::owner("owner_id")).resolver("docs", resolver))
}

fn seen(mut write: Json, old: Json) -> Json {
    write["old"] = old;
    write
}

#[tokio::test]
async fn the_last_write_wins_column_by_column() {
    let bench = Bench::new(DOCS).await.with(|backend| backend.table("docs", WriteRule::owner("owner_id")));
    bench.applied("anna", json!([put("docs", "d", json!({"title": "t"}))])).await;
    bench.applied("anna", json!([patch("docs", "d", json!({"stars": 1}))])).await;
    bench.applied("anna", json!([patch("docs", "d", json!({"title": "u"}))])).await;
    assert_eq!(bench.rows("SELECT title, stars FROM docs").await, [json!({"title": "u", "stars": 1})]);
}

#[tokio::test]
async fn a_changed_row_is_noticed_whatever_its_type() {
    let bench = docs(RejectIfChanged).await;
    bench
        .applied(
            "anna",
            json!([put(
                "docs",
                "d",
                json!({"title": "t", "tags": "{\"b\": 1, \"a\": 2}", "at": "2024-01-02 03:04:05Z"})
            )]),
        )
        .await;
    // As a client's SQLite has the values: booleans are numbers, JSON and times are text.
    let as_seen =
        json!({"title": "t", "done": 0, "tags": "{\"a\": 2,\"b\":1}", "at": "2024-01-02 03:04:05.000Z", "unknown": 1});
    let update = json!([seen(patch("docs", "d", json!({"title": "u"})), as_seen.clone())]);
    bench.applied("anna", update.clone()).await;
    // Its answer was lost, so it comes again.
    bench.applied("anna", update).await;
    let reason = bench.rejected("anna", json!([seen(patch("docs", "d", json!({"title": "v"})), as_seen)])).await;
    assert_eq!(reason, "`title` was changed meanwhile");
    // The row is another device's; this one has never seen it.
    let insertion = json!([put("docs", "d", json!({"title": "new", "done": 0}))]);
    assert_eq!(bench.rejected("anna", insertion).await, "the row is there already");
    let deletion = json!([seen(delete("docs", "d"), json!({"title": "u"}))]);
    bench.applied("anna", deletion.clone()).await;
    bench.applied("anna", deletion).await;
    let insertion = json!([put("docs", "e", json!({"title": "e", "tags": "[1]", "at": "2024-01-02T03:04:05Z"}))]);
    bench.applied("anna", insertion.clone()).await;
    bench.applied("anna", insertion).await;
    let reason =
        bench.rejected("anna", json!([seen(patch("docs", "d", json!({"title": "w"})), json!({"title": "u"}))])).await;
    assert_eq!(reason, "the row was deleted meanwhile");
}

#[tokio::test]
async fn a_resolver_tells_nothing_about_rows_of_others() {
    let bench = docs(RejectIfChanged).await;
    bench.applied("anna", json!([put("docs", "d", json!({"title": "secret"}))])).await;
    for old in [json!({"title": "guess"}), json!({"title": "secret"})] {
        let reason = bench.rejected("ben", json!([seen(patch("docs", "d", json!({"title": "x"})), old)])).await;
        assert_eq!(reason, "`docs`: you are not allowed to make this change");
    }
}

/// Adds stars instead of setting them, keeps done documents as they are, and marks instead of deleting.
#[derive(Debug)]
struct Merging;

impl ConflictResolver for Merging {
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution {
        let Some(current) = conflict.current else { return Resolution::Apply };
        if conflict.write.op == WriteKind::Delete {
            return Resolution::ApplyInstead([("gone".to_owned(), json!(true))].into_iter().collect());
        }
        if current["done"] == true {
            return Resolution::KeepCurrent;
        }
        let mut columns = conflict.write.data.clone().unwrap_or_default();
        let of = |row: Option<&serde_json::Map<String, Json>>| {
            row.and_then(|row| row.get("stars")).and_then(Json::as_i64).unwrap_or(0)
        };
        if columns.contains_key("stars") {
            let sum = of(Some(current)) + of(Some(&columns)) - of(conflict.write.old.as_ref());
            columns.insert("stars".into(), sum.into());
        }
        columns.insert("tags".into(), json!("a JSON string"));
        Resolution::ApplyInstead(columns)
    }
}

/// Writes whole rows: the one that is there, with what the client changed.
#[derive(Debug)]
struct WholeRow;

impl ConflictResolver for WholeRow {
    fn resolve(&self, conflict: &Conflict<'_>) -> Resolution {
        let mut row = conflict.current.cloned().unwrap_or_default();
        row.extend(conflict.write.data.iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        Resolution::ApplyInstead(row)
    }
}

#[tokio::test]
async fn a_whole_row_may_be_written_although_the_database_computes_columns_of_it() {
    let bench = Bench::new(
        "CREATE TABLE docs (id text PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY, title text,
                            length int GENERATED ALWAYS AS (length(title)) STORED)",
    )
    .await
    .with(|backend| backend.table("docs", WriteRule::everyone()).resolver("docs", WholeRow));
    bench.applied("anna", json!([put("docs", "d", json!({"title": "t"}))])).await;
    bench.applied("anna", json!([patch("docs", "d", json!({"title": "tt"}))])).await;
    assert_eq!(bench.rows("SELECT * FROM docs").await, [json!({"id": "d", "number": 1, "title": "tt", "length": 2})]);
}

#[tokio::test]
async fn a_resolver_of_ones_own_merges() {
    let bench = docs(Merging).await;
    bench.applied("anna", json!([put("docs", "d", json!({"title": "t", "stars": 5}))])).await;
    // Two devices, both of which saw 5.
    for stars in [6, 8] {
        let write = seen(patch("docs", "d", json!({"stars": stars})), json!({"stars": 5}));
        bench.applied("anna", json!([write])).await;
    }
    assert_eq!(bench.rows("SELECT stars, tags FROM docs").await, [json!({"stars": 9, "tags": "a JSON string"})]);
    bench.applied("anna", json!([put("docs", "d", json!({"title": "again", "done": 1}))])).await;
    bench.applied("anna", json!([patch("docs", "d", json!({"title": "too late"}))])).await;
    bench.applied("anna", json!([delete("docs", "d"), delete("docs", "none")])).await;
    assert_eq!(
        bench.rows("SELECT title, done, gone FROM docs").await,
        [json!({"title": "again", "done": true, "gone": true})]
    );
    // What it writes instead is judged as well.
    bench.rejected("anna", json!([put("docs", "e", json!({"owner_id": "ben"}))])).await;
}
