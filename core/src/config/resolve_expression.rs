//! Names inside expressions: columns, request values, functions; and the refusal of everything else by name.

use super::diagnostic::SqlReport;
use super::expression::{Column, ConditionInput, Expression, RequestInput, RequestSource};
use super::functions::Function;
use super::operation::{CastTarget, Operation};
use super::span::Span;
use super::sql::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat, Name, SelectItem};
use crate::suggestion::nearest_name;
use crate::value::Value;

type Condition = Expression<ConditionInput>;

/// What names mean inside a query.
#[derive(Debug)]
pub(super) struct Scope {
    /// The only name of the table: its alias, or its own.
    table: String,
}

/// Where an expression stands. In a condition, `IN` and `&&` read lists as `json_each` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Condition,
    Output,
}

const REQUEST_SCHEMAS: [&str; 3] = ["auth", "connection", "subscription"];

impl Scope {
    pub(super) fn new(table: String) -> Self {
        Self { table }
    }

    /// An expression of WHERE.
    pub(super) fn condition(&self, expr: &Expr, report: &mut SqlReport<'_>) -> Option<Condition> {
        self.expression(expr, Place::Condition, report)
    }

    /// An expression of the select list, which may use columns only; they are added to `named`.
    pub(super) fn row_value(
        &self,
        expr: &Expr,
        named: &mut Vec<(Column, Span)>,
        report: &mut SqlReport<'_>,
    ) -> Option<Expression<Column>> {
        let value = self.expression(expr, Place::Output, report)?;
        let mut requests = Vec::new();
        value.inputs(&mut |input| {
            if let ConditionInput::Request(request) = input {
                requests.push(request.span);
            }
        });
        for span in &requests {
            report
                .fatal("sync-of-parameter", *span, "values of the request cannot be synced as a column")
                .help("rows are stored once for all users; the client knows its own user and parameters");
        }
        value.map(&mut |input| match input {
            ConditionInput::Column(name, span) => {
                named.push((name.clone(), *span));
                Some(name.clone())
            }
            ConditionInput::Request(_) => None,
        })
    }

    pub(super) fn check_table(&self, table: &Name, span: Span, report: &mut SqlReport<'_>) -> Option<()> {
        if table.text.to_lowercase() == self.table.to_lowercase() {
            return Some(());
        }
        let message = format!("there is no table `{}` in this query", table.text);
        report.fatal("unknown-table-reference", span, message).help(format!("its table is `{}`", self.table));
        None
    }

