//! From the columns of one relation, as they come over the wire, to the rows of a table.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use syncline_core::{Field, RowKey, SourceColumn, SourceRow, SourceTable, TableId, Value};

use crate::connection::Row;
use crate::pgoutput::{Column, DecodeError, OldRow, Tuple};
use crate::state::TableRecord;
use crate::value::{Mapping, TypeRegistry};

/// The length that stands for NULL in a key of several columns.
const NULL_LENGTH: u32 = u32::MAX;

/// How rows of one relation are read, at one point of the stream.
#[derive(Debug)]
pub(crate) struct Layout {
    /// What the rows are described by.
    pub(crate) table: Arc<SourceTable>,
    wire: Vec<Wire>,
    key_columns: usize,
}

/// What happens to one column of the wire.
#[derive(Debug)]
enum Wire {
    Skip,
    Take {
        /// Where it goes in a row.
        field: usize,
        /// Where it goes in the key.
        key: Option<usize>,
        /// Whether the sync config reads it; if not, it is only part of the key.
        read: bool,
        mapping: Mapping,
    },
}

/// The key columns of a row while it is read; the usual single one needs no allocation.
#[derive(Debug)]
enum KeyParts {
    One(Option<Part>),
    Many(Vec<Option<Part>>),
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Null,
    Text(Bytes),
}

impl Layout {
    /// The layout for columns of these names and types; `None` if a column of the key is not among them.
    ///
    /// The description lists the columns that the sync config `reads`, and those of the key.
    pub(crate) fn new<'a>(
        record: &TableRecord,
        columns: impl IntoIterator<Item = (&'a str, u32)>,
        types: &TypeRegistry,
        reads: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let mut wire = Vec::new();
        let mut described = Vec::new();
        let mut keys = 0;
        for (name, type_oid) in columns {
            let key = record.key.iter().position(|key| key == name);
            let read = reads(name);
            if !read && key.is_none() {
                wire.push(Wire::Skip);
                continue;
            }
            keys += usize::from(key.is_some());
            wire.push(Wire::Take { field: described.len(), key, read, mapping: types.mapping(type_oid) });
            described.push(SourceColumn { name: name.into(), key: key.is_some(), type_name: types.name(type_oid) });
        }
        (keys == record.key.len() && keys > 0).then(|| Self {
            table: Arc::new(SourceTable {
                id: TableId(record.oid.into()),
                schema: record.schema.as_str().into(),
                name: record.name.as_str().into(),
                columns: described,
            }),
            wire,
            key_columns: keys,
        })
    }

    /// A row of the stream and, if the update changed it, its key before.
    pub(crate) fn row(&self, new: &Tuple, old: Option<&OldRow>) -> Result<(SourceRow, Option<RowKey>), DecodeError> {
        self.check(new)?;
        let mut parts = self.parts();
        let mut fields = Vec::with_capacity(self.table.columns.len());
        let mut unchanged = false;
        new.read(
            |index| matches!(self.wire.get(index), Some(Wire::Take { .. })),
            |index, column| {
                let Some(Wire::Take { key, read, mapping, .. }) = self.wire.get(index) else { return Ok(()) };
                if let Some(at) = key {
                    match &column {
                        Column::Null => parts.set(*at, Part::Null),
                        Column::Text(text) => parts.set(*at, Part::Text(text.clone())),
                        // Stored out of line: the old row has it.
                        Column::Unchanged => unchanged = true,
                    }
                }
                fields.push(match column {
                    _ if !read => Field::Unused,
                    Column::Null => Field::Value(Value::Null),
                    Column::Text(text) => Field::Value(mapping.value(text)?),
                    Column::Unchanged => {
                        unchanged = true;
                        Field::Unchanged
                    }
                });
                Ok(())
            },
        )?;
        if let (true, Some(old)) = (unchanged, old) {
            self.fill(old, &mut parts, &mut fields)?;
        }
        let key = self.key(parts)?;
        let old_key = match old {
            Some(old) => Some(self.old_key(old)?).filter(|old_key| *old_key != key),
            None => None,
        };
        Ok((SourceRow { key, fields }, old_key))
    }

    /// Takes from the old row what the new one left out. Only a full old row tells the values of columns that are not in
    /// the key; in another one they look like NULL.
    fn fill(&self, old: &OldRow, parts: &mut KeyParts, fields: &mut [Field]) -> Result<(), DecodeError> {
        self.check(&old.tuple)?;
        old.tuple.read(
            |index| matches!(self.wire.get(index), Some(Wire::Take { .. })),
            |index, column| {
                let Some(Wire::Take { field, key, mapping, .. }) = self.wire.get(index) else { return Ok(()) };
                let (Column::Text(text), true) = (column, old.full || key.is_some()) else { return Ok(()) };
                if let Some(at) = key {
                    parts.set_if_missing(*at, &text);
                }
                if let Some(slot @ Field::Unchanged) = fields.get_mut(*field) {
                    *slot = Field::Value(mapping.value(text)?);
                }
                Ok(())
            },
        )
    }

    /// The key in an old row. One that is not whole has nothing but key columns, and they are never NULL: what looks so was
    /// left out.
    pub(crate) fn old_key(&self, old: &OldRow) -> Result<RowKey, DecodeError> {
        self.check(&old.tuple)?;
        let mut parts = self.parts();
        let key_of = |index: usize| match self.wire.get(index) {
            Some(Wire::Take { key, .. }) => *key,
            _ => None,
        };
        old.tuple.read(
            |index| key_of(index).is_some(),
            |index, column| {
                match (key_of(index), column) {
                    (Some(at), Column::Null) if old.full => parts.set(at, Part::Null),
                    (Some(at), Column::Text(text)) => parts.set(at, Part::Text(text)),
                    _ => {}
                }
                Ok(())
            },
        )?;
        self.key(parts)
    }

