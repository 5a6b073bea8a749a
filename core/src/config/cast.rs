//! Casts between the types of values.

use std::borrow::Cow;

use bytestring::ByteString;

use crate::json;
use crate::value::Value;

/// As text: reals in JavaScript's shortest form (`1.0` is `1`), blobs as UTF-8. `None` for NULL.
pub(super) fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::Integer(integer) => Some(integer.to_string().into()),
        Value::Real(real) => Some(json::shortest_real(*real).into()),
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Blob(blob) => Some(String::from_utf8_lossy(blob)),
    }
}

/// [`text`] as a value; a text is not copied.
pub(super) fn to_text(value: &Value) -> Value {
    match value {
        Value::Null | Value::Text(_) => value.clone(),
        other => text(other).map_or(Value::Null, |text| Value::Text(ByteString::from(text.into_owned()))),
    }
}

/// As integer: leading digits of a text, the floor of a real.
pub(super) fn to_integer(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Integer(integer) => Value::Integer(*integer),
        // Saturates where the official evaluator grows beyond 64 bits.
        Value::Real(real) => Value::Integer(real.floor() as i64),
        Value::Text(_) | Value::Blob(_) => Value::Integer(text(value).map_or(0, |text| leading_integer(&text))),
    }
}

/// As real: the leading number of a text.
pub(super) fn to_real(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Integer(integer) => Value::Real(*integer as f64),
        Value::Real(real) => Value::Real(*real),
        Value::Text(_) | Value::Blob(_) => Value::Real(text(value).map_or(0.0, |text| leading_real(&text).0)),
    }
}

/// As a number: a text with a fraction or an exponent as real, other texts as integer, numbers unchanged.
pub(super) fn to_numeric(value: &Value) -> Value {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => value.clone(),
        Value::Text(_) | Value::Blob(_) => {
            let text = text(value).unwrap_or_default();
            match leading_real(&text) {
                (real, true) => Value::Real(real),
                _ => Value::Integer(leading_integer(&text)),
            }
        }
    }
}

/// As blob: the UTF-8 of the text.
pub(super) fn to_blob(value: &Value) -> Value {
    match value {
        Value::Null | Value::Blob(_) => value.clone(),
        Value::Text(text) => Value::Blob(text.as_bytes().clone()),
        other => text(other).map_or(Value::Null, |text| Value::Blob(text.into_owned().into_bytes().into())),
    }
}

fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = (digits.bytes().take_while(u8::is_ascii_digit))
        .fold(0i128, |value, digit| (value * 10 + i128::from(digit - b'0')).min(i128::from(i64::MAX) + 1));
    let value = if negative { -magnitude } else { magnitude };
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// The number that a text begins with, and whether it has a fraction or an exponent.
fn leading_real(text: &str) -> (f64, bool) {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut real = false;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if whole + fraction > 0 {
            real = fraction > 0;
            end += 1 + fraction;
        }
    }
    if end == sign {
        return (0.0, false);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            real = true;
            end += 1 + sign + exponent;
        }
    }
    (text[..end].parse().unwrap_or(0.0), real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_start_of_texts() {
        for (text, number) in [
            ("3.9abc", Value::Real(3.9)),
            (" 7 ", Value::Integer(7)),
            ("7e1", Value::Real(70.0)),
            ("7e", Value::Integer(7)),
            ("-.5", Value::Real(-0.5)),
            (".", Value::Integer(0)),
            ("1.", Value::Integer(1)),
            ("-", Value::Integer(0)),
            ("99999999999999999999", Value::Integer(i64::MAX)),
            ("-99999999999999999999", Value::Integer(i64::MIN)),
        ] {
            assert_eq!(to_numeric(&Value::text(text)), number, "{text:?}");
        }
        assert_eq!(to_integer(&Value::Real(-2.5)), Value::Integer(-3));
        assert_eq!(to_integer(&Value::Real(1e300)), Value::Integer(i64::MAX));
    }
}
