//! Expressions of the older languages to clauses, and the refusal of what they do not have.

use super::super::diagnostic::SqlReport;
use super::super::expression::Expression;
use super::super::functions::Function;
use super::super::operation::{CastTarget, Operation};
use super::super::scope::Condition;
use super::super::span::Span;
use super::super::sql::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat};
use super::clause::{Class, Clause, connect};
use super::references::Rows;
use crate::value::Value;

/// What kind of query an expression belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    /// A data query: its parameters are those of the bucket, which are compared and not computed with.
    Data,
    /// A parameter query: its parameters are values of the request.
    Parameters,
    /// A stream of edition 2, or a subquery in one.
    Stream,
    /// The payload of an event, which has no parameters.
    Payload,
}

/// Resolves the expressions of one query.
#[derive(Debug)]
pub(in crate::config) struct ClauseResolver<'a> {
    pub(in crate::config) kind: Kind,
    pub(in crate::config) fixed_json: bool,
    /// What FROM reads, if anything.
    pub(in crate::config) rows: Option<&'a Rows>,
}

impl ClauseResolver<'_> {
    /// Resolves an expression; `None` after problems were reported.
    pub(in crate::config) fn clause(&self, expr: &Expr, report: &mut SqlReport<'_>) -> Option<Clause> {
        let literal = |value| Some(Clause::new(Expression::Literal(value), Class::Static));
        match &expr.kind {
            ExprKind::Null => literal(Value::Null),
            ExprKind::Boolean(truth) => literal(Value::Integer(i64::from(*truth))),
            ExprKind::Text(text) => literal(Value::text(text.as_str())),
            ExprKind::Integer(digits) => match integer(digits) {
                Some(integer) => literal(Value::Integer(integer)),
                None => {
                    report.fatal("sql-syntax", expr.span, "this integer does not fit into 64 bits");
                    None
                }
            },
            ExprKind::Decimal(digits) => match digits.parse() {
                Ok(real) => literal(Value::Real(real)),
                Err(_) => {
                    report.fatal("sql-syntax", expr.span, "this is not a number");
                    None
                }
            },
            ExprKind::Column { schema, table, name } => {
                self.column(schema.as_ref(), table.as_ref(), name, expr.span, report)
            }
            ExprKind::Star { .. } => {
                report.fatal("star-not-allowed", expr.span, "`*` is not a value").help("name a column");
                None
            }
            ExprKind::And(members) => self.connected(Operation::And, members, expr.span, report),
            ExprKind::Or(members) => self.connected(Operation::Or, members, expr.span, report),
            ExprKind::Not(operand) => self.composed(Operation::Not, [&**operand], report),
            ExprKind::Binary { operator, left, right } => self.binary(*operator, expr.span, left, right, report),
            ExprKind::Is { operand, negated, what: IsWhat::Null } => {
                let found = self.composed(Operation::IsNull, [&**operand], report)?;
                Some(if *negated { Clause::new(found.value.not(), found.class) } else { found })
            }
            ExprKind::Is { operand, .. } => {
                self.all([&**operand], report);
                let message = "IS TRUE and IS FALSE are not supported here";
                report
                    .fatal("operator-not-supported", expr.span, message)
                    .help("compare with `= true`, or write the condition alone");
                None
            }
            ExprKind::In { operand, negated, list } => self.membership(expr.span, operand, *negated, list, report),
            ExprKind::Call(call) => self.call(call, report),
            ExprKind::Cast { operand, target } => {
                let Some(to) = CastTarget::find(&target.text) else {
                    self.all([&**operand], report);
                    let message = format!("there is no cast to `{}`", target.text);
                    let diagnostic = report.fatal("bad-cast", target.span, message);
                    diagnostic.help(format!("the types are {}", CastTarget::NAMES.join(", ")));
                    return None;
                };
                self.composed(Operation::Cast(to), [&**operand], report)
            }
            _ => self.refused(expr, report),
        }
    }

    /// What the older languages do not have; what is inside is looked at all the same.
    fn refused(&self, expr: &Expr, report: &mut SqlReport<'_>) -> Option<Clause> {
        const EDITION: &str = "streams of edition 3 have it";
        let (kind, what, help): (_, String, &str) = match &expr.kind {
            ExprKind::Between { operand, low, high, .. } => {
                self.all([&**operand, low, high], report);
                ("expression-not-supported", "BETWEEN".into(), "write `x >= low AND x <= high`")
            }
            ExprKind::Case { operand, branches, otherwise } => {
                let parts = branches.iter().flat_map(|(when, then)| [when, then]);
                self.all(parts.chain(operand.as_deref()).chain(otherwise.as_deref()), report);
                ("expression-not-supported", "CASE".into(), "write iif(condition, value, otherwise)")
            }
            ExprKind::Like { operand, pattern } => {
                self.all([&**operand, pattern], report);
                let help = "compare with `=`, or keep the result in a column of its own";
                ("operator-not-supported", "LIKE".into(), help)
            }
            ExprKind::Unknown { operator, operands } => {
                self.all(operands, report);
                let help = "keep the result in a column of its own";
                ("operator-not-supported", format!("the operator `{operator}`"), help)
            }
            ExprKind::Sign { negative, operand } => {
                self.all([&**operand], report);
                let sign = if *negative { '-' } else { '+' };
                ("operator-not-supported", format!("`{sign}` before an expression"), "write `0 - x`")
            }
            ExprKind::List(members) | ExprKind::Tuple(members) => {
                self.all(members, report);
                ("expression-not-supported", "a list of values".into(), "write `x IN '[\"a\", \"b\"]'`, which is JSON")
            }
            ExprKind::Placeholder => {
                ("expression-not-supported", "a placeholder".into(), "name the value that is meant")
            }
            _ if self.kind == Kind::Stream => {
                let help = "write `x IN (SELECT …)` as a condition, within AND and OR";
                ("subquery-condition-not-supported", "a subquery at this place".into(), help)
            }
            _ => ("subquery-not-supported", "a subquery".into(), EDITION),
        };
        report.fatal(kind, expr.span, format!("{what} is not supported here")).help(help);
        None
    }

    /// All of them, so that all problems are reported at once.
    fn all<'e>(
        &self,
        members: impl IntoIterator<Item = &'e Expr>,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<(Clause, Span)>> {
        let all: Vec<_> = members.into_iter().map(|member| Some((self.clause(member, report)?, member.span))).collect();
        all.into_iter().collect()
    }

    fn connected(
        &self,
        operation: Operation,
        members: &[Expr],
        span: Span,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        let members = self.all(members, report)?.into_iter().map(|(clause, _)| clause).collect();
        connect(operation, members, span, self.kind != Kind::Data, report)
    }

    /// A function or operator over anything but matches.
    fn composed<'e>(
        &self,
        operation: Operation,
        arguments: impl IntoIterator<Item = &'e Expr>,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        let arguments = self.all(arguments, report)?;
        self.compose(operation, arguments, report)
    }

    fn compose(
        &self,
        operation: Operation,
        arguments: Vec<(Clause, Span)>,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        let mut class = Class::Static;
        for (argument, span) in &arguments {
            match (&argument.class, &class) {
                (Class::Static, _) => {}
                (Class::Match(_), _) => {
                    report
                        .fatal("match-not-allowed-here", *span, "nothing can be computed from a match of a parameter")
                        .help("write it as a condition by itself, or within AND and OR");
                    return None;
                }
                (Class::Parameter, _) if self.kind == Kind::Data => {
                    report
                        .fatal(
                            "parameter-in-expression",
                            *span,
                            "a parameter of the bucket can only be compared by `=` and IN",
                        )
                        .help("compute with it under `parameters`, where the request is known");
                    return None;
                }
                (Class::Row, Class::Parameter) | (Class::Parameter, Class::Row) => {
                    report
                        .fatal(
                            "row-and-parameter-mixed",
                            *span,
                            "nothing can be computed from a row and the request together",
                        )
                        .help("compare a value of the one with a value of the other, by `=` or IN");
                    return None;
                }
                (found, _) => class = found.clone(),
            }
        }
        let values = arguments.into_iter().map(|(argument, _)| argument.value).collect();
        Some(Clause::new(Expression::Call(operation, values), class))
    }

    fn binary(
        &self,
        operator: BinaryOperator,
        span: Span,
        left: &Expr,
        right: &Expr,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        use BinaryOperator as B;
        let operation = match operator {
            B::Equal => return self.equality(span, left, right, report),
            B::Overlap => return self.overlap(span, left, right, report),
            B::NotEqual => Operation::NotEqual,
            B::Less => Operation::Less,
            B::Greater => Operation::Greater,
            B::LessOrEqual => Operation::LessOrEqual,
            B::GreaterOrEqual => Operation::GreaterOrEqual,
            B::Add => Operation::Add,
            B::Subtract => Operation::Subtract,
            B::Multiply => Operation::Multiply,
            B::Divide => Operation::Divide,
            B::Concat => Operation::Concat,
            B::Arrow | B::ArrowText if !matches!(right.kind, ExprKind::Text(_)) => {
                self.all([left], report);
                report
                    .fatal("operator-not-supported", span, "the right side must be a key in quotes here")
                    .help("items of an array are `->> '$.0'`");
                return None;
            }
            B::Arrow if self.fixed_json => Operation::Arrow,
            B::Arrow => Operation::LegacyArrow,
            B::ArrowText if self.fixed_json => Operation::ArrowText,
            B::ArrowText => Operation::LegacyArrowText,
        };
        self.composed(operation, [left, right], report)
    }

    fn equality(&self, span: Span, left: &Expr, right: &Expr, report: &mut SqlReport<'_>) -> Option<Clause> {
        let sides = self.all([left, right], report)?;
        let [(left, _), (right, _)] = sides.as_slice() else { return None };
        let parameter = match (&left.class, &right.class) {
            (Class::Parameter, Class::Parameter) if self.kind == Kind::Data => {
                report
                    .fatal("parameters-on-both-sides", span, "two parameters of the bucket are compared, and no column")
                    .help("compare them under `parameters`, where the request is known");
                return None;
            }
            (Class::Parameter, Class::Row) => left.value.clone(),
            (Class::Row, Class::Parameter) => right.value.clone(),
            (Class::Parameter, Class::Static) if self.kind == Kind::Data => left.value.clone(),
            (Class::Static, Class::Parameter) if self.kind == Kind::Data => right.value.clone(),
            _ => return self.compose(Operation::Equal, sides, report),
        };
        let values = sides.into_iter().map(|(side, _)| side.value).collect();
        Some(Clause::matching(Expression::Call(Operation::Equal, values), &parameter, false, false))
    }

    fn membership(
        &self,
        span: Span,
        operand: &Expr,
        negated: bool,
        list: &Expr,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        let sides = self.all([operand, list], report);
        if negated && self.kind != Kind::Stream {
            report
                .fatal("operator-not-supported", span, "NOT IN is not supported here")
                .help("write `NOT (x IN list)`");
            return None;
        }
        let mut sides = sides?;
        let (value, list_span) = (sides[0].0.clone(), sides[1].1);
        let list = sides[1].0.clone();
        let found = match (&value.class, &list.class) {
            (Class::Parameter, Class::Row) => {
                let elements = Expression::Call(Operation::Array, vec![list.value]);
                let found = Expression::Call(Operation::InEach, vec![value.value.clone(), elements]);
                Clause::matching(found, &value.value, true, false)
            }
            (Class::Parameter, Class::Static) if self.kind == Kind::Data => {
                let elements = Expression::Call(Operation::Array, vec![list.value]);
                let found = Expression::Call(Operation::InEach, vec![value.value.clone(), elements]);
                Clause::matching(found, &value.value, true, false)
            }
            (_, Class::Parameter) if self.kind == Kind::Data => {
                report
                    .fatal("parameter-right-of-in", list_span, "a parameter of the bucket cannot be a list")
                    .help("select its elements under `parameters`, with json_each, and compare by `=` here");
                return None;
            }
            (Class::Row, Class::Parameter) => {
                let found = Expression::Call(Operation::InEach, vec![value.value, self.request_list(&list.value)]);
                Clause::matching(found, &list.value, false, true)
            }
            _ => {
                let sides = std::mem::take(&mut sides);
                let found = self.compose(Operation::InJson, sides, report)?;
                return Some(if negated { Clause::new(found.value.not(), found.class) } else { found });
            }
        };
        if negated {
            return self.negated(span, report);
        }
        Some(found)
    }

    pub(in crate::config) fn negated(&self, span: Span, report: &mut SqlReport<'_>) -> Option<Clause> {
        report
            .fatal("negation-not-allowed", span, "NOT cannot stand over a match of rows and the request")
            .help("a bucket holds what is, and not what is missing: keep the opposite in a column of its own");
        None
    }

    fn overlap(&self, span: Span, left: &Expr, right: &Expr, report: &mut SqlReport<'_>) -> Option<Clause> {
        let sides = self.all([left, right], report);
        if self.kind != Kind::Stream {
            report
                .fatal("operator-not-supported", span, "`&&` is not supported here")
                .help("streams have it; here `bucket.x IN list` may do");
            return None;
        }
        let sides = sides?;
        let (row, parameter) = match (&sides[0].0.class, &sides[1].0.class) {
            (Class::Row, Class::Parameter) => (&sides[0].0.value, &sides[1].0.value),
            (Class::Parameter, Class::Row) => (&sides[1].0.value, &sides[0].0.value),
            _ => return self.compose(Operation::Overlap, sides, report),
        };
        let lists = vec![row_list(row), self.request_list(parameter)];
        Some(Clause::matching(Expression::Call(Operation::OverlapEach, lists), parameter, true, true))
    }

    /// A list of the request, in which other JSON has no elements. Streams fail for what is not JSON, definitions do not.
    fn request_list(&self, list: &Condition) -> Condition {
        let json = match self.kind {
            Kind::Stream => {
                let whole = Expression::Literal(Value::text("$"));
                Expression::Call(Operation::ArrowText, vec![list.clone(), whole])
            }
            Kind::Data | Kind::Parameters | Kind::Payload => list.clone(),
        };
        Expression::Call(Operation::ArrayOrNull, vec![json])
    }

    fn call(&self, call: &Call, report: &mut SqlReport<'_>) -> Option<Clause> {
        if let Some(schema) = &call.schema {
            return self.request_value(schema, call, report);
        }
        let Some(function) = Function::find_legacy(&call.name.text.to_lowercase(), self.fixed_json) else {
            return self.unknown(call, &[], report);
        };
        let arguments = self.all(&call.arguments, report);
        if let Some(span) = call.aggregate {
            report.fatal("aggregate-syntax", span, "aggregates are not supported: a query selects rows, one by one");
            return None;
        }
        self.compose(Operation::Function(function), arguments?, report)
    }
}

/// A list of the row on a side of `&&`, where NULL is an error like everything that is not a list.
pub(in crate::config) fn row_list(list: &Condition) -> Condition {
    let no_list = Expression::Literal(Value::text("{}"));
    let json = Expression::Call(Operation::Function(Function::IfNull), vec![list.clone(), no_list]);
    Expression::Call(Operation::Array, vec![json])
}

/// An integer literal, which passes through a double in the older languages.
fn integer(digits: &str) -> Option<i64> {
    const EXACT: u64 = 1 << 53;
    let exact: i64 = digits.parse().ok()?;
    Some(if exact.unsigned_abs() <= EXACT { exact } else { exact as f64 as i64 })
}
