//! JSON as the language sees it: keys in their order, integers exact, and its two readings as values.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::evaluate::Failure;
use crate::json;
use crate::value::Value;

/// Integers beyond this are not exact as doubles.
const EXACT: u128 = 1 << 53;

/// JSON whose objects keep the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonTree {
    Null,
    Bool(bool),
    Integer(i128),
    Real(f64),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// How numbers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Integers stay integers.
    Exact,
    /// Every number is a real, as requests and `json_each` read them. Integers that a double cannot hold stay exact, so
    /// that no two of them ever become one.
    Doubles,
}

impl JsonTree {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::new("bad-json", format!("not valid JSON: {error}")))
    }

    /// As an SQL value: true as 1, arrays and objects as JSON text.
    pub(super) fn value(&self, numbers: Numbers) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Integer(i64::from(*truth)),
            Self::Integer(integer) => {
                let exact = numbers == Numbers::Exact || integer.unsigned_abs() > EXACT;
                match i64::try_from(*integer) {
                    Ok(small) if exact => Value::Integer(small),
                    _ => Value::Real(*integer as f64),
                }
            }
            Self::Real(real) => Value::Real(*real),
            Self::Text(text) => Value::text(text.as_str()),
            Self::Array(_) | Self::Object(_) => Value::text(self.text(numbers)),
        }
    }

    /// As JSON text without blanks.
    pub(super) fn text(&self, numbers: Numbers) -> String {
        let mut out = Vec::new();
        self.write(&mut out, numbers);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn write(&self, out: &mut Vec<u8>, numbers: Numbers) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
            Self::Integer(integer) if numbers == Numbers::Exact => {
                out.extend_from_slice(integer.to_string().as_bytes())
            }
            Self::Integer(_) => json::write_value(out, &self.value(numbers)),
            Self::Real(real) => json::write_real(out, *real),
            Self::Text(text) => json::write_string(out, text),
            Self::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    element.write(out, numbers);
                }
                out.push(b']');
            }
            Self::Object(entries) => {
                out.push(b'{');
                for (index, (key, element)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json::write_string(out, key);
                    out.push(b':');
                    element.write(out, numbers);
                }
                out.push(b'}');
            }
        }
    }

    /// What stands under a key of an object or an index of an array. A text has its UTF-16 units, as in the official
    /// evaluator.
    pub(super) fn step(&self, key: &str) -> Option<Self> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, found)| found.clone()),
            Self::Array(elements) => elements.get(index(key)?).cloned(),
            Self::Text(text) => {
                let unit = text.encode_utf16().nth(index(key)?)?;
                Some(Self::Text(String::from_utf16_lossy(&[unit])))
            }
            _ => None,
        }
    }

    /// What stands under a path: one key, dots included, or `$` and keys after dots.
    pub(super) fn at(self, path: &str) -> Option<Self> {
        if path.starts_with('$') {
            path.split('.').skip(1).try_fold(self, |found, key| found.step(key))
        } else {
            self.step(path)
        }
    }
}

/// The index that a key of an array is, spelled in the one way that counts.
pub(super) fn index(key: &str) -> Option<usize> {
    let canonical = key == "0" || (key.bytes().all(|byte| byte.is_ascii_digit()) && !key.starts_with('0'));
    if canonical { key.parse().ok() } else { None }
}

/// The elements of the JSON array that `array` holds as text, for `x IN json` as a value.
pub(super) fn elements(array: &Value) -> Result<Vec<Value>, Failure> {
    let Value::Text(text) = array else {
        return Err(Failure::new("not-an-array", "a JSON array is expected, and this is not a text"));
    };
    match JsonTree::parse(text)? {
        JsonTree::Array(elements) => Ok(elements.iter().map(|element| element.value(Numbers::Exact)).collect()),
        _ => Err(Failure::new("not-an-array", "a JSON array is expected, and this is other JSON")),
    }
}

