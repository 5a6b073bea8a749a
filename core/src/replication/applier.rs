//! Row changes become operations: each row is compared with its stored copy, and told apart from where it stood.
//!
//! Keeps S3: a row that is stored as it comes yields nothing, so a replayed change changes nothing. Keeps S4: a row leaves
//! every bucket that its new version does not yield.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::failed_rows::FailedRows;
use super::membership::{enter_lookups, leave, remove_operation};
use super::overlay::{Overlay, Place};
use super::progress::Progress;
use super::row_evaluator::{NewRow, Remarks, RowEvaluator};
use super::row_image;
use crate::bucket_store::{AppendBatch, BucketStore, CurrentRow};
use crate::checkpoint::{DeployedConfig, LookupKey};
use crate::config::{EvaluatedLookup, SyncConfig};
use crate::error::{Error, Result};
use crate::operation::NewOperation;
use crate::source::{Source, SourcePosition};
use crate::table::{Field, RowKey, SourceRow, SourceTable};

/// Flush once so many row changes wait.
const MAX_ROWS: usize = 5_000;
/// Flush once row changes of so many bytes wait.
const MAX_BYTES: usize = 4 << 20;

/// Row changes that wait to be flushed. They are evaluated as they come, which needs nothing of the store.
#[derive(Debug)]
pub(super) struct Applier {
    evaluator: RowEvaluator,
    pending: Pending,
    /// Rows that were read again, until the stream has passed where they were read.
    reread: BTreeMap<RowKey, SourcePosition>,
    failures: FailedRows,
}

#[derive(Debug, Default)]
struct Pending {
    changes: Vec<RowChange>,
    /// Those of all changes, in order: each knows how many are its own.
    operations: Vec<NewOperation>,
    bytes: usize,
}

#[derive(Debug)]
enum RowChange {
    /// A row of a snapshot: written only if its key is unknown.
    Snapshot(NewRow),
    Put {
        row: Incoming,
        old_key: Option<RowKey>,
        /// No table was read at a later moment than that of this change.
        settled: bool,
        /// The position before its transaction, if its key is another.
        position: Option<SourcePosition>,
    },
    Remove {
        key: RowKey,
    },
}

/// A row of the stream.
#[derive(Debug)]
enum Incoming {
    Whole(NewRow),
    /// Some of it is to be taken from the stored row.
    Partial {
        table: Arc<SourceTable>,
        row: SourceRow,
    },
}

impl Applier {
    pub(super) fn new(config: SyncConfig, deployed: Arc<DeployedConfig>) -> Self {
        Self {
            evaluator: RowEvaluator::new(config, deployed),
            pending: Pending::default(),
            reread: BTreeMap::new(),
            failures: FailedRows::default(),
        }
    }

    /// How many rows failed since this was asked last.
    pub(super) fn take_failures(&mut self) -> u64 {
        self.failures.take()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.changes.is_empty()
    }

    /// Whether enough waits to be flushed.
    pub(super) fn is_full(&self) -> bool {
        self.pending.changes.len() >= MAX_ROWS || self.pending.bytes >= MAX_BYTES
    }

    pub(super) fn snapshot(
        &mut self,
        table: &Arc<SourceTable>,
        rows: Vec<SourceRow>,
        progress: &mut Progress,
    ) -> Result<()> {
        for row in rows {
            self.pending.bytes += row_size(&row);
            let row = self.evaluator.evaluate(table, row, progress, &mut self.pending.operations)?;
            self.pending.changes.push(RowChange::Snapshot(row));
        }
        Ok(())
    }

    /// `progress` as it is before the transaction of the change.
    pub(super) fn put(
        &mut self,
        table: Arc<SourceTable>,
        row: SourceRow,
        old_key: Option<RowKey>,
        progress: &mut Progress,
    ) -> Result<()> {
        self.pending.bytes += row_size(&row);
        let settled = old_key.is_none() || progress.has_passed_reading();
        let position = old_key.is_some().then(|| progress.position().cloned()).flatten();
        let row = if row.fields.contains(&Field::Unchanged) {
            Incoming::Partial { table, row }
        } else {
            Incoming::Whole(self.evaluator.evaluate(&table, row, progress, &mut self.pending.operations)?)
        };
        self.pending.changes.push(RowChange::Put { row, old_key, settled, position });
        Ok(())
    }

    pub(super) fn remove(&mut self, key: RowKey) {
        self.pending.bytes += key.key.len();
        self.pending.changes.push(RowChange::Remove { key });
    }

