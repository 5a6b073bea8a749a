//! The evaluation of expressions: values in, one value out, by the rules of the official evaluator rather than SQLite's.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::expression::Expression;
use super::operation::{CastTarget, Operation};
use super::{cast, functions, json_tree};
use crate::value::Value;

/// Why an expression has no value for some row or request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Evaluates `expression`, whose inputs `input` knows.
///
/// All arguments are evaluated, also where the first decides, so that a broken value never hides behind another; only
/// CASE leaves out the branches that it does not take.
pub(super) fn evaluate<'v, I>(
    expression: &'v Expression<I>,
    input: &impl Fn(&'v I) -> Cow<'v, Value>,
) -> Result<Cow<'v, Value>, Failure> {
    match expression {
        Expression::Literal(value) => Ok(Cow::Borrowed(value)),
        Expression::Input(leaf) => Ok(input(leaf)),
        Expression::Call(Operation::Case, arguments) => {
            let mut parts = arguments.chunks_exact(2);
            for part in &mut parts {
                if is_true(&*evaluate(&part[0], input)?) {
                    return evaluate(&part[1], input);
                }
            }
            match parts.remainder() {
                [otherwise] => evaluate(otherwise, input),
                _ => Ok(Cow::Owned(Value::Null)),
            }
        }
        Expression::Call(operation, arguments) => match arguments.as_slice() {
            [one] => apply(*operation, &[evaluate(one, input)?]),
            [one, two] => apply(*operation, &[evaluate(one, input)?, evaluate(two, input)?]),
            all => {
                let values = all.iter().map(|argument| evaluate(argument, input)).collect::<Result<Vec<_>, _>>()?;
                apply(*operation, &values)
            }
        }
        .map(Cow::Owned),
    }
}

fn boolean(truth: bool) -> Value {
    Value::Integer(i64::from(truth))
}

