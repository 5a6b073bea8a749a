//! Rows of a query as values of any deserializable type.
//!
//! A struct or map takes columns by name, a tuple takes them in order, anything else takes the first column. Integers
//! become booleans where a boolean is asked for (0 is false), and JSON text becomes a list or a struct.

use std::fmt;

use rusqlite::types::ValueRef;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{Error, Result};

/// Reads one row.
pub(crate) fn read<T: DeserializeOwned>(row: &rusqlite::Row<'_>, columns: &[String]) -> Result<T> {
    T::deserialize(RowReader { row, columns }).map_err(|Mismatch(message)| Error::Row(message))
}

/// Why a row does not fit.
#[derive(Debug)]
pub(crate) struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct RowReader<'r> {
    row: &'r rusqlite::Row<'r>,
    columns: &'r [String],
}

impl<'r> RowReader<'r> {
    fn value(self, index: usize) -> std::result::Result<ValueReader<'r>, Mismatch> {
        let name = self.columns.get(index).map(String::as_str);
        let value = self.row.get_ref(index).map_err(|error| Mismatch(error.to_string()))?;
        Ok(ValueReader { value, column: name.unwrap_or("?") })
    }
}

macro_rules! first_column {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
            self.value(0)?.$method(visitor)
        }
    )*};
}

impl<'de, 'r> Deserializer<'de> for RowReader<'r> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        visitor.visit_map(Members { row: self, next: 0 })
    }

    first_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        match self.value(0)?.value {
            ValueRef::Null if self.columns.len() == 1 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        self.value(0)?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        visitor.visit_seq(Elements { row: self, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    forward_to_deserialize_any! { unit_struct map struct identifier ignored_any }
}

struct Members<'r> {
    row: RowReader<'r>,
    next: usize,
}

impl<'de, 'r> MapAccess<'de> for Members<'r> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> std::result::Result<Option<K::Value>, Mismatch> {
        match self.row.columns.get(self.next) {
            None => Ok(None),
            Some(name) => seed.deserialize(name.as_str().into_deserializer()).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> std::result::Result<V::Value, Mismatch> {
        let value = self.row.value(self.next)?;
        self.next += 1;
        seed.deserialize(value)
    }
}

struct Elements<'r> {
    row: RowReader<'r>,
    next: usize,
}

impl<'de, 'r> SeqAccess<'de> for Elements<'r> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> std::result::Result<Option<T::Value>, Mismatch> {
        if self.next >= self.row.columns.len() {
            return Ok(None);
        }
        let value = self.row.value(self.next)?;
        self.next += 1;
        seed.deserialize(value).map(Some)
    }
}

/// One column of one row.
#[derive(Clone, Copy)]
struct ValueReader<'r> {
    value: ValueRef<'r>,
    column: &'r str,
}

impl<'r> ValueReader<'r> {
    fn named(self, error: impl fmt::Display) -> Mismatch {
        Mismatch(format!("column {:?}: {error}", self.column))
    }

    fn text(self) -> std::result::Result<Option<&'r str>, Mismatch> {
        match self.value {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|error| self.named(error)),
            _ => Ok(None),
        }
    }

    /// Text that holds JSON where something nested is asked for.
    fn nested<'de, V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        match self.text()? {
            None => self.deserialize_any(visitor),
            Some(text) => {
                let value: serde_json::Value = serde_json::from_str(text).map_err(|error| self.named(error))?;
                value.deserialize_any(visitor).map_err(|error| self.named(error))
            }
        }
    }
}

impl<'de, 'r> Deserializer<'de> for ValueReader<'r> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        let answer: std::result::Result<V::Value, Mismatch> = match self.value {
            ValueRef::Null => visitor.visit_unit(),
            ValueRef::Integer(value) => visitor.visit_i64(value),
            ValueRef::Real(value) => visitor.visit_f64(value),
            ValueRef::Text(_) => visitor.visit_str(self.text()?.unwrap_or_default()),
            ValueRef::Blob(bytes) => visitor.visit_bytes(bytes),
        };
        answer.map_err(|error| self.named(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        match self.value {
            ValueRef::Integer(value) => visitor.visit_bool(value != 0),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        match self.value {
            ValueRef::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        match self.text()? {
            Some(text) if !text.starts_with('{') => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(self.named("not the name of a variant")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        self.nested(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        self.nested(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> std::result::Result<V::Value, Mismatch> {
        self.nested(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Mismatch> {
        self.nested(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple_struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Id(String);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Todo {
        id: Id,
        done: bool,
        due: Option<i64>,
        weight: f64,
        tags: Vec<String>,
        colour: Colour,
        extra: serde_json::Value,
    }

    fn one<T: DeserializeOwned>(sql: &str) -> Result<T> {
        let conn = rusqlite::Connection::open_in_memory()?;
        let mut statement = conn.prepare(sql)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        read(row, &columns)
    }

    #[test]
    fn structs_take_columns_by_name() -> Result<()> {
        let todo: Todo = one(
            "SELECT 2 AS weight, 'a' AS id, 1 AS done, NULL AS due, '[\"x\",\"y\"]' AS tags, 'red' AS colour, 5 AS extra, 0 AS other",
        )?;
        let expected = Todo {
            id: Id("a".into()),
            done: true,
            due: None,
            weight: 2.0,
            tags: vec!["x".into(), "y".into()],
            colour: Colour::Red,
            extra: 5.into(),
        };
        assert_eq!(todo, expected);
        Ok(())
    }

    #[test]
    fn other_types_take_the_first_column_or_all_in_order() -> Result<()> {
        assert_eq!(one::<i64>("SELECT 9223372036854775807")?, i64::MAX);
        assert_eq!(one::<Option<String>>("SELECT NULL")?, None);
        assert_eq!(one::<(String, bool)>("SELECT 'a', 0")?, ("a".into(), false));
        assert_eq!(one::<Id>("SELECT 'a'")?, Id("a".into()));
        assert_eq!(one::<Colour>("SELECT 'red'")?, Colour::Red);
        Ok(())
    }

    #[test]
    fn a_misfit_names_the_column() {
        let error = one::<Todo>("SELECT 'a' AS id, 'yes' AS done").expect_err("text is no boolean");
        assert!(error.to_string().contains("\"done\""), "{error}");
        assert!(one::<i64>("SELECT 'x'").is_err());
        assert!(one::<Todo>("SELECT 'a' AS id").expect_err("missing").to_string().contains("missing field"));
    }
}
