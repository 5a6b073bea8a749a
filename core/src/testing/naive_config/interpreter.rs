//! Expressions, read from the tree each time.

use std::cmp::Ordering;

use super::super::sql::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat, Name};
use super::from::{self, Scope};
use super::json::{Json, Numbers};
use super::{Language, RequestValues, World, scalar, text};
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
pub(super) struct Environment<'e, 'a> {
    pub(super) world: &'e World<'a>,
    pub(super) scope: &'e Scope<'a>,
    pub(super) place: Place,
}

impl Environment<'_, '_> {
    pub(super) fn is_old(&self) -> bool {
        self.world.language.is_old()
    }

    /// Whether JSON paths are those of edition 1.
    fn has_old_paths(&self) -> bool {
        self.world.language.has_old_paths()
    }

    /// A value of the request or of the bucket that is written like a column of a table.
    fn parameter(&self, table: Option<&Name>, name: &str) -> Option<Value> {
        if !matches!(self.world.language, Language::Rules { .. }) {
            return None;
        }
        let request = self.world.request;
        let found = match &*table?.text {
            "bucket" => {
                let known = self.world.bucket.iter().find(|(known, _)| known == name);
                return Some(known.map(|(_, value)| value.clone()).unwrap_or_default());
            }
            // As `request.user_id()`, which it is.
            "token_parameters" if name == "user_id" => {
                let sub = request.auth.at_key("sub");
                return Some(sub.map_or(Value::Null, |sub| sub.value(Numbers::Doubles)));
            }
            "token_parameters" => request.auth.at_key("parameters").and_then(|all| all.at_key(name)),
            "user_parameters" => request.connection.at_key(name),
            _ => return None,
        };
        Some(found.map_or(Value::Null, |found| found.value(Numbers::Exact)))
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
pub(super) fn value(expr: &Expr, environment: &Environment<'_, '_>) -> Result<Value, Stop> {
    let of = |expr: &Expr| value(expr, environment);
    let all = |members: &[Expr]| members.iter().map(of).collect::<Result<Vec<_>, _>>();
    Ok(match &expr.kind {
        ExprKind::Null => Value::Null,
        ExprKind::Boolean(yes) => truth(*yes),
        ExprKind::Integer(digits) => match digits.parse::<i64>() {
            // The older languages read it as a double.
            Ok(integer) if environment.is_old() && integer.unsigned_abs() > 1 << 53 => {
                Value::Integer(integer as f64 as i64)
            }
            Ok(integer) => Value::Integer(integer),
            Err(_) => return unknown(format!("the integer {digits}")),
        },
        ExprKind::Decimal(digits) => match digits.parse() {
            Ok(real) => Value::Real(real),
            Err(_) => return unknown(format!("the number {digits}")),
        },
        ExprKind::Text(text) => Value::text(text.as_str()),
        ExprKind::Column { table, name, .. } => match environment.parameter(table.as_ref(), &name.text) {
            Some(parameter) => parameter,
            None => environment.scope.column(table.as_ref(), &name.text, environment.world)?.unwrap_or_default(),
        },
        ExprKind::Call(call) if call.schema.is_some() => request(call, environment)?,
        ExprKind::Call(call) => {
            let name = call.name.text.to_lowercase();
            let arguments = all(&call.arguments)?;
            match arguments.as_slice() {
                [json, path, ..] if environment.has_old_paths() && name == "json_extract" => {
                    match scalar::text(path) {
                        Some(path) if path.starts_with('$') => {}
                        _ if *json == Value::Null => return Ok(Value::Null),
                        _ => return Err(Stop::Error),
                    }
                    old_value(old_under(json, path)?)
                }
                _ => text::function(&name, &arguments)?,
            }
        }
        ExprKind::And(members) => truth(all(members)?.iter().all(scalar::is_true)),
        ExprKind::Or(members) => truth(all(members)?.iter().any(scalar::is_true)),
        ExprKind::Not(operand) => not(&of(operand)?),
        ExprKind::Binary { operator, left, right } => {
            let (left, right) = (of(left)?, of(right)?);
            match operator {
                // In the older languages NULL, and what is not a number, is different from nothing.
                BinaryOperator::NotEqual if environment.is_old() => {
                    scalar::order(&left, &right)?.map_or(Value::Null, |ordering| truth(ordering.is_ne()))
                }
                BinaryOperator::Arrow | BinaryOperator::ArrowText if environment.has_old_paths() => {
                    let found = old_under(&left, &right)?;
                    match (operator, found) {
                        (BinaryOperator::Arrow, None | Some(Json::Null)) => Value::Null,
                        (BinaryOperator::Arrow, Some(found)) => Value::text(found.text(Numbers::Exact)),
                        (_, found) => old_value(found),
                    }
                }
                _ => binary(*operator, &left, &right, environment.place)?,
            }
        }
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
                    let sources = |expr| from::sources_of(expr, environment.scope, environment.world);
                    let (left, right) = (sources(operand), sources(list));
                    let of_request = right.contains(from::REQUEST);
                    let apart = !left.is_empty() && !right.is_empty() && left != right;
                    let is_match = environment.is_old() && (apart || is_of_bucket(operand));
                    let list = of(list)?;
                    if is_match {
                        in_match(&needle, &list, of_request)?
                    } else if *negated || environment.place == Place::Output || environment.is_old() {
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

/// The same by the rules of edition 1, where every path is split.
fn old_under(json: &Value, key: &Value) -> Result<Option<Json>, Stop> {
    let Some(path) = scalar::text(key) else { return Ok(None) };
    let found = under(json, &Value::text(if path.starts_with('$') { path.clone() } else { format!("$.{path}") }))?;
    // The whole of it is NULL if it is null, other than what is in it.
    Ok(found.filter(|found| path != "$" || *found != Json::Null))
}

/// JSON null is the text `null` by the rules of edition 1.
fn old_value(found: Option<Json>) -> Value {
    match found {
        Some(Json::Null) => Value::text("null"),
        found => found.map_or(Value::Null, |found| found.value(Numbers::Exact)),
    }
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

fn is_of_bucket(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Column { table: Some(table), .. } if table.text == "bucket")
}

/// `x IN list` between a row and the request in the older languages, where the elements are those of `json_each`; a list of
/// the request that is none has no elements.
fn in_match(needle: &Value, list: &Value, of_request: bool) -> Result<Value, Stop> {
    if *needle == Value::Null || *list == Value::Null {
        return Ok(Value::Null);
    }
    match list.as_text().and_then(Json::parse) {
        Some(Json::Array(_)) => among(needle, &rows_of(list)?, false),
        _ if of_request => Ok(Value::Null),
        _ => Err(Stop::Error),
    }
}

/// The elements of a JSON array.
fn array(list: &Value) -> Result<Vec<Value>, Stop> {
    match list.as_text().and_then(Json::parse) {
        Some(Json::Array(elements)) => Ok(elements.iter().map(|element| element.value(Numbers::Exact)).collect()),
        _ => Err(Stop::Error),
    }
}

/// The rows that `json_each` gives of an array, which it must be.
pub(super) fn elements_of(list: &Value) -> Result<Vec<Value>, Stop> {
    if *list != Value::Null {
        array(list)?;
    }
    rows_of(list)
}

pub(super) fn rows_of(json: &Value) -> Result<Vec<Value>, Stop> {
    Ok(each(json)?.into_iter().map(|(_, value)| value).collect())
}

/// The rows that `json_each` gives: keys and values.
pub(super) fn each(json: &Value) -> Result<Vec<(Value, Value)>, Stop> {
    if *json == Value::Null {
        return Ok(Vec::new());
    }
    let value = |json: &Json| json.value(Numbers::Doubles);
    match json.as_text().and_then(Json::parse) {
        None => Err(Stop::Error),
        Some(Json::Array(elements)) => {
            Ok(elements.iter().zip(0..).map(|(element, key)| (Value::Integer(key), value(element))).collect())
        }
        Some(Json::Object(members)) => {
            Ok(members.iter().map(|(key, member)| (Value::text(key.as_str()), value(member))).collect())
        }
        Some(other) => Ok(vec![(Value::Null, value(&other))]),
    }
}

/// Values of the request: `auth.…`, `connection.…` and `subscription.…`, and `request.…` in bucket definitions.
fn request(call: &Call, environment: &Environment<'_, '_>) -> Result<Value, Stop> {
    let request: &RequestValues = environment.world.request;
    let schema = call.schema.as_ref().map(|schema| &*schema.text);
    let rules = matches!(environment.world.language, Language::Rules { .. });
    let source = match (schema, &*call.name.text) {
        (Some("auth"), _) if !rules => Some(&request.auth),
        (Some("connection"), _) if !rules => Some(&request.connection),
        (Some("subscription"), _) if !rules => request.subscription.as_ref(),
        (Some("request"), "user_id" | "jwt") if rules => Some(&request.auth),
        (Some("request"), _) if rules => Some(&request.connection),
        (Some(name), part) if !environment.is_old() => {
            let found = environment.scope.metadata(name, part);
            return found.ok_or_else(|| Stop::Unknown(format!("the function {}", call.full_name())));
        }
        _ => return unknown(format!("the function {}", call.full_name())),
    };
    let path = match (&*call.name.text, call.arguments.as_slice()) {
        ("user_id", []) => "sub",
        ("parameters" | "jwt", []) => "$",
        ("parameter", [Expr { kind: ExprKind::Text(path), .. }]) => path,
        _ => return unknown(format!("the function {}", call.full_name())),
    };
    let found = source.and_then(|source| source.at(path));
    Ok(found.map_or(Value::Null, |found| found.value(Numbers::Doubles)))
}
