//! Tables and rows of a source, as replication sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use crate::value::Value;
use crate::value_options::ValueOptions;

/// A table as the source describes it at one point of its stream.
///
/// Two descriptions of one table (before and after a column was added) share `id`; a table that was dropped and created
/// again has another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceTable {
    /// Identity of the table in its source (the relation oid in Postgres).
    pub id: TableId,
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its columns, in the order of the values of a [`SourceRow`].
    pub columns: Vec<SourceColumn>,
}

/// Identity of a table within its source; compared only for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub u64);

impl TableId {
    /// The [subkey](RowKey::subkey) of rows of this table whose id is their key.
    pub(crate) fn subkey(self) -> ByteString {
        format!("{:x}", self.0).into()
    }
}

/// A column of a [`SourceTable`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceColumn {
    /// Its name, exactly as the source spells it.
    pub name: Arc<str>,
    /// Whether it belongs to the key that identifies a row.
    pub key: bool,
    /// The source's name of its type, for diagnostics and for the mapping of values.
    pub type_name: Arc<str>,
}

/// One value of a row, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// The value.
    Value(Value),
    /// The source did not send it, since the update did not change it (unchanged TOAST in Postgres). Replication takes
    /// it from the stored row, never from a default.
    Unchanged,
    /// The sync config does not use the column, so it was not decoded.
    Unused,
}

/// The key of a row: its table and the bytes of its key columns, the same from a snapshot and from the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// The table.
    pub table: TableId,
    /// Canonical bytes of the key columns, chosen by the source.
    pub key: Bytes,
}

impl RowKey {
    /// What tells apart the operations of two source rows that yield the same output row.
    ///
    /// The number of the table if the output id is the key itself (then type, id and table name one source row), else a
    /// hash: the key may hold columns that the client must not see.
    pub fn subkey(&self, object_id: &str) -> ByteString {
        self.subkey_or(object_id, || self.table.subkey())
    }

    /// The same, where `of_table` knows the number of the table.
    pub(crate) fn subkey_or(&self, object_id: &str, of_table: impl FnOnce() -> ByteString) -> ByteString {
        if &*self.key == object_id.as_bytes() {
            return of_table();
        }
        let mut hash = Sha256::new();
        hash.update(self.table.0.to_le_bytes());
        hash.update(&self.key);
        let digest = hash.finalize();
        let mut text = String::with_capacity(32);
        for byte in &digest[..16] {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        text.into()
    }
}

/// A row as a source sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRow {
    /// Its key.
    pub key: RowKey,
    /// One field per column of its [`SourceTable`].
    pub fields: Vec<Field>,
}

/// Which tables and columns a sync config reads; the source decodes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableSelection {
    /// One entry per table pattern; a table may match several.
    pub patterns: Vec<TablePattern>,
    /// How the types of their columns become values. Not stored: a store whose config has other options does not go on with
    /// what it holds.
    #[serde(skip)]
    pub values: ValueOptions,
}

/// A table, or all tables with a prefix, and the columns that are read.
///
/// Where it is named is not part of it: two that differ only in that are equal, and are stored alike.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TablePattern {
    /// The schema; `None` is the source's default (`public` in Postgres). With a `%` at its end it is a prefix
    /// (`"tenant_%".todos`).
    pub schema: Option<Arc<str>>,
    /// The table's name, or its prefix if `prefix` is set.
    pub name: Arc<str>,
    /// Whether `name` is a prefix (`"todos_%"`).
    pub prefix: bool,
    /// The columns that are read; `None` is all of them.
    pub columns: Option<Vec<Arc<str>>>,
    /// Where the sync config names it, for messages.
    #[serde(skip)]
    pub places: TablePlaces,
}

/// Where a sync config names a table and its columns first; empty if no config does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablePlaces {
    /// The table.
    pub table: Option<ConfigPlace>,
    /// Every column that is named, even where all are read.
    pub columns: BTreeMap<Arc<str>, ConfigPlace>,
}

/// A place in the text of a sync config; shown as `4:12 (stream my_lists)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPlace {
    /// The stream whose query stands there.
    pub stream: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (stream {})", self.line, self.column, self.stream)
    }
}

impl PartialEq for TablePattern {
    fn eq(&self, other: &Self) -> bool {
        let Self { schema, name, prefix, columns, places: _ } = self;
        (schema, name, prefix, columns) == (&other.schema, &other.name, &other.prefix, &other.columns)
    }
}

impl Eq for TablePattern {}

impl TablePattern {
    /// Whether it may name more than one table, or none.
    pub fn is_wildcard(&self) -> bool {
        self.prefix || self.schema.as_deref().is_some_and(|schema| schema.ends_with('%'))
    }

    /// Whether it names this table. `default_schema` stands for a missing one.
    pub fn matches(&self, default_schema: &str, schema: &str, name: &str) -> bool {
        let own = self.schema.as_deref().unwrap_or(default_schema);
        let of_schema = match own.strip_suffix('%') {
            Some(prefix) => schema.starts_with(prefix) && !is_system_schema(schema),
            None => schema == own,
        };
        of_schema && if self.prefix { name.starts_with(&*self.name) } else { name == &*self.name }
    }
}

/// Schemas of the database itself, which no pattern matches.
fn is_system_schema(schema: &str) -> bool {
    schema == "information_schema" || schema.starts_with("pg_")
}

impl TableSelection {
    /// Whether any pattern names this table.
    pub fn matches(&self, default_schema: &str, schema: &str, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(default_schema, schema, name))
    }

    /// Whether a column of this table is read by some pattern.
    pub fn reads(&self, default_schema: &str, schema: &str, name: &str, column: &str) -> bool {
        self.patterns.iter().filter(|pattern| pattern.matches(default_schema, schema, name)).any(|pattern| {
            match &pattern.columns {
                None => true,
                Some(columns) => columns.iter().any(|read| &**read == column),
            }
        })
    }
}
