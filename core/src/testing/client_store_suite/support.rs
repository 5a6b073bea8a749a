//! What the cases have in common: a server in a few lines, and an application.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::Subject;
use crate::bucket::BucketPriority;
use crate::checksum::Checksum;
use crate::client_store::{
    ClientState, ClientStore, PublishOutcome, PublishRequest, StoredSubscription, TargetBucket, TargetCheckpoint,
    UploadSequence, UploadState,
};
use crate::local_transaction::{LocalTransaction, LocalWrite, Uploaded, WriteKind};
use crate::operation::{OpId, Operation, OperationKind};
use crate::protocol::{DataLine, SubscriptionReason};
pub(super) use crate::testing::deadline::{ok, within};
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

/// Buckets as a server holds them, and how much of each was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub(super) op: u64,
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) write_checkpoint: Option<i64>,
    pub(super) now: i64,
    pub(super) requested: Vec<StoredSubscription>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    priority: BucketPriority,
    operations: Vec<Operation>,
    sent: usize,
    reasons: Vec<SubscriptionReason>,
}

impl Server {
    /// Makes a bucket, if there is none of the name; without it, one has the default priority.
    pub(super) fn bucket(&mut self, name: &str, priority: u8) {
        self.buckets.entry(name.to_owned()).or_default().priority = BucketPriority(priority);
    }

    /// Why the client has a bucket: subscriptions of its request.
    pub(super) fn because_of(&mut self, name: &str, subscriptions: &[u32]) {
        let bucket = self.buckets.entry(name.to_owned()).or_default();
        bucket.reasons = subscriptions.iter().map(|index| SubscriptionReason::Subscription(*index)).collect();
    }

    pub(super) fn put(&mut self, bucket: &str, table: &str, id: &str, data: &Json) {
        self.put_text(bucket, table, id, "s", &data.to_string());
    }

    /// A PUT of any text, from a source row of this subkey.
    pub(super) fn put_text(&mut self, bucket: &str, table: &str, id: &str, subkey: &str, data: &str) {
        let checksum = Checksum::of_put(table, id, data.as_bytes());
        self.push(bucket, OperationKind::Put, (table, id, subkey), Some(data), checksum);
    }

    pub(super) fn remove(&mut self, bucket: &str, table: &str, id: &str) {
        self.remove_of(bucket, table, id, "s");
    }

    pub(super) fn remove_of(&mut self, bucket: &str, table: &str, id: &str, subkey: &str) {
        let checksum = Checksum::of_remove(&format!("{subkey}/{id}"));
        self.push(bucket, OperationKind::Remove, (table, id, subkey), None, checksum);
    }

    fn push(
        &mut self,
        bucket: &str,
        kind: OperationKind,
        (table, id, subkey): (&str, &str, &str),
        data: Option<&str>,
        checksum: Checksum,
    ) {
        self.op += 1;
        let operation = Operation {
            op_id: OpId(self.op),
            kind,
            object_type: table.into(),
            object_id: id.into(),
            subkey: Some(format!("{subkey}/{id}").into()),
            data: data.map(Into::into),
            checksum,
        };
        self.buckets.entry(bucket.to_owned()).or_default().operations.push(operation);
    }

    /// Replaces a bucket's past by a CLEAR, as compaction does; it is sent from its beginning then.
    pub(super) fn clear(&mut self, name: &str) {
        self.op += 1;
        let bucket = self.buckets.entry(name.to_owned()).or_default();
        bucket.operations = vec![bare(OpId(self.op), OperationKind::Clear, bucket.sum())];
        bucket.sent = 0;
    }

    /// Replaces the bucket's first operation by a MOVE, as compaction does.
    pub(super) fn compact_first(&mut self, name: &str) {
        let bucket = self.buckets.entry(name.to_owned()).or_default();
        if let Some(first) = bucket.operations.first_mut() {
            *first = bare(first.op_id, OperationKind::Move, first.checksum);
        }
    }

    pub(super) fn drop_bucket(&mut self, name: &str) {
        self.buckets.remove(name);
    }

    /// Sends a bucket from its beginning again.
    pub(super) fn rewind(&mut self, name: &str) {
        self.buckets.entry(name.to_owned()).or_default().sent = 0;
    }

    pub(super) fn target(&self) -> Arc<TargetCheckpoint> {
        let buckets = self.buckets.iter().map(|(name, bucket)| {
            let target = TargetBucket {
                checksum: bucket.sum(),
                priority: bucket.priority,
                count: Some(bucket.operations.len() as u64),
                subscriptions: bucket.reasons.clone(),
            };
            (ByteString::from(name.as_str()), target)
        });
        Arc::new(TargetCheckpoint {
            last_op_id: OpId(self.op),
            write_checkpoint: self.write_checkpoint.map(WriteCheckpoint),
            buckets: buckets.collect(),
            streams: Vec::new(),
        })
    }

    /// Lines of at most `most` operations, with what was not sent yet of buckets up to this priority.
    pub(super) fn lines(&mut self, most: usize, upto: u8) -> Vec<DataLine> {
        let mut lines = Vec::new();
        for (name, bucket) in self.buckets.iter_mut().filter(|(_, bucket)| bucket.priority <= BucketPriority(upto)) {
            let unsent = bucket.operations.get(bucket.sent..).unwrap_or_default();
            for operations in unsent.chunks(most) {
                let operations = operations.to_vec();
                lines.push(DataLine { bucket: name.as_str().into(), operations, size: 100 });
            }
            bucket.sent = bucket.operations.len();
        }
        lines
    }

    pub(super) fn request(&self, partial: Option<u8>) -> PublishRequest {
        let (partial, requested) = (partial.map(BucketPriority), self.requested.clone().into());
        PublishRequest { target: self.target(), partial, requested, now: WallTime(self.now) }
    }

