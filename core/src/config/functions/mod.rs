//! The functions of the language: their names, their numbers of arguments, and what they compute.

mod geometry;
mod json;
mod text;
mod time;

use std::borrow::Cow;

use super::evaluate::{Failure, is_true};
use crate::value::Value;

/// A scalar function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Upper,
    Lower,
    Substring,
    Length,
    Instr,
    Hex,
    Base64,
    Typeof,
    IfNull,
    Iif,
    UuidBlob,
    JsonKeys,
    JsonArrayLength,
    JsonExtract,
    UnixEpoch,
    DateTime,
    StAsGeoJson,
    StAsText,
    StX,
    StY,
    JsonValid,
    LegacyJsonArrayLength,
    LegacyJsonExtract,
}

/// Each function with its name and its smallest and greatest number of arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 20] = [
    ("upper", Function::Upper, 1, 1),
    ("lower", Function::Lower, 1, 1),
    ("substring", Function::Substring, 2, 3),
    ("length", Function::Length, 1, 1),
    ("instr", Function::Instr, 2, 2),
    ("hex", Function::Hex, 1, 1),
    ("base64", Function::Base64, 1, 1),
    ("typeof", Function::Typeof, 1, 1),
    ("ifnull", Function::IfNull, 2, usize::MAX),
    ("iif", Function::Iif, 3, 3),
    ("uuid_blob", Function::UuidBlob, 1, 1),
    ("json_keys", Function::JsonKeys, 1, 1),
    ("json_array_length", Function::JsonArrayLength, 1, 2),
    ("json_extract", Function::JsonExtract, 2, usize::MAX),
    ("unixepoch", Function::UnixEpoch, 1, usize::MAX),
    ("datetime", Function::DateTime, 1, usize::MAX),
    ("st_asgeojson", Function::StAsGeoJson, 1, 1),
    ("st_astext", Function::StAsText, 1, 1),
    ("st_x", Function::StX, 1, 1),
    ("st_y", Function::StY, 1, 1),
];

/// What only bucket definitions and streams of edition 2 have.
const LEGACY_FUNCTIONS: [(&str, Function); 3] = [
    ("json_valid", Function::JsonValid),
    ("legacy json_array_length", Function::LegacyJsonArrayLength),
    ("legacy json_extract", Function::LegacyJsonExtract),
];

impl Function {
    /// The function of this name, with its smallest and greatest number of arguments.
    pub(super) fn find(name: &str) -> Option<(Self, usize, usize)> {
        FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, function, least, most)| (*function, *least, *most))
    }

    /// The function of this name in editions 1 and 2, which check no numbers of arguments; without `fixed_json`, JSON
    /// paths follow the rules of edition 1.
    pub(super) fn find_legacy(name: &str, fixed_json: bool) -> Option<Self> {
        Some(match name {
            "json_valid" => Self::JsonValid,
            "json_array_length" if !fixed_json => Self::LegacyJsonArrayLength,
            "json_extract" if !fixed_json => Self::LegacyJsonExtract,
            other => Self::find(other)?.0,
        })
    }

    /// All names, for "did you mean".
    pub(super) fn names() -> Vec<&'static str> {
        FUNCTIONS.iter().map(|(name, ..)| *name).collect()
    }

    /// Its name, also in canonical forms.
    pub(super) fn name(self) -> &'static str {
        let known = FUNCTIONS.iter().map(|(name, function, ..)| (*name, *function)).chain(LEGACY_FUNCTIONS);
        known.into_iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// Applies it. Missing arguments were refused when the config was compiled; in editions 1 and 2 they are NULL.
    pub(super) fn apply(self, arguments: &[Cow<'_, Value>]) -> Result<Value, Failure> {
        let argument = |index: usize| arguments.get(index).map_or(&Value::Null, |value| &**value);
        let first = argument(0);
        Ok(match self {
            Self::Upper => text::map(first, |text| text.to_uppercase()),
            Self::Lower => text::map(first, |text| text.to_lowercase()),
            Self::Substring => text::substring(first, argument(1), arguments.get(2).map(|length| &**length)),
            Self::Length => text::length(first),
            Self::Instr => text::instr(first, argument(1)),
            Self::Hex => text::hex(first),
            Self::Base64 => text::base64(first),
            Self::Typeof => Value::text(match first {
                Value::Null => "null",
                Value::Integer(_) => "integer",
                Value::Real(_) => "real",
                Value::Text(_) => "text",
                Value::Blob(_) => "blob",
            }),
            Self::IfNull => if first.is_null() { argument(1) } else { first }.clone(),
            Self::Iif => argument(if is_true(first) { 1 } else { 2 }).clone(),
            Self::UuidBlob => text::uuid_blob(first)?,
            Self::JsonKeys => json::keys(first)?,
            Self::JsonArrayLength => json::array_length(first, arguments.get(1).map(|path| &**path))?,
            Self::JsonExtract => json::extract(first, argument(1))?,
            Self::JsonValid => json::valid(first),
            Self::LegacyJsonArrayLength => json::legacy_array_length(first, arguments.get(1).map(|path| &**path))?,
            Self::LegacyJsonExtract => json::legacy_extract(first, argument(1))?,
            Self::UnixEpoch => time::unixepoch(first, arguments.get(1..).unwrap_or_default()),
            Self::DateTime => time::datetime(first, arguments.get(1..).unwrap_or_default()),
            Self::StAsGeoJson => geometry::as_geojson(first)?,
            Self::StAsText => geometry::as_text(first)?,
            Self::StX => geometry::coordinate(first, 0)?,
            Self::StY => geometry::coordinate(first, 1)?,
        })
    }
}

/// `->`: what stands under the key, as JSON text.
pub(super) fn arrow(json: &Value, key: &Value) -> Result<Value, Failure> {
    json::arrow(json, key)
}

/// `->>`: what stands under the key, as a value.
pub(super) fn arrow_text(json: &Value, key: &Value) -> Result<Value, Failure> {
    json::arrow_text(json, key)
}

/// `->` by the rules of edition 1.
pub(super) fn legacy_arrow(json: &Value, key: &Value) -> Result<Value, Failure> {
    json::legacy_arrow(json, key)
}

/// `->>` by the rules of edition 1.
pub(super) fn legacy_arrow_text(json: &Value, key: &Value) -> Result<Value, Failure> {
    json::legacy_arrow_text(json, key)
}
