//! Source rows as bytes, so that a store can keep them without knowing what a column is.
//!
//! An image holds the used columns of a row under the number of a [`Shape`]; shapes are kept beside the images. It serves
//! two ends: values that an update does not send again, and telling that a replayed change changes nothing.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::table::{Field, SourceTable, TableId};
use crate::value::Value;

/// The used columns of a table at some time, in the order in which images hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) table: TableId,
    pub(super) columns: Vec<Arc<str>>,
}

impl Shape {
    /// The shape of a row of this table: the columns that the source decoded.
    pub(super) fn of(table: &SourceTable, fields: &[Field]) -> Self {
        let used = |(column, field): (&crate::table::SourceColumn, &Field)| {
            (*field != Field::Unused).then(|| Arc::clone(&column.name))
        };
        Self { table: table.id, columns: table.columns.iter().zip(fields).filter_map(used).collect() }
    }
}

/// Bytes that are reserved at a time for images.
const BLOCK: usize = 64 << 10;

/// Writes the image of a row whose values are all known. Unused columns are left out, and so is a text that the key is: most
/// rows have one. Images are cut from `block`, which grows as it is used up.
pub(super) fn encode(shape: u32, key: &Bytes, fields: &[Field], block: &mut BytesMut) -> Bytes {
    let size = 4 + fields.iter().map(encoded_size).sum::<usize>();
    if block.capacity() < size {
        block.reserve(size.max(BLOCK));
    }
    block.put_u32_le(shape);
    for field in fields {
        match field {
            Field::Unused => {}
            Field::Value(Value::Null) | Field::Unchanged => block.put_u8(0),
            Field::Value(Value::Integer(integer)) => {
                block.put_u8(1);
                block.put_i64_le(*integer);
            }
            Field::Value(Value::Real(real)) => {
                block.put_u8(2);
                block.put_u64_le(real.to_bits());
            }
            Field::Value(Value::Text(text)) if text.as_bytes() == key => block.put_u8(5),
            Field::Value(Value::Text(text)) => {
                block.put_u8(3);
                put_bytes(block, text.as_bytes());
            }
            Field::Value(Value::Blob(blob)) => {
                block.put_u8(4);
                put_bytes(block, blob);
            }
        }
    }
    block.split().freeze()
}

/// The most bytes that a field takes.
fn encoded_size(field: &Field) -> usize {
    match field {
        Field::Value(value) => 9 + value.size(),
        Field::Unchanged | Field::Unused => 1,
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}

/// The number of the shape of an image.
pub(super) fn shape_of(image: &Bytes) -> Result<u32> {
    let bytes = image.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The values of the image of the row with this key, in the order of its shape. Text and blobs are slices of the two.
pub(super) fn decode(image: &Bytes, key: &Bytes) -> Result<Vec<Value>> {
    let mut rest = image.slice(image.len().min(4)..);
    let mut values = Vec::new();
    while !rest.is_empty() {
        let tag = take(&mut rest, 1)?[0];
        values.push(match tag {
            0 => Value::Null,
            1 => Value::Integer(i64::from_le_bytes(eight(&mut rest)?)),
            2 => Value::Real(f64::from_bits(u64::from_le_bytes(eight(&mut rest)?))),
            3 => Value::Text(ByteString::try_from(take_bytes(&mut rest)?).map_err(|_| damaged())?),
            4 => Value::Blob(take_bytes(&mut rest)?),
            5 => Value::Text(ByteString::try_from(key.clone()).map_err(|_| damaged())?),
            _ => return Err(damaged()),
        });
    }
    Ok(values)
}

fn take(rest: &mut Bytes, count: usize) -> Result<Bytes> {
    if rest.len() < count {
        return Err(damaged());
    }
    Ok(rest.split_to(count))
}

fn eight(rest: &mut Bytes) -> Result<[u8; 8]> {
    take(rest, 8)?.as_ref().try_into().map_err(|_| damaged())
}

fn take_bytes(rest: &mut Bytes) -> Result<Bytes> {
    let length: [u8; 4] = take(rest, 4)?.as_ref().try_into().map_err(|_| damaged())?;
    take(rest, u32::from_le_bytes(length) as usize)
}

fn damaged() -> Error {
    Error::data("the stored copy of a source row cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            proptest::num::f64::NORMAL.prop_map(Value::Real),
            ".{0,20}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|blob| Value::Blob(blob.into())),
        ]
    }

    proptest! {
        #[test]
        fn images_read_back(values in prop::collection::vec(value(), 0..12), shape: u32, of_key in 0usize..12) {
            let key = match values.get(of_key) {
                Some(Value::Text(text)) => text.as_bytes().clone(),
                _ => Bytes::from_static(b"\xFF"),
            };
            let fields: Vec<Field> = values.iter().cloned().map(Field::Value).collect();
            let image = encode(shape, &key, &fields, &mut BytesMut::new());
            prop_assert_eq!(shape_of(&image).expect("a header"), shape);
            prop_assert_eq!(decode(&image, &key).expect("sound"), values);
        }

        #[test]
        fn damaged_images_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&Bytes::from(bytes), &Bytes::from_static(b"\xFF"));
        }
    }
}
