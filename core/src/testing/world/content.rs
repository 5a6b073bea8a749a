//! The rows of all tables at one commit of the source.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::table::SourceTable;
use crate::value::Value;

/// A row with all its columns, `id` among them.
pub(super) type Row = Map<String, Json>;

/// All rows at one commit. Cheap to clone: a commit copies only the tables that it changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) tables: BTreeMap<Arc<str>, Arc<TableContent>>,
}

/// The rows of one table, by their id, and its columns at that time.
#[derive(Debug, Clone)]
pub(super) struct TableContent {
    pub(super) description: Arc<SourceTable>,
    pub(super) rows: BTreeMap<String, Arc<Row>>,
}

impl Content {
    /// The rows of a table, by id; none of a table that there is not.
    pub(super) fn rows(&self, table: &str) -> Vec<Row> {
        let table = self.tables.get(table);
        table.into_iter().flat_map(|table| table.rows.values()).map(|row| Row::clone(row)).collect()
    }

    pub(super) fn row(&self, table: &str, id: &str) -> Option<&Arc<Row>> {
        self.tables.get(table)?.rows.get(id)
    }
}

/// The values of a row in the order of a table's columns; a column that the row lacks is NULL.
pub(super) fn values(table: &SourceTable, row: &Row) -> Vec<Value> {
    table.columns.iter().map(|column| row.get(&*column.name).map_or(Value::Null, Value::from_json)).collect()
}
