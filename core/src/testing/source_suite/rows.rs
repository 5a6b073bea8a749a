//! What is owed of single rows.

use std::sync::Arc;

use super::bench::*;
use super::hand::Hand;
use crate::source::SourceEvent;

/// A row whose key changes carries the old one: nothing stays under it, and every value comes along.
pub async fn a_row_whose_key_changes_leaves_nothing_under_the_old_one(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v", "body"])]).await;
    let body = large(4);
    for id in ["1", "2", "3", "4"] {
        bench.commit(&[insert("a", id, &[("v", Some(id)), ("body", Some(&body))])]).await;
    }
    let mut reader = bench.caught_up().await;
    bench.commit(&[rename("a", "1", "10")]).await;
    bench.commit(&[rename("a", "10", "11"), rename("a", "11", "12"), update("a", "12", &[("v", Some("x"))])]).await;
    // Two that swap, and one that takes a key that another has left.
    bench.commit(&[rename("a", "2", "t"), rename("a", "3", "2"), rename("a", "t", "3")]).await;
    bench.commit(&[rename("a", "4", "5"), insert("a", "4", &[("v", None), ("body", None)])]).await;
    bench.commit(&[delete("a", "4"), rename("a", "5", "4")]).await;
    reader.catch_up().await;
}

/// A value that an update leaves alone is sent, or marked as left out; it is never NULL.
pub async fn what_an_update_leaves_alone_is_never_null(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v", "body"])]).await;
    let (first, second) = (large(5), large(6));
    bench.commit(&[insert("a", "snapshot", &[("v", Some("1")), ("body", Some(&first))])]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[insert("a", "stream", &[("v", Some("1")), ("body", Some(&second))])]).await;
    for id in ["snapshot", "stream"] {
        bench.commit(&[update("a", id, &[("v", Some("2"))]), update("a", id, &[("v", None)])]).await;
        bench.commit(&[update("a", id, &[("body", Some(&second))]), update("a", id, &[("v", Some("3"))])]).await;
    }
    reader.catch_up().await;
    // What NULL is, is sent as such.
    bench.commit(&[update("a", "snapshot", &[("body", None)])]).await;
    bench.commit(&[update("a", "snapshot", &[("v", Some("4"))])]).await;
    reader.catch_up().await;
    // Of a row that is not stored, what was left out can be read again.
    reader.forget("a");
    bench.commit(&[update("a", "snapshot", &[("v", Some("5"))]), update("a", "stream", &[("v", Some("5"))])]).await;
    reader.catch_up().await;
}

/// A truncation deletes all rows that are there at its place in the transaction, and none of other tables.
pub async fn a_truncation_empties_its_tables_at_its_place(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"]), ("b", &["v"]), ("c", &["v"])]).await;
    let row: &[(&str, Option<&str>)] = &[("v", Some("x"))];
    bench.commit(&[insert("a", "1", row), insert("b", "1", row), insert("c", "1", row)]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[insert("a", "2", row), truncate("a"), insert("a", "3", row), insert("a", "1", row)]).await;
    bench.commit(&[truncate("a"), truncate("b")]).await;
    bench.commit(&[insert("a", "1", row), insert("b", "2", row)]).await;
    reader.catch_up().await;
}

/// Tables that are not wanted do not come, and the columns that are wanted are all there.
pub async fn only_what_is_selected_is_sent(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v", "w"]), ("b", &["v"])]).await;
    let bench = bench.selecting(&[pattern("a", false, Some(&["id", "v"]))]);
    let row: &[(&str, Option<&str>)] = &[("v", Some("1")), ("w", Some("1"))];
    bench.commit(&[insert("a", "1", row), insert("b", "1", &row[..1])]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[update("a", "1", &[("w", Some("2"))]), insert("a", "2", row)]).await;
    bench.commit(&[update("a", "1", &[("v", Some("2"))]), update("b", "1", &[("v", Some("2"))])]).await;
    bench.commit(&[insert("b", "2", &row[..1]), delete("a", "2")]).await;
    reader.catch_up().await;
    assert!(!reader.tables.contains_key("b"), "table b was not wanted");
}

/// Rows that are read again are as new as what the stream has sent: one answer per key, in their order, and none for a row
/// that is not there.
pub async fn rows_are_read_again_as_the_stream_has_them(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    bench.commit(&[insert("a", "1", &[("v", None)]), insert("a", "2", &[("v", None)])]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[insert("a", "gone", &[("v", None)])]).await;
    reader.catch_up().await;
    let gone = reader.key("a", "gone");
    bench.commit(&[delete("a", "gone")]).await;
    for round in 0..10 {
        let now = round.to_string();
        bench.commit(&[update("a", "1", &[("v", Some(&now))])]).await;
        reader.catch_up().await;
        let table = Arc::clone(&reader.tables["a"]);
        let keys = [reader.key("a", "2"), gone.clone(), reader.key("a", "1")];
        let answer = bench.deadline().wait("rows are read again", reader.source.reread(&table, &keys)).await;
        let answer = answer.unwrap_or_else(|error| panic!("rows cannot be read again: {error:?}"));
        let found: Vec<Option<(String, Option<String>)>> = answer.rows.iter().map(read_again).collect();
        let wanted = [Some(("2".to_owned(), None)), None, Some(("1".to_owned(), Some(now)))];
        assert_eq!(found, wanted, "one answer per key, each as the stream has it");
        for (key, row) in keys.iter().zip(&answer.rows) {
            assert!(row.as_ref().is_none_or(|(_, row)| row.key == *key), "a row that is read again has its key");
        }
    }
}

fn read_again(
    answer: &Option<(Arc<crate::table::SourceTable>, crate::table::SourceRow)>,
) -> Option<(String, Option<String>)> {
    let (table, row) = answer.as_ref()?;
    let value = |name: &str| {
        let at = table.columns.iter().position(|column| &*column.name == name);
        match at.and_then(|at| row.fields.get(at)) {
            Some(crate::table::Field::Value(value)) => value.as_text().map(str::to_owned),
            other => panic!("column {name} of a row that was read again is {other:?}"),
        }
    };
    Some((value("id").unwrap_or_default(), value("v")))
}

/// The stream passes the position from which on rows that were read again may be shown, although nothing is written.
pub async fn a_stream_passes_what_was_read_again(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    bench.commit(&[insert("a", "1", &[("v", None)])]).await;
    let mut reader = bench.caught_up().await;
    let (table, key) = (Arc::clone(&reader.tables["a"]), reader.key("a", "1"));
    for _ in 0..3 {
        let reread = reader.source.reread(&table, std::slice::from_ref(&key));
        let answer = bench.deadline().wait("a row is read again", reread).await;
        let held = answer.unwrap_or_else(|error| panic!("a row cannot be read again: {error:?}")).no_checkpoint_before;
        reader.until("the stream passes what was read again", |reader| reader.position() >= Some(&held)).await;
    }
    let moved = |event: &SourceEvent| matches!(event, SourceEvent::Put { .. } | SourceEvent::Remove { .. });
    let changes =
        reader.transcript.transactions.iter().flat_map(|one| &one.events).filter(|event| moved(event)).count();
    assert_eq!(changes, 0, "nothing was written");
}