    /// What comes of everything that waits: one lookup of stored rows, one batch.
    pub(super) async fn take_batch(
        &mut self,
        store: &dyn BucketStore,
        source: &dyn Source,
        progress: &mut Progress,
    ) -> Result<AppendBatch> {
        let Pending { changes, operations, .. } = self.take_pending();
        let (mut rows, places) = Overlay::load(store, &keys_of(&changes)).await?;
        let mut places = places.into_iter();
        let mut place = || places.next().ok_or_else(|| Error::internal("a changed row has no place"));
        let mut batch = AppendBatch { operations: Vec::with_capacity(operations.len()), ..AppendBatch::default() };
        let mut operations = operations.into_iter();
        for change in changes {
            match change {
                RowChange::Snapshot(row) => {
                    let own = operations.by_ref().take(row.operations);
                    let place = place()?;
                    match rows.get(place) {
                        Some(_) => own.for_each(drop),
                        None => self.write(row, own, place, None, &mut rows, &mut batch)?,
                    }
                }
                RowChange::Put { row: Incoming::Whole(row), old_key, .. } => {
                    let own = operations.by_ref().take(row.operations);
                    let (place, old) = (place()?, old_key.map(|_| place()).transpose()?);
                    self.write(row, own, place, old, &mut rows, &mut batch)?;
                }
                RowChange::Put { row: Incoming::Partial { table, row }, old_key, settled, position } => {
                    let (place, old) = (place()?, old_key.as_ref().map(|_| place()).transpose()?);
                    let settled = settled && self.is_older(old_key.as_ref(), position.as_ref());
                    let row = match self.fill(&table, row, old.unwrap_or(place), settled, &rows, progress)? {
                        Filled::Row(row) => Some(row),
                        Filled::Missing(key) => self.read_again(source, &table, key, progress).await?,
                    };
                    match row {
                        Some((table, row)) => {
                            let mut own = Vec::new();
                            let row = self.evaluator.evaluate(&table, row, progress, &mut own)?;
                            self.write(row, own.into_iter(), place, old, &mut rows, &mut batch)?;
                        }
                        // The row has moved or gone meanwhile: that is still ahead in the stream.
                        None => old.into_iter().for_each(|old| leave(old, &mut rows, &mut batch)),
                    }
                }
                RowChange::Remove { .. } => leave(place()?, &mut rows, &mut batch),
            }
        }
        // Every change up to here was applied, so the next one lies behind this position.
        self.reread.retain(|_, until| !progress.has_passed(until));
        batch.rows = rows.into_changed();
        Ok(batch)
    }

    /// Everything that waits; what comes next has as much room at once.
    fn take_pending(&mut self) -> Pending {
        let Pending { changes, operations, .. } = &self.pending;
        let next = Pending {
            changes: Vec::with_capacity(changes.len()),
            operations: Vec::with_capacity(operations.len()),
            bytes: 0,
        };
        std::mem::replace(&mut self.pending, next)
    }

    /// Takes what the source did not send from the stored row at `before`, never from a default.
    fn fill(
        &self,
        table: &Arc<SourceTable>,
        mut row: SourceRow,
        before: Place,
        settled: bool,
        rows: &Overlay,
        progress: &Progress,
    ) -> Result<Filled> {
        // A row that was read at a later moment than that of this change may be another one, which took over the key when
        // it became free. Under the same key that would not matter: its own change, which sends all of it, is ahead.
        if *rows.key(before) != row.key && !settled {
            return Ok(Filled::Missing(row.key));
        }
        let Some(stored) = rows.get(before) else { return Ok(Filled::Missing(row.key)) };
        let number = row_image::shape_of(&stored.image)?;
        let shape = progress
            .shape(number)
            .ok_or_else(|| Error::data("a stored row names a shape that replication does not know"))?;
        let values = row_image::decode(&stored.image, &rows.key(before).key)?;
        for (column, field) in table.columns.iter().zip(&mut row.fields) {
            if *field != Field::Unchanged {
                continue;
            }
            let at = shape.columns.iter().position(|name| *name == column.name);
            match at.and_then(|at| values.get(at)) {
                Some(value) => *field = Field::Value(value.clone()),
                None => return Ok(Filled::Missing(row.key)),
            }
        }
        Ok(Filled::Row((Arc::clone(table), row)))
    }

    /// Whether the stored row of this key was not read again at a moment that the stream reaches only after `position`.
    fn is_older(&self, key: Option<&RowKey>, position: Option<&SourcePosition>) -> bool {
        let until = key.and_then(|key| self.reread.get(key));
        until.is_none_or(|until| position.is_some_and(|position| until <= position))
    }

