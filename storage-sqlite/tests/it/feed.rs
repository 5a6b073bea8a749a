//! A server in a few lines: buckets of operations, checkpoints over them, and a client that takes them in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use serde_json::{Value as Json, json};
use syncline_core::protocol::{DataLine, SubscriptionReason};
use syncline_core::{
    BucketPriority, ByteString, Checksum, ClientStore, OpId, Operation, OperationKind, PublishOutcome, PublishRequest,
    TargetBucket, TargetCheckpoint, UploadSequence, Uploaded, WallTime, WriteCheckpoint,
};
use syncline_storage_sqlite::{Database, Schema, Table};

/// The schema of most tests.
pub(crate) fn schema() -> Schema {
    Schema::new()
        .table(Table::new("lists").text("name").integer("rank").real("weight"))
        .table(Table::new("todos").text("list_id").text("title").integer("done").index("by_list", ["list_id"]))
        .table(Table::new("drafts").text("body").local_only())
}

pub(crate) fn open() -> Database {
    block_on(Database::open_in_memory(schema()).into_future()).unwrap()
}

/// Buckets as a server holds them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed {
    pub(crate) op: u64,
    pub(crate) buckets: BTreeMap<String, (u8, Vec<Operation>)>,
    pub(crate) sent: BTreeMap<String, usize>,
    pub(crate) write_checkpoint: Option<i64>,
    pub(crate) now: i64,
    pub(crate) reasons: BTreeMap<String, Vec<SubscriptionReason>>,
}

impl Feed {
    pub(crate) fn bucket(&mut self, name: &str, priority: u8) {
        self.buckets.entry(name.into()).or_insert((priority, Vec::new()));
    }

    pub(crate) fn push(&mut self, bucket: &str, operation: Operation) {
        self.op = self.op.max(operation.op_id.0);
        self.buckets.entry(bucket.into()).or_insert((3, Vec::new())).1.push(operation);
    }

    fn next(&mut self) -> OpId {
        self.op += 1;
        OpId(self.op)
    }

    /// The row is this.
    pub(crate) fn put(&mut self, bucket: &str, table: &str, id: &str, data: Json) {
        self.put_as(bucket, table, id, "s", &data.to_string());
    }

    pub(crate) fn put_as(&mut self, bucket: &str, table: &str, id: &str, subkey: &str, data: &str) {
        let operation = Operation {
            op_id: self.next(),
            kind: OperationKind::Put,
            object_type: table.into(),
            object_id: id.into(),
            subkey: Some(format!("{subkey}/{id}").into()),
            data: Some(data.into()),
            checksum: Checksum::of_put(table, id, data.as_bytes()),
        };
        self.push(bucket, operation);
    }

    pub(crate) fn remove(&mut self, bucket: &str, table: &str, id: &str) {
        self.remove_as(bucket, table, id, "s");
    }

    pub(crate) fn remove_as(&mut self, bucket: &str, table: &str, id: &str, subkey: &str) {
        let subkey = format!("{subkey}/{id}");
        let operation = Operation {
            op_id: self.next(),
            kind: OperationKind::Remove,
            object_type: table.into(),
            object_id: id.into(),
            checksum: Checksum::of_remove(&subkey),
            subkey: Some(subkey.into()),
            data: None,
        };
        self.push(bucket, operation);
    }

    /// Replaces a bucket's past by a CLEAR, as compaction does. Clients get it from the beginning.
    pub(crate) fn clear(&mut self, bucket: &str) {
        let op_id = self.next();
        let (_, operations) = self.buckets.get_mut(bucket).unwrap();
        let sum = operations.iter().fold(Checksum(0), |sum, operation| sum + operation.checksum);
        *operations = vec![bare(op_id, OperationKind::Clear, sum)];
        self.sent.remove(bucket);
    }

    /// Replaces an operation by a MOVE, which keeps its checksum.
    pub(crate) fn compact(&mut self, bucket: &str, index: usize) {
        let operation = &mut self.buckets.get_mut(bucket).unwrap().1[index];
        *operation = bare(operation.op_id, OperationKind::Move, operation.checksum);
    }

    pub(crate) fn drop_bucket(&mut self, bucket: &str) {
        self.buckets.remove(bucket);
        self.sent.remove(bucket);
    }

