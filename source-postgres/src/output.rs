//! Batches of events on their way to whoever reads them.

use syncline_core::{Error, Result, SourceEvent};
use tokio::sync::mpsc;

use crate::error::PgError;
use crate::slot::SlotError;

/// Events in a batch, at most.
const BATCH_EVENTS: usize = 5_000;
/// Bytes that a batch holds on to, about.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Batches that may wait while another one is dealt with.
pub(crate) const WAITING_BATCHES: usize = 2;

/// Why a run of the source ends.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Changes are gone.
    Lost(String),
    Failed(Error),
    /// Nothing is wrong: the stream is to be opened again when this is stored.
    EndedAfter(Box<SourceEvent>),
    /// An error, after something that must be stored before.
    FailedAfter(Box<SourceEvent>, Error),
    /// Nobody reads the stream any more.
    Unwanted,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<PgError> for Stop {
    fn from(error: PgError) -> Self {
        SlotError::from(error).into()
    }
}

impl From<SlotError> for Stop {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Lost(reason) => Self::Lost(reason),
            SlotError::Failed(error) => Self::Failed(error),
        }
    }
}

/// Collects events into batches.
#[derive(Debug)]
pub(crate) struct Output {
    sender: mpsc::Sender<Result<Vec<SourceEvent>>>,
    events: Vec<SourceEvent>,
    bytes: usize,
}

impl Output {
    pub(crate) fn new(sender: mpsc::Sender<Result<Vec<SourceEvent>>>) -> Self {
        Self { sender, events: Vec::new(), bytes: 0 }
    }

    /// Adds an event that holds on to about this many bytes.
    pub(crate) fn push(&mut self, event: SourceEvent, bytes: usize) {
        self.bytes += bytes;
        self.events.push(event);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES
    }

    /// Hands the batch over, waiting while too many wait already.
    pub(crate) async fn flush(&mut self) -> Result<(), Stop> {
        if self.events.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let capacity = self.events.len().min(BATCH_EVENTS);
        let events = std::mem::replace(&mut self.events, Vec::with_capacity(capacity));
        self.sender.send(Ok(events)).await.map_err(|_| Stop::Unwanted)
    }

    /// Hands over what is left and says why nothing follows.
    pub(crate) async fn finish(mut self, stop: Stop) {
        // What was collected is in order and may be of use even if an error follows.
        if self.flush().await.is_err() {
            return;
        }
        let last = match stop {
            Stop::Lost(reason) => Ok(vec![SourceEvent::HistoryLost { reason }]),
            Stop::Failed(error) => Err(error),
            Stop::EndedAfter(event) => Ok(vec![*event]),
            Stop::FailedAfter(event, error) => {
                if self.sender.send(Ok(vec![*event])).await.is_err() {
                    return;
                }
                Err(error)
            }
            Stop::Unwanted => return,
        };
        // If nobody reads any more, nobody needs to know.
        let _ = self.sender.send(last).await;
    }
}
