//! A server, its database and its backend in one, with faults: what a client sees of the world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value as Json, json};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{
    BoxError, Connector, Credentials, Error, LineStream, LocalTransaction, Result, Transport, Uploaded,
    WriteCheckpoint, WriteKind, async_trait,
};

/// What goes wrong at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Everything is refused at once.
    Refuse,
    /// Calls are never answered; open streams say nothing more.
    Hang,
    /// Every token is refused.
    Unauthorized,
    /// Streams end before a checkpoint is complete.
    Cut,
    /// Checksums are wrong.
    Damage,
    /// Uploads are applied, but their answers are lost.
    LoseAnswers,
}

/// One bucket, `all[]`, with the table `t` in it.
#[derive(Debug, Clone)]
pub(crate) struct Server(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    fault: Fault,
    rows: BTreeMap<String, Map<String, Json>>,
    /// Id, row id, data or `None` if it was removed.
    log: Vec<(u64, String, Option<String>)>,
    write_checkpoint: Option<i64>,
    streams: Vec<Client>,
    /// Calls that hang.
    hanging: Vec<mpsc::Sender<()>>,
    requests: Vec<SyncRequest>,
    uploads: Vec<i64>,
    refuse: Option<String>,
}

#[derive(Debug)]
struct Client {
    sender: mpsc::UnboundedSender<Result<Bytes>>,
    after: u64,
    began: bool,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            fault: Fault::None,
            rows: BTreeMap::new(),
            log: Vec::new(),
            write_checkpoint: None,
            streams: Vec::new(),
            hanging: Vec::new(),
            requests: Vec::new(),
            uploads: Vec::new(),
            refuse: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fault(&self, fault: Fault) {
        let mut world = self.lock();
        world.fault = fault;
        if fault == Fault::None {
            // What hung is reset, as a network does that comes back.
            world.hanging.clear();
            world.streams.clear();
        }
        if fault == Fault::Refuse {
            world.streams.clear();
        }
    }

    /// Ends all streams in order.
    pub(crate) fn end_streams(&self) {
        self.lock().streams.clear();
    }

    pub(crate) fn put(&self, id: &str, row: Json) {
        let mut world = self.lock();
        world.apply(WriteKind::Put, id, row.as_object().unwrap().clone());
        world.push();
    }

    /// Refuses writes to the row with this id.
    pub(crate) fn refuse(&self, id: &str) {
        self.lock().refuse = Some(id.to_owned());
    }

    pub(crate) fn rows(&self) -> Vec<Map<String, Json>> {
        let world = self.lock();
        let rows = world.rows.iter();
        rows.map(|(id, row)| {
            let mut row = row.clone();
            row.insert("id".into(), json!(id));
            row
        })
        .collect()
    }

    pub(crate) fn requests(&self) -> Vec<SyncRequest> {
        self.lock().requests.clone()
    }

    /// The transactions that were applied or refused, in order.
    pub(crate) fn uploads(&self) -> Vec<i64> {
        self.lock().uploads.clone()
    }

    /// Ready, with an error, when the network comes back.
    async fn hang(&self) -> Error {
        let (sender, mut receiver) = mpsc::channel(0);
        self.lock().hanging.push(sender);
        receiver.next().await;
        Error::unavailable("connection reset")
    }

    async fn call(&self, credentials: &Credentials) -> Result<()> {
        let fault = self.lock().fault;
        match fault {
            Fault::Refuse => Err(Error::unavailable("connection refused")),
            Fault::Hang => Err(self.hang().await),
            Fault::Unauthorized => Err(Error::unauthorized("token refused")),
            _ if credentials.token.is_empty() => Err(Error::unauthorized("no token")),
            Fault::None | Fault::Cut | Fault::Damage | Fault::LoseAnswers => Ok(()),
        }
    }
}

impl World {
    fn apply(&mut self, kind: WriteKind, id: &str, columns: Map<String, Json>) {
        match kind {
            WriteKind::Put => {
                self.rows.insert(id.to_owned(), columns);
            }
            WriteKind::Patch => self.rows.entry(id.to_owned()).or_default().extend(columns),
            WriteKind::Delete => {
                self.rows.remove(id);
            }
        }
        let data = self.rows.get(id).map(|row| Json::Object(row.clone()).to_string());
        self.log.push((self.log.len() as u64 + 1, id.to_owned(), data));
    }