/// The rows of `json_each`: elements of an array, values of an object, and other JSON by itself; none for NULL.
pub(super) fn each(json: &Value) -> Result<Vec<Value>, Failure> {
    let text = match json {
        Value::Null => return Ok(Vec::new()),
        Value::Text(text) => text,
        _ => return Err(Failure::new("bad-json", "a JSON array is expected, and this is not a text")),
    };
    Ok(match JsonTree::parse(text)? {
        JsonTree::Array(elements) => elements.iter().map(|element| element.value(Numbers::Doubles)).collect(),
        JsonTree::Object(entries) => entries.iter().map(|(_, element)| element.value(Numbers::Doubles)).collect(),
        other => vec![other.value(Numbers::Doubles)],
    })
}

/// The rows of `json_each` with their keys: indexes of an array, names of an object, NULL for other JSON.
pub(super) fn each_rows(json: &Value) -> Result<Vec<(Value, Value)>, Failure> {
    let text = match json {
        Value::Null => return Ok(Vec::new()),
        Value::Text(text) => text,
        _ => return Err(Failure::new("bad-json", "a JSON array is expected, and this is not a text")),
    };
    Ok(match JsonTree::parse(text)? {
        JsonTree::Array(elements) => {
            let index = |index: usize| Value::Integer(i64::try_from(index).unwrap_or(i64::MAX));
            let rows = elements.iter().enumerate();
            rows.map(|(at, element)| (index(at), element.value(Numbers::Doubles))).collect()
        }
        JsonTree::Object(entries) => {
            entries.iter().map(|(key, element)| (Value::text(key.as_str()), element.value(Numbers::Doubles))).collect()
        }
        other => vec![(Value::Null, other.value(Numbers::Doubles))],
    })
}

impl From<&Json> for JsonTree {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Self::Integer(integer.into()),
                (None, Some(integer)) => Self::Integer(integer.into()),
                (None, None) => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            Json::Object(entries) => {
                Self::Object(entries.iter().map(|(key, element)| (key.clone(), element.into())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for JsonTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = JsonTree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<JsonTree, E> {
        Ok(JsonTree::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<JsonTree, E> {
        Ok(JsonTree::Bool(truth))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<JsonTree, E> {
        Ok(JsonTree::Integer(integer.into()))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<JsonTree, E> {
        Ok(JsonTree::Integer(integer.into()))
    }

    fn visit_f64<E>(self, real: f64) -> Result<JsonTree, E> {
        Ok(JsonTree::Real(real))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonTree, E> {
        Ok(JsonTree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<JsonTree, E> {
        Ok(JsonTree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<JsonTree, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(JsonTree::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<JsonTree, A::Error> {
        let mut entries: Vec<(String, JsonTree)> = Vec::new();
        let mut places = std::collections::BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, JsonTree>()? {
            match places.get(&key) {
                Some(&place) => {
                    let (_, earlier): &(String, JsonTree) = &entries[place];
                    if *earlier != value {
                        return Err(A::Error::custom(format!("the key `{key}` has two values")));
                    }
                }
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(JsonTree::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn order_and_integers_survive() {
        let text = r#"{"b":[1,12345678901234567890,1.0,1e2],"a":null,"b2":{"x":"é"}}"#;
        let tree = JsonTree::parse(text).unwrap();
        let expected = r#"{"b":[1,12345678901234567890,1.0,100.0],"a":null,"b2":{"x":"é"}}"#;
        assert_eq!(tree.text(Numbers::Exact), expected);
        assert_eq!(tree.clone().at("$.b.2").unwrap().value(Numbers::Exact), Value::Real(1.0));
        assert_eq!(tree.clone().at("b.2"), None);
        assert_eq!(tree.at("$.b.02"), None);
    }

    #[test]
    fn doubles_never_make_two_integers_one() {
        let each = each(&Value::text("[1, 9007199254740993, 9007199254740992]")).unwrap();
        let large = Value::Integer(9_007_199_254_740_993);
        assert_eq!(each, [Value::Real(1.0), large, Value::Real(9_007_199_254_740_992.0)]);
    }

    #[test]
    fn a_key_with_two_values_is_an_error() {
        assert!(JsonTree::parse(r#"{"a":1,"a":1}"#).is_ok());
        assert_eq!(JsonTree::parse(r#"{"a":1,"a":2}"#).unwrap_err().kind, "bad-json");
    }
}
