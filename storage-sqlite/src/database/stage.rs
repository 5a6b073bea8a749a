//! Staging: what was downloaded is appended to the log, out of the application's sight.

use std::collections::HashMap;
use std::time::Instant;

use bytestring::ByteString;
use rusqlite::Connection;
use syncline_core::protocol::DataLine;
use syncline_core::{OpId, Operation, OperationKind, TargetCheckpoint};

use super::bucket_table::{self, Bucket};
use super::error::Result;
use super::layout::State;
use super::operation_log::TableNumbers;
use super::writer::Writer;

/// Lines on their way into the log. Each step is one transaction that leaves every bucket at a position from which the
/// download can go on.
#[derive(Debug)]
pub(crate) struct Staging {
    lines: Vec<DataLine>,
    line: usize,
    operation: usize,
}

impl Staging {
    pub(crate) fn new(lines: Vec<DataLine>) -> Self {
        Self { lines, line: 0, operation: 0 }
    }

    /// Stores as much as fits into a short transaction.
    pub(crate) fn step(&mut self, writer: &mut Writer) -> Result<Option<()>> {
        let (queue, begun) = (std::sync::Arc::clone(&writer.queue), Instant::now());
        let mut time = writer.staging.slice(&queue);
        let (line, operation) = writer.transaction(|conn, _| {
            let mut slice = Slice::begin(conn)?;
            let (mut at, mut from) = (self.line, self.operation);
            while let Some(line) = self.lines.get(at) {
                let upto = line.operations.len().min(from + time.stride());
                slice.append(&line.bucket, &line.operations[from..upto])?;
                from = upto;
                if from == line.operations.len() {
                    (at, from) = (at + 1, 0);
                }
                if time.is_over_after_stride() {
                    break;
                }
            }
            slice.finish()?;
            Ok((at, from))
        })?;
        crate::failpoint::reach("database.stage.committed");
        writer.staging.prepared(time.rows(), begun.elapsed());
        (self.line, self.operation) = (line, operation);
        Ok((self.line >= self.lines.len()).then_some(()))
    }
}

/// One transaction of staging.
struct Slice<'c> {
    conn: &'c Connection,
    state: State,
    seq: i64,
    tables: TableNumbers,
    buckets: HashMap<ByteString, Bucket>,
}

impl<'c> Slice<'c> {
    fn begin(conn: &'c Connection) -> Result<Self> {
        let state = State::load(conn)?;
        let seq = state.next_seq;
        Ok(Self { conn, state, seq, tables: TableNumbers::default(), buckets: HashMap::new() })
    }

    fn append(&mut self, name: &ByteString, operations: &[Operation]) -> Result<()> {
        let mut bucket = match self.buckets.remove(name) {
            Some(bucket) => bucket,
            None => match bucket_table::find(self.conn, name)? {
                Some(bucket) => bucket,
                None => bucket_table::create(self.conn, name)?,
            },
        };
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO syncline_log (seq, bucket, op_id, tbl, row_id, subkey, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for operation in operations {
            match operation.kind {
                OperationKind::Put | OperationKind::Remove => {
                    let data = match (operation.kind, &operation.data) {
                        (OperationKind::Put, Some(data)) => Some(&**data),
                        (OperationKind::Put, None) => {
                            return Err(syncline_core::Error::protocol("a PUT came without data").into());
                        }
                        _ => None,
                    };
                    insert.execute((
                        self.seq,
                        bucket.id,
                        bucket_table::signed(operation.op_id),
                        self.tables.number(self.conn, &operation.object_type)?,
                        &*operation.object_id,
                        operation.subkey.as_deref(),
                        data,
                    ))?;
                    self.seq += 1;
                    bucket.sum += operation.checksum;
                }
                OperationKind::Move => bucket.sum += operation.checksum,
                OperationKind::Clear => {
                    // Everything before is gone, but stays visible until the next full publish.
                    bucket_table::retire(self.conn, &bucket, self.state.published_seq)?;
                    bucket = bucket_table::create(self.conn, name)?;
                    bucket.sum = operation.checksum;
                }
            }
            bucket.last_op = bucket.last_op.max(operation.op_id);
        }
        self.buckets.insert(name.clone(), bucket);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        for bucket in self.buckets.values() {
            bucket_table::save(self.conn, bucket)?;
        }
        self.conn.prepare_cached("UPDATE syncline_state SET next_seq = ?1")?.execute([self.seq])?;
        Ok(())
    }
}

/// Drops buckets that a checkpoint does not name. What they published leaves with the next full publish.
pub(crate) fn begin_checkpoint(conn: &Connection, target: &TargetCheckpoint) -> Result<()> {
    let state = State::load(conn)?;
    for (name, bucket) in bucket_table::load(conn)? {
        if !target.buckets.contains_key(&name) {
            bucket_table::retire(conn, &bucket, state.published_seq)?;
        }
    }
    Ok(())
}

/// Every bucket with the position from which its download goes on.
pub(crate) fn positions(conn: &Connection) -> Result<Vec<(ByteString, OpId)>> {
    let mut positions: Vec<(ByteString, OpId)> = bucket_table::load(conn)?
        .into_iter()
        .filter(|(_, bucket)| bucket.last_op > OpId::ZERO)
        .map(|(name, bucket)| (name, bucket.last_op))
        .collect();
    let left =
        bucket_table::shown_retired(conn)?.into_iter().filter(|name| !positions.iter().any(|(of, _)| of == name));
    let left: Vec<_> = left.map(|name| (name, OpId::ZERO)).collect();
    positions.extend(left);
    positions.sort();
    Ok(positions)
}