/// Applies an operation to its arguments.
fn apply(operation: Operation, arguments: &[Cow<'_, Value>]) -> Result<Value, Failure> {
    let argument = |index: usize| arguments.get(index).map_or(&Value::Null, |value| &**value);
    let compare = |test: fn(Ordering) -> bool| {
        Ok(match order(argument(0), argument(1))? {
            Some(ordering) => boolean(test(ordering)),
            None => Value::Null,
        })
    };
    match operation {
        Operation::Not => Ok(boolean(!is_true(argument(0)))),
        Operation::And => Ok(boolean(arguments.iter().all(|value| is_true(value)))),
        Operation::Or => Ok(boolean(arguments.iter().any(|value| is_true(value)))),
        Operation::Equal => compare(Ordering::is_eq),
        Operation::NotEqual => compare(Ordering::is_ne),
        Operation::Less => compare(Ordering::is_lt),
        Operation::Greater => compare(Ordering::is_gt),
        Operation::LessOrEqual => compare(Ordering::is_le),
        Operation::GreaterOrEqual => compare(Ordering::is_ge),
        Operation::IsNull => Ok(boolean(argument(0).is_null())),
        Operation::IsTrue => Ok(boolean(order(argument(0), &Value::Integer(1))? == Some(Ordering::Equal))),
        Operation::IsFalse => Ok(boolean(order(argument(0), &Value::Integer(0))? == Some(Ordering::Equal))),
        Operation::Between => {
            let (low, high) = (order(argument(0), argument(1))?, order(argument(0), argument(2))?);
            Ok(match (low, high) {
                (Some(low), Some(high)) => boolean(low.is_ge() && high.is_le()),
                _ => Value::Null,
            })
        }
        Operation::InJson | Operation::InEach => {
            let elements = match operation {
                Operation::InEach => json_tree::each(argument(1))?,
                _ if argument(0).is_null() || argument(1).is_null() => Vec::new(),
                _ => json_tree::elements(argument(1))?,
            };
            if argument(0).is_null() || argument(1).is_null() {
                return Ok(Value::Null);
            }
            Ok(boolean(contains(&elements, argument(0))?))
        }
        Operation::Overlap | Operation::OverlapEach => {
            if operation == Operation::Overlap && (argument(0).is_null() || argument(1).is_null()) {
                return Ok(Value::Null);
            }
            let read = if operation == Operation::Overlap { json_tree::elements } else { json_tree::each };
            let (left, right) = (read(argument(0))?, read(argument(1))?);
            for element in &left {
                if contains(&right, element)? {
                    return Ok(boolean(true));
                }
            }
            Ok(boolean(false))
        }
        Operation::InList => {
            let Some((needle, members)) = arguments.split_first() else { return Ok(Value::Null) };
            if needle.is_null() {
                return Ok(Value::Null);
            }
            let mut unknown = false;
            for member in members {
                match order(needle, member)? {
                    Some(Ordering::Equal) => return Ok(boolean(true)),
                    Some(_) => {}
                    None => unknown = true,
                }
            }
            Ok(if unknown { Value::Null } else { boolean(false) })
        }
        Operation::Add | Operation::Subtract | Operation::Multiply | Operation::Divide => {
            Ok(calculate(operation, &cast::to_numeric(argument(0)), &cast::to_numeric(argument(1))))
        }
        Operation::Concat => Ok(match (cast::text(argument(0)), cast::text(argument(1))) {
            (Some(left), Some(right)) => Value::text([&*left, &*right].concat()),
            _ => Value::Null,
        }),
        Operation::Arrow => functions::arrow(argument(0), argument(1)),
        Operation::ArrowText => functions::arrow_text(argument(0), argument(1)),
        Operation::LegacyArrow => functions::legacy_arrow(argument(0), argument(1)),
        Operation::LegacyArrowText => functions::legacy_arrow_text(argument(0), argument(1)),
        Operation::Array if argument(0).is_null() => Ok(Value::Null),
        Operation::Array => json_tree::elements(argument(0)).map(|_| argument(0).clone()),
        Operation::ArrayOrNull => Ok(json_tree::elements(argument(0)).map_or(Value::Null, |_| argument(0).clone())),
        Operation::Cast(target) => Ok(match target {
            CastTarget::Text => cast::to_text(argument(0)),
            CastTarget::Numeric => cast::to_numeric(argument(0)),
            CastTarget::Integer => cast::to_integer(argument(0)),
            CastTarget::Real => cast::to_real(argument(0)),
            CastTarget::Blob => cast::to_blob(argument(0)),
        }),
        Operation::NotImplemented(operator) => {
            let message = format!("the operator `{operator}` is not implemented");
            Err(Failure::new("operator-not-implemented", message))
        }
        // Evaluated before its arguments are.
        Operation::Case => Ok(Value::Null),
        Operation::Function(function) => function.apply(arguments),
    }
}

fn contains(elements: &[Value], value: &Value) -> Result<bool, Failure> {
    for element in elements {
        if order(value, element)? == Some(Ordering::Equal) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Arithmetic over numbers: integers among themselves, else reals; NULL where there is no result. An integer that does
/// not fit into 64 bits becomes a real.
fn calculate(operation: Operation, left: &Value, right: &Value) -> Value {
    if let (Value::Integer(left), Value::Integer(right)) = (left, right) {
        if operation == Operation::Divide && *right == 0 {
            return Value::Null;
        }
        let exact = match operation {
            Operation::Add => left.checked_add(*right),
            Operation::Subtract => left.checked_sub(*right),
            Operation::Multiply => left.checked_mul(*right),
            _ => left.checked_div(*right),
        };
        if let Some(exact) = exact {
            return Value::Integer(exact);
        }
    }
    let (Value::Real(left), Value::Real(right)) = (cast::to_real(left), cast::to_real(right)) else {
        return Value::Null;
    };
    match operation {
        Operation::Add => Value::Real(left + right),
        Operation::Subtract => Value::Real(left - right),
        Operation::Multiply => Value::Real(left * right),
        _ if right == 0.0 => Value::Null,
        _ => Value::Real(left / right),
    }
}

/// Whether a value counts as true: a number other than 0, or a text that begins with one.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null | Value::Blob(_) => false,
        Value::Integer(integer) => *integer != 0,
        Value::Real(real) => *real != 0.0,
        Value::Text(text) => {
            let digits = text.trim_start();
            let digits = digits.strip_prefix(['-', '+']).unwrap_or(digits);
            digits.bytes().take_while(u8::is_ascii_digit).any(|digit| digit != b'0')
        }
    }
}

/// Whether some value equals this one, so that a bucket may be named after it. NULL and NaN equal nothing, and blobs are
/// not compared.
pub(super) fn has_equals(value: &Value) -> bool {
    match value {
        Value::Null | Value::Blob(_) => false,
        Value::Real(real) => !real.is_nan(),
        Value::Integer(_) | Value::Text(_) => true,
    }
}

/// Compares two values: numbers before texts before blobs, no conversion. `None` if one of them is NULL.
pub(super) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Failure> {
    use Value::{Blob, Integer, Null, Real, Text};
    Ok(match (left, right) {
        (Null, _) | (_, Null) => None,
        (Integer(left), Integer(right)) => Some(left.cmp(right)),
        (Real(left), Real(right)) => left.partial_cmp(right),
        (Integer(left), Real(right)) => order_mixed(*left, *right),
        (Real(left), Integer(right)) => order_mixed(*right, *left).map(Ordering::reverse),
        (Text(left), Text(right)) if left == right => Some(Ordering::Equal),
        // By UTF-16 units, as the official service orders.
        (Text(left), Text(right)) => Some(left.encode_utf16().cmp(right.encode_utf16())),
        (Blob(_), Blob(_)) => return Err(Failure::new("blob-comparison", "two blobs cannot be compared")),
        (Integer(_) | Real(_), Text(_) | Blob(_)) | (Text(_), Blob(_)) => Some(Ordering::Less),
        (Text(_) | Blob(_), Integer(_) | Real(_)) | (Blob(_), Text(_)) => Some(Ordering::Greater),
    })
}

/// Compares by exact value, without rounding the integer to a double.
fn order_mixed(integer: i64, real: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real.is_nan() {
        None
    } else if real >= LIMIT {
        Some(Ordering::Less)
    } else if real < -LIMIT {
        Some(Ordering::Greater)
    } else {
        let whole = real.trunc();
        Some(integer.cmp(&(whole as i64)).then(0.0_f64.partial_cmp(&(real - whole))?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn truth_of_texts_is_their_leading_integer() {
        for (text, truth) in [("1", true), (" -2x", true), ("0.9", false), ("abc", false), ("", false), ("007", true)] {
            assert_eq!(is_true(&Value::text(text)), truth, "{text:?}");
        }
    }

    #[test]
    fn integers_and_reals_compare_exactly() {
        let large = i64::MAX;
        assert_eq!(order(&Value::Integer(large), &Value::Real(large as f64)).unwrap(), Some(Ordering::Less));
        assert_eq!(order(&Value::Integer(-3), &Value::Real(-2.5)).unwrap(), Some(Ordering::Less));
        assert_eq!(order(&Value::Integer(-2), &Value::Real(-2.5)).unwrap(), Some(Ordering::Greater));
        assert_eq!(order(&Value::Integer(1), &Value::Real(1.0)).unwrap(), Some(Ordering::Equal));
        assert_eq!(order(&Value::Integer(i64::MIN), &Value::Real(-9.3e18)).unwrap(), Some(Ordering::Greater));
    }
}
