//! What is owed of transactions: whole, in order, and again until they are confirmed.

use std::sync::Arc;

use futures::StreamExt;

use super::bench::*;
use super::hand::{Change, Hand};
use super::reader::Reader;
use crate::source::{SourceEvent, SourcePosition};

/// Each transaction ends with a commit of its own, after all of its changes, in the order in which they were committed: also
/// where one began before another and ended after it.
pub async fn transactions_come_whole_and_in_the_order_of_their_commits(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"]), ("b", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    let first = bench.last();
    for round in 0..8 {
        let (id, v) = (format!("r{round}"), round.to_string());
        bench
            .commit(&[
                insert("a", &id, &[("v", Some("first"))]),
                insert("b", &id, &[("v", None)]),
                update("a", &id, &[("v", Some("second"))]),
                update("a", &id, &[("v", Some(&v))]),
                insert("b", "passing", &[("v", Some("x"))]),
                delete("b", "passing"),
            ])
            .await;
        let (early, late) = (format!("early{round}"), format!("late{round}"));
        let row: &[(&str, Option<&str>)] = &[("v", Some("o"))];
        bench
            .commit_overlapping(&[insert("a", &early, row)], &[insert("a", &late, row), insert("b", &late, row)])
            .await;
    }
    reader.catch_up().await;
    let wanted: Vec<usize> = (first..=bench.last()).collect();
    assert_eq!(
        reader.shown[reader.shown.len().saturating_sub(wanted.len())..],
        wanted,
        "each commit is to be seen alone"
    );
}

/// A transaction of many changes comes whole, also if the stream is dropped in the middle of it.
pub async fn a_large_transaction_comes_whole(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    bench.commit(&[insert("a", "0", &[("v", None)])]).await;
    let mut reader = bench.caught_up().await;
    let rows = bench.hand.many_rows();
    let mut changes: Vec<Change> = (1..=rows).map(|row| insert("a", &row.to_string(), &[("v", None)])).collect();
    changes.push(delete("a", "0"));
    bench.commit(&changes).await;
    for taken in [1, rows / 2, rows] {
        reader.open().await;
        reader.take(taken).await;
        reader.restart(bench.hand.source());
    }
    reader.catch_up().await;
    bench.commit(&[delete("a", "1")]).await;
    reader.catch_up().await;
}

/// Positions are bytes that sort as the stream runs, and each commit has a larger one than all before it.
pub async fn positions_rise_with_every_commit(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[]).await;
    let mut reader = bench.caught_up().await;
    // Enough for a number to get one more byte, and one more digit.
    for _ in 0..300 {
        bench.commit(&[]).await;
    }
    reader.catch_up().await;
    let positions = |reader: &Reader| -> Vec<SourcePosition> {
        reader.transcript.transactions.iter().map(|transaction| transaction.position.clone()).collect()
    };
    let before = positions(&reader);
    assert!(before.len() >= 300, "each commit has a position, but there are only {}", before.len());
    assert!(before.windows(2).all(|pair| pair[0] < pair[1]), "positions sort as bytes");
    reader.restart(bench.hand.source());
    bench.commit(&[]).await;
    reader.catch_up().await;
    assert!(before.last() < positions(&reader).last(), "positions go on rising in another stream");
}

/// A stream that is opened at the position of a commit says exactly what came after it, by another process too.
pub async fn a_stream_goes_on_after_its_position(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    let begun = reader.transcript.transactions.len();
    for round in 0..6 {
        bench.commit(&[insert("a", &format!("r{round}"), &[("v", None)])]).await;
        bench.commit(&[update("a", &format!("r{round}"), &[("v", Some("x"))])]).await;
    }
    let last = token("the last of them");
    reader.mark(&last).await;
    reader.until("the marker comes", |reader| reader.transcript.has(&last)).await;
    let said = std::mem::take(&mut reader.transcript);
    reader.crash();
    for at in (begun..said.transactions.len() - 1).step_by(3) {
        let start = bench.from(&said, at);
        let read = bench.transactions(&*bench.hand.source(), &start, &last).await;
        assert_same(&read, &said.transactions[at + 1..], "after the position of a commit");
    }
}

/// Whatever was sent but not confirmed comes again, the same each time, however far the stream was read before.
pub async fn what_is_not_confirmed_comes_again_as_it_was(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v", "body"])]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[]).await;
    reader.catch_up().await;
    let start = bench.from(&reader.transcript, reader.transcript.transactions.len() - 1);
    let body = large(1);
    bench.commit(&[insert("a", "x", &[("v", Some("1")), ("body", Some(&body))])]).await;
    bench.commit(&[update("a", "x", &[("v", Some("2"))])]).await;
    bench.commit(&[rename("a", "x", "y")]).await;
    bench.commit(&[delete("a", "y"), insert("a", "x", &[("v", None), ("body", None)])]).await;
    let last = token("the last of them");
    reader.mark(&last).await;
    reader.crash();
    let source = bench.hand.source();
    let first = bench.transactions(&*source, &start, &last).await;
    assert!(first.len() >= 5, "four transactions and the marker, but {} came", first.len());
    for taken in 1..=3 {
        // One reads a part, and goes away.
        let deadline = bench.deadline();
        if let Ok(mut events) = deadline.wait("the stream opens", source.events(start.clone())).await {
            for _ in 0..taken {
                match deadline.wait("the stream goes on", events.next()).await {
                    // Nothing more comes by itself.
                    Some(Ok(batch)) if batch.contains(&SourceEvent::Marker(last.clone())) => break,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
        }
        let again = bench.transactions(&*source, &start, &last).await;
        assert_same(&again, &first, "what was not confirmed");
    }
}

/// Confirming something older, twice, or something that the source does not know changes nothing: a stream goes on where it
/// is asked to.
pub async fn confirming_moves_nothing_but_what_may_be_forgotten(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    for round in 0..4 {
        bench.commit(&[insert("a", &format!("r{round}"), &[("v", None)])]).await;
    }
    reader.catch_up().await;
    let positions: Vec<_> = reader.transcript.transactions.iter().map(|one| one.position.clone()).collect();
    let [.., older, newer] = &positions[..] else { panic!("two transactions have come") };
    for position in [newer, older, newer, &SourcePosition(crate::Bytes::from_static(b"?"))] {
        reader.source.acknowledge(position);
    }
    bench.commit(&[insert("a", "while it is open", &[("v", None)])]).await;
    reader.catch_up().await;
    reader.source.acknowledge(older);
    let shown = reader.shown.len();
    reader.crash();
    bench.commit(&[insert("a", "while nobody reads", &[("v", None)])]).await;
    reader.catch_up().await;
    assert_eq!(reader.shown.len(), shown + 1, "only what is new comes");
    reader.restart(bench.hand.source());
    bench.commit(&[delete("a", "r0")]).await;
    reader.catch_up().await;
}

/// A reader that does not look for a while gets everything afterwards, in order.
pub async fn a_reader_that_pauses_gets_everything(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["body"])]).await;
    bench.commit(&[insert("a", "1", &[("body", None)])]).await;
    let mut reader = bench.caught_up().await;
    let first = bench.last();
    // More than anything should keep in memory.
    let bodies = [large(2), large(3)];
    for round in 0..800 {
        bench.commit(&[update("a", "1", &[("body", Some(&bodies[round % 2]))])]).await;
    }
    reader.catch_up().await;
    let shown = reader.shown.iter().copied().filter(|number| *number >= first).collect::<Vec<_>>();
    assert_eq!(shown, (first..=bench.last()).collect::<Vec<_>>(), "each commit is to be seen");
}
