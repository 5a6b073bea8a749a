//! What local writes leave in the upload queue.

use futures::executor::block_on;
use serde_json::{Value as Json, json};
use syncline_storage_sqlite::{Database, Error, Schema, Table, params, rusqlite};

use crate::feed::{execute, open, rows};

fn writes(db: &Database) -> Vec<Json> {
    let transactions = block_on(db.queue(usize::MAX)).unwrap();
    let crud = transactions.into_iter().flat_map(|transaction| transaction.crud);
    crud.map(|write| {
        let mut json = serde_json::to_value(write).unwrap();
        let json = json.as_object_mut().unwrap();
        json.remove("op_id");
        json.remove("tx_id");
        Json::Object(json.clone())
    })
    .collect()
}

fn with(schema: Schema) -> Database {
    block_on(Database::open_in_memory(schema).into_future()).unwrap()
}

#[test]
fn put_holds_what_is_not_null_patch_what_changed() {
    let db = open();
    execute(&db, "INSERT INTO lists (id, name, rank, weight) VALUES ('l1', 'a', NULL, 0.1)");
    execute(&db, "UPDATE lists SET name = 'a', rank = 7, weight = NULL WHERE id = 'l1'");
    execute(&db, "UPDATE lists SET name = 'a' WHERE id = 'l1'"); // Changes nothing.
    execute(&db, "DELETE FROM lists WHERE id = 'l1'");
    let expected = [
        json!({ "op": "PUT", "type": "lists", "id": "l1", "data": { "name": "a", "weight": 0.1 } }),
        json!({ "op": "PATCH", "type": "lists", "id": "l1", "data": { "rank": 7, "weight": null } }),
        json!({ "op": "DELETE", "type": "lists", "id": "l1" }),
    ];
    assert_eq!(writes(&db), expected);
}

#[test]
fn values_are_exact() {
    let db = open();
    block_on(db.write(|tx| {
        let insert = "INSERT INTO lists (id, name, rank, weight) VALUES (?1, ?2, ?3, ?4)";
        tx.execute(insert, params!["a", "q\"\\\n\u{1}é", i64::MAX, 0.1 + 0.2])?;
        tx.execute(insert, params!["b", "{\"not\":\"nested\"}", i64::MIN, 2.0])?;
        tx.execute("INSERT INTO lists (id, name) VALUES ('c', json_object('k', 1))", [])?;
        tx.execute("UPDATE lists SET name = json_array(1) WHERE id = 'c'", [])?;
        tx.execute(insert, params!["d", "", 0, f64::INFINITY])?;
        tx.execute(insert, params!["e", "x", 1.5, 1e300])?;
        Ok(())
    }))
    .unwrap();
    let data: Vec<Json> = writes(&db).iter().map(|write| write["data"].clone()).collect();
    let expected = [
        json!({ "name": "q\"\\\n\u{1}é", "rank": i64::MAX, "weight": 0.1 + 0.2 }),
        json!({ "name": "{\"not\":\"nested\"}", "rank": i64::MIN, "weight": 2.0 }),
        json!({ "name": "{\"k\":1}" }),
        json!({ "name": "[1]" }),
        json!({ "name": "", "rank": 0, "weight": null }),
        json!({ "name": "x", "rank": 1.5, "weight": 1e300 }),
    ];
    assert_eq!(data, expected);
}

#[test]
fn a_transaction_is_one_transaction_whatever_was_rolled_back() {
    let db = open();
    execute(&db, "INSERT INTO lists (id) VALUES ('a')");
    block_on(db.write(|tx| {
        tx.execute("SAVEPOINT s", [])?;
        tx.execute("INSERT INTO lists (id) VALUES ('gone')", [])?;
        tx.execute_batch("ROLLBACK TO s")?;
        tx.execute("INSERT INTO lists (id) VALUES ('b')", [])?;
        tx.execute("INSERT INTO todos (id) VALUES ('t')", [])?;
        tx.execute("SAVEPOINT s2", [])?;
        tx.execute("INSERT INTO lists (id) VALUES ('gone')", [])?;
        tx.execute_batch("ROLLBACK TO s2")?;
        Ok(())
    }))
    .unwrap();
    let refused = block_on(db.write(|tx| {
        tx.execute("INSERT INTO lists (id) VALUES ('refused')", [])?;
        Err::<(), _>(Error::other("no"))
    }));
    assert!(matches!(refused, Err(Error::Other(_))));
    execute(&db, "INSERT INTO drafts (id, body) VALUES ('local', 'x')");
    execute(&db, "INSERT INTO lists (id) VALUES ('c')");
    let ids: Vec<(Option<i64>, Vec<String>)> = block_on(db.queue(10))
        .unwrap()
        .into_iter()
        .map(|transaction| {
            assert!(transaction.client_id.is_some());
            (transaction.transaction_id, transaction.crud.into_iter().map(|write| write.id).collect())
        })
        .collect();
    let expected =
        [(Some(1), vec!["a".to_owned()]), (Some(2), vec!["b".into(), "t".into()]), (Some(4), vec!["c".into()])];
    assert_eq!(ids, expected);
    assert_eq!(rows(&db, "lists").len(), 3);
}

