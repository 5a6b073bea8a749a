//! What is owed of the first copy of tables.

use std::sync::Arc;

use super::bench::*;
use super::hand::{Change, Hand};

/// A snapshot and the stream up to its end reduce to what the tables hold; the stream gets there although nothing is
/// written.
pub async fn a_snapshot_is_what_the_tables_hold(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v", "body"]), ("empty", &["v"])]).await;
    let body = large(3);
    bench
        .commit(&[
            insert("a", "null", &[("v", None), ("body", None)]),
            insert("a", "nothing", &[("v", Some("")), ("body", Some(&body))]),
            insert("a", "ünï'c\"o\\de", &[("v", Some("ß \u{1F600} \n\t'\"\\")), ("body", Some("x"))]),
        ])
        .await;
    let reader = bench.caught_up().await;
    assert_eq!(reader.shown, [bench.last()]);
    assert!(reader.snapshot_is_durable());
}

/// The same while others write: rows that were read already or are yet to be read change, go, come and get other keys.
pub async fn a_snapshot_beside_writers_is_true_once_its_end_is_passed(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let rows = bench.hand.many_rows();
    fill(&bench, rows).await;
    let mut reader = bench.reader();
    for round in 0..60 {
        reader.take(1).await;
        bench.commit(&disturbance(rows, round)).await;
    }
    reader.catch_up().await;
    assert!(reader.snapshot_events > 0, "there was a snapshot");
}

/// A snapshot that is interrupted anywhere is told to its end after a restart, while others write: until then nothing may be
/// shown, and then nothing is missing or stale.
pub async fn an_interrupted_snapshot_is_completed(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let rows = bench.hand.many_rows();
    fill(&bench, rows).await;
    let mut reader = bench.reader();
    // More each time, so that one that has to begin anew gets further.
    for round in 0..12 {
        reader.open().await;
        reader.take(round + 1).await;
        reader.restart(bench.hand.source());
        bench.commit(&disturbance(rows, round)).await;
    }
    reader.catch_up().await;
    assert!(reader.snapshot_is_durable());
}

/// A row for each disturbance to delete, and those at both ends.
const LEAST_ROWS: usize = 80;

async fn fill(bench: &Bench, rows: usize) {
    let inserts: Vec<Change> = (0..rows).map(|row| insert("a", &key(row), &[("v", Some("before"))])).collect();
    bench.commit(&inserts).await;
}

fn key(row: usize) -> String {
    format!("r{row:06}")
}

/// Changes at both ends of a table, other ones in each round.
fn disturbance(rows: usize, round: usize) -> Vec<Change> {
    assert!(rows >= LEAST_ROWS, "`Hand::many_rows` is at least {LEAST_ROWS}");
    let (front, back) = (key(0), key(rows - 1));
    let now = round.to_string();
    let mut changes = vec![
        update("a", &front, &[("v", Some(&now))]),
        update("a", &back, &[("v", Some(&now))]),
        insert("a", &format!("s{now}"), &[("v", None)]),
        delete("a", &key(1 + round)),
    ];
    // A row that goes from the back to the front and back again, behind whoever reads in the order of keys.
    let (there, here) = ("zzz".to_owned(), "aaa".to_owned());
    match round % 4 {
        0 => changes.push(insert("a", &there, &[("v", Some(&now))])),
        1 => changes.push(rename("a", &there, &here)),
        2 => changes.push(update("a", &here, &[("v", None)])),
        _ => changes.push(delete("a", &here)),
    }
    changes
}

/// A row that came with the snapshot has the same key in the stream.
pub async fn a_row_has_one_key_in_snapshot_and_stream(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let ids = ["1", "01", "a b", "Ä", "''"];
    let inserts: Vec<Change> = ids.iter().map(|id| insert("a", id, &[("v", None)])).collect();
    bench.commit(&inserts).await;
    let mut reader = bench.caught_up().await;
    let before: Vec<_> = ids.iter().map(|id| reader.key("a", id)).collect();
    let updates: Vec<Change> = ids.iter().map(|id| update("a", id, &[("v", Some("x"))])).collect();
    bench.commit(&updates).await;
    reader.catch_up().await;
    let after: Vec<_> = ids.iter().map(|id| reader.key("a", id)).collect();
    assert_eq!(before, after, "keys are the same bytes");
    let deletes: Vec<Change> = ids.iter().map(|id| delete("a", id)).collect();
    bench.commit(&deletes).await;
    reader.catch_up().await;
}

/// A table that a pattern of the selection names, and that is created while the stream runs, is replicated from its first row
/// on.
pub async fn a_table_that_appears_later_is_read(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[]).await.selecting(&[pattern("late_", true, None)]);
    let mut reader = bench.caught_up().await;
    bench.hand.create_table("late_a", &["v"]).await;
    bench.commit(&[insert("late_a", "first", &[("v", Some("1"))])]).await;
    bench.commit(&[update("late_a", "first", &[("v", Some("2"))]), insert("late_a", "second", &[("v", None)])]).await;
    reader.catch_up().await;
    // And while nobody reads.
    reader.restart(bench.hand.source());
    bench.hand.create_table("late_b", &["v"]).await;
    bench.commit(&[insert("late_b", "first", &[("v", Some("1"))])]).await;
    bench.commit(&[delete("late_a", "first"), insert("late_b", "second", &[("v", None)])]).await;
    reader.catch_up().await;
    bench.commit(&[update("late_b", "first", &[("v", Some("3"))])]).await;
    reader.catch_up().await;
}
