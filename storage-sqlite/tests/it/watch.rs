//! Queries that follow their tables.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::executor::block_on;
use serde::Deserialize;
use serde_json::json;
use syncline_core::ErrorKind;
use syncline_storage_sqlite::{Database, Watch, rusqlite};

use crate::feed::{Feed, execute, open, schema};

#[derive(Debug, Deserialize, PartialEq)]
struct Todo {
    title: String,
    done: bool,
}

/// The next result, or a failure after ten seconds.
fn next<T: serde::de::DeserializeOwned + Send + Unpin + 'static>(watch: &mut Watch<T>) -> Vec<T> {
    let deadline = futures_timer_delay();
    match block_on(futures::future::select(watch.next(), deadline)) {
        futures::future::Either::Left((item, _)) => item.unwrap().unwrap(),
        futures::future::Either::Right(_) => panic!("no result came in time"),
    }
}

fn futures_timer_delay() -> futures::future::BoxFuture<'static, ()> {
    let (sender, receiver) = futures::channel::oneshot::channel();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        let _ = sender.send(());
    });
    Box::pin(async move {
        let _ = receiver.await;
    })
}

fn is_quiet<T: serde::de::DeserializeOwned + Send + Unpin + 'static>(watch: &mut Watch<T>) -> bool {
    futures::FutureExt::now_or_never(watch.next()).is_none()
}

#[test]
fn results_follow_every_change_whoever_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let db = block_on(Database::open(&path, schema()).into_future()).unwrap();
    let mut watch = db.query::<Todo>("SELECT title, done FROM todos WHERE list_id = ?1 ORDER BY id").bind("l1").watch();
    assert_eq!(next(&mut watch), []);
    assert!(is_quiet(&mut watch));
    execute(&db, "INSERT INTO todos (id, list_id, title, done) VALUES ('1', 'l1', 'local', 0)");
    let todo = |title: &str, done| Todo { title: title.into(), done };
    assert_eq!(next(&mut watch), [todo("local", false)]);
    execute(&db, "INSERT INTO lists (id) VALUES ('l1')");
    assert!(is_quiet(&mut watch), "another table");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("UPDATE todos SET done = 1", []).unwrap();
    assert_eq!(next(&mut watch), [todo("local", true)]);
    crate::feed::upload_and_cover(&db, 1);
    let mut feed = Feed { write_checkpoint: Some(1), ..Default::default() };
    feed.put("a", "todos", "2", json!({ "list_id": "l1", "title": "synced", "done": 0 }));
    feed.sync(&db);
    assert_eq!(next(&mut watch), [todo("synced", false)]);
}

#[test]
fn many_changes_become_few_results_and_the_last_is_delivered() {
    let db = open();
    let mut watch = db.query::<i64>("SELECT count(*) FROM todos").watch();
    assert_eq!(next(&mut watch), [0]);
    let writer = {
        let db = db.clone();
        std::thread::spawn(move || {
            for _ in 0..200 {
                execute(&db, "INSERT INTO todos (id) VALUES (uuid())");
            }
        })
    };
    let (mut results, mut last) = (0, 0);
    while last < 200 {
        let now = next(&mut watch)[0];
        assert!(now >= last, "results never go back");
        (results, last) = (results + 1, now);
    }
    writer.join().unwrap();
    assert!(results <= 200);
}

#[test]
fn a_throttle_spaces_results_and_loses_none() {
    let db = open();
    let interval = Duration::from_millis(60);
    let mut watch = db.query::<i64>("SELECT count(*) FROM todos").watch().throttle(interval);
    assert_eq!(next(&mut watch), [0]);
    let begun = Instant::now();
    for _ in 0..5 {
        execute(&db, "INSERT INTO todos (id) VALUES (uuid())");
    }
    assert_eq!(next(&mut watch), [5]);
    assert!(begun.elapsed() >= interval / 2);
    assert!(is_quiet(&mut watch));
}

