//! Rows as they will be stored: evaluated as they come, while the store is still at work on those before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::membership::enter;
use super::progress::Progress;
use super::row_image::{self, Shape};
use crate::bucket_store::Membership;
use crate::checkpoint::DeployedConfig;
use crate::config::{EvaluatedEvent, EvaluatedLookup, Evaluation, EvaluationError, SyncConfig, TableEvaluator};
use crate::error::{Error, Result};
use crate::operation::NewOperation;
use crate::table::{Field, RowKey, SourceRow, SourceTable, TableId};
use crate::value::Value;

/// A row of more bytes, as it is stored or as clients get it, is left out: no line of a client could be sure to hold it, and
/// a database that refuses it would end replication for all others. 20 MB of any text fit, as JSON too.
const MAX_ROW_BYTES: usize = 120 << 20;

/// Turns rows of the source into rows of the store, whatever the store has of them.
#[derive(Debug)]
pub(super) struct RowEvaluator {
    config: SyncConfig,
    pub(super) deployed: Arc<DeployedConfig>,
    tables: BTreeMap<TableId, Arc<BoundTable>>,
    images: BytesMut,
    evaluation: Evaluation,
}

/// A table whose rows come with certain columns.
#[derive(Debug)]
pub(super) struct BoundTable {
    pub(super) table: Arc<SourceTable>,
    pub(super) evaluator: Arc<TableEvaluator>,
    /// The number of the shape of its rows.
    pub(super) shape: u32,
    /// Which columns the source decodes.
    used: Vec<bool>,
    /// What tells the operations of its rows apart from those of other tables.
    subkey: ByteString,
}

/// A row as it will be stored, unless it is stored already.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) key: RowKey,
    pub(super) table: Arc<BoundTable>,
    pub(super) image: Bytes,
    pub(super) memberships: Vec<Membership>,
    /// How many operations put it into its buckets.
    pub(super) operations: usize,
    pub(super) lookups: Vec<EvaluatedLookup>,
    /// Of most rows there are none.
    pub(super) remarks: Option<Box<Remarks>>,
}

/// What else there is to say of a row.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) events: Vec<EvaluatedEvent>,
    pub(super) errors: Vec<EvaluationError>,
    /// It is left out, because of this.
    pub(super) too_large: Option<String>,
}

impl RowEvaluator {
    pub(super) fn new(config: SyncConfig, deployed: Arc<DeployedConfig>) -> Self {
        Self { config, deployed, tables: BTreeMap::new(), images: BytesMut::new(), evaluation: Evaluation::new() }
    }

    /// How many definitions the config has: lookup indexes are counted behind them.
    pub(super) fn definitions(&self) -> usize {
        self.config.definitions().len()
    }

    /// Evaluates a row that is whole. Its operations are added to `operations`.
    pub(super) fn evaluate(
        &mut self,
        table: &Arc<SourceTable>,
        row: SourceRow,
        progress: &mut Progress,
        operations: &mut Vec<NewOperation>,
    ) -> Result<NewRow> {
        let SourceRow { key, fields } = row;
        let table = self.bind(table, &fields, progress)?;
        let image = row_image::encode(table.shape, &key.key, &fields, &mut self.images);
        // The fields are not used any more, so that no value is copied.
        let values: Vec<Value> = fields
            .into_iter()
            .map(|field| match field {
                Field::Value(value) => value,
                Field::Unchanged | Field::Unused => Value::Null,
            })
            .collect();
        let found = &mut self.evaluation;
        found.clear();
        if image.len() <= MAX_ROW_BYTES {
            table.evaluator.evaluate(&values, found);
        }
        let largest = found.rows.iter().map(|row| row.data.len()).fold(image.len(), usize::max);
        if largest > MAX_ROW_BYTES {
            let message = format!("it has {largest} bytes, and {MAX_ROW_BYTES} is the most; it leaves all buckets");
            let remarks = Remarks { too_large: Some(message), ..Remarks::default() };
            let (memberships, lookups) = (Vec::new(), Vec::new());
            let remarks = Some(Box::new(remarks));
            return Ok(NewRow { key, table, image, memberships, operations: 0, lookups, remarks });
        }
        let remarks = (!found.events.is_empty() || !found.errors.is_empty()).then(|| {
            let (events, errors) = (std::mem::take(&mut found.events), std::mem::take(&mut found.errors));
            Box::new(Remarks { events, errors, too_large: None })
        });
        let lookups = std::mem::take(&mut found.lookups);
        let first = operations.len();
        let memberships = enter(&self.deployed, &key, &table.subkey, found.rows.drain(..), operations)?;
        Ok(NewRow { key, table, image, memberships, operations: operations.len() - first, lookups, remarks })
    }

    /// The lookup entries that the values of a stored row yield, which has the shape of this table.
    pub(super) fn lookups_of(
        &mut self,
        table: &BoundTable,
        image: &Bytes,
        key: &RowKey,
    ) -> Result<Vec<EvaluatedLookup>> {
        let mut stored = row_image::decode(image, &key.key)?.into_iter();
        let values = table.used.iter().map(|used| if *used { stored.next() } else { None }.unwrap_or(Value::Null));
        self.evaluation.clear();
        table.evaluator.evaluate_lookups(&values.collect::<Vec<_>>(), &mut self.evaluation);
        // What fails now failed then.
        self.evaluation.errors.clear();
        Ok(std::mem::take(&mut self.evaluation.lookups))
    }

    fn bind(&mut self, table: &Arc<SourceTable>, fields: &[Field], progress: &mut Progress) -> Result<Arc<BoundTable>> {
        let is_used = |field: &Field| !matches!(field, Field::Unused);
        let known = self.tables.get(&table.id);
        let known = known.filter(|bound| Arc::ptr_eq(&bound.table, table) || bound.table == *table);
        if let Some(bound) = known.filter(|bound| bound.used.iter().copied().eq(fields.iter().map(is_used))) {
            return Ok(Arc::clone(bound));
        }
        if fields.len() != table.columns.len() {
            let (found, columns) = (fields.len(), table.columns.len());
            return Err(Error::internal(format!("a row of {} has {found} fields, not {columns}", table.name)));
        }
        let evaluator = known.map_or_else(|| Arc::new(self.config.bind(table)), |bound| Arc::clone(&bound.evaluator));
        let bound = Arc::new(BoundTable {
            table: Arc::clone(table),
            evaluator,
            shape: progress.shape_number(Shape::of(table, fields)),
            used: fields.iter().map(is_used).collect(),
            subkey: table.id.subkey(),
        });
        self.tables.insert(table.id, Arc::clone(&bound));
        Ok(bound)
    }
}
