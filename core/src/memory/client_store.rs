//! A client's store in memory, which does in the plainest way what a durable one must do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytestring::ByteString;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::client_store::{
    ClientState, ClientStore, PublishOutcome, PublishRequest, StoreLease, StoredSubscription, TargetBucket,
    TargetCheckpoint, UploadSequence, UploadState,
};
use crate::error::{Error, Result};
use crate::local_transaction::{LocalTransaction, LocalWrite, Uploaded, WriteKind};
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::DataLine;
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

/// A row as the application sees it, without its id.
type Row = Map<String, Json>;
/// A table and a row id.
type RowName = (String, String);

/// The store of a client, in memory. A handle: clones are the same store. It takes any table.
///
/// It stands in for a database on a device: tests write and read it as an application would, and drop and make clients
/// over it as restarts would.
#[derive(Debug, Clone)]
pub struct MemoryClientStore(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    client_id: Arc<str>,
    /// What was downloaded, shown or not.
    downloads: BTreeMap<ByteString, Download>,
    /// The buckets of which rows are shown: those of the last whole checkpoint, and of parts that were shown since.
    shown: BTreeSet<ByteString>,
    /// What the last publish showed, with the operation that each row is of.
    synced: BTreeMap<RowName, (OpId, Row)>,
    queue: VecDeque<Entry>,
    last_write: i64,
    rejected: Vec<(LocalTransaction, String)>,
    subscriptions: BTreeMap<(String, String), StoredSubscription>,
    last_synced_at: Option<WallTime>,
    listeners: Vec<mpsc::Sender<()>>,
    /// A sync engine has it.
    leased: bool,
}

/// A bucket: its rows by key, and the sum of all its operations.
#[derive(Debug, Default)]
struct Download {
    after: OpId,
    sum: Checksum,
    rows: BTreeMap<(ByteString, ByteString, Option<ByteString>), (OpId, ByteString)>,
}

#[derive(Debug)]
struct Entry {
    transaction: LocalTransaction,
    sent: bool,
    awaits: Option<WriteCheckpoint>,
}

impl Entry {
    fn sequence(&self) -> UploadSequence {
        UploadSequence(self.transaction.crud.last().map_or(0, |write| write.op_id))
    }
}

