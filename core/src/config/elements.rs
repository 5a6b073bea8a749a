//! Elements of JSON texts as values, for `IN` and for keys with several values.

use serde_json::Value as Json;

use super::evaluate::Failure;
use crate::json;
use crate::value::Value;

/// Integers beyond this are not exact as doubles.
const EXACT: u64 = 1 << 53;

/// The elements of the JSON array that `array` holds as text.
pub(super) fn of(array: &Value) -> Result<Vec<Value>, Failure> {
    let Value::Text(text) = array else {
        return Err(Failure::new("not-an-array", "a JSON array is expected, and this is not a text"));
    };
    match serde_json::from_str(text) {
        Ok(Json::Array(elements)) => Ok(elements.iter().map(value).collect()),
        Ok(_) => Err(Failure::new("not-an-array", "a JSON array is expected, and this is other JSON")),
        Err(error) => Err(Failure::new("bad-json", format!("a JSON array is expected: {error}"))),
    }
}

/// The rows of `json_each`: elements of an array, values of an object, and other JSON by itself; none for NULL.
pub(super) fn each(json: &Value) -> Result<Vec<Value>, Failure> {
    let text = match json {
        Value::Null => return Ok(Vec::new()),
        Value::Text(text) => text,
        _ => return Err(Failure::new("bad-json", "a JSON array is expected, and this is not a text")),
    };
    match serde_json::from_str(text) {
        Ok(Json::Array(elements)) => Ok(elements.iter().map(value).collect()),
        Ok(Json::Object(entries)) => Ok(entries.values().map(value).collect()),
        Ok(other) => Ok(vec![value(&other)]),
        Err(error) => Err(Failure::new("bad-json", format!("a JSON array is expected: {error}"))),
    }
}

/// A JSON value as an SQL value: true as 1, arrays and objects as JSON text.
///
/// Integers are reals, as requests and array elements are read as doubles; those that a double cannot hold stay exact.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Integer(i64::from(*truth)),
        Json::Number(number) => match number.as_i64() {
            Some(integer) if integer.unsigned_abs() > EXACT => Value::Integer(integer),
            _ => Value::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(_) | Json::Object(_) => {
            let mut out = Vec::new();
            write(&mut out, json);
            Value::text(String::from_utf8_lossy(&out).into_owned())
        }
    }
}

/// Appends JSON text without blanks, numbers as [`value`] reads them.
fn write(out: &mut Vec<u8>, value: &Json) {
    match value {
        Json::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Json::Null | Json::Number(_) | Json::String(_) => json::write_value(out, &self::value(value)),
        Json::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, element);
            }
            out.push(b']');
        }
        Json::Object(entries) => {
            out.push(b'{');
            for (index, (key, element)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json::write_string(out, key);
                out.push(b':');
                write(out, element);
            }
            out.push(b'}');
        }
    }
}
