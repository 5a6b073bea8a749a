//! Schema changes, without migrations and without losing anything.

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, ErrorKind, PublishOutcome, WallTime};
use syncline_storage_sqlite::{Database, Schema, Table, rusqlite};

use crate::feed::{Feed, execute, rows};

struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn try_open(&self, schema: Schema) -> syncline_storage_sqlite::Result<Database> {
        block_on(Database::open(self.0.path().join("app.db"), schema).into_future())
    }

    fn open(&self, schema: Schema) -> Database {
        self.try_open(schema).unwrap()
    }
}

fn lists() -> Table {
    Table::new("lists").text("name")
}

#[test]
fn new_columns_and_tables_are_filled_from_what_was_downloaded() {
    let file = File::new();
    let db = file.open(Schema::new().table(lists()));
    let client = block_on(db.resume(WallTime(0))).unwrap().client_id;
    let mut feed = Feed::default();
    feed.put("a", "lists", "l1", json!({ "name": "one", "rank": 7, "colour": "red" }));
    feed.put("a", "todos", "t1", json!({ "title": "milk" }));
    feed.put("b", "lists", "l1", json!({ "name": "newer", "rank": 8 }));
    feed.put("b", "lists", "l2", json!({ "name": "two", "rank": 9 }));
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    // Local writes, one of them to a row that is synced, and downloads that are not shown yet.
    execute(&db, "UPDATE lists SET name = 'mine' WHERE id = 'l1'");
    execute(&db, "INSERT INTO lists (id, name) VALUES ('l3', 'made')");
    execute(&db, "DELETE FROM lists WHERE id = 'l2'");
    feed.put("a", "lists", "l4", json!({ "name": "staged", "rank": 1 }));
    feed.remove("b", "lists", "l1");
    feed.begin(&db);
    feed.stage(&db);
    block_on(db.close());

    let wider = || {
        Schema::new()
            .table(lists().integer("rank").index("by_rank", ["-rank"]))
            .table(Table::new("todos").text("title"))
            .table(Table::new("empty"))
    };
    let db = file.open(wider());
    assert_eq!(block_on(db.resume(WallTime(0))).unwrap().client_id, client);
    let expected =
        [json!({ "id": "l1", "name": "mine", "rank": 8 }), json!({ "id": "l3", "name": "made", "rank": null })];
    assert_eq!(rows(&db, "lists"), expected);
    assert_eq!(rows(&db, "todos"), [json!({ "id": "t1", "title": "milk" })]);
    assert_eq!(block_on(db.upload_state()).unwrap().queued, 3, "rebuilding is not captured");
    execute(&db, "UPDATE lists SET rank = 10 WHERE id = 'l1'");
    block_on(db.close());

    // Back to the older app, and forward again.
    let db = file.open(Schema::new().table(Table::new("todos").text("title")));
    let error = block_on(db.query::<i64>("SELECT count(*) FROM lists").one()).unwrap_err();
    assert!(error.to_string().contains("no such table"), "{error}");
    block_on(db.close());
    let db = file.open(wider());
    let expected =
        [json!({ "id": "l1", "name": "mine", "rank": 10 }), json!({ "id": "l3", "name": "made", "rank": null })];
    assert_eq!(rows(&db, "lists"), expected);
    crate::feed::upload_and_cover(&db, 1);
    feed.write_checkpoint = Some(1);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    let names: Vec<_> = rows(&db, "lists").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["one", "two", "staged"]);
    assert_eq!(rows(&db, "lists")[0]["rank"], 7);
}

#[test]
fn an_unchanged_schema_changes_nothing() {
    let file = File::new();
    let schema = || Schema::new().table(lists().index("by_name", ["name"]).track_previous());
    let version = |db: &Database| -> i64 { block_on(db.query("PRAGMA schema_version").one()).unwrap() };
    let db = file.open(schema());
    let before = version(&db);
    block_on(db.close());
    let db = file.open(schema());
    assert_eq!(version(&db), before);
    block_on(db.close());
    let db = file.open(Schema::new().table(lists().track_metadata()));
    let indexes: i64 =
        block_on(db.query("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name LIKE '%by_name'").one())
            .unwrap();
    assert_eq!(indexes, 0);
}

#[test]
fn local_only_tables_keep_their_rows() {
    let file = File::new();
    let drafts = || Table::new("drafts").text("body").local_only();
    let db = file.open(Schema::new().table(drafts()));
    execute(&db, "INSERT INTO drafts (id, body) VALUES ('d1', 'x')");
    block_on(db.close());
    let db = file.open(Schema::new().table(drafts().integer("rank")));
    assert_eq!(rows(&db, "drafts"), [json!({ "id": "d1", "body": "x", "rank": null })]);
    block_on(db.close());
    let db = file.open(Schema::new());
    block_on(db.close());
    let db = file.open(Schema::new().table(drafts()));
    assert_eq!(rows(&db, "drafts"), [json!({ "id": "d1", "body": "x" })]);
    assert_eq!(block_on(db.upload_state()).unwrap().queued, 0);
}

