//! One stream of the service, in a task of its own: what it reads goes on while its connection waits for the client, so
//! that a client that does not read holds up nobody but itself.

use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc;
use futures::stream::{BoxStream, StreamExt};
use syncline_core::Result;
use tokio::task::JoinHandle;

/// A stream of the service: whole lines, several in a piece.
pub(super) type Pieces = BoxStream<'static, Result<Bytes>>;

/// The next piece of a stream, or its end.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) stream: u32,
    /// Tells the streams apart that had this id one after another.
    pub(super) serial: u64,
    pub(super) piece: Option<Result<Bytes>>,
}

/// A stream that works when it is pulled. Dropping it ends it.
#[derive(Debug)]
pub(super) struct StreamTask {
    pub(super) serial: u64,
    pulls: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl StreamTask {
    pub(super) fn start(stream: u32, serial: u64, mut lines: Pieces, mut pieces: mpsc::Sender<Pulled>) -> Self {
        let (pulls, mut pulled) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while pulled.next().await.is_some() {
                let piece = lines.next().await;
                let over = !matches!(piece, Some(Ok(_)));
                if pieces.send(Pulled { stream, serial, piece }).await.is_err() || over {
                    return;
                }
            }
        });
        Self { serial, pulls, task }
    }

    /// Gets the next piece.
    pub(super) fn pull(&mut self) {
        // One pull at a time finds room; and a stream that has ended has said so.
        if let Err(error) = self.pulls.try_send(()) {
            tracing::debug!(%error, "a stream that has ended was pulled");
        }
    }
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}
