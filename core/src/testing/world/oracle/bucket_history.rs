//! The operations of a bucket as they were first seen, and what they reduce to.

use std::collections::BTreeMap;

use super::super::stores::WorldBucketStore;
use super::expected::{Rows, parsed};
use crate::bucket::BucketId;
use crate::bucket_store::ReadRequest;
use crate::checksum::Checksum;
use crate::chunk::OperationRef;
use crate::operation::{OpId, OperationKind};
use futures::FutureExt;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) op_id: OpId,
    kind: OperationKind,
    object_type: String,
    object_id: String,
    subkey: String,
    data: String,
    pub(super) checksum: Checksum,
}

impl From<OperationRef<'_>> for Seen {
    fn from(operation: OperationRef<'_>) -> Self {
        Self {
            op_id: operation.op_id,
            kind: operation.kind,
            object_type: operation.object_type.to_owned(),
            object_id: operation.object_id.to_owned(),
            subkey: operation.subkey.to_owned(),
            data: operation.data.to_owned(),
            checksum: operation.checksum,
        }
    }
}

/// What a client has of a bucket once it applied some operations.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reduction {
    rows: BTreeMap<(String, String, String), String>,
    pub(super) sum: Checksum,
}

impl Reduction {
    pub(super) fn apply(&mut self, operation: &Seen) {
        let key = (operation.object_type.clone(), operation.object_id.clone(), operation.subkey.clone());
        match operation.kind {
            OperationKind::Put => drop(self.rows.insert(key, operation.data.clone())),
            OperationKind::Remove => drop(self.rows.remove(&key)),
            OperationKind::Move => {}
            OperationKind::Clear => *self = Self::default(),
        }
        self.sum += operation.checksum;
    }

    pub(super) fn of<'a>(operations: impl IntoIterator<Item = &'a Seen>) -> Self {
        let mut reduction = Self::default();
        operations.into_iter().for_each(|operation| reduction.apply(operation));
        reduction
    }

    /// The rows by name, as they are expected.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = Rows::new();
        for ((object_type, object_id, _), data) in &self.rows {
            let name = (object_type.clone(), object_id.clone());
            rows.entry(name).or_default().push(parsed(data.as_bytes()));
        }
        rows
    }
}

/// A bucket's operations, as each was when it was first seen.
#[derive(Debug, Default)]
pub(super) struct BucketHistory {
    pub(super) operations: Vec<Seen>,
    pub(super) reduction: Reduction,
}

impl BucketHistory {
    pub(super) fn add(&mut self, operation: Seen) {
        self.reduction.apply(&operation);
        self.operations.push(operation);
    }
}

/// The operations that the store has of a bucket now, in `(after, upto]`.
pub(super) fn read(store: &dyn WorldBucketStore, bucket: &BucketId, after: OpId, upto: OpId) -> Vec<Seen> {
    let request = ReadRequest { bucket: bucket.clone(), after, upto, max_bytes: usize::MAX };
    let answers = store.read(&[request]).now_or_never().and_then(Result::ok).unwrap_or_default();
    let mut operations = Vec::new();
    for answer in answers {
        for chunk in &answer.chunks {
            operations.extend(chunk.operations(chunk.range(after, answer.next_after)).map(Seen::from));
        }
    }
    operations
}
