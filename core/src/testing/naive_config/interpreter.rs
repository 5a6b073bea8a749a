//! Expressions, read from the tree each time.

use std::cmp::Ordering;

use super::super::sql::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat};
use super::json::{Json, Numbers};
use super::{RequestValues, scalar, text};
use crate::table::SourceTable;
use crate::value::Value;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The language says so: bad JSON, two blobs compared.
    Error,
    /// This evaluator does not know what it means.
    Unknown(String),
}

/// Where an expression stands: `x IN json` and `a && b` read their lists in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As rows of `json_each`.
    Condition,
    /// As arrays.
    Output,
}

/// Visits an expression and all that it is made of; subqueries are not entered.
pub(super) fn visit<'a>(expr: &'a Expr, found: &mut impl FnMut(&'a Expr)) {
    found(expr);
    expr.operands().for_each(|operand| visit(operand, found));
}

/// What names stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) table: &'a SourceTable,
    pub(super) values: &'a [Value],
    pub(super) request: &'a RequestValues,
    pub(super) place: Place,
}

impl Environment<'_> {
    /// The value of a column that the table has.
    pub(super) fn column(&self, name: &str) -> Option<&Value> {
        let index = self.table.columns.iter().position(|column| &*column.name == name)?;
        self.values.get(index)
    }
}

fn truth(yes: bool) -> Value {
    Value::Integer(i64::from(yes))
}

fn not(value: &Value) -> Value {
    truth(!scalar::is_true(value))
}

fn unknown<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Unknown(what.into()))
}

/// The value of an expression.
pub(super) fn value(expr: &Expr, environment: &Environment<'_>) -> Result<Value, Stop> {
    let of = |expr: &Expr| value(expr, environment);
    let all = |members: &[Expr]| members.iter().map(of).collect::<Result<Vec<_>, _>>();
    Ok(match &expr.kind {
        ExprKind::Null => Value::Null,
        ExprKind::Boolean(yes) => truth(*yes),
        ExprKind::Integer(digits) => match digits.parse() {
            Ok(integer) => Value::Integer(integer),
            Err(_) => return unknown(format!("the integer {digits}")),
        },
        ExprKind::Decimal(digits) => match digits.parse() {
            Ok(real) => Value::Real(real),
            Err(_) => return unknown(format!("the number {digits}")),
        },
        ExprKind::Text(text) => Value::text(text.as_str()),
        ExprKind::Column { name, .. } => environment.column(&name.text).cloned().unwrap_or_default(),
        ExprKind::Call(call) if call.schema.is_some() => request(call, environment.request)?,
        ExprKind::Call(call) => text::function(&call.name.text.to_lowercase(), &all(&call.arguments)?)?,
        ExprKind::And(members) => truth(all(members)?.iter().all(scalar::is_true)),
        ExprKind::Or(members) => truth(all(members)?.iter().any(scalar::is_true)),
        ExprKind::Not(operand) => not(&of(operand)?),
        ExprKind::Binary { operator, left, right } => binary(*operator, &of(left)?, &of(right)?, environment.place)?,
        ExprKind::Is { operand, negated, what } => {
            let operand = of(operand)?;
            let number = |number| Ok(scalar::order(&operand, &Value::Integer(number))? == Some(Ordering::Equal));
            let is = match what {
                IsWhat::Null => operand == Value::Null,
                IsWhat::True => number(1)?,
                IsWhat::False => number(0)?,
            };
            truth(is != *negated)
        }
        ExprKind::Between { operand, negated, low, high } => {
            let (operand, low, high) = (of(operand)?, of(low)?, of(high)?);
            let between = match (scalar::order(&low, &operand)?, scalar::order(&operand, &high)?) {
                (Some(low), Some(high)) => truth(low.is_le() && high.is_le()),
                _ => Value::Null,
            };
            if *negated { not(&between) } else { between }
        }
        ExprKind::In { operand, negated, list } => {
            let needle = of(operand)?;
            let found = match &list.kind {
                ExprKind::List(members) => among(&needle, &all(members)?, true)?,
                ExprKind::Subquery(_) => return unknown("subqueries"),
                _ => {
                    let list = of(list)?;
                    if *negated || environment.place == Place::Output {
                        in_array(&needle, &list)?
                    } else {
                        // The rows are read even if nothing is looked for in them.
                        let rows = rows_of(&list)?;
                        if list == Value::Null { Value::Null } else { among(&needle, &rows, false)? }
                    }
                }
            };
            if *negated { not(&found) } else { found }
        }
        ExprKind::Cast { operand, target } => scalar::cast(&of(operand)?, &target.text.to_lowercase())?,
        ExprKind::Case { operand, branches, otherwise } => {
            for (when, then) in branches {
                let taken = match operand {
                    Some(operand) => scalar::order(&of(operand)?, &of(when)?)? == Some(Ordering::Equal),
                    None => scalar::is_true(&of(when)?),
                };
                if taken {
                    return of(then);
                }
            }
            return otherwise.as_deref().map_or(Ok(Value::Null), of);
        }
        ExprKind::Star { .. }
        | ExprKind::Sign { .. }
        | ExprKind::Unknown { .. }
        | ExprKind::Like { .. }
        | ExprKind::List(_)
        | ExprKind::Tuple(_)
        | ExprKind::Subquery(_)
        | ExprKind::Exists
        | ExprKind::Placeholder => return unknown(format!("{:?}", expr.kind)),
    })
}

