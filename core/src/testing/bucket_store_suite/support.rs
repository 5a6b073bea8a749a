//! What the cases have in common.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};

use crate::bucket::{BucketId, DefinitionId};
use crate::bucket_store::{AppendBatch, BucketStore, Commit, CurrentRow, Deploy, LookupEntry, Membership, ReadRequest};
use crate::checkpoint::{BucketChecksum, ChangeSet, Changes, Checkpoint, LookupKey, Published};
use crate::checksum::Checksum;
use crate::error::Result;
use crate::operation::{NewOperation, OpId, Operation, OperationKind};
use crate::table::{RowKey, TableId};
pub(super) use crate::testing::deadline::{ok, within};
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// The next item of a stream that has one.
pub(super) async fn next<T>(stream: &mut BoxStream<'static, Result<T>>) -> T {
    ok(within(stream.next()).await.unwrap_or_else(|| panic!("the stream ended")))
}

/// Asserts that a stream has nothing to say now.
pub(super) fn assert_quiet<T: std::fmt::Debug>(stream: &mut BoxStream<'static, Result<T>>) {
    if let Some(item) = stream.next().now_or_never() {
        panic!("nothing should have come, but {item:?}");
    }
}

pub(super) fn these(published: &Published) -> &ChangeSet {
    match &published.changes {
        Changes::These(set) => set,
        Changes::Unknown => panic!("the changes since the last item are known"),
    }
}

pub(super) fn bucket(definition: u32, parameters: &str) -> BucketId {
    BucketId { definition: DefinitionId(definition), parameters: parameters.into() }
}