    /// A row of a snapshot.
    pub(crate) fn snapshot_row(&self, row: Row) -> Result<SourceRow, DecodeError> {
        if row.0.len() != self.wire.len() {
            return Err(DecodeError::Row(format!("a row has {} columns, not {}", row.0.len(), self.wire.len())));
        }
        let mut parts = self.parts();
        let mut fields = Vec::with_capacity(self.table.columns.len());
        for (wire, value) in self.wire.iter().zip(row.0) {
            let Wire::Take { key, read, mapping, .. } = wire else { continue };
            if let Some(at) = key {
                parts.set(*at, value.clone().map_or(Part::Null, Part::Text));
            }
            fields.push(match value {
                _ if !read => Field::Unused,
                None => Field::Value(Value::Null),
                Some(text) => Field::Value(mapping.value(text)?),
            });
        }
        Ok(SourceRow { key: self.key(parts)?, fields })
    }

    fn check(&self, tuple: &Tuple) -> Result<(), DecodeError> {
        if tuple.len() == self.wire.len() {
            return Ok(());
        }
        Err(DecodeError::Row(format!(
            "a row of {}.{} has {} columns, but its relation {}",
            self.table.schema,
            self.table.name,
            tuple.len(),
            self.wire.len()
        )))
    }

    fn parts(&self) -> KeyParts {
        if self.key_columns == 1 { KeyParts::One(None) } else { KeyParts::Many(vec![None; self.key_columns]) }
    }

    /// The bytes of a key: the text of its only column, or a zero byte and then each column with its length before it.
    fn key(&self, parts: KeyParts) -> Result<RowKey, DecodeError> {
        let missing = || {
            DecodeError::Row(format!("a row of {}.{} lacks a column of its key", self.table.schema, self.table.name))
        };
        let key = match parts {
            KeyParts::One(Some(Part::Text(text))) => text,
            // Only a table without a primary key can have it.
            KeyParts::One(Some(Part::Null)) => Bytes::from_static(&[0]),
            KeyParts::One(None) => return Err(missing()),
            KeyParts::Many(parts) => {
                let mut out = BytesMut::new();
                out.put_u8(0);
                for part in parts {
                    match part.ok_or_else(missing)? {
                        Part::Null => out.put_u32(NULL_LENGTH),
                        Part::Text(text) => {
                            out.put_u32(u32::try_from(text.len()).map_err(|_| missing())?);
                            out.extend_from_slice(&text);
                        }
                    }
                }
                out.freeze()
            }
        };
        Ok(RowKey { table: self.table.id, key })
    }
}

/// The values of the key columns in a [`RowKey`]; `None` where a column is NULL.
///
/// # Errors
/// If the bytes are not those of a key with this many columns.
pub(crate) fn split_key(key: &Bytes, columns: usize) -> Result<Vec<Option<Bytes>>, DecodeError> {
    if columns == 1 {
        return Ok(vec![(key.as_ref() != [0]).then(|| key.clone())]);
    }
    let short = || DecodeError::Short("columns of a key");
    let mut at = 1;
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        let length = key.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        let length = u32::from_be_bytes(*length);
        at += 4;
        if length == NULL_LENGTH {
            values.push(None);
            continue;
        }
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).ok_or_else(short)?;
        if end > key.len() {
            return Err(short());
        }
        values.push(Some(key.slice(at..end)));
        at = end;
    }
    if at == key.len() { Ok(values) } else { Err(DecodeError::Long(key.len() - at)) }
}

impl KeyParts {
    fn slot(&mut self, at: usize) -> Option<&mut Option<Part>> {
        match self {
            Self::One(part) => (at == 0).then_some(part),
            Self::Many(parts) => parts.get_mut(at),
        }
    }

    fn set(&mut self, at: usize, part: Part) {
        if let Some(slot) = self.slot(at) {
            *slot = Some(part);
        }
    }

    fn set_if_missing(&mut self, at: usize, text: &Bytes) {
        if let Some(slot @ None) = self.slot(at) {
            *slot = Some(Part::Text(text.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn record(key: &[&str]) -> TableRecord {
        TableRecord {
            oid: 5,
            schema: "s".into(),
            name: "t".into(),
            identity: b'd',
            membership: 0,
            width: 3,
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            columns: Vec::new(),
            parts: Vec::new(),
            stale: None,
        }
    }

    fn layout(key: &[&str]) -> Layout {
        let columns = [("a", 25), ("unread", 25), ("b", 25)];
        Layout::new(&record(key), columns, &TypeRegistry::default(), |name| name != "unread").unwrap()
    }

    #[test]
    fn a_layout_needs_all_columns_of_the_key() {
        let columns = [("a", 25)];
        assert!(Layout::new(&record(&["a", "b"]), columns, &TypeRegistry::default(), |_| true).is_none());
        assert!(Layout::new(&record(&[]), columns, &TypeRegistry::default(), |_| true).is_none());
    }

    proptest! {
        #[test]
        fn keys_split_into_what_they_were_made_of(a: Option<Vec<u8>>, b: Option<Vec<u8>>) {
            let bytes = |value: &Option<Vec<u8>>| value.clone().map(Bytes::from);
            let text = |value: Option<Vec<u8>>| value.map(|bytes| bytes.iter().map(|byte| byte & 0x7F).collect());
            let (a, b) = (text(a), text(b));
            let row = Row(vec![bytes(&a), None, bytes(&b)]);
            let key = layout(&["b", "a"]).snapshot_row(row).unwrap().key;
            prop_assert_eq!(split_key(&key.key, 2).unwrap(), vec![bytes(&b), bytes(&a)]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, columns in 1usize..4) {
            let _ = split_key(&bytes.into(), columns);
        }
    }
}
