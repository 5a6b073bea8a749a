//! What a broken client store makes of the lines that it stages.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use syncline_core::protocol::DataLine;
use syncline_core::{ByteString, Checksum, OpId, Operation, OperationKind, TargetCheckpoint};

use crate::client_faults::ClientFault::{self, *};

/// The sums of downloaded buckets, and the newest data of their rows.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    sums: BTreeMap<ByteString, Checksum>,
    rows: BTreeMap<(ByteString, ByteString), Map<String, Json>>,
}

impl Sums {
    pub(crate) fn of(&self, bucket: &ByteString) -> Checksum {
        self.sums.get(bucket).copied().unwrap_or_default()
    }

    pub(crate) fn knows(&self, bucket: &ByteString) -> bool {
        self.sums.contains_key(bucket)
    }

    pub(crate) fn forget(&mut self, bucket: &ByteString) {
        self.sums.remove(bucket);
    }

    pub(crate) fn retain(&mut self, target: &TargetCheckpoint) {
        self.sums.retain(|name, _| target.buckets.contains_key(name));
    }

    /// The buckets whose sums are not those of a checkpoint.
    pub(crate) fn differing(&self, target: &TargetCheckpoint) -> Vec<ByteString> {
        target
            .buckets
            .iter()
            .filter(|(name, bucket)| self.of(name) != bucket.checksum)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn add(&mut self, bucket: &ByteString, operation: &Operation) {
        let sum = self.sums.entry(bucket.clone()).or_default();
        if operation.kind == OperationKind::Clear {
            *sum = Checksum::default();
        }
        *sum += operation.checksum;
    }

    /// The row with the columns that it had before.
    fn merged(&mut self, operation: &Operation) -> Option<ByteString> {
        let new: Map<String, Json> = serde_json::from_str(operation.data.as_deref()?).ok()?;
        let row = self.rows.entry((operation.object_type.clone(), operation.object_id.clone())).or_default();
        row.extend(new);
        Some(Json::Object(row.clone()).to_string().into())
    }
}

/// The lines as a store with this mistake stores them.
pub(crate) fn falsify(fault: ClientFault, lines: &[DataLine], sums: &mut Sums) -> Vec<DataLine> {
    let mut falsified = Vec::new();
    for line in lines {
        let mut line = line.clone();
        let mut removed = Vec::new();
        for operation in &mut line.operations {
            let before = sums.of(&line.bucket);
            sums.add(&line.bucket, operation);
            match (fault, operation.kind) {
                (PutsKeepOldColumns, OperationKind::Put) => operation.data = sums.merged(operation),
                (LastBucketWins, _) => operation.op_id = OpId(1),
                (IgnoresSubkeys, _) => operation.subkey = None,
                (ClearsKeepRows, OperationKind::Clear) => {
                    operation.kind = OperationKind::Move;
                    operation.checksum = operation.checksum - before;
                }
                (RemovesEveryCopy, OperationKind::Remove) => {
                    removed.push(Operation { checksum: Checksum::default(), ..operation.clone() });
                }
                _ => {}
            }
        }
        if fault == IgnoresMoves {
            line.operations.retain(|operation| operation.kind != OperationKind::Move);
        }
        let others = sums.sums.keys().filter(|name| **name != line.bucket && !removed.is_empty());
        falsified.extend(others.map(|name| DataLine { bucket: name.clone(), operations: removed.clone(), size: 0 }));
        falsified.push(line);
    }
    falsified
}