    pub(super) async fn begin(&self, store: &dyn ClientStore) {
        ok(within(store.begin_checkpoint(&self.target())).await);
    }

    /// Begins a checkpoint and sends all its data.
    pub(super) async fn stage(&mut self, store: &dyn ClientStore) {
        self.begin(store).await;
        ok(within(store.stage(&self.lines(1000, u8::MAX))).await);
    }

    pub(super) async fn publish(&self, store: &dyn ClientStore, partial: Option<u8>) -> PublishOutcome {
        ok(within(store.publish(&self.request(partial))).await)
    }

    /// A checkpoint, its data and its end.
    pub(super) async fn sync(&mut self, store: &dyn ClientStore) -> PublishOutcome {
        self.stage(store).await;
        self.publish(store, None).await
    }

    /// The same, which must be shown.
    pub(super) async fn show(&mut self, store: &dyn ClientStore) {
        assert_eq!(self.sync(store).await, PublishOutcome::Published);
    }
}

impl Bucket {
    fn sum(&self) -> Checksum {
        self.operations.iter().fold(Checksum::default(), |sum, operation| sum + operation.checksum)
    }
}

fn bare(op_id: OpId, kind: OperationKind, checksum: Checksum) -> Operation {
    let (object_type, object_id) = (ByteString::new(), ByteString::new());
    Operation { op_id, kind, object_type, object_id, subkey: None, data: None, checksum }
}

fn local(op: WriteKind, table: &str, id: &str, data: Option<&Json>) -> LocalWrite {
    let data = data.map(|data| data.as_object().cloned().unwrap_or_else(|| panic!("{data} is no object")));
    LocalWrite { op_id: 0, op, table: table.into(), id: id.to_owned(), tx_id: None, data, old: None, metadata: None }
}

pub(super) fn insert(table: &str, id: &str, columns: &Json) -> LocalWrite {
    local(WriteKind::Put, table, id, Some(columns))
}

pub(super) fn update(table: &str, id: &str, columns: &Json) -> LocalWrite {
    local(WriteKind::Patch, table, id, Some(columns))
}

pub(super) fn delete(table: &str, id: &str) -> LocalWrite {
    local(WriteKind::Delete, table, id, None)
}

/// The rows of a table in order of their ids, without columns that have no value.
pub(super) async fn rows(subject: &dyn Subject, table: &str) -> Vec<Json> {
    let mut rows = within(subject.rows(table)).await;
    rows.iter_mut().for_each(|row| row.retain(|_, value| !value.is_null()));
    rows.sort_by_key(|row| row.get("id").and_then(Json::as_str).map(str::to_owned));
    rows.into_iter().map(Json::Object).collect()
}

/// `["l1=name", …]` of the table `lists`, in order of ids.
pub(super) async fn names(subject: &dyn Subject) -> Vec<String> {
    let text = |row: &Json, column: &str| row.get(column).and_then(Json::as_str).unwrap_or("-").to_owned();
    rows(subject, "lists").await.iter().map(|row| format!("{}={}", text(row, "id"), text(row, "name"))).collect()
}

pub(super) async fn state(store: &dyn ClientStore) -> ClientState {
    ok(within(store.resume(WallTime(0))).await)
}

/// The position of a bucket; zero if it is not named.
pub(super) async fn position(store: &dyn ClientStore, bucket: &str) -> u64 {
    let buckets = state(store).await.buckets;
    let named: Vec<u64> = buckets.iter().filter(|(name, _)| *name == bucket).map(|(_, at)| at.0).collect();
    assert!(named.len() < 2, "bucket {bucket} is named more than once: {buckets:?}");
    named.first().copied().unwrap_or(0)
}

pub(super) async fn uploads(store: &dyn ClientStore) -> UploadState {
    ok(within(store.upload_state()).await)
}

pub(super) async fn next_upload(store: &dyn ClientStore) -> Option<LocalTransaction> {
    ok(within(store.next_upload()).await)
}

/// The oldest transaction was sent, with this outcome.
pub(super) async fn finish(store: &dyn ClientStore, outcome: &Uploaded) -> LocalTransaction {
    let transaction = next_upload(store).await.unwrap_or_else(|| panic!("nothing waits to be uploaded"));
    ok(within(store.finish_upload(&transaction, outcome)).await);
    transaction
}

/// Uploads everything that waits; how many transactions that were.
pub(super) async fn upload_all(store: &dyn ClientStore) -> usize {
    for count in 0..1000 {
        if next_upload(store).await.is_none() {
            return count;
        }
        finish(store, &Uploaded::Applied).await;
    }
    panic!("the upload queue never came to an end");
}

/// What was sent, and is not covered, waits for this write checkpoint from now on. Returns up to where.
pub(super) async fn cover(store: &dyn ClientStore, checkpoint: i64) -> UploadSequence {
    let upto = uploads(store).await.uncovered.unwrap_or_else(|| panic!("nothing that was sent waits to be covered"));
    ok(within(store.cover(upto, WriteCheckpoint(checkpoint))).await);
    upto
}

/// `["PUT lists/l1", …]` of a transaction.
pub(super) fn written(transaction: &LocalTransaction) -> Vec<String> {
    let name = |op| match op {
        WriteKind::Put => "PUT",
        WriteKind::Patch => "PATCH",
        WriteKind::Delete => "DELETE",
    };
    transaction.crud.iter().map(|write| format!("{} {}/{}", name(write.op), write.table, write.id)).collect()
}

pub(super) fn parameters(json: &Json) -> Map<String, Json> {
    json.as_object().cloned().unwrap_or_default()
}