#[test]
fn rows_of_a_local_only_table_that_becomes_synced_are_set_aside() {
    let drafts = || Table::new("drafts").text("body");
    for (before, aside) in [("SELECT 1", "drafts_local"), ("CREATE TABLE drafts_local (x)", "drafts_local_2")] {
        let file = File::new();
        let db = file.open(Schema::new().table(drafts().local_only()));
        block_on(db.write(move |tx| Ok(tx.execute_batch(before)?))).unwrap();
        execute(&db, "INSERT INTO drafts (id, body) VALUES ('d1', 'the only copy')");
        block_on(db.close());
        let db = file.open(Schema::new().table(drafts()));
        assert!(rows(&db, "drafts").is_empty());
        assert_eq!(rows(&db, aside), [json!({ "id": "d1", "body": "the only copy" })]);
        assert_eq!(block_on(db.upload_state()).unwrap().queued, 0);
    }
    let file = File::new();
    // Nothing to set aside, nothing is.
    let db = file.open(Schema::new().table(Table::new("empty").local_only()));
    block_on(db.close());
    let db = file.open(Schema::new().table(Table::new("empty")));
    let aside: i64 =
        block_on(db.query("SELECT count(*) FROM sqlite_master WHERE name LIKE 'empty_local%'").one()).unwrap();
    assert_eq!(aside, 0);
}

#[test]
fn a_table_may_be_renamed_in_case_alone() {
    let file = File::new();
    let drafts = |name: &str| Table::new(name).text("body").local_only();
    let db = file
        .open(Schema::new().table(Table::new("Lists").text("name").index("by_name", ["name"])).table(drafts("Drafts")));
    execute(&db, "INSERT INTO Drafts (id, body) VALUES ('d1', 'x')");
    execute(&db, "CREATE VIEW named AS SELECT name FROM Lists");
    execute(&db, "CREATE INDEX app_index ON Lists (name DESC)");
    let mut feed = Feed::default();
    feed.put("a", "Lists", "l1", json!({ "name": "old" }));
    feed.put("a", "lists", "l2", json!({ "name": "new" }));
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    assert_eq!(rows(&db, "Lists"), [json!({ "id": "l1", "name": "old" })]);
    block_on(db.close());
    for _ in 0..2 {
        let schema = Schema::new().table(lists().index("by_name", ["name"])).table(drafts("drafts"));
        let db = file.open(schema);
        assert_eq!(rows(&db, "lists"), [json!({ "id": "l2", "name": "new" })]);
        let named: String = block_on(db.query("SELECT name FROM named").one()).unwrap();
        assert_eq!(named, "new");
        assert_eq!(rows(&db, "drafts"), [json!({ "id": "d1", "body": "x" })]);
        let indexes: i64 =
            block_on(db.query("SELECT count(*) FROM sqlite_master WHERE name = 'app_index'").one()).unwrap();
        assert_eq!(indexes, 1);
        block_on(db.close());
    }
}

#[test]
fn what_the_application_made_itself_survives_a_rebuild() {
    let file = File::new();
    let db = file.open(Schema::new().table(lists()));
    block_on(db.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE log (id TEXT); CREATE VIEW named AS SELECT name FROM lists;
             CREATE INDEX app_index ON lists (name);
             CREATE TRIGGER app_trigger AFTER INSERT ON lists BEGIN INSERT INTO log VALUES (NEW.id); END;",
        )?;
        Ok(())
    }))
    .unwrap();
    block_on(db.close());
    let db = file.open(Schema::new().table(lists().integer("rank")));
    execute(&db, "INSERT INTO lists (id, name) VALUES ('l1', 'x')");
    assert_eq!(rows(&db, "log"), [json!({ "id": "l1" })]);
    let named: String = block_on(db.query("SELECT name FROM named").one()).unwrap();
    assert_eq!(named, "x");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let file = File::new();
    let error = file.try_open(Schema::new().table(Table::new("a b")).table(Table::new("syncline_x"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("reserved"), "{error}");
    let db = file.open(Schema::new());
    execute(&db, "CREATE TABLE Lists (x)");
    block_on(db.close());
    let error = file.try_open(Schema::new().table(lists())).unwrap_err();
    assert!(error.to_string().contains("not this library's"), "{error}");
    let conn = rusqlite::Connection::open(file.0.path().join("app.db")).unwrap();
    conn.execute("UPDATE syncline_state SET format = 99", []).unwrap();
    drop(conn);
    let error = file.try_open(Schema::new()).unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
    std::fs::write(file.0.path().join("app.db"), vec![7_u8; 8192]).unwrap();
    assert_eq!(file.try_open(Schema::new()).unwrap_err().kind(), ErrorKind::Data);
}
