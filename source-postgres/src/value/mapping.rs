//! How the text of one type becomes a value.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::IgnoredAny;
use syncline_core::{Value, json};

use super::nested;
use super::time::{self, Stamp, TimeForm};
use crate::pgoutput::DecodeError;

/// How deep arrays and composites may be nested.
pub(super) const MAX_DEPTH: usize = 32;

/// How the text of one type becomes a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// As sent: text, numbers of any precision, enums, and all that has no better form.
    Text,
    Boolean,
    Integer,
    Real,
    Bytes,
    /// Verbatim; inside other values it is embedded.
    Json,
    Date,
    Time(TimeForm),
    Timestamp(TimeForm),
    TimestampTz(TimeForm),
    /// A position in the log, both halves padded.
    Lsn,
    Array {
        element: Arc<Self>,
        delimiter: u8,
    },
    /// Names and mappings of its members.
    Composite(Arc<[(String, Self)]>),
    Range(Arc<Self>),
    Multirange(Arc<Self>),
}

impl Mapping {
    /// The value of a text. What does not parse stays text, as it was sent.
    ///
    /// # Errors
    /// If it is not UTF-8, which a database in the encoding SQL_ASCII can send.
    pub(crate) fn value(&self, bytes: Bytes) -> Result<Value, DecodeError> {
        // Types whose text is ASCII or is looked at as bytes need no check of all of it.
        match self {
            Self::Bytes => {
                if let Some(blob) = hex(&bytes) {
                    return Ok(Value::Blob(blob));
                }
            }
            Self::Boolean => match bytes.as_ref() {
                b"t" => return Ok(Value::Integer(1)),
                b"f" => return Ok(Value::Integer(0)),
                _ => {}
            },
            _ => {}
        }
        let text = ByteString::try_from(bytes).map_err(|_| DecodeError::NotUtf8("a value"))?;
        let changed = match self {
            Self::Text | Self::Json | Self::Bytes | Self::Boolean => None,
            Self::Integer => text.parse().ok().map(Value::Integer),
            Self::Real => real(&text).map(Value::Real),
            Self::Date => time::date(&text).map(Value::from),
            Self::Time(form) => time::clock_text(&text, *form).map(Value::from),
            Self::Timestamp(form) => stamp(time::timestamp(&text, *form)),
            Self::TimestampTz(form) => stamp(time::timestamptz(&text, *form)),
            Self::Lsn => padded_lsn(&text).map(Value::from),
            Self::Array { .. } | Self::Composite(_) | Self::Multirange(_) => self.nested(&text),
            Self::Range(_) if &*text == "empty" => None,
            Self::Range(_) => self.nested(&text),
        };
        Ok(changed.unwrap_or(Value::Text(text)))
    }

    fn nested(&self, text: &str) -> Option<Value> {
        let mut out = Vec::with_capacity(text.len() + text.len() / 4);
        self.write_json(text, &mut out, MAX_DEPTH)?;
        String::from_utf8(out).ok().map(Value::from)
    }

    /// Writes a text as it stands inside other values; `None` if it does not parse.
    pub(super) fn write_json(&self, text: &str, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self {
            Self::Text => json::write_string(out, text),
            Self::Bytes => out.extend_from_slice(b"null"),
            // Postgres sends nothing else, but the JSON around it is no better than what it takes on trust.
            Self::Json => {
                serde_json::from_str::<IgnoredAny>(text).ok()?;
                out.extend_from_slice(text.as_bytes());
            }
            Self::Boolean => match text {
                "t" => out.push(b'1'),
                "f" => out.push(b'0'),
                _ => return None,
            },
            Self::Integer => json::write_integer(out, text.parse().ok()?),
            Self::Real => json::write_real(out, real(text)?),
            Self::Date => json::write_string(out, time::date(text).as_deref().unwrap_or(text)),
            Self::Time(form) => json::write_string(out, time::clock_text(text, *form).as_deref().unwrap_or(text)),
            Self::Timestamp(form) => {
                json::write_value(out, &stamp(time::timestamp(text, *form)).unwrap_or_else(|| text.into()));
            }
            Self::TimestampTz(form) => {
                json::write_value(out, &stamp(time::timestamptz(text, *form)).unwrap_or_else(|| text.into()));
            }
            Self::Lsn => json::write_string(out, padded_lsn(text).as_deref().unwrap_or(text)),
            Self::Array { element, delimiter } => nested::write_array(element, *delimiter, text, out, depth)?,
            Self::Composite(members) => nested::write_composite(members, text, out, depth)?,
            Self::Range(bound) => nested::write_range(bound, text, out, depth)?,
            Self::Multirange(bound) => nested::write_multirange(bound, text, out, depth)?,
        }
        Some(())
    }
}

fn stamp(stamp: Stamp) -> Option<Value> {
    match stamp {
        Stamp::Text(text) => Some(text.into()),
        Stamp::Null => Some(Value::Null),
        Stamp::Unknown => None,
    }
}

/// Rust would also take words that Postgres never sends.
fn real(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if text.bytes().any(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn padded_lsn(text: &str) -> Option<String> {
    let lsn: crate::lsn::Lsn = text.parse().ok()?;
    Some(format!("{:08X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF))
}

/// The bytes of `\x0aff`.
fn hex(text: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = text.strip_prefix(b"\\x")?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.map(Bytes::from)
}
