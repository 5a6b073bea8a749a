//! Functions over texts and blobs. Text is counted in UTF-16 units, as in the official evaluator.

use super::super::cast;
use super::super::evaluate::Failure;
use crate::value::Value;

pub(super) fn map(value: &Value, change: impl Fn(&str) -> String) -> Value {
    cast::text(value).map_or(Value::Null, |text| Value::text(change(&text)))
}

/// The rules of SQLite's `substr`: from 1; a negative start counts from the end; 0 is one before the first; a negative
/// length takes what stands before the start.
pub(super) fn substring(value: &Value, start: &Value, length: Option<&Value>) -> Value {
    let Some(text) = cast::text(value) else { return Value::Null };
    let Value::Integer(start) = cast::to_integer(start) else { return Value::Null };
    let length = match length.map(cast::to_integer) {
        None => i64::MAX,
        Some(Value::Integer(length)) => length,
        Some(_) => return Value::Null,
    };
    let units: Vec<u16> = text.encode_utf16().collect();
    let count = units.len() as i64;
    let (mut from, mut length) = (start, length);
    if from < 0 {
        from = from.saturating_add(count).max(0);
    } else if from > 0 {
        from -= 1;
    } else if length > 0 {
        length -= 1;
    }
    let (from, to) = if length < 0 { (from.saturating_add(length), from) } else { (from, from.saturating_add(length)) };
    let (from, to) = (from.clamp(0, count) as usize, to.clamp(0, count) as usize);
    Value::text(String::from_utf16_lossy(&units[from..to.max(from)]))
}

pub(super) fn length(value: &Value) -> Value {
    match value {
        Value::Blob(blob) => Value::Integer(blob.len() as i64),
        other => cast::text(other).map_or(Value::Null, |text| Value::Integer(text.encode_utf16().count() as i64)),
    }
}

/// The position of `needle` in `hay`, from 1; 0 if it is not there.
pub(super) fn instr(hay: &Value, needle: &Value) -> Value {
    if let (Value::Blob(hay), Value::Blob(needle)) = (hay, needle) {
        let at = if needle.is_empty() { Some(0) } else { hay.windows(needle.len()).position(|part| part == needle) };
        return Value::Integer(at.map_or(0, |at| at as i64 + 1));
    }
    let (Some(hay), Some(needle)) = (cast::text(hay), cast::text(needle)) else { return Value::Null };
    let at = hay.find(&*needle).map(|at| hay[..at].encode_utf16().count());
    Value::Integer(at.map_or(0, |at| at as i64 + 1))
}

/// The bytes of a blob, or of the UTF-8 of a text; none for NULL.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Blob(blob) => blob.to_vec(),
        other => cast::text(other).map_or_else(Vec::new, |text| text.into_owned().into_bytes()),
    }
}

pub(super) fn hex(value: &Value) -> Value {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |index: u8| char::from(DIGITS[usize::from(index)]);
    Value::text(bytes(value).into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect::<String>())
}

/// Standard base64 with padding.
pub(super) fn base64(value: &Value) -> Value {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = bytes(value);
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(if place <= group.len() as u32 { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    Value::text(text)
}

/// The 16 bytes of a UUID in its canonical spelling, of a known version and variant.
pub(super) fn uuid_blob(value: &Value) -> Result<Value, Failure> {
    let Some(text) = cast::text(value) else { return Ok(Value::Null) };
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let uuid = if shaped { uuid::Uuid::parse_str(&text).ok() } else { None };
    let known = uuid.filter(|uuid| {
        uuid.is_nil() || uuid.is_max() || (matches!(bytes[14], b'1'..=b'8') && b"89abAB".contains(&bytes[19]))
    });
    match known {
        Some(uuid) => Ok(Value::Blob(uuid.as_bytes().to_vec().into())),
        None => Err(Failure::new("not-a-uuid", "this is not a UUID with hyphens")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substring_follows_sqlite() {
        let of = |text: &str, start: i64, length: Option<i64>| {
            substring(&text.into(), &start.into(), length.map(Value::Integer).as_ref())
        };
        assert_eq!(of("abc", 2, None), "bc".into());
        assert_eq!(of("abc", 0, Some(2)), "a".into());
        assert_eq!(of("abc", -2, None), "bc".into());
        assert_eq!(of("abc", 3, Some(-2)), "ab".into());
        assert_eq!(of("abc", i64::MIN, Some(i64::MAX)), "abc".into());
        assert_eq!(of("abc", i64::MAX, Some(i64::MIN)), "abc".into());
        assert_eq!(of("abc", 9, Some(1)), "".into());
        assert_eq!(substring(&"abc".into(), &Value::Null, None), Value::Null);
    }

    #[test]
    fn base64_is_padded() {
        for (text, encoded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")] {
            assert_eq!(base64(&text.into()), encoded.into());
        }
        assert_eq!(base64(&Value::Null), "".into());
    }
}
