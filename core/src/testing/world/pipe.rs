//! The bytes of one stream on their way from the server to a client: in order, cut anywhere, and only as many as the window
//! of the connection holds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;

use super::link::{Link, Mode, broken};
use super::lock;
use super::virtual_time::Sleep;
use crate::error::{Error, Result};

/// Bytes that may be on their way.
const WINDOW: usize = 4 << 10;
/// Pieces sent to a peer that is gone before the sender gives up.
const UNANSWERED: u32 = 3;

/// One direction of a connection. A handle.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Pieces, and when each arrives.
    queue: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// How the server ended the stream.
    end: Option<Result<()>>,
    /// Broken in sight of both ends.
    reset: bool,
    /// Broken out of sight of both ends.
    dead: bool,
    unanswered: u32,
    reader_gone: bool,
    wakers: Vec<Waker>,
}

impl Pipe {
    pub(super) fn is_over(&self) -> bool {
        let state = lock(&self.0);
        state.reset || state.reader_gone
    }

    pub(super) fn reset(&self) {
        lock(&self.0).reset = true;
        self.wake();
    }

    pub(super) fn kill(&self) {
        lock(&self.0).dead = true;
    }

    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.0).wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    // ---- the server's end

    /// Ready once the client has left, as far as the server can know.
    pub(super) async fn closed(&self, link: &Link) {
        futures::future::poll_fn(|cx| {
            let silent = link.mode() == Mode::Silent;
            let mut state = lock(&self.0);
            let told = state.reader_gone && !silent && !state.dead;
            if state.reset || told || state.unanswered >= UNANSWERED {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ready once there is room for more.
    pub(super) async fn room(&self) {
        futures::future::poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.bytes < WINDOW || state.dead || state.reader_gone {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Sends bytes, in pieces of any size.
    pub(super) fn push(&self, link: &Link, mut bytes: Bytes) {
        let delay = link.lock().delay;
        let now = link.time.now();
        {
            let mut state = lock(&self.0);
            if state.dead || state.reader_gone {
                state.unanswered += 1;
            }
            while !bytes.is_empty() {
                let whole = link.random.permille(700);
                let length = if whole { bytes.len() } else { link.random.between(1, bytes.len() as u64) as usize };
                let piece = bytes.split_to(length);
                let before = state.queue.back().map_or(0, |(due, _)| *due);
                let due = before.max(now + link.random.between(0, delay));
                state.bytes += piece.len();
                state.queue.push_back((due, piece));
            }
        }
        self.wake();
    }

    /// Ends it, in order or with an error.
    pub(super) fn finish(&self, end: Result<()>) {
        lock(&self.0).end.get_or_insert(end);
        self.wake();
    }
}

/// The client's end.
pub(super) struct PipeReader {
    pipe: Pipe,
    link: Link,
    sleep: Option<Sleep>,
    over: bool,
}

impl PipeReader {
    pub(super) fn new(pipe: Pipe, link: Link) -> Self {
        Self { pipe, link, sleep: None, over: false }
    }
}

impl Stream for PipeReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            let silent = self.link.mode() == Mode::Silent;
            let pipe = self.pipe.clone();
            let mut state = lock(&pipe.0);
            if state.reset {
                self.over = true;
                return Poll::Ready(Some(Err(broken())));
            }
            state.wakers.push(cx.waker().clone());
            if silent || state.dead {
                return Poll::Pending;
            }
            let Some((due, _)) = state.queue.front() else {
                let Some(end) = state.end.clone() else { return Poll::Pending };
                self.over = true;
                return Poll::Ready(end.err().map(|error: Error| Err(error)));
            };
            let (due, now) = (*due, self.link.time.now());
            if due <= now {
                let piece = state.queue.pop_front().map(|(_, piece)| piece).unwrap_or_default();
                state.bytes -= piece.len();
                drop(state);
                self.sleep = None;
                pipe.wake();
                return Poll::Ready(Some(Ok(piece)));
            }
            drop(state);
            let time = self.link.time.clone();
            let sleep = self.sleep.get_or_insert_with(|| time.delay(due - now));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        lock(&self.pipe.0).reader_gone = true;
        self.pipe.wake();
    }
}
