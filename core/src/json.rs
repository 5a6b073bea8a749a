//! JSON text as the protocol needs it: integers exact, reals recognisable, text minimally escaped.
//!
//! `serde_json` reads; this module writes, because a real must stay one (`1.0`, never `1`) in row data, while the same
//! number is written `1` in the parameters of a bucket name. Forms: `sync-rules.md` section 10 of the reference.

use crate::value::Value;

/// Appends `text` as a JSON string, escaping only what JSON demands.
///
/// Rows are full of quotes a few bytes apart. So eight bytes are looked at and copied at once, and what was copied beyond
/// the first special one is taken back: measured, up to twice as fast as copying run by run.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + rest.len() / 4 + 16);
    out.push(b'"');
    while let Some((word, others)) = rest.split_first_chunk::<8>() {
        out.extend_from_slice(word);
        let special = special_bytes(u64::from_le_bytes(*word));
        if special == 0 {
            rest = others;
            continue;
        }
        let plain = special.trailing_zeros() as usize / 8;
        out.truncate(out.len() - word.len() + plain);
        write_escape(out, word[plain]);
        rest = &rest[plain + 1..];
    }
    for &byte in rest {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            write_escape(out, byte);
        }
    }
    out.push(b'"');
}

/// The highest bit of the first byte, counted from the lowest, that a JSON string cannot hold as it is; zero if there is
/// none. Bits above that one mean nothing.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

/// Appends the text that a JSON string stands for; `literal` is that string with its quotes. `None`, with some of it
/// appended, if it is none.
pub fn read_string(out: &mut String, literal: &str) -> Option<()> {
    let mut rest = literal.strip_prefix('"')?;
    loop {
        let end = rest.bytes().position(|byte| byte == b'\\' || byte == b'"' || byte < 0x20)?;
        let (plain, special) = rest.split_at(end);
        out.push_str(plain);
        let (first, after) = special.split_at(1);
        if first == "\"" {
            return after.is_empty().then_some(());
        } else if first != "\\" {
            return None;
        }
        let (escape, after) = after.split_at_checked(1)?;
        rest = after;
        out.push(match escape {
            "\"" => '"',
            "\\" => '\\',
            "/" => '/',
            "b" => '\u{8}',
            "f" => '\u{c}',
            "n" => '\n',
            "r" => '\r',
            "t" => '\t',
            "u" => {
                let (unit, after) = read_hex(rest)?;
                rest = after;
                match char::from_u32(unit) {
                    Some(character) => character,
                    // The first half of a character beyond the basic plane: the second must follow.
                    None => {
                        let (low, after) = read_hex(rest.strip_prefix("\\u")?)?;
                        rest = after;
                        char::decode_utf16([unit as u16, low as u16]).next()?.ok()?
                    }
                }
            }
            _ => return None,
        });
    }
}

fn read_hex(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let valid = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| valid).map(|unit| (unit, rest))
}

/// Appends a decimal integer.
pub fn write_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// The shortest decimal that reads back as `value`, in the notation of JavaScript: `1`, `0.1`, `1e+21`, `1e-7`.
pub fn shortest_real(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".into()
        } else if value > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        };
    }
    // Rust prints the shortest digits too, as `d.ddde-x`; only the placing of the point differs.
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = digits.len() as i32;
    let point = exponent + 1;
    let body = if (1..=21).contains(&point) {
        if count <= point {
            format!("{digits}{}", "0".repeat((point - count) as usize))
        } else {
            format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
        }
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", "0".repeat((-point) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let rest = if count > 1 { format!(".{}", &digits[1..]) } else { String::new() };
        format!("{}{rest}e{sign}{}", &digits[..1], exponent.abs())
    };
    if value < 0.0 { format!("-{body}") } else { body }
}

/// Appends a real so that it stays one: with a point or an exponent.
///
/// JSON has no NaN and no infinities; they become `null`, where the official service writes words that no parser reads.
pub fn write_real(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let text = shortest_real(value);
    out.extend_from_slice(text.as_bytes());
    if !text.contains(['.', 'e']) {
        out.extend_from_slice(b".0");
    }
}

/// Appends a value as it stands in the data of an operation. A blob has no form there and is written as `null`.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Blob(_) => out.extend_from_slice(b"null"),
        Value::Integer(integer) => write_integer(out, *integer),
        Value::Real(real) => write_real(out, *real),
        Value::Text(text) => write_string(out, text),
    }
}

