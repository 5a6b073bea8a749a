//! Power losses, by copying the file and its log in the middle of things.

use std::path::Path;

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, PublishOutcome, Uploaded, WallTime};
use syncline_storage_sqlite::Database;

use crate::feed::{Feed, execute, rows, schema};

fn open(directory: &Path) -> Database {
    block_on(Database::open(directory.join("app.db"), schema()).into_future()).unwrap()
}

/// The database as a crash at this moment would leave it.
fn crashed(directory: &Path) -> (tempfile::TempDir, Database) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["app.db", "app.db-wal"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    let db = open(copy.path());
    (copy, db)
}

#[test]
fn after_a_crash_everything_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let mut feed = Feed::default();
    for row in 0..50 {
        feed.put("a", "lists", &format!("{row:02}"), json!({ "rank": row }));
    }
    feed.begin(&db);
    let lines = feed.lines(10, |_| true);
    for (number, line) in lines.iter().enumerate() {
        block_on(db.stage(std::slice::from_ref(line))).unwrap();
        let (_copy, crashed) = crashed(directory.path());
        let state = block_on(crashed.resume(WallTime(0))).unwrap();
        assert_eq!(state.buckets[0].1.0, (number as u64 + 1) * 10, "downloads go on from there");
        assert!(rows(&crashed, "lists").is_empty());
        block_on(crashed.stage(&lines[number + 1..])).unwrap();
        assert_eq!(feed.publish(&crashed, None), PublishOutcome::Published);
        assert_eq!(rows(&crashed, "lists").len(), 50);
    }
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&crashed(directory.path()).1, "lists").len(), 50);

    execute(&db, "UPDATE lists SET name = 'mine' WHERE id = '00'");
    execute(&db, "DELETE FROM lists WHERE id = '01'");
    let (_copy, after_write) = crashed(directory.path());
    assert_eq!(rows(&after_write, "lists")[0]["name"], "mine");
    assert_eq!(block_on(after_write.upload_state()).unwrap().queued, 2, "no acknowledged write is lost");

    let transaction = block_on(db.next_upload()).unwrap().unwrap();
    block_on(db.finish_upload(&transaction, &Uploaded::Rejected { reason: "no".into() })).unwrap();
    let (_copy, after_upload) = crashed(directory.path());
    let state = block_on(after_upload.upload_state()).unwrap();
    assert_eq!((state.queued, state.uncovered.is_some()), (1, true));
    assert_eq!(block_on(after_upload.rejected()).unwrap().len(), 1);
    crate::feed::upload_and_cover(&after_upload, 3);
    feed.write_checkpoint = Some(3);
    assert_eq!(feed.publish(&after_upload, None), PublishOutcome::Published);
    assert_eq!(rows(&after_upload, "lists")[0]["name"], json!(null));
    assert_eq!(rows(&after_upload, "lists").len(), 50);
}
