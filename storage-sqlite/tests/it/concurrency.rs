//! Readers, writers and sync at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, ErrorKind, PublishOutcome};
use syncline_storage_sqlite::Database;

use crate::feed::{Feed, execute, open, schema};

#[test]
fn readers_see_a_checkpoint_entirely_or_not_at_all() {
    let db = open();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (lists, todos, low, high): (i64, i64, Option<i64>, Option<i64>) = block_on(db.read(|conn| {
                        let lists = conn.query_row("SELECT count(*) FROM lists", [], |row| row.get(0))?;
                        let todos = conn.query_row("SELECT count(*) FROM todos", [], |row| row.get(0))?;
                        let (low, high) = conn.query_row("SELECT min(rank), max(rank) FROM lists", [], |row| {
                            Ok((row.get(0)?, row.get(1)?))
                        })?;
                        Ok((lists, todos, low, high))
                    }))
                    .unwrap();
                    assert_eq!((lists, low), (todos, high), "one checkpoint, no mixture");
                    let rank = high.unwrap_or(0);
                    assert!(rank >= last, "reads never go back");
                    last = rank;
                }
                last
            })
        })
        .collect();
    let mut feed = Feed::default();
    for round in 1..=30 {
        for row in 0..20 {
            feed.put("a", "lists", &row.to_string(), json!({ "rank": round }));
            feed.put("b", "todos", &format!("{round}-{row}"), json!({ "done": 1 }));
            if round > 1 {
                feed.remove("b", "todos", &format!("{}-{row}", round - 1));
            }
        }
        assert_eq!(feed.sync(&db), PublishOutcome::Published);
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_database_used_inside_its_own_closure_is_an_error_not_a_deadlock() {
    let db = open();
    let inner = db.clone();
    let error = block_on(db.write(move |_| block_on(inner.write(|_| Ok(()))))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // Reading on another thread is no deadlock: it sees the state before.
    let inner = db.clone();
    let count: i64 = block_on(db.write(move |tx| {
        tx.execute("INSERT INTO lists (id) VALUES ('a')", [])?;
        block_on(inner.query("SELECT count(*) FROM lists").one())
    }))
    .unwrap();
    assert_eq!(count, 0);
}

#[test]
fn many_tasks_write_at_once() {
    let db = open();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let db = db.clone();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    execute(&db, "INSERT INTO todos (id) VALUES (uuid())");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(block_on(db.query::<i64>("SELECT count(*) FROM todos").one()).unwrap(), 200);
    assert_eq!(block_on(db.queue(1000)).unwrap().len(), 200);
}

#[test]
fn one_sync_engine_at_a_time_has_a_file_whoever_runs_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
    let same = block_on(Database::open(directory.path().join(".").join("app.db"), schema()).into_future()).unwrap();
    let lease = block_on(db.lease()).unwrap();
    for other in [&db, &same] {
        let error = block_on(other.lease()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    drop(lease);
    drop(block_on(same.lease()).unwrap());

    // As another process has it.
    let file = std::fs::File::open(directory.path().join("app.db-sync")).unwrap();
    file.try_lock().unwrap();
    let error = block_on(db.lease()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(file);
    block_on(db.lease()).unwrap();
}
