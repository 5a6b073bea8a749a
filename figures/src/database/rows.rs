//! Rows, what a server would send of them, and the tables that they go to.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::json;
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, Checksum, ClientStore, OpId, Operation, OperationKind, PublishOutcome, PublishRequest,
    TargetBucket, TargetCheckpoint, WallTime,
};
use syncline_storage_sqlite::{Database, Schema, Table, params, rusqlite};

/// What is inserted, behind the name of a table.
pub(super) const INSERT: &str = "(id, list_id, title, done, rank) VALUES (?1, ?2, ?3, ?4, ?5)";

#[derive(Debug)]
pub(super) struct Row {
    id: String,
    list: String,
    title: String,
    done: i64,
    rank: f64,
}

impl Row {
    /// Spread like random ids, the same in every run.
    pub(super) fn new(number: usize) -> Self {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = number as u64;
        Self {
            id: format!("{:016x}-{:016x}", hash(n), hash(n + 1)),
            list: format!("{:016x}", hash(n % 1000)),
            title: format!("what is to be done, number {number}, and a few words more"),
            done: i64::from(number.is_multiple_of(2)),
            rank: number as f64 / 7.0,
        }
    }

    pub(super) fn all(count: usize) -> Vec<Self> {
        (0..count).map(Self::new).collect()
    }

    /// What a server sends of it.
    fn operation(&self, number: usize) -> Operation {
        let data = json!({
            "id": self.id, "list_id": self.list, "title": self.title, "done": self.done, "rank": self.rank
        });
        let data = data.to_string();
        Operation {
            op_id: OpId(number as u64 + 1),
            kind: OperationKind::Put,
            object_type: "todos".into(),
            object_id: self.id.as_str().into(),
            subkey: Some(format!("s/{}", self.id).into()),
            checksum: Checksum::of_put("todos", &self.id, data.as_bytes()),
            data: Some(data.into()),
        }
    }

    pub(super) fn insert(&self, statement: &mut rusqlite::Statement<'_>) -> rusqlite::Result<usize> {
        statement.execute(params![self.id, self.list, self.title, self.done, self.rank])
    }
}

/// A table that is downloaded, one whose writes are captured, and one that is the device's own.
pub(super) async fn open(directory: &Path) -> Result<Database> {
    let columns = |name: &str| Table::new(name).text("list_id").text("title").integer("done").real("rank");
    let schema = Schema::new()
        .table(columns("todos").index("by_list", ["list_id"]))
        .table(columns("synced"))
        .table(columns("local").local_only());
    Ok(Database::open(directory.join("client.db"), schema).await?)
}

/// A database that only SQLite knows, with the table that is downloaded.
pub(super) fn plain(directory: &Path) -> Result<rusqlite::Connection> {
    let connection = rusqlite::Connection::open(directory.join("plain.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32000;
         CREATE TABLE todos (id TEXT PRIMARY KEY NOT NULL, list_id TEXT, title TEXT, done INTEGER, rank REAL);
         CREATE INDEX by_list ON todos (list_id);",
    )?;
    Ok(connection)
}

/// What a server would send: one bucket, in lines of a thousand operations.
#[derive(Debug)]
pub(super) struct Download {
    lines: Vec<DataLine>,
    request: PublishRequest,
}

impl Download {
    pub(super) fn of(rows: &[Row]) -> Self {
        let operations: Vec<Operation> = (0..).zip(rows).map(|(number, row)| row.operation(number)).collect();
        let sum = operations.iter().fold(Checksum(0), |sum, operation| sum + operation.checksum);
        let lines = operations.chunks(LINE).map(|operations| line(operations.to_vec())).collect();
        Self { lines, request: request(rows.len(), sum) }
    }

    /// Stages as the sync client does, a few lines at a time, and publishes.
    pub(super) async fn take(&self, db: &Database) -> Result<()> {
        db.begin_checkpoint(&self.request.target).await?;
        for lines in self.lines.chunks(4) {
            db.stage(lines).await?;
        }
        ensure!(db.publish(&self.request).await? == PublishOutcome::Published, "the rows were not published");
        Ok(())
    }

    /// The same of so many rows, which are made as they are staged, as a client gets them: a million that are kept in this
    /// process are a load on its allocator that no client has.
    pub(super) async fn take_fresh(db: &Database, count: usize) -> Result<()> {
        let sum = (0..count).fold(Checksum(0), |sum, number| sum + Row::new(number).operation(number).checksum);
        let request = request(count, sum);
        db.begin_checkpoint(&request.target).await?;
        for begin in (0..count).step_by(4 * LINE) {
            let lines: Vec<DataLine> = (begin..count.min(begin + 4 * LINE))
                .step_by(LINE)
                .map(|begin| {
                    let numbers = begin..count.min(begin + LINE);
                    line(numbers.map(|number| Row::new(number).operation(number)).collect())
                })
                .collect();
            db.stage(&lines).await?;
        }
        ensure!(db.publish(&request).await? == PublishOutcome::Published, "the rows were not published");
        Ok(())
    }
}

/// Operations of a line.
const LINE: usize = 1_000;

fn line(operations: Vec<Operation>) -> DataLine {
    DataLine { bucket: "b".into(), operations, size: 0 }
}

fn request(rows: usize, sum: Checksum) -> PublishRequest {
    let bucket = TargetBucket {
        checksum: sum,
        priority: BucketPriority(3),
        count: Some(rows as u64),
        subscriptions: Vec::new(),
    };
    let target = TargetCheckpoint {
        last_op_id: OpId(rows as u64),
        write_checkpoint: None,
        buckets: [("b".into(), bucket)].into(),
        streams: Vec::new(),
    };
    PublishRequest { target: Arc::new(target), partial: None, requested: Arc::from([]), now: WallTime(1) }
}
