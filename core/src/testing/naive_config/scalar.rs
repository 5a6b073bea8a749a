//! Truth, order, casts and arithmetic of values.

use std::cmp::Ordering;

use super::super::sql::ast::BinaryOperator;
use super::interpreter::Stop;
use super::text::real_text;
use crate::value::Value;

/// Numbers by not being zero, texts by the integer that they begin with; nothing else is true.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null | Value::Blob(_) => false,
        Value::Integer(integer) => *integer != 0,
        Value::Real(real) => *real != 0.0,
        Value::Text(text) => leading_integer(text) != 0,
    }
}

/// The order of two values; none if one of them is NULL (or not a number).
pub(super) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Stop> {
    let class = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    Ok(match (left, right) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Blob(_), Value::Blob(_)) => return Err(Stop::Error),
        (Value::Text(left), Value::Text(right)) => {
            let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
            Some(units(left).cmp(&units(right)))
        }
        (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
        (Value::Real(left), Value::Real(right)) => left.partial_cmp(right),
        (Value::Integer(left), Value::Real(right)) => exact_order(*left, *right),
        (Value::Real(left), Value::Integer(right)) => exact_order(*right, *left).map(Ordering::reverse),
        _ => Some(class(left).cmp(&class(right))),
    })
}

/// Integer and real, neither of them rounded.
fn exact_order(integer: i64, real: f64) -> Option<Ordering> {
    if real.is_nan() {
        return None;
    }
    // Exact, up to reals that no integer reaches; those saturate.
    let whole = real.floor() as i128;
    let below = if real > real.floor() { Ordering::Less } else { Ordering::Equal };
    Some(i128::from(integer).cmp(&whole).then(below))
}

/// The text of a value; none of NULL.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Integer(integer) => Some(integer.to_string()),
        Value::Real(real) => Some(real_text(*real)),
        Value::Text(text) => Some(text.to_string()),
        Value::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

pub(super) fn cast(value: &Value, target: &str) -> Result<Value, Stop> {
    let Some(as_text) = text(value) else { return Ok(Value::Null) };
    Ok(match (target, value) {
        ("text", _) => Value::text(as_text),
        ("blob", Value::Blob(_)) | ("integer", Value::Integer(_)) | ("real", Value::Real(_)) => value.clone(),
        ("numeric", Value::Integer(_) | Value::Real(_)) => value.clone(),
        ("blob", _) => Value::Blob(as_text.into_bytes().into()),
        ("integer", Value::Real(real)) => Value::Integer(real.floor() as i64),
        ("integer", _) => Value::Integer(leading_integer(&as_text)),
        ("real", Value::Integer(integer)) => Value::Real(*integer as f64),
        ("real", _) => Value::Real(leading_real(&as_text).unwrap_or(0.0)),
        ("numeric", _) => numeric(&as_text),
        _ => return Err(Stop::Unknown(format!("the type {target}"))),
    })
}

/// Real if it has digits after a point or an exponent.
fn numeric(text: &str) -> Value {
    let number = leading_number(text);
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, _)) => (mantissa, true),
        None => (number, false),
    };
    let fraction = mantissa.split_once('.').is_some_and(|(_, fraction)| !fraction.is_empty());
    if exponent || fraction {
        Value::Real(leading_real(text).unwrap_or(0.0))
    } else {
        Value::Integer(leading_integer(text))
    }
}

fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |end| sign + end);
    match text[..digits].parse::<i64>() {
        Ok(integer) => integer,
        // No digits, or more than fit.
        Err(_) if digits == sign => 0,
        Err(_) if text.starts_with('-') => i64::MIN,
        Err(_) => i64::MAX,
    }
}

fn leading_real(text: &str) -> Option<f64> {
    leading_number(text).parse().ok()
}

/// The longest start of a text that is a number, without blanks before it.
fn leading_number(text: &str) -> &str {
    let text = text.trim_start();
    let is_number = |part: &&str| {
        let unsigned = part.strip_prefix(['+', '-']).unwrap_or(part);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
        digits(whole)
            && digits(fraction)
            && whole.len() + fraction.len() > 0
            && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
    };
    let starts = (0..=text.len()).rev().filter_map(|end| text.get(..end));
    starts.into_iter().find(is_number).unwrap_or_default()
}

/// Integers among themselves, unless the result does not fit; else reals.
pub(super) fn calculate(operator: BinaryOperator, left: &Value, right: &Value) -> Value {
    let number = |value: &Value| match value {
        Value::Text(text) => numeric(text),
        Value::Blob(bytes) => numeric(&String::from_utf8_lossy(bytes)),
        other => other.clone(),
    };
    let (left, right) = (number(left), number(right));
    if let (Value::Integer(left), Value::Integer(right)) = (&left, &right) {
        let (left, right) = (i128::from(*left), i128::from(*right));
        let exact = match operator {
            BinaryOperator::Add => left + right,
            BinaryOperator::Subtract => left - right,
            BinaryOperator::Multiply => left * right,
            _ if right == 0 => return Value::Null,
            _ => left / right,
        };
        if let Ok(exact) = i64::try_from(exact) {
            return Value::Integer(exact);
        }
    }
    let real = |value: &Value| match value {
        Value::Integer(integer) => Some(*integer as f64),
        Value::Real(real) => Some(*real),
        _ => None,
    };
    let (Some(left), Some(right)) = (real(&left), real(&right)) else { return Value::Null };
    match operator {
        BinaryOperator::Add => Value::Real(left + right),
        BinaryOperator::Subtract => Value::Real(left - right),
        BinaryOperator::Multiply => Value::Real(left * right),
        _ if right == 0.0 => Value::Null,
        _ => Value::Real(left / right),
    }
}
