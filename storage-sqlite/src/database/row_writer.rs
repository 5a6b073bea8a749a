//! Writes synced rows into the application's tables: JSON text in, typed columns out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::capture::OWN_PREFIX;
use super::error::{Error, Result, is_trouble_of_the_file};
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
///
/// What the application put on the table never keeps a synced row out (C8): a row that its triggers refuse or swallow is
/// written without them, and what stands in the way beyond that is an [`Error::Obstructed`], for the publish to remove.
pub(crate) struct RowWriter<'c> {
    conn: &'c Connection,
    table: String,
    columns: Columns,
    upsert: CachedStatement<'c>,
    delete: CachedStatement<'c>,
    /// Rows that were written without the application's triggers.
    refused: u64,
}

impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowWriter").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl<'c> RowWriter<'c> {
    /// For `table`, into the table of the file that is called `name`.
    pub(crate) fn new(conn: &'c Connection, table: &Table, name: &str) -> Result<Self> {
        // A trigger that does not fit the file any more is noticed here.
        let prepare = |sql: String| conn.prepare_cached(&sql).map_err(|error| obstructed(name, error));
        Ok(Self {
            conn,
            table: name.to_owned(),
            columns: Columns::of(table),
            upsert: prepare(table_sql::upsert(table, name))?,
            delete: prepare(table_sql::delete(name))?,
            refused: 0,
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
            Err(Error::Json(error)) => {
                tracing::warn!(%error, "a synced row is no JSON object; its columns are NULL");
                upsert.clear_bindings();
                upsert.raw_bind_parameter(1, id)?;
            }
            other => other?,
        }
        self.execute_upsert(id)
    }

    /// Inserts or replaces a row with one value per column.
    pub(crate) fn put_values(&mut self, id: &str, values: &[Value]) -> Result<()> {
        self.upsert.clear_bindings();
        self.upsert.raw_bind_parameter(1, id)?;
        for (position, value) in values.iter().enumerate() {
            self.upsert.raw_bind_parameter(position + 2, value)?;
        }
        self.execute_upsert(id)
    }

    /// Deletes a row, if it is there.
    pub(crate) fn delete(&mut self, id: &str) -> Result<()> {
        let deleted = self.delete.execute([id]);
        if matches!(deleted, Ok(1..)) || (matches!(deleted, Ok(0)) && !self.is_there(id)?) {
            return Ok(());
        }
        self.without_triggers(id, deleted, |writer| writer.delete.execute([id]))
    }

    fn execute_upsert(&mut self, id: &str) -> Result<()> {
        let written = self.upsert.raw_execute();
        // Without columns there is nothing to update.
        if matches!(written, Ok(1..)) || (matches!(written, Ok(0)) && self.columns.len() == 0) {
            return Ok(());
        }
        self.without_triggers(id, written, |writer| writer.upsert.raw_execute())
    }

    fn is_there(&self, id: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE \"id\" = ?1", table_sql::identifier(&self.table));
        Ok(self.conn.prepare_cached(&sql)?.exists([id])?)
    }

    /// Writes a row that was refused, or swallowed, once more without any trigger. This library's own are silent anyway
    /// while it publishes.
    fn without_triggers(
        &mut self,
        id: &str,
        refused: rusqlite::Result<usize>,
        write: impl FnOnce(&mut Self) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        let reason = match refused {
            Ok(_) => "it was ignored".to_owned(),
            Err(error) if is_trouble_of_the_file(&error) => return Err(error.into()),
            // RAISE(ROLLBACK) has ended the whole transaction.
            Err(error) if self.conn.is_autocommit() => return Err(obstructed(&self.table, error)),
            Err(error) => error.to_string(),
        };
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        let written = write(self);
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        written.map_err(|error| obstructed(&self.table, error))?;
        if self.refused == 0 {
            let table = &self.table;
            tracing::warn!(%table, id, reason, "a trigger of the application refused a synced row, which is shown without it");
        }
        self.refused += 1;
        Ok(())
    }
}

impl Drop for RowWriter<'_> {
    fn drop(&mut self) {
        if self.refused > 1 {
            let (table, rows) = (&self.table, self.refused);
            tracing::warn!(%table, rows, "synced rows were shown without the application's triggers");
        }
    }
}

fn obstructed(table: &str, cause: rusqlite::Error) -> Error {
    if is_trouble_of_the_file(&cause) {
        return cause.into();
    }
    Error::Obstructed { table: table.to_owned(), cause }
}

/// Removes what the application put on a synced table and what may refuse its rows: first indexes that are unique or
/// compute something, and if there are none, triggers. `false` if there is nothing left to remove.
pub(crate) fn remove_obstacles(conn: &Connection, table: &str, cause: &str) -> Result<bool> {
    for kind in ["index", "trigger"] {
        let names = obstacles(conn, table, kind)?;
        for name in &names {
            conn.execute_batch(&format!("DROP {kind} {}", table_sql::identifier(name)))?;
            tracing::warn!(%table, kind, %name, cause, "the application's index or trigger refused synced rows and was dropped");
        }
        if !names.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The application's indexes or triggers on a table that may refuse a row.
pub(crate) fn obstacles(conn: &Connection, table: &str, kind: &str) -> Result<Vec<String>> {
    let mut statement = conn.prepare_cached(
        "SELECT m.name FROM sqlite_master AS m WHERE m.type = ?1 AND m.tbl_name = ?2 COLLATE NOCASE \
         AND m.sql IS NOT NULL AND substr(m.name, 1, length(?3)) <> ?3 AND (m.type = 'trigger' \
         OR EXISTS (SELECT 1 FROM pragma_index_list(m.tbl_name) AS l WHERE l.name = m.name AND (l.\"unique\" OR l.partial)) \
         OR EXISTS (SELECT 1 FROM pragma_index_info(m.name) AS c WHERE c.cid = -2))",
    )?;
    let names = statement.query_map((kind, table, OWN_PREFIX), |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
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
