//! What a client reaches over its link: the server, by its [`Transport`], and its application's backend.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::channel::oneshot;

use super::backend::Backend;
use super::ledger::{Fact, Ledger};
use super::link::Link;
use super::pipe::{Pipe, PipeReader};
use super::server::Port;
use super::tokens::token;
use super::virtual_time::ProcessClock;
use super::{executor::Spawner, lock, process::Process};
use crate::clock::Clock;
use crate::connector::{Connector, Credentials};
use crate::error::{BoxError, Error, Result};
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::protocol::{Framing, SyncRequest};
use crate::transport::{LineStream, Transport};
use crate::write_checkpoint::WriteCheckpoint;

/// One client's way to everything else. A handle.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) client: usize,
    pub(super) link: Link,
    pub(super) port: Port,
    pub(super) backend: Backend,
    pub(super) ledger: Ledger,
    pub(super) spawner: Spawner,
    /// The clock of whoever gives out tokens.
    pub(super) issuer: ProcessClock,
    /// How long a token lasts; `None` for ever.
    pub(super) token_life: Arc<Mutex<Option<Duration>>>,
}

impl Network {
    /// Waits for the answer of a process that may crash meanwhile.
    async fn answered<T>(&self, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(_) if self.link.random.permille(500) => Err(super::link::broken()),
            // Nobody is left to say anything.
            Err(_) => Err(self.link.hang_on().await.err().unwrap_or_else(super::link::broken)),
        };
        self.link.answer().await?;
        answer
    }
}

#[async_trait]
impl Transport for Network {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        self.link.trip().await?;
        let framing = match (request.raw_data, request.binary_data && self.link.random.permille(300)) {
            (_, true) => Framing::Bson,
            (true, false) => Framing::Ndjson,
            (false, false) => Framing::NdjsonNested,
        };
        let open = |pipe: Pipe| {
            self.port.open(self.client, &self.link, pipe, (request.clone(), credentials.token.clone()), framing)
        };
        let repeats = self.link.lock().repeats;
        if self.link.random.permille(repeats) {
            self.ledger.note(format!("network: a stream is asked for twice for client {}", self.client));
            let pipe = Pipe::default();
            drop(PipeReader::new(pipe.clone(), self.link.clone()));
            drop(open(pipe)?);
        }
        let pipe = Pipe::default();
        let reader = PipeReader::new(pipe.clone(), self.link.clone());
        self.link.add(pipe.clone());
        let answer = open(pipe)?;
        self.answered(answer).await?;
        Ok(LineStream { framing, bytes: reader.boxed() })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        self.link.trip().await?;
        let repeats = self.link.lock().repeats;
        if self.link.random.permille(repeats) {
            drop(self.port.write_checkpoint(client_id, &credentials.token)?);
        }
        let answer = self.port.write_checkpoint(client_id, &credentials.token)?;
        self.answered(answer).await
    }
}

#[async_trait]
impl Connector for Network {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        self.link.trip().await?;
        let life = *lock(&self.token_life);
        let now = self.issuer.wall();
        let end = life.map(|life| {
            let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
            crate::time::WallTime(now.0.saturating_add(life))
        });
        self.link.answer().await?;
        Ok(Credentials::new(token(self.client, end)))
    }

    async fn upload(&self, writes: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        let client = self.client;
        self.ledger.record(Fact::Offered { client, transaction: writes.clone() });
        self.link.trip().await?;
        let repeats = self.link.lock().repeats;
        if self.link.random.permille(repeats) {
            let (backend, writes, link) = (self.backend.clone(), writes.clone(), self.link.clone());
            self.spawner.spawn(Process::World, async move {
                link.time.delay(link.random.between(0, 50)).await;
                backend.apply(client, &writes);
            });
        }
        let outcome = self.backend.apply(client, writes);
        if let Err(error) = self.link.answer().await {
            return Err(Error::unavailable("the answer of the backend did not come").caused_by(error).into());
        }
        self.ledger.record(Fact::Answered { client, transaction: writes.transaction_id.unwrap_or(0) });
        Ok(outcome)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("client", &self.client).finish_non_exhaustive()
    }
}
