//! Handing pending markers to whoever sends them through the source.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::stream::{BoxStream, Stream, StreamExt};

use crate::error::Result;
use crate::write_checkpoint::MarkerToken;

/// What a [`BucketStore`](crate::BucketStore) implements its `pending_markers()` with. A handle; clones are the same feed.
///
/// A new request may [`join`](Self::join) a token only as long as nobody took it: a marker that may already be in the
/// source can precede what the request is about (S6).
#[derive(Debug, Clone, Default)]
pub struct MarkerFeed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By the order in which they were added.
    pending: BTreeMap<u64, MarkerToken>,
    next: u64,
    /// Tokens numbered below this were taken by a subscriber.
    taken: u64,
    /// Whether the newest token waits for a request that joined it to become durable.
    held: bool,
    wakers: BTreeMap<u64, Waker>,
    next_subscriber: u64,
    closed: bool,
}

impl MarkerFeed {
    /// A feed that begins with these tokens, of requests from before a restart. They count as taken: whoever ran before may
    /// have sent them, so that no new request may join them (S6).
    pub fn new(pending: impl IntoIterator<Item = MarkerToken>) -> Self {
        let feed = Self::default();
        let mut state = feed.state();
        state.pending = (0..).zip(pending).collect();
        state.next = state.pending.len() as u64;
        state.taken = state.next;
        drop(state);
        feed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest token, if nobody took it yet. Nobody takes it before [`release`](Self::release): until then the request
    /// that joins it can be made durable.
    pub fn join(&self) -> Option<MarkerToken> {
        let mut state = self.state();
        let (&number, token) = state.pending.last_key_value()?;
        if number < state.taken {
            return None;
        }
        let token = token.clone();
        state.held = true;
        Some(token)
    }

    /// Lets subscribers take a token that was [joined](Self::join).
    pub fn release(&self) {
        let mut state = self.state();
        state.held = false;
        state.wake();
    }

    /// Adds a token, whose requests are durable already.
    pub fn push(&self, token: MarkerToken) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.pending.insert(number, token);
        state.wake();
    }

    /// Forgets tokens that came back.
    pub fn resolve(&self, tokens: &[MarkerToken]) {
        if !tokens.is_empty() {
            self.state().pending.retain(|_, pending| !tokens.contains(pending));
        }
    }

    /// Forgets all tokens.
    pub fn clear(&self) {
        self.state().pending.clear();
    }

    /// The tokens that did not come back yet.
    #[cfg(feature = "testing")]
    pub(crate) fn pending(&self) -> Vec<MarkerToken> {
        self.state().pending.values().cloned().collect()
    }

    /// Ends all streams, and those that are opened later.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake();
    }

    /// All pending tokens, then new ones; none twice.
    pub fn subscribe(&self) -> BoxStream<'static, Result<MarkerToken>> {
        let mut state = self.state();
        let id = state.next_subscriber;
        state.next_subscriber += 1;
        drop(state);
        Subscription { feed: self.clone(), id, cursor: 0 }.boxed()
    }
}

impl State {
    fn wake(&mut self) {
        std::mem::take(&mut self.wakers).into_values().for_each(Waker::wake);
    }
}

/// One subscriber's stream.
#[derive(Debug)]
struct Subscription {
    feed: MarkerFeed,
    id: u64,
    /// Tokens numbered below this were yielded.
    cursor: u64,
}

impl Stream for Subscription {
    type Item = Result<MarkerToken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let feed = self.feed.clone();
        let mut state = feed.state();
        if state.closed {
            return Poll::Ready(None);
        }
        let newest = state.pending.last_key_value().map(|(&number, _)| number);
        let first = state.pending.range(self.cursor..).next().map(|(&number, token)| (number, token.clone()));
        if let Some((number, token)) = first
            && !(state.held && newest == Some(number))
        {
            self.cursor = number + 1;
            state.taken = state.taken.max(number + 1);
            return Poll::Ready(Some(Ok(token)));
        }
        state.wakers.insert(self.id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.state().wakers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_token_from_before_a_restart_takes_no_new_request() {
        let old = MarkerToken("old".into());
        let feed = MarkerFeed::new([old.clone()]);
        assert_eq!(feed.join(), None, "it may stand in the source already, before what a new request is about");
        let new = MarkerToken("new".into());
        feed.push(new.clone());
        assert_eq!(feed.join(), Some(new.clone()));
        feed.release();
        let mut tokens = feed.subscribe();
        let mut next = || tokens.next().now_or_never().flatten().and_then(Result::ok);
        assert_eq!((next(), next(), next()), (Some(old), Some(new), None));
    }
}
