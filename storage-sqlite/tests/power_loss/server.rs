//! A server for one client: one bucket, and checkpoints over all of it.

use std::sync::Arc;

use futures::executor::block_on;
use serde_json::Value as Json;
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, Checksum, ClientStore, OpId, Operation, OperationKind, PublishOutcome, PublishRequest,
    TargetBucket, TargetCheckpoint, WallTime, WriteCheckpoint,
};
use syncline_storage_sqlite::Database;

const BUCKET: &str = "a";

#[derive(Debug, Default)]
pub(crate) struct Server {
    sum: Checksum,
    count: u64,
    unsent: Vec<Operation>,
}

impl Server {
    /// The row of the table `lists` is this.
    pub(crate) fn put(&mut self, id: &str, row: &Json) {
        let data = row.to_string();
        let operation = Operation {
            op_id: OpId(self.count + 1),
            kind: OperationKind::Put,
            object_type: "lists".into(),
            object_id: id.into(),
            subkey: Some(id.into()),
            checksum: Checksum::of_put("lists", id, data.as_bytes()),
            data: Some(data.into()),
        };
        self.count += 1;
        self.sum += operation.checksum;
        self.unsent.push(operation);
    }

    /// Sends a checkpoint, with all that the client does not have.
    pub(crate) fn sync(&mut self, db: &Database, write_checkpoint: WriteCheckpoint) -> PublishOutcome {
        let bucket = TargetBucket {
            checksum: self.sum,
            priority: BucketPriority(3),
            count: Some(self.count),
            subscriptions: Vec::new(),
        };
        let target = Arc::new(TargetCheckpoint {
            last_op_id: OpId(self.count),
            write_checkpoint: Some(write_checkpoint),
            buckets: [(BUCKET.into(), bucket)].into(),
            streams: Vec::new(),
        });
        block_on(db.begin_checkpoint(&target)).unwrap();
        let operations = std::mem::take(&mut self.unsent);
        block_on(db.stage(&[DataLine { bucket: BUCKET.into(), operations, size: 0 }])).unwrap();
        let request = PublishRequest { target, partial: None, requested: Arc::from([]), now: WallTime(0) };
        block_on(db.publish(&request)).unwrap()
    }
}
