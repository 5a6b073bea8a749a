//! A watched query as a stream of results.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::stream::{BoxStream, Stream, StreamExt};
use serde::de::DeserializeOwned;
use syncline_core::ErrorKind;

use super::changes::Listener;
use super::error::{Error, Result};
use super::query::{Prepared, Query};
use super::reader::ReaderQueue;
use super::work_queue::WorkQueue;
use super::writer::ask;

/// When a run that failed in a way that passes is repeated, if nothing changes before.
const RETRY: Duration = Duration::from_secs(1);

/// The results of a query, the first at once.
///
/// An error is an item like a result, and the query is run again after the next change: a row that could not be read may
/// be mended, a table may be made. What passes by itself (`Unavailable`) is tried again within a second. Only when the
/// database is closed does the stream end, after an error that says so.
#[must_use = "a stream does nothing until it is polled"]
pub struct Watch<T> {
    state: State<T>,
}

enum State<T> {
    Idle(Option<Box<Query<T>>>, Duration),
    Running(BoxStream<'static, Result<Vec<T>>>),
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> Watch<T> {
    pub(crate) fn new(query: Query<T>) -> Self {
        Self { state: State::Idle(Some(Box::new(query)), Duration::ZERO) }
    }

    /// Delivers at most one result in this time. To be set before the first poll; later it changes nothing.
    pub fn throttle(mut self, interval: Duration) -> Self {
        if let State::Idle(_, throttle) = &mut self.state {
            *throttle = interval;
        }
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> Stream for Watch<T> {
    type Item = Result<Vec<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::Idle(query, throttle) = &mut self.state {
            let throttle = *throttle;
            let Some(query) = query.take() else { return Poll::Ready(None) };
            self.state = State::Running(match query.prepare() {
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
                Ok((database, prepared)) => {
                    // From here on no change is missed. The stream keeps the listener, not the database.
                    let listener = Listener::new(database.hub(), None);
                    let readers = database.readers().clone();
                    let runs = Runs { readers, listener, prepared, throttle, last: None, retry: false };
                    futures::stream::unfold(Some(runs), Runs::next).boxed()
                }
            });
        }
        match &mut self.state {
            State::Running(stream) => stream.poll_next_unpin(context),
            State::Idle(..) => Poll::Ready(None),
        }
    }
}

struct Runs {
    readers: std::sync::Arc<ReaderQueue>,
    listener: Listener,
    prepared: Prepared,
    throttle: Duration,
    /// When the last result was delivered.
    last: Option<Instant>,
    /// The last run failed in a way that passes by itself.
    retry: bool,
}

impl Runs {
    /// The next result. After the error that the database is closed there is none.
    async fn next<T: DeserializeOwned + Send + 'static>(runs: Option<Self>) -> Option<(Result<Vec<T>>, Option<Self>)> {
        let mut runs = runs?;
        if let Some(last) = runs.last {
            if !runs.changed().await {
                return Some((Err(super::work_queue::closed()), None));
            }
            let left = runs.throttle.saturating_sub(last.elapsed());
            if !left.is_zero() {
                futures_timer::Delay::new(left).await;
            }
        }
        runs.listener.widen();
        let answer = runs.run().await;
        runs.last = Some(Instant::now());
        let kind = answer.as_ref().err().map(Error::kind);
        runs.retry = kind == Some(ErrorKind::Unavailable);
        Some((answer, (kind != Some(ErrorKind::Closed)).then_some(runs)))
    }

    /// Waits for a change, or until it is time to try again. `false` when the database is closed.
    async fn changed(&self) -> bool {
        let changed = std::pin::pin!(self.listener.changed());
        if !self.retry {
            return changed.await;
        }
        match select(changed, futures_timer::Delay::new(RETRY)).await {
            Either::Left((changed, _)) => changed,
            Either::Right(_) => true,
        }
    }

    async fn run<T: DeserializeOwned + Send + 'static>(&self) -> Result<Vec<T>> {
        let prepared = self.prepared.clone();
        let readers: &WorkQueue<_> = &self.readers;
        let (rows, tables) = ask(readers, move |reader: &mut super::reader::Reader| {
            Ok(Ok(reader.read_watched(|conn| prepared.rows(conn, false, None))?))
        })
        .await?;
        // Without tables the statement was not even understood, so that any change may be the one that counts.
        if rows.is_ok() || !tables.is_empty() {
            self.listener.narrow(tables);
        }
        rows
    }
}
