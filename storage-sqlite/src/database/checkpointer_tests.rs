//! The log of the file stays short, whoever writes, and nobody waits for it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, PublishOutcome};

use super::checkpointer::LIMIT;
use super::feed::{self, Feed, execute, rows};
use super::{Database, Durability};

/// Pages that commits may add beyond the limit, before tasks are held and while local writes go on.
const BEYOND: u64 = 3_000;
/// A page with its header in the log.
const FRAME: u64 = 4096 + 24;

fn open(directory: &Path) -> Database {
    let opening = Database::open(directory.join("app.db"), feed::schema()).durability(Durability::Off);
    block_on(opening.into_future()).unwrap()
}

fn log(directory: &Path) -> u64 {
    std::fs::metadata(directory.join("app.db-wal")).map_or(0, |file| file.len())
}

/// A download of more pages than the log may have.
fn large(feed: &mut Feed) {
    let text = "what fills a page, ".repeat(170);
    for row in 0..2 * u64::from(LIMIT) {
        feed.put("a", "lists", &format!("{row:08}"), json!({ "name": text, "rank": row }));
    }
}

#[test]
fn the_log_stays_short_while_sync_writes_much() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let mut feed = Feed::default();
    large(&mut feed);
    feed.begin(&db);
    let mut longest = 0;
    for lines in feed.lines(500, |_| true).chunks(2) {
        block_on(db.stage(lines)).unwrap();
        longest = longest.max(log(directory.path()));
    }
    assert!(longest > 0, "there is a log");
    assert!(longest < (u64::from(LIMIT) + BEYOND) * FRAME, "{longest} bytes");
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    let longest = log(directory.path());
    assert!(longest < (u64::from(LIMIT) + BEYOND) * FRAME, "{longest} bytes");
    block_on(db.close());
    assert_eq!(log(directory.path()), 0, "closing moves all of it");
}

#[test]
fn a_reader_that_holds_an_old_state_stops_nobody_and_then_the_log_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    execute(&db, "INSERT INTO drafts (id, body) VALUES ('a', 'before')");
    let (began, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let reader = {
        let db = db.clone();
        std::thread::spawn(move || {
            block_on(db.read(move |conn| {
                let count = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
                let before = count("SELECT count(*) FROM drafts")?;
                began.send(()).unwrap();
                ends.recv().unwrap();
                Ok((before, count("SELECT count(*) FROM drafts")?))
            }))
            .unwrap()
        })
    };
    has_begun.recv().unwrap();
    let mut feed = Feed::default();
    large(&mut feed);
    feed.begin(&db);
    for lines in feed.lines(500, |_| true).chunks(2) {
        block_on(db.stage(lines)).unwrap();
        execute(&db, "INSERT INTO drafts (id, body) VALUES (uuid(), 'during')");
    }
    let held = log(directory.path());
    assert!(held > u64::from(LIMIT) * FRAME, "it grows as long as it is read: {held}");
    end.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), (1, 1), "one state");
    // As soon as anything is written, it is found to be too long.
    let deadline = Instant::now() + Duration::from_secs(30);
    while log(directory.path()) > u64::from(LIMIT) * FRAME {
        assert!(Instant::now() < deadline, "it stays at {}", log(directory.path()));
        execute(&db, "INSERT INTO drafts (id, body) VALUES (uuid(), 'after')");
    }
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published);
    assert_eq!(rows(&db, "lists").len() as u64, 2 * u64::from(LIMIT));
}