impl MemoryClientStore {
    /// An empty store of a client with this id, which must differ from that of every other client of the same user.
    pub fn new(client_id: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Mutex::new(State {
            client_id: client_id.into(),
            downloads: BTreeMap::new(),
            shown: BTreeSet::new(),
            synced: BTreeMap::new(),
            queue: VecDeque::new(),
            last_write: 0,
            rejected: Vec::new(),
            subscriptions: BTreeMap::new(),
            last_synced_at: None,
            listeners: Vec::new(),
            leased: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves a whole state, and none runs foreign code under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes local writes, in one transaction: they are seen at once and queued. `op_id` and `tx_id` are given here.
    /// Returns the number of the transaction.
    pub fn write(&self, writes: impl IntoIterator<Item = LocalWrite>) -> i64 {
        let mut state = self.lock();
        let transaction_id = state.last_write + 1;
        let mut crud: Vec<_> = writes.into_iter().collect();
        for (write, op_id) in crud.iter_mut().zip(transaction_id..) {
            write.op_id = op_id;
            write.tx_id = Some(transaction_id);
            state.last_write = op_id;
        }
        if !crud.is_empty() {
            let client_id = Some(state.client_id.to_string());
            let transaction = LocalTransaction { transaction_id: Some(transaction_id), client_id, crud };
            state.queue.push_back(Entry { transaction, sent: false, awaits: None });
            state.notify();
        }
        transaction_id
    }

    /// Inserts or replaces a row: a transaction of one write.
    pub fn put(&self, table: &str, id: &str, row: Map<String, Json>) -> i64 {
        self.write([one(WriteKind::Put, table, id, Some(row))])
    }

    /// Updates columns of a row: a transaction of one write.
    pub fn patch(&self, table: &str, id: &str, columns: Map<String, Json>) -> i64 {
        self.write([one(WriteKind::Patch, table, id, Some(columns))])
    }

    /// Deletes a row: a transaction of one write.
    pub fn delete(&self, table: &str, id: &str) -> i64 {
        self.write([one(WriteKind::Delete, table, id, None)])
    }

    /// The rows of a table as the application sees them, by id; `id` is among their columns.
    pub fn rows(&self, table: &str) -> Vec<Map<String, Json>> {
        let rows = self.lock().visible();
        let rows = rows.into_iter().filter(|((of, _), _)| of == table);
        rows.map(|((_, id), mut row)| {
            row.insert("id".to_owned(), Json::String(id));
            row
        })
        .collect()
    }

    /// The id of the client.
    #[cfg(feature = "testing")]
    pub(crate) fn client_id(&self) -> Arc<str> {
        Arc::clone(&self.lock().client_id)
    }

    /// All rows as the application sees them, without their ids.
    #[cfg(feature = "testing")]
    pub(crate) fn visible_rows(&self) -> BTreeMap<RowName, Row> {
        self.lock().visible()
    }

    /// Whether a transaction is in the upload queue, sent or not.
    #[cfg(feature = "testing")]
    pub(crate) fn is_queued(&self, transaction_id: Option<i64>) -> bool {
        self.lock().queue.iter().any(|entry| entry.transaction.transaction_id == transaction_id)
    }

    /// The transactions that the backend refused, with its reasons.
    pub fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        self.lock().rejected.clone()
    }
}

fn one(op: WriteKind, table: &str, id: &str, data: Option<Row>) -> LocalWrite {
    LocalWrite { op_id: 0, op, table: table.into(), id: id.to_owned(), tx_id: None, data, old: None, metadata: None }
}

impl State {
    fn notify(&mut self) {
        // A full channel holds a signal already.
        self.listeners.retain_mut(|listener| !listener.try_send(()).is_err_and(|error| error.is_disconnected()));
    }

    /// What was shown last, with every local write that is not part of it on top.
    fn visible(&self) -> BTreeMap<RowName, Row> {
        let mut rows: BTreeMap<_, _> = self.synced.iter().map(|(name, (_, row))| (name.clone(), row.clone())).collect();
        for write in self.queue.iter().flat_map(|entry| &entry.transaction.crud) {
            let name = (write.table.to_string(), write.id.clone());
            match write.op {
                WriteKind::Put => {
                    rows.insert(name, write.data.clone().unwrap_or_default());
                }
                WriteKind::Patch => {
                    if let Some(row) = rows.get_mut(&name) {
                        row.extend(write.data.clone().unwrap_or_default());
                    }
                }
                WriteKind::Delete => {
                    rows.remove(&name);
                }
            }
        }
        rows
    }

    fn upload_state(&self) -> UploadState {
        let unsent = self.queue.iter().filter(|entry| !entry.sent);
        let uncovered = self.queue.iter().filter(|entry| entry.sent && entry.awaits.is_none());
        UploadState {
            queued: unsent.count() as u64,
            uncovered: uncovered.map(Entry::sequence).max(),
            covered: self.queue.iter().filter(|entry| entry.awaits.is_some()).map(Entry::sequence).max(),
            awaited: self.queue.iter().filter_map(|entry| entry.awaits).max(),
        }
    }

    fn holds_back(&self, target: &TargetCheckpoint) -> bool {
        self.queue.iter().any(|entry| entry.awaits.is_none() || entry.awaits > target.write_checkpoint)
    }

    fn publish(&mut self, request: &PublishRequest) -> PublishOutcome {
        let PublishRequest { target, partial, requested, now } = request;
        let in_scope = |bucket: &TargetBucket| partial.is_none_or(|priority| bucket.priority <= priority);
        let scope: Vec<_> = target.buckets.iter().filter(|(_, bucket)| in_scope(bucket)).collect();
        let differs = |(name, bucket): &&(&ByteString, &TargetBucket)| {
            self.downloads.get(*name).map_or(Checksum::default(), |download| download.sum) != bucket.checksum
        };
        let wrong: Vec<_> = scope.iter().filter(differs).map(|(name, _)| (*name).clone()).collect();
        if !wrong.is_empty() {
            self.downloads.retain(|name, _| !wrong.contains(name));
            return PublishOutcome::Mismatch(wrong);
        }
        for (name, _) in &scope {
            if let Some(download) = self.downloads.get_mut(*name) {
                download.after = download.after.max(target.last_op_id);
            }
        }
        if *partial != Some(BucketPriority::HIGHEST) && self.holds_back(target) {
            return PublishOutcome::Held;
        }
        let mut shown = if partial.is_none() { BTreeMap::new() } else { std::mem::take(&mut self.synced) };
        let fresh = scope.iter().filter_map(|(name, _)| self.downloads.get(*name)).flat_map(|download| &download.rows);
        for ((table, id, _), (op_id, data)) in fresh {
            let name = (table.to_string(), id.to_string());
            // Of copies in several buckets the newest one is the row.
            if shown.get(&name).is_none_or(|(shown, _)| shown <= op_id) {
                // What is no JSON object is a row without columns: no content may block a publish (C8).
                let mut row: Row = serde_json::from_str(data).unwrap_or_default();
                row.remove("id");
                shown.insert(name, (*op_id, row));
            }
        }
        self.synced = shown;
        if partial.is_some() {
            let parts = scope.iter().filter(|(name, _)| self.downloads.contains_key(*name));
            self.shown.extend(parts.map(|(name, _)| (*name).clone()));
        } else {
            self.shown = self.downloads.keys().filter(|name| target.buckets.contains_key(*name)).cloned().collect();
            if !self.queue.is_empty() {
                self.queue.clear();
                self.notify();
            }
            self.last_synced_at = self.last_synced_at.max(Some(*now));
            for one in requested.iter() {
                if let Some(stored) = self.subscriptions.get_mut(&subscription_key(&one.stream, &one.parameters)) {
                    stored.last_synced_at = stored.last_synced_at.max(Some(*now));
                }
            }
        }
        PublishOutcome::Published
    }
}

impl Download {
    fn apply(&mut self, operation: &Operation) {
        let Operation { op_id, kind, object_type, object_id, subkey, data, checksum } = operation;
        // Copies: those of the line keep the bytes alive that it came in.
        let key = (copied(object_type), copied(object_id), subkey.as_ref().map(copied));
        self.after = self.after.max(*op_id);
        match (kind, data) {
            (OperationKind::Put, Some(data)) => {
                self.rows.insert(key, (*op_id, copied(data)));
            }
            (OperationKind::Put, None) | (OperationKind::Remove, _) => {
                self.rows.remove(&key);
            }
            (OperationKind::Move, _) => {}
            (OperationKind::Clear, _) => {
                self.rows.clear();
                self.sum = Checksum::default();
            }
        }
        self.sum += *checksum;
    }
}

fn copied(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}

fn subscription_key(stream: &str, parameters: &Map<String, Json>) -> (String, String) {
    // Sorted, because whether the map sorts depends on features that other crates choose.
    let mut parameters = Json::Object(parameters.clone());
    parameters.sort_all_objects();
    (stream.to_owned(), parameters.to_string())
}

#[async_trait]
impl ClientStore for MemoryClientStore {
    async fn lease(&self) -> Result<StoreLease> {
        /// Gives the store back when it is dropped.
        struct Guard(MemoryClientStore);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.lock().leased = false;
            }
        }
        if std::mem::replace(&mut self.lock().leased, true) {
            return Err(Error::unavailable("another sync engine uses the store"));
        }
        Ok(StoreLease::new(Guard(self.clone())))
    }