#[test]
fn a_panic_rolls_back_and_goes_on_in_the_caller() {
    let db = open();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block_on(db.write(|tx| -> syncline_storage_sqlite::Result<()> {
            tx.execute("INSERT INTO lists (id) VALUES ('a')", [])?;
            panic!("in the closure");
        }))
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "in the closure");
    assert!(rows(&db, "lists").is_empty());
    assert!(block_on(db.queue(1)).unwrap().is_empty());
    execute(&db, "INSERT INTO lists (id) VALUES ('b')");
    assert_eq!(rows(&db, "lists").len(), 1);
}

#[test]
fn wrong_writes_are_refused_with_a_reason() {
    let db = open();
    execute(&db, "INSERT INTO lists (id, name) VALUES ('a', 'x')");
    let refused = |sql: &'static str, why: &str| {
        let error = block_on(db.write(move |tx| Ok(tx.execute(sql, [])?))).unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    };
    refused("UPDATE lists SET id = 'b'", "the id of a synced row cannot be changed");
    refused("INSERT INTO lists (id, name) VALUES ('b', x'00')", "cannot hold a blob");
    refused("UPDATE lists SET name = x'00'", "cannot hold a blob");
    refused("INSERT INTO lists (name) VALUES ('no id')", "NOT NULL");
    refused("INSERT INTO lists (id) VALUES (x'00')", "CHECK");
    assert_eq!(writes(&db).len(), 1);
    // An update that leaves the id as it is may name it.
    execute(&db, "UPDATE lists SET id = 'a', name = 'y'");
    assert_eq!(writes(&db).len(), 2);
}

#[test]
fn replace_is_a_put_and_upsert_a_patch() {
    let db = open();
    execute(&db, "INSERT INTO lists (id, name, rank) VALUES ('a', 'x', 1)");
    execute(&db, "INSERT OR REPLACE INTO lists (id, name) VALUES ('a', 'y')");
    execute(
        &db,
        "INSERT INTO lists (id, name) VALUES ('a', 'z') ON CONFLICT (id) DO UPDATE SET name = excluded.name, rank = 2",
    );
    let ops: Vec<Json> = writes(&db).iter().map(|write| json!([write["op"], write["data"]])).collect();
    let expected = [
        json!(["PUT", { "name": "x", "rank": 1 }]),
        json!(["PUT", { "name": "y" }]),
        json!(["PATCH", { "name": "z", "rank": 2 }]),
    ];
    assert_eq!(ops, expected);
}

#[test]
fn previous_values_and_notes_go_along_where_asked() {
    let schema = Schema::new()
        .table(Table::new("all").text("a").integer("b").track_previous().track_metadata())
        .table(Table::new("some").text("a").integer("b").track_previous_of(["b"]))
        .table(Table::new("none").text("a"));
    let db = with(schema);
    block_on(db.write(|tx| {
        tx.execute("INSERT INTO \"all\" (id, a) VALUES ('1', 'x')", [])?;
        tx.metadata("why")?;
        tx.execute("UPDATE \"all\" SET b = 2", [])?;
        tx.metadata("another")?;
        tx.execute("DELETE FROM \"all\"", [])?;
        tx.execute("INSERT INTO some (id, a) VALUES ('1', 'x')", [])?;
        tx.execute("UPDATE some SET a = 'y', b = 3", [])?;
        tx.execute("INSERT INTO none (id, a) VALUES ('1', 'x')", [])?;
        Ok(())
    }))
    .unwrap();
    execute(&db, "UPDATE \"none\" SET a = 'y'");
    execute(&db, "INSERT INTO \"all\" (id) VALUES ('2')");
    let old: Vec<Json> = writes(&db).iter().map(|write| json!([write["old"], write["metadata"]])).collect();
    let expected = [
        json!([null, null]),
        json!([{ "a": "x", "b": null }, "why"]),
        json!([{ "a": "x", "b": 2 }, "another"]),
        json!([null, null]),
        json!([{ "b": null }, null]),
        json!([null, null]),
        json!([null, null]),
        json!([null, null]), // A note ends with its transaction.
    ];
    assert_eq!(old, expected);
}

