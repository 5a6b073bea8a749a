//! Files that earlier versions wrote.

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, ErrorKind, PublishOutcome};
use syncline_storage_sqlite::{Database, Schema, Table, rusqlite};

use crate::feed::{Feed, execute, rows, schema, upload};

/// Makes a file of format 2 out of one of today.
const FORMAT_2: &str = "DROP TRIGGER syncline_log_deleted; DROP TABLE syncline_rows; \
                        CREATE INDEX syncline_log_by_row ON syncline_log (tbl, row_id); \
                        ALTER TABLE syncline_buckets DROP COLUMN former_name; \
                        ALTER TABLE syncline_state DROP COLUMN sorted_seq; UPDATE syncline_state SET format = 2;";
/// Makes a file of format 1 out of one of format 2.
const FORMAT_1: &str = "ALTER TABLE syncline_transactions DROP COLUMN number; DROP TABLE syncline_superseded; \
                        ALTER TABLE syncline_state DROP COLUMN superseded; UPDATE syncline_state SET format = 1;";

fn queued(db: &Database) -> (u64, Vec<usize>) {
    let sizes = block_on(db.queue(100)).unwrap().iter().map(|transaction| transaction.crud.len()).collect();
    (block_on(db.upload_state()).unwrap().queued, sizes)
}

#[test]
fn a_file_of_format_1_keeps_its_upload_queue() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
    execute(&db, "INSERT INTO lists (id) VALUES ('sent')");
    upload(&db, &syncline_core::Uploaded::Applied);
    execute(&db, "INSERT INTO lists (id) VALUES ('a'), ('b')");
    let other = rusqlite::Connection::open(&path).unwrap();
    let foreign = "INSERT INTO syncline_queue (written_at, op, tbl, row_id) VALUES \
                   (1, 'PUT', 'lists', 'c'), (1, 'PUT', 'lists', 'd'), (2, 'PUT', 'lists', 'e')";
    other.execute_batch(foreign).unwrap();
    execute(&db, "INSERT INTO lists (id) VALUES ('f'), ('g'), ('h')");
    other.execute_batch(foreign).unwrap();
    let expected = (6, vec![2, 2, 1, 3, 2, 1]);
    assert_eq!(queued(&db), expected);
    block_on(db.close());
    other.execute_batch(FORMAT_2).unwrap();
    other.execute_batch(FORMAT_1).unwrap();
    // Format 1 had no runs for what other processes wrote.
    other.execute_batch("DELETE FROM syncline_transactions WHERE last IN (5, 6)").unwrap();
    for _ in 0..2 {
        let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
        assert_eq!(queued(&db), expected);
        block_on(db.close());
    }
    let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
    execute(&db, "INSERT INTO lists (id) VALUES ('i')");
    assert_eq!(queued(&db), (7, vec![2, 2, 1, 3, 2, 1, 1]));
    assert_eq!(upload(&db, &syncline_core::Uploaded::Applied).len(), 7);
    assert_eq!(queued(&db), (0, vec![]));
}

#[test]
fn a_file_of_format_2_goes_on_with_what_was_published_and_staged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let open = |schema| block_on(Database::open(&path, schema).into_future()).unwrap();
    let db = open(schema());
    let mut feed = Feed::default();
    for row in 0..20 {
        feed.put("a", "lists", &format!("{row:02}"), json!({ "rank": row }));
    }
    assert_eq!(feed.sync(&db), PublishOutcome::Published);
    for row in 0..10 {
        feed.remove("a", "lists", &format!("{row:02}"));
        feed.put("b", "lists", &format!("{:02}", row + 5), json!({ "rank": 100 }));
    }
    feed.begin(&db);
    feed.stage(&db);
    block_on(db.close());
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch(FORMAT_2).unwrap();
    // Tables are made again from what was published.
    let wider = Table::new("lists").text("name").integer("rank").text("more");
    let db = open(Schema::new().table(wider));
    let ranks = |db: &Database| -> Vec<(String, i64)> {
        let row = |row: &serde_json::Value| (row["id"].as_str().unwrap().into(), row["rank"].as_i64().unwrap());
        rows(db, "lists").iter().map(row).collect()
    };
    let all: Vec<(String, i64)> = (0..20).map(|row| (format!("{row:02}"), row)).collect();
    assert_eq!(ranks(&db), all);
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    let after: Vec<(String, i64)> =
        (5..20).map(|row| (format!("{row:02}"), if row < 15 { 100 } else { row })).collect();
    assert_eq!(ranks(&db), after);
    let differ = "SELECT count(*) FROM (SELECT tbl, row_id, seq FROM syncline_log EXCEPT SELECT tbl, row_id, seq FROM syncline_rows)";
    assert_eq!(block_on(db.query::<i64>(differ).one()).unwrap(), 0);
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
    block_on(db.close());
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("UPDATE syncline_state SET format = 99").unwrap();
    let error = block_on(Database::open(&path, schema()).into_future()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("newer version"), "{error}");
}