    async fn resume(&self, now: WallTime) -> Result<ClientState> {
        let mut state = self.lock();
        state.subscriptions.retain(|_, one| one.expires_at > now);
        // Rows of a bucket that left are shown until the next whole checkpoint.
        let left = state.shown.iter().filter(|name| !state.downloads.contains_key(*name));
        let left = left.map(|name| (name.clone(), OpId::ZERO));
        let stored = state.downloads.iter().map(|(name, download)| (name.clone(), download.after));
        Ok(ClientState {
            client_id: Arc::clone(&state.client_id),
            buckets: stored.chain(left).collect(),
            subscriptions: state.subscriptions.values().cloned().collect(),
            last_synced_at: state.last_synced_at,
            uploads: state.upload_state(),
        })
    }

    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()> {
        let mut state = self.lock();
        let key = subscription_key(stream, parameters);
        let Some(expires_at) = expires_at else {
            state.subscriptions.remove(&key);
            return Ok(());
        };
        let last_synced_at = state.subscriptions.get(&key).and_then(|one| one.last_synced_at);
        let (stream, parameters) = (stream.to_owned(), parameters.clone());
        state
            .subscriptions
            .insert(key, StoredSubscription { stream, parameters, priority, expires_at, last_synced_at });
        Ok(())
    }

    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()> {
        self.lock().downloads.retain(|name, _| target.buckets.contains_key(name));
        Ok(())
    }

    async fn stage(&self, lines: &[DataLine]) -> Result<()> {
        let mut state = self.lock();
        for line in lines {
            let download = state.downloads.entry(line.bucket.clone()).or_default();
            line.operations.iter().for_each(|operation| download.apply(operation));
        }
        Ok(())
    }

    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        Ok(self.lock().publish(request))
    }

    async fn upload_state(&self) -> Result<UploadState> {
        Ok(self.lock().upload_state())
    }

    async fn next_upload(&self) -> Result<Option<LocalTransaction>> {
        Ok(self.lock().queue.iter().find(|entry| !entry.sent).map(|entry| entry.transaction.clone()))
    }

    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
        let mut state = self.lock();
        let found = state.queue.iter_mut().find(|entry| entry.transaction.transaction_id == transaction.transaction_id);
        let Some(entry) = found else {
            return Err(Error::invalid("this transaction is not in the upload queue"));
        };
        // Told again after an answer that was lost, it changes nothing.
        if !std::mem::replace(&mut entry.sent, true) {
            if let Uploaded::Rejected { reason } = outcome {
                state.rejected.push((transaction.clone(), reason.clone()));
            }
            state.notify();
        }
        Ok(())
    }

    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
        let mut state = self.lock();
        for entry in state.queue.iter_mut().filter(|entry| entry.sent && entry.sequence() <= upto) {
            entry.awaits = Some(checkpoint);
        }
        state.notify();
        Ok(())
    }

    fn upload_changes(&self) -> BoxStream<'static, ()> {
        let (listener, changes) = mpsc::channel(0);
        self.lock().listeners.push(listener);
        changes.boxed()
    }
}