    fn expression(&self, expr: &Expr, place: Place, report: &mut SqlReport<'_>) -> Option<Condition> {
        let call = |operation, arguments| Some(Expression::Call(operation, arguments));
        match &expr.kind {
            ExprKind::Null => Some(Expression::Literal(Value::Null)),
            ExprKind::Boolean(truth) => Some(Expression::Literal(Value::Integer(i64::from(*truth)))),
            ExprKind::Text(text) => Some(Expression::Literal(Value::text(text.as_str()))),
            ExprKind::Integer(digits) => match digits.parse() {
                Ok(integer) => Some(Expression::Literal(Value::Integer(integer))),
                Err(_) => {
                    report.fatal("sql-syntax", expr.span, "this integer does not fit into 64 bits");
                    None
                }
            },
            ExprKind::Decimal(digits) => match digits.parse() {
                Ok(real) => Some(Expression::Literal(Value::Real(real))),
                Err(_) => {
                    report.fatal("sql-syntax", expr.span, "this is not a number");
                    None
                }
            },
            ExprKind::Column { schema, table, name } => {
                if let Some(schema) = schema {
                    report
                        .fatal("schema-in-column-reference", expr.span, "a column is named without a schema")
                        .help(format!("remove `{}.`", schema.text));
                    return None;
                }
                if let Some(table) = table {
                    self.check_table(table, expr.span, report)?;
                }
                Some(Expression::Input(ConditionInput::Column(name.text.as_str().into(), name.span)))
            }
            ExprKind::Star { .. } => {
                report.fatal("star-not-allowed", expr.span, "`*` is not a value").help("name a column");
                None
            }
            ExprKind::And(members) => call(Operation::And, self.all(members, place, report)?),
            ExprKind::Or(members) => call(Operation::Or, self.all(members, place, report)?),
            ExprKind::Not(operand) => Some(self.expression(operand, place, report)?.not()),
            ExprKind::Binary { operator, left, right } => self.binary(*operator, expr, [left, right], place, report),
            ExprKind::Is { operand, negated, what } => {
                let operation = match what {
                    IsWhat::Null => Operation::IsNull,
                    IsWhat::True => Operation::IsTrue,
                    IsWhat::False => Operation::IsFalse,
                };
                let value = Expression::Call(operation, vec![self.expression(operand, place, report)?]);
                Some(if *negated { value.not() } else { value })
            }
            ExprKind::Between { operand, negated, low, high } => {
                let parts = [operand, low, high].map(|part| self.expression(part, place, report));
                let value = Expression::Call(Operation::Between, parts.into_iter().collect::<Option<_>>()?);
                Some(if *negated { value.not() } else { value })
            }
            ExprKind::In { operand, negated, list } => self.membership(expr, [operand, list], *negated, place, report),
            ExprKind::Call(function) => self.call(function, place, report),
            ExprKind::Like { operand, pattern } => {
                self.all_of([&**operand, pattern], place, report);
                report
                    .fatal("operator-not-supported", expr.span, "LIKE is not supported")
                    .help("compare with `=`, or keep the result in a column of its own");
                None
            }
            ExprKind::Unknown { operator, operands } => {
                self.all(operands, place, report);
                report.fatal(
                    "operator-not-supported",
                    expr.span,
                    format!("the operator `{operator}` is not supported"),
                );
                None
            }
            ExprKind::Sign { negative, operand } => {
                self.expression(operand, place, report);
                let sign = if *negative { '-' } else { '+' };
                report.fatal(
                    "operator-not-supported",
                    expr.span,
                    format!("`{sign}` before an expression is not supported"),
                );
                None
            }
            ExprKind::Cast { operand, target } => {
                let operand = self.expression(operand, place, report);
                let Some(to) = CastTarget::find(&target.text) else {
                    let message = format!("there is no cast to `{}`", target.text);
                    let diagnostic = report.fatal("bad-cast", target.span, message);
                    diagnostic.help(format!("the types are {}", CastTarget::NAMES.join(", ")));
                    return None;
                };
                call(Operation::Cast(to), vec![operand?])
            }
            ExprKind::Case { operand, branches, otherwise } => {
                let subject = match operand {
                    Some(operand) => Some(self.expression(operand, place, report)?),
                    None => None,
                };
                let parts = branches.iter().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref());
                let mut parts = self.all_of(parts, place, report)?;
                if let Some(subject) = subject {
                    for when in parts.chunks_exact_mut(2).map(|part| &mut part[0]) {
                        let value = std::mem::replace(when, Expression::Literal(Value::Null));
                        *when = Expression::Call(Operation::Equal, vec![subject.clone(), value]);
                    }
                }
                call(Operation::Case, parts)
            }
            ExprKind::List(members) => {
                self.all(members, place, report);
                let message = "ARRAY and ROW may stand on the right of IN only";
                report.fatal("expression-not-supported", expr.span, message);
                None
            }
            ExprKind::Tuple(members) => {
                self.all(members, place, report);
                report
                    .fatal("expression-not-supported", expr.span, "a list in parentheses is not supported")
                    .help("write `x IN ARRAY['a', 'b']`");
                None
            }
            ExprKind::Subquery(_) => {
                report
                    .fatal("subquery-position", expr.span, "a subquery is not a value")
                    .help("`x IN (SELECT …)` is the form that will be supported");
                None
            }
            ExprKind::Exists => {
                report.fatal("subquery-position", expr.span, "EXISTS is not supported");
                None
            }
            ExprKind::Placeholder => {
                report
                    .fatal("sql-placeholder", expr.span, "placeholders have no value here")
                    .help("use auth.parameter('…'), connection.parameter('…') or subscription.parameter('…')");
                None
            }
        }
    }

    fn all(&self, members: &[Expr], place: Place, report: &mut SqlReport<'_>) -> Option<Vec<Condition>> {
        self.all_of(members.iter(), place, report)
    }

    /// All of them, so that all problems are reported at once.
    fn all_of<'e>(
        &self,
        members: impl IntoIterator<Item = &'e Expr>,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<Condition>> {
        let resolved: Vec<_> = members.into_iter().map(|member| self.expression(member, place, report)).collect();
        resolved.into_iter().collect()
    }

    fn binary(
        &self,
        operator: BinaryOperator,
        expr: &Expr,
        sides: [&Expr; 2],
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        use BinaryOperator as B;
        let arguments = self.all_of(sides, place, report)?;
        let operation = match operator {
            B::Equal => Operation::Equal,
            // So that NULL is different from everything.
            B::NotEqual => return Some(Expression::Call(Operation::Equal, arguments).not()),
            B::Less => Operation::Less,
            B::Greater => Operation::Greater,
            B::LessOrEqual => Operation::LessOrEqual,
            B::GreaterOrEqual => Operation::GreaterOrEqual,
            B::Arrow => Operation::Arrow,
            B::ArrowText => Operation::ArrowText,
            B::Add => Operation::Add,
            B::Subtract => Operation::Subtract,
            B::Multiply => Operation::Multiply,
            B::Divide => Operation::Divide,
            B::Concat => Operation::Concat,
            B::Overlap if place == Place::Output => Operation::Overlap,
            B::Overlap => {
                if arguments.iter().any(is_request) && !arguments.iter().any(has_column) {
                    return partitioned(expr.span, report);
                }
                Operation::OverlapEach
            }
        };
        Some(Expression::Call(operation, arguments))
    }

    fn membership(
        &self,
        expr: &Expr,
        [operand, list]: [&Expr; 2],
        negated: bool,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let needle = self.expression(operand, place, report);
        let value = match &list.kind {
            ExprKind::Subquery(select) => {
                let star = |item: &SelectItem| matches!(item.expr.kind, ExprKind::Star { .. });
                if !matches!(select.columns.as_slice(), [only] if !star(only)) {
                    let message = "a subquery after IN must select exactly one column";
                    report.fatal("not-a-single-column", list.span, message).help("name the column that is compared");
                    return None;
                }
                return not_yet(list.span, "subqueries", report);
            }
            ExprKind::List(members) => {
                let members = self.all(members, place, report);
                let mut arguments = vec![needle?];
                arguments.extend(members?);
                Expression::Call(Operation::InList, arguments)
            }
            _ => {
                let array = self.expression(list, place, report);
                let (needle, array) = (needle?, array?);
                let each = !negated && place == Place::Condition;
                if each && is_request(&needle) && !has_column(&array) {
                    return partitioned(expr.span, report);
                }
                Expression::Call(if each { Operation::InEach } else { Operation::InJson }, vec![needle, array])
            }
        };
        Some(if negated { value.not() } else { value })
    }

    fn call(&self, call: &Call, place: Place, report: &mut SqlReport<'_>) -> Option<Condition> {
        let Some(schema) = &call.schema else { return self.function(call, place, report) };
        let source = match schema.text.as_str() {
            "auth" => RequestSource::Auth,
            "connection" => RequestSource::Connection,
            "subscription" => RequestSource::Subscription,
            other if other.to_lowercase() == self.table.to_lowercase() => {
                return not_yet(call.span, "functions of a table", report);
            }
            other => {
                let message = format!("there is no function `{}`", call.full_name());
                let diagnostic = report.fatal("bad-function-schema", call.name_span(), message);
                match other {
                    "request" | "token_parameters" | "user_parameters" => {
                        diagnostic.help("streams use auth.…, connection.… and subscription.…");
                    }
                    _ => diagnostic.near(other, &REQUEST_SCHEMAS),
                }
                return None;
            }
        };
        let path = match (call.name.text.as_str(), call.arguments.as_slice()) {
            ("user_id", []) if source == RequestSource::Auth => vec!["sub".into()],
            ("parameters", []) => Vec::new(),
            ("parameter", [name]) => match &name.kind {
                ExprKind::Text(path) => path_of(path),
                _ => {
                    let message = "the name of a parameter must be written in single quotes";
                    report.fatal("expression-not-supported", name.span, message);
                    return None;
                }
            },
            ("parameters" | "parameter", arguments) => {
                let expected = usize::from(call.name.text == "parameter");
                let message = format!("`{}` takes {expected} arguments, not {}", call.full_name(), arguments.len());
                report.fatal("argument-count", call.span, message);
                return None;
            }
            ("user_id", _) if source == RequestSource::Auth => {
                report.fatal("argument-count", call.span, "`auth.user_id` takes no arguments");
                return None;
            }
            (name, _) => {
                let message = format!("there is no function `{}`", call.full_name());
                let diagnostic = report.fatal("unknown-request-function", call.name_span(), message);
                if name == "user_id" {
                    diagnostic.help("the user's id comes from the token: auth.user_id()");
                } else if nearest_name(name, &["user_id", "parameter", "parameters"]).is_some() {
                    diagnostic.near(name, &["user_id", "parameter", "parameters"]);
                } else {
                    let id = if source == RequestSource::Auth { "auth.user_id(), " } else { "" };
                    let schema = &schema.text;
                    diagnostic.help(format!("there are {id}{schema}.parameter('…') and {schema}.parameters()"));
                }
                return None;
            }
        };
        Some(Expression::Input(ConditionInput::Request(RequestInput { source, path, span: call.span })))
    }

    fn function(&self, call: &Call, place: Place, report: &mut SqlReport<'_>) -> Option<Condition> {
        let name = call.name.text.as_str();
        if name == "random" {
            let message = "`random` gives another value each time, so that rows would come and go";
            report.fatal("non-deterministic-function", call.name.span, message);
            return None;
        }
        let lower = name.to_lowercase();
        let Some((function, least, most)) = Function::find(&lower) else {
            report
                .fatal("unknown-function", call.name.span, format!("there is no function `{name}`"))
                .near(name, &Function::names());
            return None;
        };
        if let Some(span) = call.aggregate {
            report.fatal("aggregate-syntax", span, "aggregates are not supported: a query selects rows, one by one");
            return None;
        }
        let arguments = self.all(&call.arguments, place, report);
        let count = call.arguments.len();
        if !(least..=most).contains(&count) {
            let expected = match most {
                most if most == least => format!("{least}"),
                usize::MAX => format!("{least} or more"),
                most => format!("{least} to {most}"),
            };
            let message = format!("`{name}` takes {expected} arguments, not {count}");
            report.fatal("argument-count", call.span, message);
            return None;
        }
        Some(Expression::Call(Operation::Function(function), arguments?))
    }
}

/// Lists of the request are not searched for values of the request.
fn partitioned(span: Span, report: &mut SqlReport<'_>) -> Option<Condition> {
    report
        .fatal(
            "request-function-partitioned",
            span,
            "a value of the request cannot be searched in a list of the request",
        )
        .help("for fixed values write `x IN ARRAY['a', 'b']`");
    None
}

fn not_yet(span: Span, what: &str, report: &mut SqlReport<'_>) -> Option<Condition> {
    let verb = if what.ends_with('s') || what == "`->` and `->>`" { "are" } else { "is" };
    report.fatal("not-supported-yet", span, format!("{what} {verb} not supported yet"));
    None
}

fn has_column(condition: &Condition) -> bool {
    let mut found = false;
    condition.inputs(&mut |input| found |= matches!(input, ConditionInput::Column(..)));
    found
}

fn is_request(condition: &Condition) -> bool {
    !has_column(condition) && !condition.is_constant()
}

/// `name` is one key, dots included; `$.a.b` is a path, `$` all of it.
fn path_of(path: &str) -> Vec<std::sync::Arc<str>> {
    if path.starts_with('$') { path.split('.').skip(1).map(std::sync::Arc::from).collect() } else { vec![path.into()] }
}
