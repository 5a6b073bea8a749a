//! Values of a client's SQLite in columns of Postgres.

use serde_json::json;
use syncline_source_postgres::WriteRule;

use crate::bench::{Bench, patch, put};

#[tokio::test]
async fn values_become_what_their_columns_hold() {
    for rule in [WriteRule::everyone(), WriteRule::check(|write| write.after.is_some())] {
        let bench = Bench::new(
            "CREATE TYPE mood AS ENUM ('good', 'bad');
             CREATE DOMAIN short AS varchar(3);
             CREATE TABLE t (id uuid PRIMARY KEY, b bool, i int, big bigint, f float8, n numeric(10,2), j jsonb,
                             a text[], m mood, s short, c char(3), at timestamptz, bytes bytea, d date)",
        )
        .await
        .with(|backend| backend.table("t", rule.clone()));
        let id = "00000000-0000-0000-0000-00000000000a";
        let data = json!({"b": 1, "i": 2.0, "big": 9_007_199_254_740_993_i64, "f": 0.1, "n": "1.50",
            "j": "{\"k\":[1]}", "a": "[\"x\",\"y,z\",null]", "m": "good", "s": "abc", "c": "d",
            "at": "2024-01-02 03:04:05.5", "bytes": "\\x00ff", "d": "2024-01-02"});
        bench.applied("anna", json!([put("t", id, data)])).await;
        assert_eq!(bench.rows("SELECT *, at AT TIME ZONE 'UTC' AS at FROM t").await[0]["j"], json!({"k": [1]}));
        let expected = json!({"b": true, "i": 2, "big": 9_007_199_254_740_993_i64, "f": 0.1, "n": 1.50,
            "a": ["x", "y,z", null], "m": "good", "s": "abc", "c": "d  ", "utc": "2024-01-02T03:04:05.5",
            "bytes": "\\x00ff", "d": "2024-01-02"});
        let columns = "b, i, big, f, n, a, m, s, c, at AT TIME ZONE 'UTC' AS utc, bytes, d";
        assert_eq!(bench.rows(&format!("SELECT {columns} FROM t")).await, [expected]);

        bench.applied("anna", json!([patch("t", id, json!({"b": null, "j": {"x": 1}, "a": [["p"], ["q"]]}))])).await;
        assert_eq!(bench.rows("SELECT b, j, a FROM t").await, [json!({"b": null, "j": {"x": 1}, "a": [["p"], ["q"]]})]);
        for (data, reason) in [
            (json!({"i": "seven"}), "invalid input syntax for type integer: \"seven\""),
            (json!({"b": 2}), "invalid input syntax for type boolean: \"2\""),
            (json!({"s": "abcd"}), "value too long for type character varying(3)"),
            (json!({"c": "abcd"}), "value too long for type character(3)"),
            (json!({"m": "odd"}), "invalid input value for enum mood: \"odd\""),
            (json!({"j": "{"}), "invalid input syntax for type json"),
            (json!({"s": "\u{0}"}), "invalid byte sequence for encoding \"UTF8\": 0x00"),
            (json!({"big": 1e30}), "invalid input syntax for type bigint"),
        ] {
            let refused = bench.rejected("anna", json!([patch("t", id, data)])).await;
            assert!(refused.starts_with("`t`: ") && refused.contains(reason), "{refused}");
        }
        let refused = bench.rejected("anna", json!([put("t", "not a uuid", json!({}))])).await;
        assert!(refused.contains("invalid input syntax for type uuid"), "{refused}");
    }
}

#[tokio::test]
async fn computed_columns_are_refused_and_new_columns_are_noticed() {
    let bench = Bench::new("CREATE TABLE t (id text PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED)")
        .await
        .with(|backend| backend.table("t", WriteRule::everyone()));
    assert_eq!(
        bench.rejected("anna", json!([put("t", "x", json!({"twice": 1}))])).await,
        "`t`: column `twice` is computed by the database"
    );
    bench.applied("anna", json!([put("t", "x", json!({"a": 1}))])).await;
    bench.client.batch_execute("ALTER TABLE t ADD COLUMN later text, ALTER COLUMN a TYPE text").await.unwrap_err();
    bench.client.batch_execute("ALTER TABLE t DROP COLUMN twice, ALTER COLUMN a TYPE bool USING a = 1").await.unwrap();
    bench.applied("anna", json!([patch("t", "x", json!({"a": "yes"}))])).await;
    bench.client.batch_execute("ALTER TABLE t DROP COLUMN a").await.unwrap();
    // What is known of a table is looked at again once a statement fails over it.
    let refused = bench.rejected("anna", json!([patch("t", "x", json!({"a": 1}))])).await;
    assert_eq!(refused, "`t`: there is no column `a`");
}
