//! What is owed of markers.

use std::sync::Arc;

use super::bench::*;
use super::hand::Hand;
use crate::source::SourceEvent;

/// A marker comes back in the stream after everything that was committed before it was sent, and is part of a transaction.
pub async fn a_marker_comes_after_what_was_committed_before_it(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[]).await;
    let mut reader = bench.caught_up().await;
    for round in 0..20 {
        bench.commit(&[]).await;
        bench.commit(&[]).await;
        let token = token(&format!("{round} 'ü\""));
        reader.mark(&token).await;
        bench.commit(&[]).await;
        reader.until("the marker comes", |reader| reader.transcript.has(&token)).await;
        let before = bench.last() - 1;
        let shown = reader.shown.last().copied();
        assert!(shown >= Some(before), "the marker overtook commit {before}: only {shown:?} had come");
    }
    reader.catch_up().await;
}

/// A marker that is sent while nobody reads, by another process, waits in its place; one that was not confirmed comes again.
pub async fn a_marker_that_is_sent_while_nobody_reads_waits(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    reader.crash();
    bench.commit(&[insert("a", "before", &[("v", None)])]).await;
    let token = token("sent while nobody reads");
    bench.mark(&token).await;
    bench.commit(&[insert("a", "after", &[("v", None)])]).await;
    for _ in 0..2 {
        reader.restart(bench.hand.source());
        reader.open().await;
        // Taken, but lost before it became durable.
        let deadline = bench.deadline();
        loop {
            let event = reader.next_event("the source sends an event", deadline).await;
            match event.unwrap_or_else(|| panic!("history is not lost")) {
                SourceEvent::Marker(other) if other == token => break,
                SourceEvent::HistoryLost { reason } => panic!("history is not lost: {reason}"),
                _ => {}
            }
        }
    }
    reader.restart(bench.hand.source());
    reader.until("the marker comes", |reader| reader.transcript.has(&token)).await;
    reader.catch_up().await;
    let at = |wanted: &dyn Fn(&SourceEvent) -> bool| {
        reader.transcript.transactions.iter().position(|one| one.events.iter().any(wanted))
    };
    let marker = at(&|event| *event == SourceEvent::Marker(token.clone()));
    let put = |id: &'static str| {
        let key = reader.key("a", id);
        move |event: &SourceEvent| matches!(event, SourceEvent::Put { row, .. } if row.key == key)
    };
    assert!(at(&put("before")) < marker && marker < at(&put("after")), "the marker has its place among the commits");
}
