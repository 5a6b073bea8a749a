//! Values as a sync config sees them: SQLite's five types.

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::Value as Json;

/// One column of a row. Booleans are integers, nested values are JSON text.
///
/// Text and blobs are slices of the buffer in which they arrived; cloning a value copies no bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// SQL NULL.
    #[default]
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// UTF-8 text.
    Text(ByteString),
    /// Bytes. They never reach a client: see `sync-config.md` on `base64` and `hex`.
    Blob(Bytes),
}

impl Value {
    /// A text value of a static string.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Self::Text(text.into())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What a source in memory makes of a JSON value: nested ones become their text.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Integer(i64::from(*truth)),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => number.as_f64().map_or(Self::Null, Self::Real),
            },
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(_) | Json::Object(_) => Self::from(json.to_string()),
        }
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Bytes that this value holds outside the enum itself, for limits.
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 0,
            Self::Text(text) => text.len(),
            Self::Blob(blob) => blob.len(),
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}