/// Appends a value as it stands in the parameters of a bucket or in a lookup key: two numbers are written alike exactly
/// if they are equal, so that `1` and `1.0` name one bucket, and a large real no other bucket than the integer that it is.
/// NaN equals nothing, and has no form there.
pub fn write_parameter(out: &mut Vec<u8>, value: &Value) {
    // What 64 bits can hold, up to the first real above.
    const INTEGERS: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    match value {
        // JavaScript rounds these to the digits that tell reals apart, which are those of another integer.
        Value::Real(real) if real.fract() == 0.0 && INTEGERS.contains(real) => write_integer(out, *real as i64),
        Value::Real(real) if real.is_infinite() => {
            out.extend_from_slice(if *real > 0.0 { b"1e999" } else { b"-1e999" });
        }
        Value::Real(real) if real.is_finite() => out.extend_from_slice(shortest_real(*real).as_bytes()),
        _ => write_value(out, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(value: impl Into<Value>) -> String {
        let mut out = Vec::new();
        write_value(&mut out, &value.into());
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn reals_keep_a_point_or_an_exponent() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (123_456_789_012_345_680_000.0, "123456789012345680000.0"),
            (-0.0, "0.0"),
            (-2.5, "-2.5"),
            (1.5e300, "1.5e+300"),
            (0.000001, "0.000001"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(data(value), text);
        }
    }

    #[test]
    fn text_is_escaped_as_little_as_possible() {
        // Each byte at each place of a word, beside bytes that differ from it by one bit.
        for byte in 0..0x80u8 {
            for place in 0..17 {
                let mut text = vec![byte ^ 0x40; 17];
                text[place] = byte;
                let text = String::from_utf8(text).expect("ASCII");
                assert_eq!(data(text.as_str()), serde_json::to_string(&text).expect("a string"));
            }
        }
        assert_eq!(data("a\"b\\c\n\u{1}é\u{2028}"), "\"a\\\"b\\\\c\\n\\u0001é\u{2028}\"");
    }

    #[test]
    fn a_string_is_read_like_serde_json_reads_it() {
        for literal in [
            r#""""#,
            r#""a\"b\\c\/\b\f\n\r\t""#,
            r#""\u00e9\u2028 \ud83d\uDE80é🚀""#,
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\udE80\ud83d""#,
            r#""\u+123""#,
            r#""\u12""#,
            r#""\x""#,
            r#""a"b""#,
            r#""a"#,
            r#""a\"#,
            "\"a\nb\"",
            "null",
            "",
        ] {
            let mut text = String::new();
            let read = read_string(&mut text, literal).map(|()| text);
            assert_eq!(read, serde_json::from_str(literal).ok(), "{literal}");
        }
    }

    #[test]
    fn integers_are_exact() {
        assert_eq!(data(i64::MIN), "-9223372036854775808");
        assert_eq!(data(i64::MAX), "9223372036854775807");
        assert_eq!(data(0), "0");
    }

    #[test]
    fn parameters_are_alike_exactly_if_they_are_equal() {
        let written = |value: Value| {
            let mut out = Vec::new();
            write_parameter(&mut out, &value);
            String::from_utf8(out).expect("JSON is UTF-8")
        };
        for (value, text) in [
            (Value::Real(1.0), "1"),
            (Value::Real(-0.0), "0"),
            (Value::Real(0.5), "0.5"),
            (Value::Real(1e21), "1e+21"),
            (Value::Real(-1e-7), "-1e-7"),
            (Value::Real(1_152_921_504_606_846_976.0), "1152921504606846976"),
            (Value::Integer(1_152_921_504_606_847_000), "1152921504606847000"),
            (Value::Real(i64::MIN as f64), "-9223372036854775808"),
            (Value::Real(-(i64::MIN as f64)), "9223372036854776000"),
            (Value::Real(f64::INFINITY), "1e999"),
            (Value::Real(f64::NEG_INFINITY), "-1e999"),
            (Value::text("1e999"), "\"1e999\""),
        ] {
            assert_eq!(written(value), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(text in ".*", integer: i64, real in proptest::num::f64::NORMAL) {
            let back: String = serde_json::from_str(&data(text.as_str())).expect("valid JSON");
            proptest::prop_assert_eq!(&back, &text);
            let mut read = String::new();
            proptest::prop_assert!(read_string(&mut read, &data(text.as_str())).is_some());
            proptest::prop_assert_eq!(&read, &text);
            let back: i64 = serde_json::from_str(&data(integer)).expect("valid JSON");
            proptest::prop_assert_eq!(back, integer);
            let written = data(real);
            proptest::prop_assert!(written.contains(['.', 'e']));
            let back: f64 = written.parse().expect("a number");
            proptest::prop_assert_eq!(back, real);
        }
    }
}