    async fn read_again(
        &mut self,
        source: &dyn Source,
        table: &Arc<SourceTable>,
        key: RowKey,
        progress: &mut Progress,
    ) -> Result<Option<(Arc<SourceTable>, SourceRow)>> {
        let mut answer = source.reread(table, std::slice::from_ref(&key)).await?;
        self.reread.insert(key.clone(), answer.no_checkpoint_before.clone());
        progress.hold_until(answer.no_checkpoint_before);
        // Under another key it is one that has moved, even if the source takes both for equal.
        let row = answer.rows.pop().flatten().filter(|(_, row)| row.key == key);
        if row.as_ref().is_some_and(|(_, row)| row.fields.contains(&Field::Unchanged)) {
            return Err(Error::internal("a row that was read again must be whole"));
        }
        Ok(row)
    }

    /// Makes a row what is stored, and `own` its operations, unless it is stored as it is.
    fn write(
        &mut self,
        row: NewRow,
        own: impl Iterator<Item = NewOperation>,
        place: Place,
        old: Option<Place>,
        rows: &mut Overlay,
        batch: &mut AppendBatch,
    ) -> Result<()> {
        if let Some(old) = old.filter(|old| *old != place) {
            leave(old, rows, batch);
        }
        let before = rows.get(place);
        if before.is_some_and(|before| before.image == row.image) {
            own.for_each(drop);
            return Ok(());
        }
        if let Some(remarks) = &row.remarks {
            let is_left_out = remarks.too_large.is_some();
            self.heed(remarks, &row, batch);
            if is_left_out {
                leave(place, rows, batch);
                return Ok(());
            }
        }
        batch.operations.extend(own);
        if let Some(before) = before {
            for left in before.memberships.iter().filter(|left| !row.memberships.contains(left)) {
                batch.operations.push(remove_operation(&row.key, left));
            }
        }
        let NewRow { key, table, image, memberships, lookups, .. } = row;
        let known = before.map_or([].as_slice(), |before| &before.lookups);
        let lookups = if known.is_empty() && lookups.is_empty() {
            Vec::new()
        } else {
            // Only entries that differ are written, so that a change of another column makes nobody look anything up again.
            let of_shape =
                |before: &&CurrentRow| row_image::shape_of(&before.image).is_ok_and(|old| old == table.shape);
            let same = match before.filter(of_shape) {
                Some(before) => self.evaluator.lookups_of(&table, &before.image, &key)?,
                None => Vec::new(),
            };
            self.enter_lookups(&key, lookups, known, &same, batch)?
        };
        rows.put(place, CurrentRow { image, memberships, lookups });
        Ok(())
    }

    fn enter_lookups(
        &self,
        key: &RowKey,
        evaluated: Vec<EvaluatedLookup>,
        known: &[LookupKey],
        same: &[EvaluatedLookup],
        batch: &mut AppendBatch,
    ) -> Result<Vec<LookupKey>> {
        let indexes = self.evaluator.definitions();
        enter_lookups(&self.evaluator.deployed, indexes, key, evaluated, known, same, batch)
    }

    /// Counts what failed, and takes the write checkpoints that the row confirms.
    fn heed(&mut self, remarks: &Remarks, row: &NewRow, batch: &mut AppendBatch) {
        let table = &row.table.table;
        if let Some(message) = &remarks.too_large {
            self.failures.add(table, &row.key, "row too large", message);
        }
        for error in &remarks.errors {
            let message = format!("{}; it leaves the buckets of this query", error.message);
            self.failures.add(table, &row.key, error.kind, &message);
        }
        for event in &remarks.events {
            match event.write_checkpoint() {
                Ok(Some((client, number))) => {
                    let largest = batch.write_checkpoints.entry(client).or_insert(number);
                    *largest = number.max(*largest);
                }
                Ok(None) => {}
                Err(error) => self.failures.add(table, &row.key, "bad write checkpoint", error.message()),
            }
        }
    }
}

enum Filled {
    Row((Arc<SourceTable>, SourceRow)),
    Missing(RowKey),
}

/// The keys that changes name, in the order in which they are applied.
fn keys_of(changes: &[RowChange]) -> Vec<&RowKey> {
    let mut keys = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            RowChange::Snapshot(row) => keys.push(&row.key),
            RowChange::Put { row, old_key, .. } => {
                keys.push(match row {
                    Incoming::Whole(row) => &row.key,
                    Incoming::Partial { row, .. } => &row.key,
                });
                keys.extend(old_key);
            }
            RowChange::Remove { key } => keys.push(key),
        }
    }
    keys
}

fn row_size(row: &SourceRow) -> usize {
    let field = |field: &Field| match field {
        Field::Value(value) => 16 + value.size(),
        Field::Unchanged | Field::Unused => 16,
    };
    row.key.key.len() + row.fields.iter().map(field).sum::<usize>()
}