#[test]
fn required_columns_bind_local_writes_alone() {
    let db = with(Schema::new().table(Table::new("lists").text("name").integer("rank").required("name")));
    let refused = |sql: &'static str| block_on(db.write(move |tx| Ok(tx.execute(sql, [])?))).unwrap_err().to_string();
    assert!(refused("INSERT INTO lists (id) VALUES ('a')").contains("lists.name is required"));
    execute(&db, "INSERT INTO lists (id, name) VALUES ('a', 'x')");
    assert!(refused("UPDATE lists SET name = NULL").contains("lists.name is required"));
    crate::feed::upload_and_cover(&db, 1);
    let mut feed = crate::feed::Feed { write_checkpoint: Some(1), ..Default::default() };
    feed.put("b", "lists", "a", json!({ "rank": 1 }));
    assert_eq!(feed.sync(&db), syncline_core::PublishOutcome::Published);
    assert_eq!(rows(&db, "lists"), [json!({ "id": "a", "name": null, "rank": 1 })]);
}

#[test]
fn the_widest_table_works() {
    let columns = 1999;
    let table = (0..columns).fold(Table::new("wide"), |table, n| table.text(format!("c{n}")));
    let db = with(Schema::new().table(table.track_previous()));
    execute(&db, "INSERT INTO wide (id, c0, c1998) VALUES ('a', 'first', 'last')");
    execute(&db, "UPDATE wide SET c0 = NULL, c1000 = 'middle'");
    let written = writes(&db);
    assert_eq!(written[0]["data"], json!({ "c0": "first", "c1998": "last" }));
    assert_eq!(written[1]["data"], json!({ "c0": null, "c1000": "middle" }));
    assert_eq!(written[1]["old"].as_object().unwrap().len(), columns);
    crate::feed::upload_and_cover(&db, 1);
    let mut feed = crate::feed::Feed { write_checkpoint: Some(1), ..Default::default() };
    let row: serde_json::Map<String, Json> = (0..columns).map(|n| (format!("c{n}"), json!("v"))).collect();
    feed.put("b", "wide", "a", Json::Object(row));
    assert_eq!(feed.sync(&db), syncline_core::PublishOutcome::Published);
    let full: i64 = block_on(db.query("SELECT count(*) FROM wide WHERE c0 = 'v' AND c1998 = 'v'").one()).unwrap();
    assert_eq!(full, 1);
}

#[test]
fn writes_of_other_processes_are_captured_by_statement() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let db = block_on(Database::open(&path, crate::feed::schema()).into_future()).unwrap();
    let mut changes = syncline_core::ClientStore::upload_changes(&db);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("INSERT INTO lists (id, name) VALUES ('a', 'x'), ('b', 'y')").unwrap();
    // The change is noticed without anything happening in this process.
    block_on(futures::StreamExt::next(&mut changes)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2)); // Statements are told apart by the millisecond.
    other.execute_batch("UPDATE lists SET rank = 1 WHERE id = 'a'").unwrap();
    execute(&db, "DELETE FROM lists WHERE id = 'b'");
    let grouped: Vec<usize> =
        block_on(db.queue(10)).unwrap().iter().map(|transaction| transaction.crud.len()).collect();
    assert_eq!(grouped, [2, 1, 1]);
    assert_eq!(block_on(syncline_core::ClientStore::upload_state(&db)).unwrap().queued, 3);
    let kinds: Vec<Json> = writes(&db).iter().map(|write| write["op"].clone()).collect();
    assert_eq!(kinds, ["PUT", "PUT", "PATCH", "DELETE"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20))]

    /// As Postgres writes it, into a row, out again as an upload: the same double, to the last bit.
    #[test]
    fn doubles_come_back_as_they_were(bits in proptest::collection::vec(proptest::prelude::any::<u64>(), 50)) {
        let db = open();
        let doubles = bits.into_iter().map(f64::from_bits).filter(|double| double.is_finite());
        let doubles: Vec<f64> = doubles.chain([0.1 + 0.2, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1e23, -0.5]).collect();
        let mut feed = crate::feed::Feed::default();
        for (number, double) in doubles.iter().enumerate() {
            // The shortest text that is this double, as `float8out` gives it; it marks large ones by an exponent.
            let text = format!("{double:e}");
            feed.put_as("a", "lists", &format!("l{number:03}"), "s", &format!("{{\"weight\":{text}}}"));
        }
        proptest::prop_assert_eq!(feed.sync(&db), syncline_core::PublishOutcome::Published);
        let stored: Vec<f64> = block_on(db.query("SELECT weight FROM lists ORDER BY id").all()).unwrap();
        proptest::prop_assert_eq!(&stored, &doubles);
        execute(&db, "INSERT INTO lists (id, weight) SELECT 'copy' || id, weight FROM lists");
        let uploaded = crate::feed::upload(&db, &syncline_core::Uploaded::Applied);
        let crud = uploaded[0]["crud"].as_array().unwrap();
        let copied: Vec<f64> = crud.iter().map(|write| write["data"]["weight"].as_f64().unwrap()).collect();
        proptest::prop_assert_eq!(&copied, &doubles);
    }
}
