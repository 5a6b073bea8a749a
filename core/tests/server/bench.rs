//! A store with two buckets, `urgent` and `bulk`, a service on it, and a client that reads lines.

use futures::executor::block_on;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::Value as Json;
use syncline_core::memory::{MemoryBucketStore, TokenIsUser};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{
    AppendBatch, BucketId, BucketStore, Bytes, Commit, Deploy, DeployedConfig, Identity, NewOperation, OpId, Result,
    ServiceLimits, SyncConfig, SyncService,
};

use crate::clock::VirtualClock;

pub(crate) const CONFIG: &str = "
config: { edition: 3 }
streams:
  urgent: { auto_subscribe: true, priority: 0, query: SELECT * FROM urgent }
  bulk: { auto_subscribe: true, priority: 3, query: SELECT * FROM bulk }
";

pub(crate) struct Bench {
    pub(crate) store: MemoryBucketStore,
    pub(crate) clock: VirtualClock,
    pub(crate) service: SyncService,
    next: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|store| store)
    }

    /// The same with something around the store.
    pub(crate) fn with<S: BucketStore + 'static>(wrap: impl FnOnce(MemoryBucketStore) -> S) -> Self {
        Self::limited(ServiceLimits::default(), wrap)
    }

    /// The same with other limits.
    pub(crate) fn limited<S: BucketStore + 'static>(
        limits: ServiceLimits,
        wrap: impl FnOnce(MemoryBucketStore) -> S,
    ) -> Self {
        let (store, clock) = (MemoryBucketStore::new(), VirtualClock::default());
        let wrapped = wrap(store.clone());
        let service = SyncService::with(wrapped, TokenIsUser, clock.clone(), limits);
        let mut bench = Self { store, clock, service, next: 1 };
        bench.deploy(CONFIG);
        bench
    }

    pub(crate) fn deploy(&mut self, text: &str) -> OpId {
        let config = SyncConfig::parse(text).unwrap();
        let forms = config.forms().cloned().collect();
        self.commit(AppendBatch::default(), Some(Deploy { text: text.to_owned().into(), forms }))
    }

    /// The deployed config.
    pub(crate) fn config(&self) -> DeployedConfig {
        (*block_on(self.store.resume()).unwrap().config.unwrap()).clone()
    }

    /// Rows of so many bytes in a bucket, as one checkpoint.
    pub(crate) fn put(&mut self, table: &str, rows: u64, bytes: usize) -> OpId {
        let config = SyncConfig::parse(CONFIG).unwrap();
        let index = config.definitions().iter().position(|definition| **definition.name() == *format!("{table}|0"));
        let bucket = BucketId { definition: self.config().definitions[index.unwrap()].id, parameters: "[]".into() };
        let data = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)));
        let table = table.to_owned();
        let operations = (0..rows).map(|_| {
            self.next += 1;
            let id = self.next.to_string();
            NewOperation::put(bucket.clone(), table.clone().into(), id.into(), "".into(), data.clone())
        });
        let operations = operations.collect();
        self.commit(AppendBatch { operations, ..AppendBatch::default() }, None)
    }

    /// As one checkpoint.
    pub(crate) fn commit(&self, batch: AppendBatch, deploy: Option<Deploy>) -> OpId {
        block_on(self.store.append(batch)).unwrap();
        let commit = Commit { deploy, publish: true, ..Commit::default() };
        block_on(self.store.commit(commit)).unwrap().unwrap().op_id
    }

    pub(crate) fn open(&self, identity: Identity, request: SyncRequest) -> Client {
        Client(self.service.stream(identity, request, Framing::Ndjson).unwrap())
    }
}

/// Lines of a stream.
pub(crate) struct Client(BoxStream<'static, Result<Bytes>>);

impl Client {
    pub(crate) fn of(stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self(stream)
    }

    /// The next piece as it is; `None` if there is none now.
    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        self.0.next().now_or_never()?.transpose().unwrap()
    }

    /// Whether it has ended, or ends now.
    pub(crate) fn is_over(&mut self) -> bool {
        matches!(self.0.next().now_or_never(), Some(None))
    }

    /// The lines of the next piece; `None` if the stream has nothing to say now, and an error or an empty piece at its end.
    pub(crate) fn piece(&mut self) -> Option<Result<Vec<Json>>> {
        let piece = self.0.next().now_or_never()?;
        let lines = |piece: Bytes| {
            let text = String::from_utf8(piece.to_vec()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        Some(piece.transpose().map(|piece| piece.map(lines).unwrap_or_default()))
    }

    /// All lines until the stream has nothing more to say.
    pub(crate) fn lines(&mut self) -> Vec<Json> {
        let mut lines = Vec::new();
        while let Some(piece) = self.piece() {
            let piece = piece.unwrap();
            if piece.is_empty() {
                break;
            }
            lines.extend(piece);
        }
        lines
    }
}

/// What a line is, in a word.
pub(crate) fn kind(line: &Json) -> String {
    let (kind, body) = line.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "data" => {
            let table = body["data"][0]["object_type"].as_str().unwrap();
            format!("{table} {}", body["data"].as_array().unwrap().len())
        }
        "token_expires_in" => format!("token {body}"),
        other => other.to_owned(),
    }
}
