//! Row changes become operations: each row is compared with its stored copy, evaluated, and told apart from where it stood.
//!
//! Keeps S3: a row that is stored as it comes yields nothing, so a replayed change changes nothing. Keeps S4: a row leaves
//! every bucket that its new version does not yield.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::failed_rows::FailedRows;
use super::membership::{enter, enter_lookups, leave, remove_operation};
use super::progress::Progress;
use super::row_image::{self, Shape};
use crate::bucket_store::{AppendBatch, BucketStore, CurrentRow};
use crate::checkpoint::{DeployedConfig, LookupKey};
use crate::config::{Evaluation, SyncConfig, TableEvaluator};
use crate::error::{Error, Result};
use crate::source::{Source, SourcePosition};
use crate::table::{Field, RowKey, SourceRow, SourceTable, TableId};
use crate::value::Value;

/// Flush once so many row changes wait.
const MAX_ROWS: usize = 5_000;
/// Flush once row changes of so many bytes wait.
const MAX_BYTES: usize = 4 << 20;
/// A row of more bytes, as it is stored or as clients get it, is left out: no line of a client could be sure to hold it, and
/// a database that refuses it would end replication for all others. 20 MB of any text fit, as JSON too.
const MAX_ROW_BYTES: usize = 120 << 20;

/// Row changes that wait to be flushed, and what is known of the tables they belong to.
#[derive(Debug)]
pub(super) struct Applier {
    config: SyncConfig,
    deployed: Arc<DeployedConfig>,
    tables: BTreeMap<TableId, BoundTable>,
    pending: Vec<RowChange>,
    pending_bytes: usize,
    /// Rows that were read again, until the stream has passed where they were read.
    reread: BTreeMap<RowKey, SourcePosition>,
    image_buffer: BytesMut,
    evaluation: Evaluation,
    failures: FailedRows,
}

#[derive(Debug)]
struct BoundTable {
    table: Arc<SourceTable>,
    evaluator: Arc<TableEvaluator>,
    shape: Option<(Shape, u32)>,
}