    /// Sends a bucket from the beginning again.
    pub(crate) fn rewind(&mut self, bucket: &str) {
        self.sent.remove(bucket);
    }

    pub(crate) fn target(&self) -> Arc<TargetCheckpoint> {
        let buckets = self.buckets.iter().map(|(name, (priority, operations))| {
            let bucket = TargetBucket {
                checksum: operations.iter().fold(Checksum(0), |sum, operation| sum + operation.checksum),
                priority: BucketPriority(*priority),
                count: Some(operations.len() as u64),
                subscriptions: self.reasons.get(name).cloned().unwrap_or_default(),
            };
            (ByteString::from(name.as_str()), bucket)
        });
        Arc::new(TargetCheckpoint {
            last_op_id: OpId(self.op),
            write_checkpoint: self.write_checkpoint.map(WriteCheckpoint),
            buckets: buckets.collect(),
            streams: Vec::new(),
        })
    }

    /// Lines with what was not sent of the buckets that `wanted` accepts, at most `most` operations each.
    pub(crate) fn lines(&mut self, most: usize, wanted: impl Fn(u8) -> bool) -> Vec<DataLine> {
        let mut lines = Vec::new();
        for (name, (priority, operations)) in &self.buckets {
            if !wanted(*priority) {
                continue;
            }
            let sent = self.sent.entry(name.clone()).or_default();
            for chunk in operations[*sent..].chunks(most) {
                lines.push(DataLine { bucket: name.as_str().into(), operations: chunk.to_vec(), size: 0 });
            }
            *sent = operations.len();
        }
        lines
    }

    pub(crate) fn begin(&self, db: &Database) {
        block_on(db.begin_checkpoint(&self.target())).unwrap();
    }

    pub(crate) fn stage(&mut self, db: &Database) {
        let lines = self.lines(1000, |_| true);
        block_on(db.stage(&lines)).unwrap();
    }

    pub(crate) fn publish(&self, db: &Database, partial: Option<u8>) -> PublishOutcome {
        let request = PublishRequest {
            target: self.target(),
            partial: partial.map(BucketPriority),
            requested: Arc::from([]),
            now: WallTime(self.now),
        };
        block_on(db.publish(&request)).unwrap()
    }

    /// Everything: a checkpoint, its data, its end.
    pub(crate) fn sync(&mut self, db: &Database) -> PublishOutcome {
        self.begin(db);
        self.stage(db);
        self.publish(db, None)
    }
}

fn bare(op_id: OpId, kind: OperationKind, checksum: Checksum) -> Operation {
    Operation {
        op_id,
        kind,
        object_type: ByteString::new(),
        object_id: ByteString::new(),
        subkey: None,
        data: None,
        checksum,
    }
}

/// Executes one statement in a transaction of its own.
pub(crate) fn execute(db: &Database, sql: &'static str) {
    block_on(db.write(move |tx| Ok(tx.execute(sql, [])?))).unwrap();
}

/// All rows of a table, in order of their ids.
pub(crate) fn rows(db: &Database, table: &str) -> Vec<Json> {
    let sql = format!("SELECT * FROM \"{table}\" ORDER BY id");
    block_on(db.query::<Json>(sql).all()).unwrap()
}

/// Sends the whole queue, which the backend applies or refuses; answers the entry that is to be covered.
pub(crate) fn upload(db: &Database, outcome: &Uploaded) -> Vec<Json> {
    let mut sent = Vec::new();
    while let Some(transaction) = block_on(db.next_upload()).unwrap() {
        sent.push(serde_json::to_value(&transaction).unwrap());
        block_on(db.finish_upload(&transaction, outcome)).unwrap();
    }
    sent
}

/// Uploads everything and waits for this write checkpoint.
pub(crate) fn upload_and_cover(db: &Database, checkpoint: i64) {
    upload(db, &Uploaded::Applied);
    cover(db, checkpoint);
}

pub(crate) fn cover(db: &Database, checkpoint: i64) {
    let UploadSequence(upto) = block_on(db.upload_state()).unwrap().uncovered.expect("something was sent");
    block_on(db.cover(UploadSequence(upto), WriteCheckpoint(checkpoint))).unwrap();
}

pub(crate) fn list(id: &str, name: &str) -> Json {
    json!({ "id": id, "name": name, "rank": null, "weight": null })
}
