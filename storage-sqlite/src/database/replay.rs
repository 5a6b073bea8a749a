//! Local writes that the shown checkpoint does not carry, put on top of synced rows (C1).

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::error::Result;
use super::row_writer::{Columns, RowWriter, members};

/// A row as values, one per column; `None` if it is not there.
pub(crate) type Image = Option<Vec<Value>>;

/// The entries of the upload queue, by table and row, in order.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites {
    tables: HashMap<String, HashMap<String, Vec<Write>>>,
}

#[derive(Debug)]
struct Write {
    op: String,
    data: Option<String>,
}

impl PendingWrites {
    /// All entries after `released`.
    pub(crate) fn load(conn: &Connection, released: i64) -> Result<Self> {
        let mut pending = Self::default();
        let mut statement =
            conn.prepare_cached("SELECT tbl, row_id, op, data FROM syncline_queue WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([released])?;
        while let Some(row) = rows.next()? {
            let write = Write { op: row.get(2)?, data: row.get(3)? };
            let table: String = row.get(0)?;
            pending.tables.entry(table).or_default().entry(row.get(1)?).or_default().push(write);
        }
        Ok(pending)
    }

    /// The rows of a table that have entries.
    pub(crate) fn rows(&self, table: &str) -> impl Iterator<Item = &str> {
        self.tables.get(table).into_iter().flat_map(|rows| rows.keys().map(String::as_str))
    }

    pub(crate) fn touch(&self, table: &str, id: &str) -> bool {
        self.tables.get(table).is_some_and(|rows| rows.contains_key(id))
    }

    /// Shows a row: what was synced, with its local writes on top.
    pub(crate) fn show(&self, writer: &mut RowWriter<'_>, table: &str, id: &str, synced: Option<&str>) -> Result<()> {
        let Some(writes) = self.tables.get(table).and_then(|rows| rows.get(id)) else {
            return match synced {
                Some(data) => writer.put(id, data),
                None => writer.delete(id),
            };
        };
        let columns = writer.columns();
        let mut image = match synced {
            Some(data) => Some(read(columns, data, vec![Value::Null; columns.len()])?),
            None => None,
        };
        for write in writes {
            image = apply(columns, image, write)?;
        }
        match image {
            Some(values) => writer.put_values(id, &values),
            None => writer.delete(id),
        }
    }
}

fn apply(columns: &Columns, image: Image, write: &Write) -> Result<Image> {
    let data = write.data.as_deref().unwrap_or("{}");
    Ok(match write.op.as_str() {
        "PUT" => Some(read(columns, data, vec![Value::Null; columns.len()])?),
        "PATCH" => match image {
            Some(values) => Some(read(columns, data, values)?),
            None => None,
        },
        _ => None,
    })
}

/// Sets the columns that a JSON object names. What is no object changes nothing.
fn read(columns: &Columns, data: &str, mut values: Vec<Value>) -> Result<Vec<Value>> {
    let mut expected = 0;
    let answer = members(data, |name, cell| {
        if let Some(position) = columns.position(name, expected) {
            expected = position + 1;
            values[position] = cell.into_value();
        }
        Ok(())
    });
    match answer {
        Ok(()) => Ok(values),
        Err(super::error::Error::Json(error)) => {
            tracing::warn!(%error, "a stored row is no JSON object");
            Ok(values)
        }
        Err(error) => Err(error),
    }
}
