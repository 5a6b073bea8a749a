//! Waking whoever waits for a stream of a store: after each call and in one order, not when a thread of the store gets to it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::stream::{BoxStream, Stream, StreamExt};

/// Those who wait. A handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Mutex<Vec<Waker>>>);

impl Bell {
    /// Lets everybody look again, in the order in which they came.
    pub(crate) fn ring(&self) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.0.lock().unwrap();
        if !waiting.iter().any(|one| one.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// A stream of a store, which is looked at only when the bell rings.
    pub(crate) fn guard<T: 'static>(&self, stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
        Guarded { stream, bell: self.clone() }.boxed()
    }
}

struct Guarded<T> {
    stream: BoxStream<'static, T>,
    bell: Bell,
}

impl<T> Stream for Guarded<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let next = self.stream.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
        if next.is_pending() {
            self.bell.wait(context.waker());
        }
        next
    }
}
