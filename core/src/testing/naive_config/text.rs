//! How values are written, and the functions over texts and JSON.

use super::interpreter::{Stop, under};
use super::json::{Json, Numbers};
use super::scalar;
use crate::value::Value;

/// A real as JavaScript writes it: `1`, `0.1`, `1e+21`, `1e-7`.
pub(super) fn real_text(real: f64) -> String {
    if real.is_nan() {
        return "NaN".into();
    }
    if real.is_infinite() {
        return if real < 0.0 { "-Infinity" } else { "Infinity" }.into();
    }
    if real == 0.0 {
        return "0".into();
    }
    let magnitude = real.abs();
    let sign = if real < 0.0 { "-" } else { "" };
    if !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{magnitude:e}");
        return sign.to_owned() + &if magnitude < 1.0 { text } else { text.replace('e', "e+") };
    }
    // Rust's plain form has the same digits, and zeros where they end before the point.
    format!("{sign}{magnitude}")
}

/// A value in the data of a row.
pub(super) fn json_value(value: &Value) -> String {
    match value {
        Value::Null | Value::Blob(_) => "null".into(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) if !real.is_finite() => "null".into(),
        Value::Real(real) => {
            let text = real_text(*real);
            if text.contains(['.', 'e']) { text } else { text + ".0" }
        }
        Value::Text(text) => json_string(text),
    }
}

/// A JSON string with as few escapes as there can be.
pub(super) fn json_string(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Applies a function; the number of its arguments was checked by the engine.
pub(super) fn function(name: &str, arguments: &[Value]) -> Result<Value, Stop> {
    let first = arguments.first().cloned().unwrap_or_default();
    let second = arguments.get(1).cloned().unwrap_or_default();
    let text = scalar::text(&first);
    Ok(match name {
        "upper" => text.map_or(Value::Null, |text| Value::text(text.to_uppercase())),
        "lower" => text.map_or(Value::Null, |text| Value::text(text.to_lowercase())),
        "length" => match first {
            Value::Blob(bytes) => Value::Integer(bytes.len() as i64),
            _ => text.map_or(Value::Null, |text| Value::Integer(text.encode_utf16().count() as i64)),
        },
        "substring" => match (text, scalar::cast(&second, "integer")?, arguments.get(2)) {
            (Some(text), Value::Integer(start), None) => Value::text(substring(&text, start, None)),
            (Some(text), Value::Integer(start), Some(length)) => match scalar::cast(length, "integer")? {
                Value::Integer(length) => Value::text(substring(&text, start, Some(length))),
                _ => Value::Null,
            },
            _ => Value::Null,
        },
        "instr" => match (&first, &second, text, scalar::text(&second)) {
            (Value::Blob(hay), Value::Blob(needle), ..) => position(hay, needle),
            (_, _, Some(hay), Some(needle)) => {
                let units = |text: String| text.encode_utf16().collect::<Vec<_>>();
                position(&units(hay), &units(needle))
            }
            _ => Value::Null,
        },
        "hex" => Value::text(bytes(&first).iter().map(|byte| format!("{byte:02X}")).collect::<String>()),
        "base64" => Value::text(base64(&bytes(&first))),
        "json_valid" => Value::Integer(i64::from(text.is_some_and(|text| Json::parse(&text).is_some()))),
        "typeof" => Value::text(match first {
            Value::Null => "null",
            Value::Integer(_) => "integer",
            Value::Real(_) => "real",
            Value::Text(_) => "text",
            Value::Blob(_) => "blob",
        }),
        "ifnull" => {
            if first == Value::Null {
                second
            } else {
                first
            }
        }
        "iif" => {
            if scalar::is_true(&first) {
                second
            } else {
                arguments.get(2).cloned().unwrap_or_default()
            }
        }
        "json_keys" => match text {
            None => Value::Null,
            Some(text) => match Json::parse(&text) {
                Some(Json::Object(mut members)) => {
                    // Those that are array indexes come first, in their order.
                    let index = |key: &str| key.parse::<u32>().ok().filter(|index| index.to_string() == *key);
                    members.sort_by_key(|(key, _)| index(key).map_or((true, 0), |index| (false, index)));
                    let keys: Vec<_> = members.iter().map(|(key, _)| json_string(key)).collect();
                    Value::text(format!("[{}]", keys.join(",")))
                }
                _ => return Err(Stop::Error),
            },
        },
        "json_array_length" => {
            let found = match (&text, arguments.len()) {
                (None, _) => None,
                (Some(text), 1) => Some(Json::parse(text).ok_or(Stop::Error)?),
                _ => under(&first, &second)?,
            };
            match found {
                None => Value::Null,
                Some(Json::Array(elements)) => Value::Integer(elements.len() as i64),
                Some(_) => Value::Integer(0),
            }
        }
        "json_extract" => match (text, scalar::text(&second)) {
            (None, _) => Value::Null,
            (Some(_), Some(path)) if path.starts_with('$') => {
                under(&first, &second)?.map_or(Value::Null, |found| found.value(Numbers::Exact))
            }
            _ => return Err(Stop::Error),
        },
        other => return Err(Stop::Unknown(format!("the function {other}"))),
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
            out.push(if place <= group.len() { digit } else { '=' });
        }
    }
    out
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Blob(bytes) => bytes.to_vec(),
        other => scalar::text(other).unwrap_or_default().into_bytes(),
    }
}

fn position<T: PartialEq>(hay: &[T], needle: &[T]) -> Value {
    let at = (0..=hay.len()).find(|at| hay[*at..].starts_with(needle));
    Value::Integer(at.map_or(0, |at| at as i64 + 1))
}

/// The units whose places are asked for: `length` of them from `start`, or as many before it if it is negative.
fn substring(text: &str, start: i64, length: Option<i64>) -> String {
    let units: Vec<u16> = text.encode_utf16().collect();
    let count = units.len() as i128;
    let mut length = length.map_or(i128::from(i64::MAX), i128::from);
    let first = match start {
        0 => {
            // The place before the first is counted, and empty.
            length -= i128::from(length > 0);
            0
        }
        1.. => i128::from(start) - 1,
        _ => (count + i128::from(start)).max(0),
    };
    let (from, to) = if length < 0 { (first + length, first) } else { (first, first + length) };
    let taken: Vec<u16> =
        (units.iter().zip(0..)).filter(|(_, place)| (from..to).contains(place)).map(|(unit, _)| *unit).collect();
    String::from_utf16_lossy(&taken)
}
