//! An uploaded write, checked against its table and turned into parameters of a statement.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use syncline_core::{LocalWrite, WriteKind};

use crate::backend::catalog::{Column, Family, TableShape};
use crate::backend::writable_table::WritableTable;

/// A write that is ready to be executed.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) table: &'a WritableTable,
    pub(crate) shape: Arc<TableShape>,
    pub(crate) write: &'a LocalWrite,
    pub(crate) kind: WriteKind,
    /// The columns to write besides the id, with their values as text.
    pub(crate) values: Vec<(Column, Option<String>)>,
}

/// Why a write cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unplanned {
    /// The table has no such column, as far as is known.
    UnknownColumn(String),
    /// It is refused for good.
    Refused(String),
}

/// How a JSON value that is a string or an array stands for a value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As a client's SQLite has it: JSON and arrays are text that holds JSON, a boolean is 0 or 1.
    Client,
    /// As `to_jsonb` gives it: a string in a `jsonb` column is a JSON string.
    Postgres,
}

impl<'a> Plan<'a> {
    /// Plans what the client sent.
    pub(crate) fn of_upload(
        table: &'a WritableTable,
        shape: &Arc<TableShape>,
        write: &'a LocalWrite,
    ) -> Result<Self, Unplanned> {
        let mut values = Vec::new();
        if write.op != WriteKind::Delete {
            for (name, value) in write.data.iter().flatten() {
                if *name == *shape.id.name {
                    if encode(&shape.id, value, Dialect::Client).as_deref() != Some(write.id.as_str()) {
                        return Err(Unplanned::Refused(format!("`{}`: the id of a row cannot be changed", table.name)));
                    }
                    continue;
                }
                let refused = |why: &str| Unplanned::Refused(format!("`{}`: column `{name}` {why}", table.name));
                if table.columns.as_ref().is_some_and(|allowed| !allowed.contains(name.as_str())) {
                    return Err(refused("cannot be written"));
                }
                let Some(column) = shape.columns.get(name.as_str()) else {
                    return Err(Unplanned::UnknownColumn(name.clone()));
                };
                if column.generated {
                    return Err(refused("is computed by the database"));
                }
                values.push((column.clone(), encode(column, value, Dialect::Client)));
            }
        }
        Ok(Self { table, shape: shape.clone(), write, kind: write.op, values })
    }

    /// The same write with other columns, which a resolver has chosen. Those that the database computes are left out: a
    /// resolver that gives back whole rows gives them back as they are.
    ///
    /// # Errors
    /// The name of a column that the table lacks.
    pub(crate) fn instead(&self, kind: WriteKind, columns: &Map<String, Json>) -> Result<Self, String> {
        let mut values = Vec::with_capacity(columns.len());
        for (name, value) in columns {
            if *name == *self.shape.id.name {
                continue;
            }
            let column = self.shape.columns.get(name.as_str()).ok_or_else(|| name.clone())?;
            if !column.generated {
                values.push((column.clone(), encode(column, value, Dialect::Postgres)));
            }
        }
        Ok(Self { kind, values, ..self.clone() })
    }

    /// The values that the client saw before the write, of columns that the table has.
    pub(crate) fn old_values(&self) -> Vec<(Column, Option<String>)> {
        let old = self.write.old.iter().flatten();
        old.filter_map(|(name, value)| {
            let column = self.shape.columns.get(name.as_str())?;
            Some((column.clone(), encode(column, value, Dialect::Client)))
        })
        .collect()
    }
}

/// A JSON value as a text that Postgres casts to the type of the column; `None` is NULL.
pub(crate) fn encode(column: &Column, value: &Json, dialect: Dialect) -> Option<String> {
    if value.is_null() {
        return None;
    }
    Some(match (column.family, value) {
        (Family::Json, Json::String(text)) if dialect == Dialect::Client => text.clone(),
        (Family::Json, value) => value.to_string(),
        (Family::Number, Json::Bool(value)) => if *value { "1" } else { "0" }.into(),
        (Family::Number | Family::Boolean, Json::Number(number)) => match number.as_f64() {
            // SQLite and JavaScript may say 1.0 where an integer is meant.
            Some(real) if number.is_f64() && real.fract() == 0.0 && real.abs() < 9e15 => format!("{real:.0}"),
            _ => number.to_string(),
        },
        (Family::Array, Json::Array(items)) => array_literal(items),
        (Family::Array, Json::String(text)) => match serde_json::from_str(text) {
            Ok(Json::Array(items)) => array_literal(&items),
            _ => text.clone(),
        },
        (_, Json::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    })
}

/// A JSON array in the syntax of a Postgres array.
fn array_literal(items: &[Json]) -> String {
    let mut out = String::from("{");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match item {
            Json::Null => out.push_str("NULL"),
            Json::Array(inner) => out.push_str(&array_literal(inner)),
            Json::String(text) => push_quoted(&mut out, text),
            other => push_quoted(&mut out, &other.to_string()),
        }
    }
    out.push('}');
    out
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(family: Family, value: Json, dialect: Dialect) -> Option<String> {
        let column = Column { name: "c".into(), type_name: "t".into(), family, generated: false };
        encode(&column, &value, dialect)
    }

    #[test]
    fn values_of_sqlite_become_texts_that_postgres_casts() {
        let client = |family, value| text(family, value, Dialect::Client);
        assert_eq!(client(Family::Boolean, json!(1)).as_deref(), Some("1"));
        assert_eq!(client(Family::Boolean, json!(1.0)).as_deref(), Some("1"));
        assert_eq!(client(Family::Boolean, json!(true)).as_deref(), Some("true"));
        assert_eq!(client(Family::Number, json!(true)).as_deref(), Some("1"));
        assert_eq!(client(Family::Number, json!(1.5)).as_deref(), Some("1.5"));
        assert_eq!(client(Family::Number, json!(9_007_199_254_740_993_i64)).as_deref(), Some("9007199254740993"));
        assert_eq!(client(Family::Other, json!(1.0)).as_deref(), Some("1.0"));
        assert_eq!(client(Family::Json, json!("{\"a\":1}")).as_deref(), Some("{\"a\":1}"));
        assert_eq!(client(Family::Json, json!({"a": 1})).as_deref(), Some("{\"a\":1}"));
        assert_eq!(client(Family::Other, json!(null)), None);
    }

    #[test]
    fn a_string_of_postgres_in_a_json_column_stays_a_json_string() {
        assert_eq!(text(Family::Json, json!("a"), Dialect::Postgres).as_deref(), Some("\"a\""));
    }

    #[test]
    fn arrays_are_quoted_in_the_syntax_of_postgres() {
        let array = json!(["a,b", "say \"hi\" \\", null, "NULL", "", 1, [true]]);
        let expected = r#"{"a,b","say \"hi\" \\",NULL,"NULL","","1",{"true"}}"#;
        assert_eq!(text(Family::Array, array.clone(), Dialect::Postgres).as_deref(), Some(expected));
        assert_eq!(text(Family::Array, json!(array.to_string()), Dialect::Client).as_deref(), Some(expected));
        assert_eq!(text(Family::Array, json!("{1,2}"), Dialect::Client).as_deref(), Some("{1,2}"));
    }
}