#[test]
fn views_new_tables_and_unreported_changes_are_followed() {
    let db = open();
    block_on(db.write(|tx| {
        tx.execute_batch(
            "CREATE VIEW open_todos AS SELECT t.id FROM todos AS t JOIN lists AS l ON l.id = t.list_id WHERE done = 0;
             CREATE TABLE keyed (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('a');
             CREATE VIRTUAL TABLE words USING fts5(word);",
        )?;
        Ok(())
    }))
    .unwrap();
    let mut view = db.query::<i64>("SELECT count(*) FROM open_todos").watch();
    let mut keyed = db.query::<i64>("SELECT count(*) FROM keyed").watch();
    let mut words = db.query::<i64>("SELECT count(*) FROM words WHERE words MATCH 'x'").watch();
    let mut drafts = db.query::<i64>("SELECT count(*) FROM drafts").watch();
    assert_eq!((next(&mut view)[0], next(&mut keyed)[0], next(&mut words)[0], next(&mut drafts)[0]), (0, 1, 0, 0));
    execute(&db, "INSERT INTO lists (id) VALUES ('l')");
    assert_eq!(next(&mut view), [0]);
    execute(&db, "INSERT INTO todos (id, list_id, done) VALUES ('t', 'l', 0)");
    assert_eq!(next(&mut view), [1]);
    execute(&db, "INSERT INTO words VALUES ('x')");
    assert_eq!(next(&mut words), [1]);
    execute(&db, "INSERT INTO keyed VALUES ('b')"); // No hook reports a table WITHOUT ROWID.
    while next(&mut keyed) != [2] {}
    execute(&db, "INSERT INTO drafts (id) VALUES ('d')");
    while next(&mut drafts) != [1] {}
    execute(&db, "DELETE FROM drafts"); // Without a trigger SQLite would empty the table unreported.
    assert_eq!(next(&mut drafts), [0]);
    execute(&db, "DROP VIEW open_todos");
    execute(&db, "CREATE VIEW open_todos AS SELECT id FROM drafts");
    while next(&mut view) != [0] {}
    execute(&db, "INSERT INTO drafts (id) VALUES ('d')");
    assert_eq!(next(&mut view), [1], "the tables were found out again");
}

#[test]
fn only_closing_ends_a_watch() {
    let db = open();
    let mut wrong = db.query::<i64>("SELECT nothing FROM nowhere").watch();
    assert!(block_on(wrong.next()).unwrap().is_err());
    assert!(is_quiet(&mut wrong));
    let mut watch = db.query::<i64>("SELECT 1").watch();
    assert_eq!(next(&mut watch), [1]);
    block_on(db.close());
    assert_eq!(block_on(watch.next()).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(block_on(watch.next()).is_none());
    assert_eq!(block_on(db.query::<i64>("SELECT 1").one()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(block_on(db.write(|_| Ok(()))).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn queries_run_once_too() {
    let db = open();
    execute(&db, "INSERT INTO todos (id, title, done) VALUES ('1', 'a', 1), ('2', 'b', 0)");
    let all = block_on(db.query::<Todo>("SELECT title, done FROM todos ORDER BY id").all()).unwrap();
    assert_eq!(all, [Todo { title: "a".into(), done: true }, Todo { title: "b".into(), done: false }]);
    let title =
        |id: &str| db.query::<String>("SELECT title FROM todos WHERE id = ?1 AND done = ?2").bind(id).bind(true);
    assert_eq!(block_on(title("1").one()).unwrap(), "a");
    assert_eq!(block_on(title("2").optional()).unwrap(), None);
    assert!(block_on(title("2").one()).is_err());
    assert!(block_on(db.query::<i64>("DELETE FROM todos RETURNING 1").all()).is_err(), "readers cannot write");
    assert!(block_on(db.query::<i64>("SELECT ?1").all()).is_err(), "a parameter is missing");
    let sum =
        block_on(db.read(|conn| Ok(conn.query_row("SELECT sum(done) FROM todos", [], |row| row.get::<_, i64>(0))?)));
    assert_eq!(sum.unwrap(), 1);
}

#[test]
fn an_error_is_a_result_after_which_the_query_is_watched_on() {
    let db = open();
    let mut watch = db.query::<Todo>("SELECT title, done FROM todos").watch();
    assert_eq!(next(&mut watch), []);
    execute(&db, "INSERT INTO todos (id, title, done) VALUES ('1', NULL, 0)");
    let error = block_on(watch.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(is_quiet(&mut watch));
    execute(&db, "INSERT INTO lists (id) VALUES ('l1')");
    assert!(is_quiet(&mut watch), "another table");
    execute(&db, "UPDATE todos SET title = 'mended'");
    assert_eq!(next(&mut watch), [Todo { title: "mended".into(), done: false }]);

    let mut early = db.query::<i64>("SELECT count(*) FROM made_later").watch();
    assert!(block_on(early.next()).unwrap().is_err());
    execute(&db, "CREATE TABLE made_later (x)");
    assert_eq!(next(&mut early), [0]);

    block_on(db.close());
    assert_eq!(block_on(watch.next()).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(block_on(watch.next()).is_none());
}
