//! A row as a reader keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::table::{Field, SourceRow, SourceTable};
use crate::value::Value;

/// The name of its table, and its columns, `id` among them.
pub(super) type StoredRow = (Arc<str>, Columns);

type Columns = BTreeMap<Arc<str>, Option<String>>;

/// The columns of a row; what was left out is taken from the row before.
pub(super) fn columns(table: &SourceTable, row: &SourceRow, before: Option<&Columns>) -> Columns {
    assert_eq!(table.columns.len(), row.fields.len(), "a row has one field per column");
    assert_eq!(table.id, row.key.table, "the key of a row names its table");
    let mut columns = BTreeMap::new();
    for (column, field) in table.columns.iter().zip(&row.fields) {
        let value = match field {
            Field::Unused => continue,
            Field::Value(Value::Null) => None,
            Field::Value(Value::Text(text)) => Some(text.to_string()),
            Field::Value(other) => panic!("column {} is text, but came as {other:?}", column.name),
            Field::Unchanged => {
                let kept = before.and_then(|row| row.get(&column.name));
                kept.unwrap_or_else(|| panic!("column {} was left out of a whole row", column.name)).clone()
            }
        };
        columns.insert(Arc::clone(&column.name), value);
    }
    columns
}
