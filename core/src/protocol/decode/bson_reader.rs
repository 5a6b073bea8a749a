//! A reader of BSON: it borrows, checks every bound, and steps over what it is not asked for without recursion.

use crate::error::{Error, Result};

/// The shortest document: its length and its end.
pub(super) const SHORTEST: usize = 5;

/// A document or an array.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    elements: &'a [u8],
}

/// A value, as far as lines have such.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Double(f64),
    Text(&'a [u8]),
    Document(Document<'a>),
    Array(Document<'a>),
    Boolean(bool),
    Null,
    Int32(i32),
    Int64(i64),
    Other,
}

impl<'a> Document<'a> {
    /// The document that these bytes are, all of them.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut rest = bytes;
        let document = Self::take(&mut rest)?;
        if rest.is_empty() { Ok(document) } else { Err(damaged("bytes after a document")) }
    }

    fn take(rest: &mut &'a [u8]) -> Result<Self> {
        let length = length(rest.first_chunk::<4>().ok_or_else(cut)?)?;
        let document = take(rest, length)?;
        match document {
            [_, _, _, _, elements @ .., 0] => Ok(Self { elements }),
            _ => Err(damaged("a document without its end")),
        }
    }

    fn element(&mut self) -> Result<(&'a [u8], Value<'a>)> {
        let rest = &mut self.elements;
        let kind = take(rest, 1)?[0];
        let key = take_until_zero(rest)?;
        let value = match kind {
            0x01 => Value::Double(f64::from_le_bytes(take_array(rest)?)),
            0x02 => Value::Text(take_text(rest)?),
            0x03 => Value::Document(Self::take(rest)?),
            0x04 => Value::Array(Self::take(rest)?),
            0x08 => Value::Boolean(take_array::<1>(rest)? != [0]),
            0x0a => Value::Null,
            0x10 => Value::Int32(i32::from_le_bytes(take_array(rest)?)),
            0x12 => Value::Int64(i64::from_le_bytes(take_array(rest)?)),
            _ => {
                skip(rest, kind)?;
                Value::Other
            }
        };
        Ok((key, value))
    }
}

impl<'a> Iterator for Document<'a> {
    type Item = Result<(&'a [u8], Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.elements.is_empty() {
            return None;
        }
        let element = self.element();
        if element.is_err() {
            self.elements = &[];
        }
        Some(element)
    }
}

/// Steps over a value of a type that no line has.
fn skip(rest: &mut &[u8], kind: u8) -> Result<()> {
    match kind {
        // Binary: length, subtype, bytes.
        0x05 => {
            let length = usize::try_from(i32::from_le_bytes(take_array(rest)?)).map_err(|_| cut())?;
            take(rest, 1)?;
            take(rest, length)?;
        }
        // Undefined, the smallest and the largest key.
        0x06 | 0x7f | 0xff => {}
        // Object id.
        0x07 => {
            take(rest, 12)?;
        }
        // Date, timestamp.
        0x09 | 0x11 => {
            take(rest, 8)?;
        }
        // Regular expression.
        0x0b => {
            take_until_zero(rest)?;
            take_until_zero(rest)?;
        }
        // Pointer: a name and an object id.
        0x0c => {
            take_text(rest)?;
            take(rest, 12)?;
        }
        // Code, symbol.
        0x0d | 0x0e => {
            take_text(rest)?;
        }
        // Code with a scope: its whole length comes first.
        0x0f => {
            let length = length(rest.first_chunk::<4>().ok_or_else(cut)?)?;
            take(rest, length)?;
        }
        // Decimal.
        0x13 => {
            take(rest, 16)?;
        }
        _ => return Err(damaged("a type that does not exist")),
    }
    Ok(())
}

fn length(bytes: &[u8; 4]) -> Result<usize> {
    usize::try_from(i32::from_le_bytes(*bytes))
        .ok()
        .filter(|length| *length >= SHORTEST)
        .ok_or_else(|| damaged("an impossible length"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, others) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = others;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, others) = rest.split_first_chunk::<N>().ok_or_else(cut)?;
    *rest = others;
    Ok(*taken)
}

fn take_until_zero<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(cut)?;
    let text = take(rest, end)?;
    take(rest, 1)?;
    Ok(text)
}

/// A string: its length with the zero at its end.
fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(i32::from_le_bytes(take_array(rest)?)).map_err(|_| cut())?;
    match take(rest, length)? {
        [text @ .., 0] => Ok(text),
        _ => Err(damaged("a string without its end")),
    }
}

fn cut() -> Error {
    damaged("a value reaches beyond its document")
}

fn damaged(what: &str) -> Error {
    Error::protocol(format!("a document of the stream is damaged: {what}"))
}
