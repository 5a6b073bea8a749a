//! What a condition comes to, where parts of it cannot be evaluated.

use super::super::sql::ast::{Expr, ExprKind};
use super::interpreter::{self, Environment, Stop};
use super::scalar;

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

    fn and(self, other: Self) -> Self {
        Self { yes: self.yes && other.yes, no: self.no || other.no, failed: self.failed || other.failed }
    }
}

/// Whether an expression looks at both the row and the request.
fn spans_sources(expr: &Expr) -> bool {
    let (mut row, mut request) = (false, false);
    interpreter::visit(expr, &mut |expr| match &expr.kind {
        ExprKind::Column { .. } => row = true,
        ExprKind::Call(call) if call.schema.is_some() => request = true,
        _ => {}
    });
    row && request
}

/// The truth of a condition.
///
/// # Errors
/// What is not known.
pub(super) fn of(expr: &Expr, environment: &Environment<'_>) -> Result<Truth, String> {
    let all = |members: &[Expr], negated: bool| {
        members.iter().try_fold(Truth::YES, |sum, member| {
            let truth = of(member, environment)?;
            Ok(sum.and(if negated { truth.not() } else { truth }))
        })
    };
    match &expr.kind {
        ExprKind::And(members) if spans_sources(expr) => all(members, false),
        ExprKind::Or(members) if spans_sources(expr) => all(members, true).map(Truth::not),
        ExprKind::Not(operand) => of(operand, environment).map(Truth::not),
        // What looks at one side alone is one part, however long.
        _ => match interpreter::value(expr, environment) {
            Ok(value) if scalar::is_true(&value) => Ok(Truth::YES),
            Ok(_) => Ok(Truth::NO),
            Err(Stop::Error) => Ok(Truth::FAILED),
            Err(Stop::Unknown(what)) => Err(what),
        },
    }
}
