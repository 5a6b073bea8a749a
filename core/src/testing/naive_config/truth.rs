//! What a condition comes to, where parts of it cannot be evaluated.

use std::cmp::Ordering;

use super::super::sql::ast::{BinaryOperator, Expr, ExprKind, Select};
use super::from;
use super::interpreter::{self, Environment, Place, Stop};
use super::scalar;
use super::{Language, World};
use crate::value::Value;

/// The answers that a condition may give, by how its parts are evaluated: each by itself, or together.
///
/// A condition is split into parts, and a part that cannot be evaluated shows nothing: `a OR b` shows a row if `a` holds
/// and stands by itself, and does not if `b` fails and stands with it. Which of the two is nobody's promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Truth {
    yes: bool,
    no: bool,
    failed: bool,
}

impl Truth {
    pub(super) const YES: Self = Self { yes: true, no: false, failed: false };
    const NO: Self = Self { yes: false, no: true, failed: false };
    /// Either answer is right.
    const DOUBTFUL: Self = Self { yes: true, no: true, failed: false };
    const FAILED: Self = Self { yes: false, no: false, failed: true };

    pub(super) fn may_hold(self) -> bool {
        self.yes
    }

    pub(super) fn must_hold(self) -> bool {
        self == Self::YES
    }

    fn not(self) -> Self {
        Self { yes: self.no, no: self.yes, failed: self.failed }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { yes: self.yes && other.yes, no: self.no || other.no, failed: self.failed || other.failed }
    }
}

/// Whether an expression looks at more than one source: rows of different tables, the request, or a subquery, which joins
/// further tables.
fn spans_sources(expr: &Expr, environment: &Environment<'_, '_>) -> bool {
    let sources = from::sources_of(expr, environment.scope, environment.world);
    let mut joins = false;
    interpreter::visit(expr, &mut |expr| match &expr.kind {
        ExprKind::In { list, .. } => joins |= listed(list, environment.world, environment.place).is_some(),
        ExprKind::Subquery(_) => joins = true,
        ExprKind::Binary { operator: BinaryOperator::Overlap, left, right } => {
            joins |= [left, right].iter().any(|side| listed(side, environment.world, Place::Output).is_some());
        }
        _ => {}
    });
    joins || sources.len() > 1
}

/// The query whose rows stand right of IN: a subquery, or a named one.
fn listed<'a>(list: &'a Expr, world: &World<'a>, place: Place) -> Option<(&'a Select, bool)> {
    match &list.kind {
        ExprKind::Subquery(select) => Some((select, false)),
        ExprKind::Column { schema: None, table: None, name } if place == Place::Condition => {
            Some((world.named(&name.text)?, true))
        }
        _ => None,
    }
}

/// The truth of a condition.
///
/// # Errors
/// What is not known.
pub(super) fn of<'a>(expr: &'a Expr, environment: &Environment<'_, 'a>) -> Result<Truth, String> {
    let all = |members: &'a [Expr], negated: bool| {
        members.iter().try_fold(Truth::YES, |sum, member| {
            let truth = of(member, environment)?;
            Ok(sum.and(if negated { truth.not() } else { truth }))
        })
    };
    let plain = |value: Result<Value, Stop>| match value {
        Ok(value) if scalar::is_true(&value) => Ok(Truth::YES),
        Ok(_) => Ok(Truth::NO),
        Err(Stop::Error) => Ok(Truth::FAILED),
        Err(Stop::Unknown(what)) => Err(what),
    };
    match &expr.kind {
        ExprKind::And(members) if spans_sources(expr, environment) => all(members, false),
        ExprKind::Or(members) if spans_sources(expr, environment) => all(members, true).map(Truth::not),
        ExprKind::Not(operand) => of(operand, environment).map(Truth::not),
        ExprKind::In { operand, negated, list } if listed(list, environment.world, environment.place).is_some() => {
            let Some((select, named)) = listed(list, environment.world, environment.place) else {
                return Ok(Truth::NO);
            };
            let needle = match interpreter::value(operand, environment) {
                Ok(needle) => needle,
                other => return plain(other),
            };
            let found = is_among(&needle, select, named, environment)?;
            Ok(if *negated { found.not() } else { found })
        }
        ExprKind::Binary { operator: BinaryOperator::Overlap, left, right }
            if [left, right].iter().any(|side| listed(side, environment.world, Place::Output).is_some()) =>
        {
            overlap(left, right, environment)
        }
        // `WHERE bucket.x` is the bucket whose parameter is 1.
        ExprKind::Column { table: Some(table), .. }
            if table.text == "bucket" && matches!(environment.world.language, Language::Rules { .. }) =>
        {
            let is_one = |value| scalar::order(&value, &Value::Integer(1)) == Ok(Some(Ordering::Equal));
            plain(interpreter::value(expr, environment).map(|value| Value::Integer(i64::from(is_one(value)))))
        }
        // What looks at one side alone is one part, however long.
        _ => plain(interpreter::value(expr, environment)),
    }
}

/// `a && b`, where a side is a query.
fn overlap<'a>(left: &'a Expr, right: &'a Expr, environment: &Environment<'_, 'a>) -> Result<Truth, String> {
    // A name is a column here, and never a named query.
    let query = |side| listed(side, environment.world, Place::Output);
    let (list, (select, named)) = match (query(left), query(right)) {
        (None, Some(found)) => (left, found),
        (Some(found), None) => (right, found),
        _ => return Err("&& between two queries".into()),
    };
    let read = if environment.is_old() { interpreter::elements_of } else { interpreter::rows_of };
    let elements = match interpreter::value(list, environment).and_then(|list| read(&list)) {
        Ok(elements) => elements,
        Err(Stop::Error) => return Ok(Truth::FAILED),
        Err(Stop::Unknown(what)) => return Err(what),
    };
    let mut sum = Truth::NO;
    for element in &elements {
        match is_among(element, select, named, environment)? {
            Truth::YES => return Ok(Truth::YES),
            found if found.may_hold() => sum = found,
            _ => {}
        }
    }
    Ok(sum)
}

/// Whether any row of a query inside the condition is this value.
fn is_among<'a>(
    needle: &Value,
    select: &'a Select,
    named: bool,
    environment: &Environment<'_, 'a>,
) -> Result<Truth, String> {
    let Some(column) = select.columns.first() else { return Err("a subquery without a column".into()) };
    let mut sum = Truth::NO;
    for (scope, world, truth) in from::inner(select, named, environment)? {
        let inner = Environment { world: &world, scope: &scope, place: Place::Output };
        let equal = match interpreter::value(&column.expr, &inner) {
            Ok(value) => scalar::order(needle, &value) == Ok(Some(Ordering::Equal)),
            // This row is not there; the others are.
            Err(Stop::Error) => false,
            Err(Stop::Unknown(what)) => return Err(what),
        };
        if equal && truth.must_hold() {
            return Ok(Truth::YES);
        }
        if equal {
            sum = Truth::DOUBTFUL;
        }
    }
    Ok(sum)
}