/// The operations of row `id` in a bucket: a PUT of `data`, or a REMOVE.
pub(super) fn operation(bucket: &BucketId, id: &str, data: Option<&str>) -> NewOperation {
    match data {
        Some(data) => {
            let data = Bytes::from(format!(r#"{{"id":"{id}","v":"{data}"}}"#));
            NewOperation::put(bucket.clone(), "items".into(), id.into(), subkey(id).into(), data)
        }
        None => NewOperation::remove(bucket.clone(), "items".into(), id.into(), subkey(id).into()),
    }
}

fn subkey(id: &str) -> String {
    format!("key of {id}")
}

pub(super) fn put(bucket: &BucketId, id: &str, data: &str) -> NewOperation {
    operation(bucket, id, Some(data))
}

pub(super) fn operations(operations: impl IntoIterator<Item = NewOperation>) -> AppendBatch {
    AppendBatch { operations: operations.into_iter().collect(), ..AppendBatch::default() }
}

pub(super) fn row_key(table: u64, key: &str) -> RowKey {
    RowKey { table: TableId(table), key: Bytes::from(key.to_owned()) }
}

pub(super) fn row(image: &str, buckets: &[(&BucketId, &str)], lookups: &[LookupKey]) -> CurrentRow {
    let member = |(bucket, id): &(&BucketId, &str)| Membership {
        bucket: (*bucket).clone(),
        object_type: "items".into(),
        object_id: (*id).into(),
    };
    CurrentRow {
        image: Bytes::from(image.to_owned()),
        memberships: buckets.iter().map(member).collect(),
        lookups: lookups.to_vec(),
    }
}

pub(super) fn lookup_key(index: u32, values: &str) -> LookupKey {
    LookupKey { index: DefinitionId(index), values: values.into() }
}

pub(super) fn lookup_entry(row: &RowKey, key: &LookupKey, outputs: &[&str]) -> LookupEntry {
    LookupEntry { row: row.clone(), key: key.clone(), outputs: outputs.iter().map(|output| (*output).into()).collect() }
}

pub(super) fn client(name: &str) -> ClientKey {
    ClientKey(name.into())
}

pub(super) fn publishing() -> Commit {
    Commit { publish: true, ..Commit::default() }
}

pub(super) fn with_markers(markers: &[MarkerToken]) -> Commit {
    Commit { markers: markers.to_vec(), ..publishing() }
}

pub(super) fn deploying(forms: &[&str]) -> Commit {
    let forms = forms.iter().map(|form| (*form).into()).collect::<Vec<_>>();
    Commit { deploy: Some(Deploy { text: format!("streams: {forms:?}").into(), forms }), ..publishing() }
}

/// Commits and returns the checkpoint that must result.
pub(super) async fn checkpoint(store: &dyn BucketStore, commit: Commit) -> Checkpoint {
    ok(within(store.commit(commit)).await).unwrap_or_else(|| panic!("the commit should have made a checkpoint"))
}

/// Deploys two definitions; their numbers.
pub(super) async fn deployed(store: &dyn BucketStore) -> (u32, u32) {
    let checkpoint = checkpoint(store, deploying(&["form a", "form b"])).await;
    let ids: Vec<u32> = checkpoint.config.definitions.iter().map(|definition| definition.id.0).collect();
    assert_eq!(ids.len(), 2, "one number per form");
    (ids[0], ids[1])
}

/// Appends, commits and publishes.
pub(super) async fn published(store: &dyn BucketStore, batch: AppendBatch) -> Checkpoint {
    ok(within(store.append(batch)).await);
    checkpoint(store, publishing()).await
}

/// All operations of a bucket in `(after, upto]`, in reads of at most `max_bytes`, and what superseded the checkpoint.
pub(super) async fn read_in_steps(
    store: &dyn BucketStore,
    bucket: &BucketId,
    (after, upto): (OpId, OpId),
    max_bytes: usize,
) -> (Vec<Operation>, Option<OpId>) {
    let mut request = ReadRequest { bucket: bucket.clone(), after, upto, max_bytes };
    let (mut read, mut superseded) = (Vec::new(), None);
    loop {
        let mut answers = ok(within(store.read(std::slice::from_ref(&request))).await);
        assert_eq!(answers.len(), 1, "one answer per request");
        let answer = answers.remove(0);
        let count = read.len();
        for chunk in &answer.chunks {
            let range = chunk.range(request.after, answer.next_after);
            assert!(!range.is_empty(), "a chunk without operations of the range");
            read.extend(chunk.operations(range).map(|operation| operation.to_owned()));
        }
        superseded = superseded.max(answer.superseded);
        assert!(answer.next_after <= upto.max(after), "nothing above the checkpoint");
        if !answer.has_more {
            break;
        }
        assert!(read.len() > count, "a read makes progress");
        assert!(answer.next_after > request.after, "a read makes progress");
        request.after = answer.next_after;
    }
    assert!(read.windows(2).all(|pair| pair[0].op_id < pair[1].op_id), "operations in order");
    (read, superseded)
}

pub(super) async fn read_all(store: &dyn BucketStore, bucket: &BucketId, upto: OpId) -> Vec<Operation> {
    read_in_steps(store, bucket, (OpId::ZERO, upto), 1 << 20).await.0
}

/// Ids and kinds, as in `["PUT r1", "REMOVE r2"]`.
pub(super) fn names(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(|operation| format!("{} {}", operation.kind.name(), operation.object_id)).collect()
}

pub(super) async fn checksum(store: &dyn BucketStore, bucket: &BucketId, at: OpId) -> BucketChecksum {
    let mut sums = ok(within(store.checksums(at, std::slice::from_ref(bucket))).await);
    assert_eq!(sums.len(), 1, "one answer per bucket");
    sums.remove(0)
}

/// The number of a request for the next one.
pub(super) async fn request(store: &dyn BucketStore, client: &ClientKey) -> WriteCheckpoint {
    ok(within(store.request_write_checkpoint(client, WriteCheckpointRequest::Next)).await)
}

/// The number of a request that names one.
pub(super) async fn name(store: &dyn BucketStore, client: &ClientKey, number: i64) -> i64 {
    let named = WriteCheckpointRequest::AtLeast(WriteCheckpoint(number));
    ok(within(store.request_write_checkpoint(client, named)).await).0
}

/// What a stream may show at a checkpoint.
pub(super) async fn shown(store: &dyn BucketStore, at: OpId, client: &ClientKey) -> Option<WriteCheckpoint> {
    let mut answers = ok(within(store.write_checkpoints(at, std::slice::from_ref(client))).await);
    assert_eq!(answers.len(), 1, "one answer per client");
    answers.remove(0)
}

/// All tokens that are pending now.
pub(super) async fn pending(store: &dyn BucketStore) -> Vec<MarkerToken> {
    let mut stream = store.pending_markers();
    let mut tokens = Vec::new();
    while let Some(item) = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut stream)) {
        tokens.push(ok(item.unwrap_or_else(|| panic!("the stream ended"))));
    }
    tokens
}

/// A bucket as a client holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reduced {
    rows: BTreeMap<(String, String, String), (OpId, String, u32)>,
    rest: Checksum,
}

impl Reduced {
    pub(super) fn apply(&mut self, operations: &[Operation]) {
        for operation in operations {
            let subkey = operation.subkey.as_deref().unwrap_or("null");
            let key = (operation.object_type.to_string(), operation.object_id.to_string(), subkey.to_owned());
            match operation.kind {
                OperationKind::Put | OperationKind::Remove => {
                    if let Some((_, _, sum)) = self.rows.remove(&key) {
                        self.rest += Checksum(sum);
                    }
                }
                OperationKind::Move => {}
                OperationKind::Clear => *self = Self::default(),
            }
            if operation.kind == OperationKind::Put {
                let data = operation.data.as_deref().unwrap_or_default().to_owned();
                self.rows.insert(key, (operation.op_id, data, operation.checksum.0));
            } else {
                self.rest += operation.checksum;
            }
        }
    }

    pub(super) fn of(operations: &[Operation]) -> Self {
        let mut reduced = Self::default();
        reduced.apply(operations);
        reduced
    }

    pub(super) fn checksum(&self) -> Checksum {
        self.rows.values().fold(self.rest, |sum, (_, _, one)| sum + Checksum(*one))
    }
}
