//! One message and its parts.

use bytes::Bytes;

use super::reader::{DecodeError, Reader};
use crate::lsn::Lsn;

/// A message of the stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Begin {
        /// Where the commit record starts: the same as the LSN of the `Commit`.
        commit_lsn: Lsn,
        xid: u32,
    },
    Commit {
        /// The position after the transaction.
        end_lsn: Lsn,
        /// Microseconds since 2000-01-01.
        time: i64,
    },
    Relation(Relation),
    Insert {
        relation: u32,
        new: Tuple,
    },
    Update {
        relation: u32,
        old: Option<OldRow>,
        new: Tuple,
    },
    Delete {
        relation: u32,
        old: OldRow,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// A logical message.
    Logical {
        transactional: bool,
        prefix: String,
        content: Bytes,
    },
    /// The origin of a transaction, or the name of a type: of no use here.
    Other,
}

/// What a relation looks like from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `d`, `n`, `f` or `i`.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    pub(crate) key: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// The row before an update or a delete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OldRow {
    /// Whether all columns were sent (`O`); otherwise only those of the key (`K`), and the others look like NULL.
    pub(crate) full: bool,
    pub(crate) tuple: Tuple,
}

/// The columns of a row, read one by one. Its bounds were checked when the message was decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tuple {
    bytes: Bytes,
    count: u16,
}

/// One column of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Column {
    Null,
    /// Stored out of line and not changed, so not sent.
    Unchanged,
    Text(Bytes),
}

impl Tuple {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Calls `take` with each column in order; `want` decides whether a column's text is sliced out or passed over.
    pub(crate) fn read(
        &self,
        want: impl Fn(usize) -> bool,
        mut take: impl FnMut(usize, Column) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(&self.bytes);
        for index in 0..usize::from(self.count) {
            match reader.u8("column")? {
                b'n' => take(index, Column::Null)?,
                b'u' => take(index, Column::Unchanged)?,
                b't' if want(index) => take(index, Column::Text(reader.slice("column")?))?,
                b't' => reader.skip("column")?,
                other => return Err(DecodeError::Unknown("kind of column", other)),
            }
        }
        Ok(())
    }
}

/// Decodes one message.
pub(crate) fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(&bytes);
    let message = match reader.u8("tag")? {
        b'B' => {
            let commit_lsn = Lsn(reader.u64("LSN")?);
            reader.i64("time")?;
            Message::Begin { commit_lsn, xid: reader.u32("xid")? }
        }
        b'C' => {
            reader.u8("flags")?;
            reader.u64("LSN")?;
            Message::Commit { end_lsn: Lsn(reader.u64("LSN")?), time: reader.i64("time")? }
        }
        b'R' => Message::Relation(relation(&mut reader)?),
        b'I' => {
            let relation = reader.u32("relation")?;
            expect(&mut reader, b'N')?;
            Message::Insert { relation, new: tuple(&mut reader)? }
        }
        b'U' => {
            let relation = reader.u32("relation")?;
            let old = match reader.u8("kind of row")? {
                b'N' => None,
                kind => {
                    let old = old_row(&mut reader, kind)?;
                    expect(&mut reader, b'N')?;
                    Some(old)
                }
            };
            Message::Update { relation, old, new: tuple(&mut reader)? }
        }
        b'D' => {
            let relation = reader.u32("relation")?;
            let kind = reader.u8("kind of row")?;
            Message::Delete { relation, old: old_row(&mut reader, kind)? }
        }
        b'T' => {
            let count = reader.u32("count")?;
            reader.u8("flags")?;
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(reader.u32("relation")?);
            }
            Message::Truncate { relations }
        }
        b'M' => {
            let transactional = reader.u8("flags")? & 1 == 1;
            reader.u64("LSN")?;
            let prefix = reader.string("prefix of a message")?;
            Message::Logical { transactional, prefix, content: reader.slice("content")? }
        }
        b'O' => {
            reader.u64("LSN")?;
            reader.string("name of an origin")?;
            Message::Other
        }
        b'Y' => {
            reader.u32("type")?;
            reader.string("schema of a type")?;
            reader.string("name of a type")?;
            Message::Other
        }
        tag => return Err(DecodeError::Unknown("tag", tag)),
    };
    reader.end()?;
    Ok(message)
}

