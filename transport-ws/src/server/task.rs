//! One stream or question, in a task of its own: what it does goes on while its connection waits for the client, so that a
//! client that does not read holds up nobody but itself.

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc;
use futures::stream::{BoxStream, StreamExt};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Error, Identity, Result, StreamRenewal, SyncService, WriteCheckpoint, WriteCheckpointRequest};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::subprotocol::{Ask, Asked};

/// A stream of the service: whole lines, several in a piece.
pub(super) type Pieces = BoxStream<'static, Result<Bytes>>;

/// What happened in a task.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) call: u32,
    /// Tells the tasks apart that had this number one after another.
    pub(super) serial: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A stream is open, for whom the token is of.
    Opened(Identity, StreamRenewal),
    /// Its next piece, or its end.
    Piece(Option<Result<Bytes>>),
    /// The identity of its new token.
    Verified(Result<Identity>),
    Answered(Result<WriteCheckpoint>),
    /// It cannot be opened.
    Failed(Error),
}

/// Who hears of a task.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    pub(super) call: u32,
    pub(super) serial: u64,
    pub(super) told: mpsc::Sender<Told>,
}

impl Teller {
    /// Whether there is still someone who hears it.
    async fn tell(&mut self, what: What) -> bool {
        let Self { call, serial, told } = self;
        told.send(Told { call: *call, serial: *serial, what }).await.is_ok()
    }
}

/// A stream that works when it is pulled, or a question. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) serial: u64,
    /// Of a stream with a token of its own, once it is open.
    pub(super) renewal: Option<StreamRenewal>,
    pulls: mpsc::Sender<()>,
    task: JoinHandle<()>,
    renewing: Option<JoinHandle<()>>,
}

impl Task {
    /// A stream that is open.
    pub(super) fn of_stream(lines: Pieces, teller: Teller) -> Self {
        let (pulls, pulled) = mpsc::channel(1);
        Self::new(teller.serial, pulls, tokio::spawn(pull(lines, pulled, teller)))
    }

    /// What is asked for under a token, which is verified first. Neither takes longer than its time.
    pub(super) fn of_ask(ask: Ask, service: SyncService, times: Times, teller: Teller) -> Self {
        let (pulls, pulled) = mpsc::channel(1);
        let serial = teller.serial;
        let task = tokio::spawn(answer(ask, service, times, pulled, teller));
        Self::new(serial, pulls, task)
    }

    fn new(serial: u64, pulls: mpsc::Sender<()>, task: JoinHandle<()>) -> Self {
        Self { serial, renewal: None, pulls, task, renewing: None }
    }

    /// Gets the next piece.
    pub(super) fn pull(&mut self) {
        // One pull at a time finds room; and a stream that has ended has said so.
        if let Err(error) = self.pulls.try_send(()) {
            tracing::debug!(%error, "a stream that has ended was pulled");
        }
    }

    /// Verifies a new token beside the stream.
    pub(super) fn verify(&mut self, token: String, service: SyncService, times: Times, mut teller: Teller) {
        let verifying = async move {
            let verified = verify(&service, &token, times.token).await;
            teller.tell(What::Verified(verified)).await;
        };
        if let Some(before) = self.renewing.replace(tokio::spawn(verifying)) {
            before.abort();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(renewing) = &self.renewing {
            renewing.abort();
        }
    }
}

/// How long a task waits for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For the check of a token.
    pub(super) token: Duration,
    /// For the answer to a question.
    pub(super) answer: Duration,
}

/// Does what is asked for.
async fn answer(ask: Ask, service: SyncService, times: Times, pulled: mpsc::Receiver<()>, mut teller: Teller) {
    let what = match (verify(&service, &ask.token, times.token).await, ask.what) {
        (Err(error), _) => What::Failed(error),
        (Ok(identity), Asked::Stream(request)) => match open(&service, identity, request) {
            Ok((lines, opened)) => {
                if teller.tell(opened).await {
                    pull(lines, pulled, teller).await;
                }
                return;
            }
            Err(error) => What::Failed(error),
        },
        (Ok(identity), Asked::WriteCheckpoint(client)) => {
            let ask = service.request_write_checkpoint(&identity, client.as_deref(), WriteCheckpointRequest::Next);
            let late = |_| Error::unavailable("the write checkpoint was not answered in time");
            What::Answered(timeout(times.answer, ask).await.map_err(late).flatten())
        }
    };
    // Nobody is there to hear it if the connection has gone.
    teller.tell(what).await;
}

fn open(service: &SyncService, identity: Identity, request: SyncRequest) -> Result<(Pieces, What)> {
    let (client_id, buckets) = (request.client_id.clone(), request.buckets.len());
    let (lines, renewal) = service.renewable_stream(identity.clone(), request, Framing::Compact)?;
    tracing::info!(user = identity.user_id(), client_id, buckets, "a compact sync stream opens over WebSocket");
    Ok((lines, What::Opened(identity, renewal)))
}

async fn verify(service: &SyncService, token: &str, time: Duration) -> Result<Identity> {
    let late = |_| Error::unavailable("the token could not be verified in time");
    timeout(time, service.authenticate(token)).await.map_err(late).flatten()
}

async fn pull(mut lines: Pieces, mut pulled: mpsc::Receiver<()>, mut teller: Teller) {
    while pulled.next().await.is_some() {
        let piece = lines.next().await;
        let over = !matches!(piece, Some(Ok(_)));
        if !teller.tell(What::Piece(piece)).await || over {
            return;
        }
    }
}
