//! Local writes that the shown checkpoint does not carry, put on top of synced rows (C1).

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::error::Result;
use super::row_writer::{Columns, RowWriter, members};
use super::upload_queue;

/// A row as values, one per column; `None` if it is not there.
pub(crate) type Image = Option<Vec<Value>>;

/// The entries of the upload queue, by table and row, in order.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites {
    /// The last entry among them.
    upto: i64,
    tables: HashMap<String, HashMap<String, Vec<Write>>>,
}

#[derive(Debug)]
struct Write {
    op: String,
    data: Option<String>,
}

impl PendingWrites {
    /// None yet of those after `released`.
    pub(crate) fn after(released: i64) -> Self {
        Self { upto: released, ..Self::default() }
    }

    /// All entries after `released`.
    pub(crate) fn load(conn: &Connection, released: i64) -> Result<Self> {
        let mut pending = Self::after(released);
        pending.extend(conn)?;
        Ok(pending)
    }

    /// Adds the entries that have come since.
    pub(crate) fn extend(&mut self, conn: &Connection) -> Result<()> {
        let mut statement =
            conn.prepare_cached("SELECT id, tbl, row_id, op, data FROM syncline_queue WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([self.upto])?;
        while let Some(row) = rows.next()? {
            let write = Write { op: row.get(3)?, data: upload_queue::text(row, 4)? };
            let table = upload_queue::text(row, 1)?.unwrap_or_default();
            let id = upload_queue::text(row, 2)?.unwrap_or_default();
            self.tables.entry(table).or_default().entry(id).or_default().push(write);
            self.upto = row.get(0)?;
        }
        Ok(())
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