fn expect(reader: &mut Reader<'_>, kind: u8) -> Result<(), DecodeError> {
    match reader.u8("kind of row")? {
        found if found == kind => Ok(()),
        found => Err(DecodeError::Unknown("kind of row", found)),
    }
}

fn old_row(reader: &mut Reader<'_>, kind: u8) -> Result<OldRow, DecodeError> {
    match kind {
        b'K' | b'O' => Ok(OldRow { full: kind == b'O', tuple: tuple(reader)? }),
        other => Err(DecodeError::Unknown("kind of row", other)),
    }
}

fn tuple(reader: &mut Reader<'_>) -> Result<Tuple, DecodeError> {
    let count = reader.u16("columns")?;
    let start = reader.position();
    for _ in 0..count {
        match reader.u8("column")? {
            b'n' | b'u' => {}
            b't' => reader.skip("column")?,
            other => return Err(DecodeError::Unknown("kind of column", other)),
        }
    }
    Ok(Tuple { bytes: reader.since(start), count })
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let oid = reader.u32("relation")?;
    let mut schema = reader.string("schema of a relation")?;
    if schema.is_empty() {
        schema = "pg_catalog".into();
    }
    let name = reader.string("name of a relation")?;
    let identity = reader.u8("replica identity")?;
    let count = reader.u16("columns")?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(RelationColumn {
            key: reader.u8("flags")? & 1 == 1,
            name: reader.string("name of a column")?,
            type_oid: reader.u32("type")?,
            type_modifier: reader.i32("type modifier")?,
        });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn cell(column: &Column) -> Vec<u8> {
        match column {
            Column::Null => vec![b'n'],
            Column::Unchanged => vec![b'u'],
            Column::Text(text) => {
                let mut out = vec![b't'];
                out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                out.extend_from_slice(text);
                out
            }
        }
    }

    fn row(columns: &[Column]) -> Vec<u8> {
        let mut out = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        out.extend(columns.iter().flat_map(cell));
        out
    }

    fn columns() -> impl Strategy<Value = Vec<Column>> {
        let column = prop_oneof![
            Just(Column::Null),
            Just(Column::Unchanged),
            any::<Vec<u8>>().prop_map(|bytes| Column::Text(bytes.into())),
        ];
        proptest::collection::vec(column, 0..8)
    }

    fn read(tuple: &Tuple) -> Vec<Column> {
        let mut out = Vec::new();
        tuple
            .read(
                |_| true,
                |_, column| {
                    out.push(column);
                    Ok(())
                },
            )
            .unwrap();
        out
    }

    #[test]
    fn a_relation_is_read() {
        let mut bytes = b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0".to_vec();
        bytes.extend(25u32.to_be_bytes());
        bytes.extend((-1i32).to_be_bytes());
        let column = RelationColumn { key: true, name: "id".into(), type_oid: 25, type_modifier: -1 };
        let expected =
            Relation { oid: 7, schema: "public".into(), name: "t".into(), identity: b'd', columns: vec![column] };
        assert_eq!(decode(bytes.into()).unwrap(), Message::Relation(expected));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(bytes.into());
        }

        #[test]
        fn rows_come_back(old in columns(), new in columns(), full: bool) {
            let mut bytes = b"U\0\0\0\x09".to_vec();
            bytes.push(if full { b'O' } else { b'K' });
            bytes.extend(row(&old));
            bytes.push(b'N');
            bytes.extend(row(&new));
            let message = decode(bytes.clone().into()).unwrap();
            let Message::Update { relation: 9, old: Some(decoded_old), new: decoded_new } = message else {
                panic!("another message")
            };
            prop_assert_eq!(decoded_old.full, full);
            prop_assert_eq!(read(&decoded_old.tuple), old);
            prop_assert_eq!(read(&decoded_new), new);
            // Cut anywhere, it is refused.
            for end in 0..bytes.len() {
                prop_assert!(decode(Bytes::copy_from_slice(&bytes[..end])).is_err());
            }
        }
    }
}
