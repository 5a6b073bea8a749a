//! Writes synced rows into the application's tables: JSON text in, typed columns out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::Result;
use super::schema::Table;
use super::table_sql;

/// One value of a row, borrowed from its JSON text where that holds no escapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'d> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'d, str>),
}

impl Cell<'_> {
    /// As SQLite keeps it.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(value) => Value::Integer(value),
            Self::Real(value) => Value::Real(value),
            Self::Text(text) => Value::Text(text.into_owned()),
        }
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Cell<'de>, E> {
        // What no SQLite integer can hold becomes a double; the log keeps the digits.
        Ok(i64::try_from(value).map_or(Cell::Real(value as f64), Cell::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Real(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> std::result::Result<Cell<'de>, A::Error> {
        let value = serde_json::Value::deserialize(serde::de::value::SeqAccessDeserializer::new(access))?;
        Ok(Cell::Text(Cow::Owned(value.to_string())))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> std::result::Result<Cell<'de>, A::Error> {
        let value = serde_json::Value::deserialize(serde::de::value::MapAccessDeserializer::new(access))?;
        Ok(Cell::Text(Cow::Owned(value.to_string())))
    }
}

/// Calls `each` for every member of a JSON object, in order.
pub(crate) fn members<'d>(data: &'d str, each: impl FnMut(&str, Cell<'d>) -> rusqlite::Result<()>) -> Result<()> {
    struct Members<'f, F> {
        each: F,
        failure: &'f mut Option<rusqlite::Error>,
    }

    impl<'de, F: FnMut(&str, Cell<'de>) -> rusqlite::Result<()>> Visitor<'de> for Members<'_, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> std::result::Result<(), A::Error> {
            while let Some((key, value)) = access.next_entry::<Cell<'de>, Cell<'de>>()? {
                if let Cell::Text(key) = key
                    && let Err(error) = (self.each)(&key, value)
                {
                    self.failure.get_or_insert(error);
                }
            }
            Ok(())
        }
    }

    let mut failure = None;
    let mut deserializer = serde_json::Deserializer::from_str(data);
    deserializer.deserialize_map(Members { each, failure: &mut failure })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// The columns of a table by name.
#[derive(Debug)]
pub(crate) struct Columns {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Columns {
    pub(crate) fn of(table: &Table) -> Self {
        let names: Vec<String> = table.columns().iter().map(|column| column.name.clone()).collect();
        let positions = names.iter().enumerate().map(|(position, name)| (name.clone(), position)).collect();
        Self { names, positions }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The position of a column. Rows of a table have their members in the same order, so the one expected next is
    /// tried first.
    pub(crate) fn position(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|candidate| candidate == name) {
            return Some(expected);
        }
        self.positions.get(name).copied()
    }
}

/// Writes rows of one table, for the time of a transaction.
pub(crate) struct RowWriter<'c> {
    columns: Columns,
    upsert: CachedStatement<'c>,
    delete: CachedStatement<'c>,
}

impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowWriter").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl<'c> RowWriter<'c> {
    /// For `table`, into the table of the file that is called `name`.
    pub(crate) fn new(conn: &'c Connection, table: &Table, name: &str) -> Result<Self> {
        Ok(Self {
            columns: Columns::of(table),
            upsert: conn.prepare_cached(&table_sql::upsert(table, name))?,
            delete: conn.prepare_cached(&table_sql::delete(name))?,
        })
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Inserts or replaces a row with the members of its JSON. Unknown members are left out, missing ones are NULL. What
    /// is no JSON object is a row of NULLs: nothing that a server sends may block a publish (C8).
    pub(crate) fn put(&mut self, id: &str, data: &str) -> Result<()> {
        let Self { columns, upsert, .. } = self;
        upsert.clear_bindings();
        upsert.raw_bind_parameter(1, id)?;
        let mut expected = 0;
        let bound = members(data, |name, cell| match columns.position(name, expected) {
            None => Ok(()),
            Some(position) => {
                expected = position + 1;
                upsert.raw_bind_parameter(position + 2, cell)
            }
        });
        match bound {
            Err(super::error::Error::Json(error)) => {
                tracing::warn!(%error, "a synced row is no JSON object; its columns are NULL");
                upsert.clear_bindings();
                upsert.raw_bind_parameter(1, id)?;
            }
            other => other?,
        }
        upsert.raw_execute()?;
        Ok(())
    }

    /// Inserts or replaces a row with one value per column.
    pub(crate) fn put_values(&mut self, id: &str, values: &[Value]) -> Result<()> {
        self.upsert.clear_bindings();
        self.upsert.raw_bind_parameter(1, id)?;
        for (position, value) in values.iter().enumerate() {
            self.upsert.raw_bind_parameter(position + 2, value)?;
        }
        self.upsert.raw_execute()?;
        Ok(())
    }

    /// Deletes a row, if it is there.
    pub(crate) fn delete(&mut self, id: &str) -> Result<()> {
        self.delete.execute([id])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_types() -> Result<()> {
        let mut seen = Vec::new();
        members(
            r#"{"a":9223372036854775807,"b":1.0,"c":"x\n","d":null,"e":true,"f":[1, {"g":2}],"h":"plain"}"#,
            |name, cell| {
                seen.push((name.to_owned(), cell));
                Ok(())
            },
        )?;
        let text = |text: &str| Cell::Text(Cow::Owned(text.to_owned()));
        let expected = [
            ("a", Cell::Integer(i64::MAX)),
            ("b", Cell::Real(1.0)),
            ("c", text("x\n")),
            ("d", Cell::Null),
            ("e", Cell::Integer(1)),
            ("f", text(r#"[1,{"g":2}]"#)),
            ("h", text("plain")),
        ];
        assert_eq!(seen, expected.map(|(name, cell)| (name.to_owned(), cell)));
        assert!(members("[1]", |_, _| Ok(())).is_err());
        assert!(members("{\"a\":", |_, _| Ok(())).is_err());
        Ok(())
    }
}
