//! What is owed when a stream ends: by its reader, by lost history, by a position that makes no sense.

use std::sync::Arc;

use futures::StreamExt;

use super::bench::*;
use super::hand::Hand;
use crate::error::ErrorKind;
use crate::source::{SourceEvent, SourcePosition, SourceStart, SourceState};
use crate::testing::deadline::{dropped_after, pause};

/// The call that opens a stream, and the stream, may be dropped at any point: whoever opens it again, on the same handle or
/// another, misses nothing and gets nothing twice.
pub async fn a_stream_can_be_dropped_at_any_point(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    bench.commit(&[insert("a", "1", &[("v", Some("0"))])]).await;
    let mut reader = bench.reader();
    for round in 0..12 {
        let source = Arc::clone(&reader.source);
        // Dropped while it opens.
        let opened = dropped_after(round, source.events(reader.start()), bench.deadline()).await;
        if let Some(Ok(mut events)) = opened {
            // Dropped while its next item is awaited.
            drop(dropped_after(round, events.next(), bench.deadline()).await);
        }
        bench.commit(&[update("a", "1", &[("v", Some(&round.to_string()))])]).await;
        reader.open().await;
        // At most as many as two transactions have.
        reader.take(1 + round * 5 % 6).await;
        match round % 2 {
            0 => reader.crash(),
            _ => reader.restart(bench.hand.source()),
        }
        bench.commit(&[insert("a", &format!("r{round}"), &[("v", None)])]).await;
    }
    reader.catch_up().await;
    let first = reader.shown[0];
    assert!(reader.shown.iter().copied().eq(first..=bench.last()), "each commit once, in order: {:?}", reader.shown);
}

/// A source that cannot go on says so, and nothing else: a stream with a hole would never be noticed. With neither position
/// nor state it begins anew.
pub async fn lost_history_is_told(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    for round in 0..5 {
        bench.commit(&[insert("a", &format!("r{round}"), &[("v", Some("before"))])]).await;
    }
    reader.catch_up().await;
    reader.crash();
    bench.commit(&[delete("a", "r0"), update("a", "r1", &[("v", Some("unseen"))])]).await;
    bench.hand.lose_history().await;
    // Something that a source could go on with which does not look.
    bench.commit(&[insert("a", "new", &[("v", None)])]).await;
    reader.restart(bench.hand.source());
    reader.open().await;
    let deadline = bench.deadline();
    while !reader.lost {
        match reader.next_event("the source sends an event", deadline).await {
            Some(SourceEvent::HistoryLost { reason }) => {
                assert!(!reason.is_empty(), "an operator is told why");
                reader.lost = true;
            }
            Some(event) => panic!("the source goes on although its history is lost: {event:?}"),
            None => panic!("the stream ended without a word about lost history"),
        }
    }
    let more = reader.next_event("the stream ends after lost history", deadline).await;
    assert!(more.is_none(), "the stream ends after lost history, but {more:?} came");
    reader.start_over();
    reader.restart(bench.hand.source());
    bench.commit(&[insert("a", "afterwards", &[("v", None)])]).await;
    reader.catch_up().await;
    bench.commit(&[delete("a", "afterwards")]).await;
    reader.catch_up().await;
}

/// A position that the source cannot have handed out is refused, or its history is lost: it never goes on from some other
/// place.
pub async fn a_position_of_another_source_is_refused(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[("a", &["v"])]).await;
    let mut reader = bench.caught_up().await;
    bench.commit(&[insert("a", "1", &[("v", None)])]).await;
    reader.catch_up().await;
    reader.crash();
    let start = reader.start();
    let known = start.position.clone().unwrap_or_else(|| panic!("the stream has a position"));
    let longer = [&known.0[..], b"?"].concat();
    let far = vec![0xFF; known.0.len()];
    for foreign in [known.0[..known.0.len() / 2].to_vec(), longer, far] {
        refused(&bench, &SourceStart { position: Some(SourcePosition(foreign.into())), ..start.clone() }).await;
    }
}

/// A state that the source cannot have handed out is refused, or its history is lost: it never begins anew as if there was
/// none.
pub async fn a_state_of_another_source_is_refused(hand: Arc<dyn Hand>) {
    let bench = Bench::new(hand, &[]).await;
    let mut reader = bench.caught_up().await;
    reader.crash();
    for foreign in [&b""[..], b"\xFF\xFF\xFF", b"?"] {
        let state = Some(SourceState(foreign.into()));
        refused(&bench, &SourceStart { position: None, state, ..reader.start() }).await;
    }
}

/// Asserts that no stream goes on from there.
async fn refused(bench: &Bench, start: &SourceStart) {
    let deadline = bench.deadline();
    loop {
        let source = bench.hand.source();
        let opened = deadline.wait("the stream opens, or is refused", source.events(start.clone())).await;
        let answer = match opened {
            Err(error) => Err(error),
            Ok(mut events) => match deadline.wait("the stream says something", events.next()).await {
                Some(Ok(batch)) => Ok(batch),
                Some(Err(error)) => Err(error),
                None => Ok(Vec::new()),
            },
        };
        match answer {
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Data) => return,
            // The connection of a stream before may still be there.
            Err(error) if error.is_transient() && !deadline.has_passed() => pause().await,
            Err(error) => panic!("what another source has handed out is not refused as such: {error:?}"),
            Ok(batch) if matches!(batch[..], [SourceEvent::HistoryLost { .. }]) => return,
            Ok(batch) => panic!("the source goes on from what it never handed out: {batch:?}"),
        }
    }
}