#[derive(Debug)]
enum RowChange {
    /// A row of a snapshot: written only if its key is unknown.
    Snapshot {
        table: Arc<SourceTable>,
        row: SourceRow,
    },
    Put {
        table: Arc<SourceTable>,
        row: SourceRow,
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

/// Rows as they are after the changes applied so far; a key that is missing is as stored.
pub(super) type Overlay = BTreeMap<RowKey, Option<CurrentRow>>;

impl Applier {
    pub(super) fn new(config: SyncConfig, deployed: Arc<DeployedConfig>) -> Self {
        Self {
            config,
            deployed,
            tables: BTreeMap::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            reread: BTreeMap::new(),
            image_buffer: BytesMut::new(),
            evaluation: Evaluation::new(),
            failures: FailedRows::default(),
        }
    }

    /// How many rows failed since this was asked last.
    pub(super) fn take_failures(&mut self) -> u64 {
        self.failures.take()
    }

    /// Whether enough waits to be flushed.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MAX_ROWS || self.pending_bytes >= MAX_BYTES
    }

    pub(super) fn snapshot(&mut self, table: &Arc<SourceTable>, rows: Vec<SourceRow>) {
        self.pending_bytes += rows.iter().map(row_size).sum::<usize>();
        self.pending.extend(rows.into_iter().map(|row| RowChange::Snapshot { table: Arc::clone(table), row }));
    }

    /// `progress` as it is before the transaction of the change.
    pub(super) fn put(
        &mut self,
        table: Arc<SourceTable>,
        row: SourceRow,
        old_key: Option<RowKey>,
        progress: &Progress,
    ) {
        self.pending_bytes += row_size(&row);
        let settled = old_key.is_none() || progress.has_passed_reading();
        let position = old_key.is_some().then(|| progress.position().cloned()).flatten();
        self.pending.push(RowChange::Put { table, row, old_key, settled, position });
    }

    pub(super) fn remove(&mut self, key: RowKey) {
        self.pending_bytes += key.key.len();
        self.pending.push(RowChange::Remove { key });
    }

    /// Appends everything that waits: one lookup of stored rows, one batch.
    pub(super) async fn flush(
        &mut self,
        store: &dyn BucketStore,
        source: &dyn Source,
        progress: &mut Progress,
    ) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let mut rows = self.stored_rows(store, &changes).await?;
        let mut batch = AppendBatch::default();
        let mut touched: Vec<RowKey> = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                RowChange::Snapshot { table, row } => {
                    if rows.get(&row.key).is_none_or(Option::is_none) {
                        self.write(&table, row, None, &mut rows, &mut touched, &mut batch, progress)?;
                    }
                }
                RowChange::Put { table, row, old_key, settled, position } => {
                    let settled = settled && self.is_older(old_key.as_ref(), position.as_ref());
                    let row = match self.fill(&table, row, old_key.as_ref(), settled, &rows, progress)? {
                        Filled::Row(row) => Some(row),
                        Filled::Missing(key) => self.read_again(source, &table, key, progress).await?,
                    };
                    match row {
                        Some((table, row)) => {
                            self.write(&table, row, old_key, &mut rows, &mut touched, &mut batch, progress)?;
                        }
                        // The row has moved or gone meanwhile: that is still ahead in the stream.
                        None => old_key.into_iter().for_each(|key| leave(key, &mut rows, &mut touched, &mut batch)),
                    }
                }
                RowChange::Remove { key } => leave(key, &mut rows, &mut touched, &mut batch),
            }
        }
        // Every change up to here was applied, so the next one lies behind this position.
        self.reread.retain(|_, until| !progress.has_passed(until));
        touched.sort_unstable();
        touched.dedup();
        batch.rows = touched
            .into_iter()
            .map(|key| {
                let row = rows.remove(&key).flatten();
                (key, row)
            })
            .collect();
        if batch.is_empty() { Ok(()) } else { store.append(batch).await }
    }

    async fn stored_rows(&self, store: &dyn BucketStore, changes: &[RowChange]) -> Result<Overlay> {
        let mut keys: Vec<RowKey> = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                RowChange::Snapshot { row, .. } => keys.push(row.key.clone()),
                RowChange::Put { row, old_key, .. } => {
                    keys.push(row.key.clone());
                    keys.extend(old_key.clone());
                }
                RowChange::Remove { key } => keys.push(key.clone()),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let stored = store.current_rows(&keys).await?;
        if stored.len() != keys.len() {
            return Err(Error::internal("the bucket store must answer for every row that it was asked for"));
        }
        Ok(keys.into_iter().zip(stored).collect())
    }

    /// Takes what the source did not send from the stored row, never from a default.
    fn fill(
        &self,
        table: &Arc<SourceTable>,
        mut row: SourceRow,
        old_key: Option<&RowKey>,
        settled: bool,
        rows: &Overlay,
        progress: &Progress,
    ) -> Result<Filled> {
        if !row.fields.contains(&Field::Unchanged) {
            return Ok(Filled::Row((Arc::clone(table), row)));
        }
        let before = old_key.unwrap_or(&row.key);
        // A row that was read at a later moment than that of this change may be another one, which took over the key when
        // it became free. Under the same key that would not matter: its own change, which sends all of it, is ahead.
        if *before != row.key && !settled {
            return Ok(Filled::Missing(row.key));
        }
        let Some(Some(stored)) = rows.get(before) else { return Ok(Filled::Missing(row.key)) };
        let number = row_image::shape_of(&stored.image)?;
        let shape = progress
            .shape(number)
            .ok_or_else(|| Error::data("a stored row names a shape that replication does not know"))?;
        let values = row_image::decode(&stored.image)?;
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
        self.reread.insert(key, answer.no_checkpoint_before.clone());
        progress.hold_until(answer.no_checkpoint_before);
        let row = answer.rows.pop().flatten();
        if row.as_ref().is_some_and(|(_, row)| row.fields.contains(&Field::Unchanged)) {
            return Err(Error::internal("a row that was read again must be whole"));
        }
        Ok(row)
    }

    #[allow(clippy::too_many_arguments, reason = "one step of a fold over its state")]
    fn write(
        &mut self,
        table: &Arc<SourceTable>,
        row: SourceRow,
        old_key: Option<RowKey>,
        rows: &mut Overlay,
        touched: &mut Vec<RowKey>,
        batch: &mut AppendBatch,
        progress: &mut Progress,
    ) -> Result<()> {
        if let Some(old_key) = old_key.filter(|old| *old != row.key) {
            leave(old_key, rows, touched, batch);
        }
        let (evaluator, number) = self.bind(table, &row.fields, progress)?;
        let values: Vec<Value> = row
            .fields
            .iter()
            .map(|field| match field {
                Field::Value(value) => value.clone(),
                Field::Unchanged | Field::Unused => Value::Null,
            })
            .collect();
        let image = row_image::encode(number, &row.fields, &values, &mut self.image_buffer);
        let before = rows.get(&row.key).and_then(Option::as_ref);
        if before.is_some_and(|before| before.image == image) {
            return Ok(());
        }
        self.evaluation.clear();
        if image.len() <= MAX_ROW_BYTES {
            evaluator.evaluate(&values, &mut self.evaluation);
        }
        let largest = self.evaluation.rows.iter().map(|row| row.data.len()).fold(image.len(), usize::max);
        if largest > MAX_ROW_BYTES {
            let message = format!("it has {largest} bytes, and {MAX_ROW_BYTES} is the most; it leaves all buckets");
            self.failures.add(table, &row.key, "row too large", &message);
            leave(row.key, rows, touched, batch);
            return Ok(());
        }
        for error in self.evaluation.errors.drain(..) {
            let message = format!("{}; it leaves the buckets of this query", error.message);
            self.failures.add(table, &row.key, error.kind, &message);
        }
        for event in self.evaluation.events.drain(..) {
            match event.write_checkpoint() {
                Ok(Some((client, number))) => {
                    let largest = batch.write_checkpoints.entry(client).or_insert(number);
                    *largest = number.max(*largest);
                }
                Ok(None) => {}
                Err(error) => self.failures.add(table, &row.key, "bad write checkpoint", error.message()),
            }
        }
        let memberships = enter(&self.deployed, &row.key, self.evaluation.rows.drain(..), batch)?;
        if let Some(before) = before {
            for left in before.memberships.iter().filter(|left| !memberships.contains(left)) {
                batch.operations.push(remove_operation(&row.key, left));
            }
        }
        let lookups = self.enter_lookups(&evaluator, &row, number, before, batch)?;
        touched.push(row.key.clone());
        rows.insert(row.key, Some(CurrentRow { image, memberships, lookups }));
        Ok(())
    }

    /// Writes the lookup entries that differ from those of the row before, so that a change of another column makes nobody
    /// look anything up again.
    fn enter_lookups(
        &mut self,
        evaluator: &TableEvaluator,
        row: &SourceRow,
        shape: u32,
        before: Option<&CurrentRow>,
        batch: &mut AppendBatch,
    ) -> Result<Vec<LookupKey>> {
        let known = before.map_or([].as_slice(), |before| &before.lookups);
        if known.is_empty() && self.evaluation.lookups.is_empty() {
            return Ok(Vec::new());
        }
        let mut evaluated = std::mem::take(&mut self.evaluation.lookups);
        let mut same = Vec::new();
        if let Some(before) = before.filter(|before| row_image::shape_of(&before.image).is_ok_and(|old| old == shape)) {
            let mut used = row_image::decode(&before.image)?.into_iter();
            let is_used = |field: &Field| *field != Field::Unused;
            let values =
                row.fields.iter().map(|field| is_used(field).then(|| used.next()).flatten().unwrap_or(Value::Null));
            evaluator.evaluate_lookups(&values.collect::<Vec<_>>(), &mut self.evaluation);
            // What fails now failed then.
            self.evaluation.errors.clear();
            same = std::mem::take(&mut self.evaluation.lookups);
        }
        let indexes = self.config.definitions().len();
        let keys = enter_lookups(&self.deployed, indexes, &row.key, &mut evaluated, known, &same, batch)?;
        // Its buffer is used again.
        self.evaluation.lookups = evaluated;
        Ok(keys)
    }

    fn bind(
        &mut self,
        table: &Arc<SourceTable>,
        fields: &[Field],
        progress: &mut Progress,
    ) -> Result<(Arc<TableEvaluator>, u32)> {
        let known = self.tables.get(&table.id);
        if known.is_none_or(|bound| !Arc::ptr_eq(&bound.table, table) && bound.table != *table) {
            let evaluator = Arc::new(self.config.bind(table));
            self.tables.insert(table.id, BoundTable { table: Arc::clone(table), evaluator, shape: None });
        }
        let bound =
            self.tables.get_mut(&table.id).ok_or_else(|| Error::internal("a table that was just bound is missing"))?;
        let number = match &bound.shape {
            Some((shape, number)) if covers(shape, table, fields) => *number,
            _ => {
                let shape = Shape::of(table, fields);
                let number = progress.shape_number(shape.clone());
                bound.shape = Some((shape, number));
                number
            }
        };
        Ok((Arc::clone(&bound.evaluator), number))
    }
}

enum Filled {
    Row((Arc<SourceTable>, SourceRow)),
    Missing(RowKey),
}

fn covers(shape: &Shape, table: &SourceTable, fields: &[Field]) -> bool {
    let used = table.columns.iter().zip(fields).filter(|(_, field)| **field != Field::Unused);
    shape.columns.iter().eq(used.map(|(column, _)| &column.name))
}

fn row_size(row: &SourceRow) -> usize {
    let field = |field: &Field| match field {
        Field::Value(value) => 16 + value.size(),
        Field::Unchanged | Field::Unused => 16,
    };
    row.key.key.len() + row.fields.iter().map(field).sum::<usize>()
}
