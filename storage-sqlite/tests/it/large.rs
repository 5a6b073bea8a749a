//! Large checkpoints beside an application that reads and writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde_json::json;
use syncline_core::{ClientStore, PublishOutcome, Uploaded};
use syncline_storage_sqlite::Database;

use crate::feed::{Feed, cover, execute, open, rows, upload};

/// Rows of each of the two tables: far more than one transaction shows.
const ROWS: u64 = 4_000;
/// Captured writes in the middle of it.
const CAPTURED: u64 = 5;

/// All rows of both tables bear the number of their checkpoint.
fn checkpoint(feed: &mut Feed, number: u64) {
    for row in 0..ROWS {
        let row = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        feed.put("a", "lists", &format!("{row:016x}"), json!({ "name": "synced", "rank": number }));
        // Half of these rows come and go.
        if row.is_multiple_of(2) || number.is_multiple_of(2) {
            feed.put("b", "todos", &format!("{row:016x}"), json!({ "title": "synced", "done": number }));
        } else {
            feed.remove("b", "todos", &format!("{row:016x}"));
        }
    }
}

/// What a reader sees of the two tables: how many rows, and the numbers of their checkpoints.
type Seen = (i64, Option<i64>, Option<i64>);

fn look(db: &Database) -> (Seen, Seen) {
    block_on(db.read(|conn| {
        let look = |sql| conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let lists = look("SELECT count(*), min(rank), max(rank) FROM lists WHERE name = 'synced'")?;
        let todos = look("SELECT count(*), min(done), max(done) FROM todos WHERE title = 'synced'")?;
        Ok((lists, todos))
    }))
    .unwrap()
}

fn expected(number: u64) -> (Seen, Seen) {
    let (rows, seen) = (ROWS as i64, (number > 0).then_some(number as i64));
    match number {
        0 => ((0, None, None), (0, None, None)),
        _ => ((rows, seen, seen), (if number.is_multiple_of(2) { rows } else { rows / 2 }, seen, seen)),
    }
}

/// Publishes, and plays the backend where local writes hold it back. Returns how often they did.
fn publish(db: &Database, feed: &mut Feed) -> u64 {
    for held in 0.. {
        match feed.publish(db, None) {
            PublishOutcome::Published => return held,
            PublishOutcome::Held => {}
            mismatch @ PublishOutcome::Mismatch(_) => panic!("{mismatch:?}"),
        }
        for transaction in upload(db, &Uploaded::Applied) {
            for write in transaction["crud"].as_array().unwrap() {
                feed.put("a", "lists", write["id"].as_str().unwrap(), write["data"].clone());
            }
        }
        if block_on(db.upload_state()).unwrap().uncovered.is_some() {
            let number = feed.write_checkpoint.unwrap_or(0) + 1;
            cover(db, number);
            feed.write_checkpoint = Some(number);
        }
        feed.begin(db);
        feed.stage(db);
    }
    unreachable!("it is published at last");
}

#[test]
fn a_large_checkpoint_is_seen_at_once_and_keeps_nobody_waiting() {
    let db = open();
    let mut feed = Feed::default();
    let (stop, captured, drafts) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                execute(&db, "INSERT INTO drafts (id, body) VALUES (uuid(), 'mine')");
                longest = longest.max(begun.elapsed());
                let written = drafts.fetch_add(1, Ordering::SeqCst);
                if written % 20 == 19 && captured.load(Ordering::SeqCst) < CAPTURED {
                    execute(&db, "INSERT INTO lists (id, name) VALUES (uuid(), 'mine')");
                    captured.fetch_add(1, Ordering::SeqCst);
                }
            }
            longest
        });
        let reader = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                let seen = look(&db);
                let newer = (number..=3).find(|number| seen == expected(*number));
                number = newer.unwrap_or_else(|| panic!("no checkpoint from {number} on is {seen:?}"));
            }
            number
        });
        let begun = Instant::now();
        let mut shortest = Duration::MAX;
        for number in 1..=3 {
            checkpoint(&mut feed, number);
            feed.begin(&db);
            feed.stage(&db);
            let (before, publishing) = (drafts.load(Ordering::SeqCst), Instant::now());
            publish(&db, &mut feed);
            shortest = shortest.min(publishing.elapsed());
            let during = drafts.load(Ordering::SeqCst) - before;
            assert!(during >= 5, "only {during} local writes came through in {:?}", publishing.elapsed());
            assert_eq!(look(&db), expected(number));
        }
        stop.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() <= 3);
        let longest = writer.join().unwrap();
        println!("the longest local write took {longest:?}, three publishes {:?}", begun.elapsed());
        assert!(longest < shortest / 2, "{longest:?} of {shortest:?}");
    });
    // Captured at the very end, they are still to come back.
    publish(&db, &mut feed);
    assert_eq!(look(&db), expected(3));
    assert_eq!(rows(&db, "drafts").len() as u64, drafts.load(Ordering::SeqCst));
    let mine = rows(&db, "lists").iter().filter(|row| row["name"] == "mine").count() as u64;
    assert_eq!(mine, captured.load(Ordering::SeqCst), "no write is lost");
    assert_eq!(block_on(db.upload_state()).unwrap(), Default::default(), "and nothing else was captured");
    let sound: String = block_on(db.query("PRAGMA integrity_check").one()).unwrap();
    assert_eq!(sound, "ok");
}