fn binary(operator: BinaryOperator, left: &Value, right: &Value, place: Place) -> Result<Value, Stop> {
    use BinaryOperator as B;
    let compare = |holds: fn(Ordering) -> bool| {
        Ok(scalar::order(left, right)?.map_or(Value::Null, |ordering| truth(holds(ordering))))
    };
    match operator {
        B::Equal => compare(Ordering::is_eq),
        B::NotEqual => compare(Ordering::is_eq).map(|equal| not(&equal)),
        B::Less => compare(Ordering::is_lt),
        B::Greater => compare(Ordering::is_gt),
        B::LessOrEqual => compare(Ordering::is_le),
        B::GreaterOrEqual => compare(Ordering::is_ge),
        B::Add | B::Subtract | B::Multiply | B::Divide => Ok(scalar::calculate(operator, left, right)),
        B::Concat => Ok(match (scalar::text(left), scalar::text(right)) {
            (Some(left), Some(right)) => Value::text(left + &right),
            _ => Value::Null,
        }),
        B::Overlap if place == Place::Output && (*left == Value::Null || *right == Value::Null) => Ok(Value::Null),
        B::Overlap => {
            let read = if place == Place::Output { array } else { rows_of };
            let (left, right) = (read(left)?, read(right)?);
            for one in &left {
                if among(one, &right, false)? == truth(true) {
                    return Ok(truth(true));
                }
            }
            Ok(truth(false))
        }
        B::Arrow => Ok(under(left, right)?.map_or(Value::Null, |found| Value::text(found.text(Numbers::Exact)))),
        B::ArrowText => Ok(under(left, right)?.map_or(Value::Null, |found| found.value(Numbers::Exact))),
    }
}

/// What stands in a JSON text under a key or a path.
pub(super) fn under(json: &Value, key: &Value) -> Result<Option<Json>, Stop> {
    let Some(json) = scalar::text(json) else { return Ok(None) };
    let json = Json::parse(&json).ok_or(Stop::Error)?;
    Ok(scalar::text(key).and_then(|key| json.at(&key)))
}

/// Whether a value is one of these. NULL is not known to be; nor is anything among NULLs, where `doubt` is.
fn among(needle: &Value, members: &[Value], doubt: bool) -> Result<Value, Stop> {
    if *needle == Value::Null {
        return Ok(Value::Null);
    }
    for member in members {
        if scalar::order(needle, member)? == Some(Ordering::Equal) {
            return Ok(truth(true));
        }
    }
    let unknown = doubt && members.iter().any(|member| scalar::order(needle, member) == Ok(None));
    Ok(if unknown { Value::Null } else { truth(false) })
}

fn in_array(needle: &Value, list: &Value) -> Result<Value, Stop> {
    if *needle == Value::Null || *list == Value::Null {
        return Ok(Value::Null);
    }
    among(needle, &array(list)?, false)
}

/// The elements of a JSON array.
fn array(list: &Value) -> Result<Vec<Value>, Stop> {
    match list.as_text().and_then(Json::parse) {
        Some(Json::Array(elements)) => Ok(elements.iter().map(|element| element.value(Numbers::Exact)).collect()),
        _ => Err(Stop::Error),
    }
}

/// The values that `json_each` gives.
fn rows_of(json: &Value) -> Result<Vec<Value>, Stop> {
    if *json == Value::Null {
        return Ok(Vec::new());
    }
    let value = |json: &Json| json.value(Numbers::Doubles);
    match json.as_text().and_then(Json::parse) {
        None => Err(Stop::Error),
        Some(Json::Array(elements)) => Ok(elements.iter().map(value).collect()),
        Some(Json::Object(members)) => Ok(members.iter().map(|(_, member)| value(member)).collect()),
        Some(other) => Ok(vec![value(&other)]),
    }
}

/// `auth.…`, `connection.…` and `subscription.…`.
fn request(call: &Call, request: &RequestValues) -> Result<Value, Stop> {
    let source = match call.schema.as_ref().map(|schema| &*schema.text) {
        Some("auth") => Some(&request.auth),
        Some("connection") => Some(&request.connection),
        Some("subscription") => request.subscription.as_ref(),
        _ => return unknown(format!("the function {}", call.full_name())),
    };
    let path = match (&*call.name.text, call.arguments.as_slice()) {
        ("user_id", []) => "sub",
        ("parameters", []) => "$",
        ("parameter", [Expr { kind: ExprKind::Text(path), .. }]) => path,
        _ => return unknown(format!("the function {}", call.full_name())),
    };
    let found = source.and_then(|source| source.at(path));
    Ok(found.map_or(Value::Null, |found| found.value(Numbers::Doubles)))
}