    /// Tells every stream what is new to it.
    fn push(&mut self) {
        let Self { fault, log, write_checkpoint, streams, .. } = self;
        let last = log.len() as u64;
        let sum: u64 = log.iter().map(|(id, ..)| *id).sum::<u64>() + u64::from(*fault == Fault::Damage);
        if *fault == Fault::Hang {
            return;
        }
        for client in streams.iter_mut() {
            let bucket = json!({"bucket": "all[]", "checksum": sum as u32, "count": last, "priority": 3});
            let number = write_checkpoint.map(|number| number.to_string());
            let mut lines = vec![if std::mem::replace(&mut client.began, true) {
                json!({"checkpoint_diff": {"last_op_id": last.to_string(), "write_checkpoint": number,
                    "updated_buckets": [bucket], "removed_buckets": []}})
            } else {
                let streams = json!([{"name": "known", "is_default": false, "errors": []}]);
                json!({"checkpoint": {"last_op_id": last.to_string(), "write_checkpoint": number,
                    "buckets": [bucket], "streams": streams}})
            }];
            for (id, row, data) in log.iter().filter(|(id, ..)| *id > client.after) {
                let kind = if data.is_some() { "PUT" } else { "REMOVE" };
                lines.push(json!({"data": {"bucket": "all[]", "data": [{"op_id": id.to_string(), "op": kind,
                    "object_type": "t", "object_id": row, "checksum": id, "data": data}]}}));
            }
            client.after = last;
            if *fault != Fault::Cut {
                lines.push(json!({"checkpoint_complete": {"last_op_id": last.to_string()}}));
            }
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            // Cut anywhere, as a network does.
            for chunk in text.as_bytes().chunks(97) {
                client.sender.unbounded_send(Ok(Bytes::copy_from_slice(chunk))).ok();
            }
        }
        if *fault == Fault::Cut {
            streams.clear();
        }
        streams.retain(|client| !client.sender.is_closed());
    }
}

#[async_trait]
impl Transport for Server {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        self.lock().requests.push(request.clone());
        self.call(credentials).await?;
        let (sender, receiver) = mpsc::unbounded();
        let after = request.buckets.iter().find(|bucket| bucket.name == "all[]");
        let after = after.map_or(0, |bucket| bucket.after.parse().unwrap());
        let mut world = self.lock();
        world.streams.push(Client { sender, after, began: false });
        let newest = world.streams.len() - 1;
        // The others have seen it all; the new one has not.
        let others: Vec<_> = world.streams.drain(..newest).collect();
        world.push();
        world.streams.splice(0..0, others);
        let bytes: BoxStream<'static, Result<Bytes>> = receiver.boxed();
        Ok(LineStream { framing: Framing::Ndjson, bytes })
    }

    async fn write_checkpoint(&self, _client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        self.call(credentials).await?;
        let mut world = self.lock();
        let number = world.write_checkpoint.unwrap_or(0) + 1;
        world.write_checkpoint = Some(number);
        world.push();
        Ok(WriteCheckpoint(number))
    }
}

#[async_trait]
impl Connector for Server {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        let fault = self.lock().fault;
        if fault == Fault::Hang {
            return Err(self.hang().await.into());
        }
        Ok(Credentials::new("t"))
    }

    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        // An application's own error says nothing of its kind.
        self.call(credentials).await.map_err(|error| BoxError::from(error.to_string()))?;
        let lost = {
            let mut world = self.lock();
            let transaction = writes.transaction_id.unwrap();
            let refuse = world.refuse.clone();
            if writes.crud.iter().any(|write| Some(&write.id) == refuse.as_ref()) {
                world.uploads.push(transaction);
                return Ok(Uploaded::Rejected { reason: "refused".into() });
            }
            // One that was applied is known by its number.
            if !world.uploads.contains(&transaction) {
                world.uploads.push(transaction);
                for write in &writes.crud {
                    world.apply(write.op, &write.id, write.data.clone().unwrap_or_default());
                }
                world.push();
            }
            world.fault == Fault::LoseAnswers
        };
        if lost { self.hang().map(|error| Err(error.into())).await } else { Ok(Uploaded::Applied) }
    }
}
