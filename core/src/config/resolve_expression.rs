//! Names inside expressions: columns, request values, functions; and the refusal of everything else by name.

use super::diagnostic::SqlReport;
use super::expression::{ConditionInput, Expression, RequestInput, RequestSource, SourceId, TablePart};
use super::functions::Function;
use super::operation::{CastTarget, Operation};
use super::resolve::{QuerySource, Resolver};
use super::scope::{Condition, NameError, Scope, SetKind};
use super::span::Span;
use super::sql::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat, Name};
use crate::suggestion::nearest_name;
use crate::value::Value;

/// Where an expression stands. In a condition, `IN` and `&&` read lists as `json_each` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where AND, OR and NOT lead to.
    Condition,
    /// Inside of another expression of a condition.
    Operand,
    Output,
}

impl Place {
    /// The place of the parts of an expression that stands here.
    pub(super) fn inner(self) -> Self {
        match self {
            Self::Condition => Self::Operand,
            other => other,
        }
    }
}

/// Operators that may be written and have no value: a row that needs one is an error, and syncs to nobody.
const NOT_IMPLEMENTED: [&str; 5] = ["%", "&", "|", "<<", ">>"];
const REQUEST_SCHEMAS: [&str; 3] = ["auth", "connection", "subscription"];
const TABLE_PARTS: [&str; 3] = ["schema", "table_name", "table_suffix"];

impl Resolver<'_> {
    pub(super) fn expression(
        &mut self,
        scope: &Scope<'_>,
        expr: &Expr,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let call = |operation, arguments| Some(Expression::Call(operation, arguments));
        let inner = place.inner();
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
                let span = table.as_ref().map_or(name.span, |table| table.span.to(name.span));
                match scope.column(table.as_ref(), name, report.place(name.span)) {
                    Ok(column) => Some(column),
                    Err(error) => unknown_name(error, table.as_ref(), name, span, report),
                }
            }
            ExprKind::Star { .. } => {
                report.fatal("star-not-allowed", expr.span, "`*` is not a value").help("name a column");
                None
            }
            ExprKind::And(members) => call(Operation::And, self.all(scope, members, place, report)?),
            ExprKind::Or(members) => call(Operation::Or, self.all(scope, members, place, report)?),
            ExprKind::Not(operand) => Some(self.expression(scope, operand, place, report)?.not()),
            ExprKind::Binary { operator, left, right } => {
                self.binary(scope, *operator, expr, [left, right], place, report)
            }
            ExprKind::Is { operand, negated, what } => {
                let operation = match what {
                    IsWhat::Null => Operation::IsNull,
                    IsWhat::True => Operation::IsTrue,
                    IsWhat::False => Operation::IsFalse,
                };
                let value = Expression::Call(operation, vec![self.expression(scope, operand, inner, report)?]);
                Some(if *negated { value.not() } else { value })
            }
            ExprKind::Between { operand, negated, low, high } => {
                let parts = [operand, low, high].map(|part| self.expression(scope, part, inner, report));
                let value = Expression::Call(Operation::Between, parts.into_iter().collect::<Option<_>>()?);
                Some(if *negated { value.not() } else { value })
            }
            ExprKind::In { operand, negated, list } => {
                self.membership(scope, expr, [operand, list], *negated, place, report)
            }
            ExprKind::Call(function) => self.call(scope, function, place, report),
            ExprKind::Like { operand, pattern } => {
                self.all_of(scope, [&**operand, pattern], inner, report);
                report
                    .fatal("operator-not-supported", expr.span, "LIKE is not supported")
                    .help("compare with `=`, or keep the result in a column of its own");
                None
            }
            ExprKind::Unknown { operator, operands } => {
                let operands = self.all(scope, operands, inner, report);
                if let Some(known) = NOT_IMPLEMENTED.iter().find(|known| **known == operator.as_str()) {
                    return call(Operation::NotImplemented(known), operands?);
                }
                let message = format!("the operator `{operator}` is not supported");
                report.fatal("operator-not-supported", expr.span, message);
                None
            }
            ExprKind::Sign { negative, operand } => {
                let operand = self.expression(scope, operand, inner, report);
                if !negative {
                    return operand;
                }
                let sign = if *negative { '-' } else { '+' };
                report.fatal(
                    "operator-not-supported",
                    expr.span,
                    format!("`{sign}` before an expression is not supported"),
                );
                None
            }
            ExprKind::Cast { operand, target } => {
                let operand = self.expression(scope, operand, inner, report);
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
                    Some(operand) => Some(self.expression(scope, operand, inner, report)?),
                    None => None,
                };
                let parts = branches.iter().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref());
                let mut parts = self.all_of(scope, parts, inner, report)?;
                if let Some(subject) = subject {
                    for when in parts.chunks_exact_mut(2).map(|part| &mut part[0]) {
                        let value = std::mem::replace(when, Expression::Literal(Value::Null));
                        *when = Expression::Call(Operation::Equal, vec![subject.clone(), value]);
                    }
                }
                call(Operation::Case, parts)
            }
            ExprKind::List(members) => {
                self.all(scope, members, inner, report);
                let message = "ARRAY and ROW may stand on the right of IN only";
                report.fatal("expression-not-supported", expr.span, message);
                None
            }
            ExprKind::Tuple(members) => {
                self.all(scope, members, inner, report);
                report
                    .fatal("expression-not-supported", expr.span, "a list in parentheses is not supported")
                    .help("write `x IN ARRAY['a', 'b']`");
                None
            }
            ExprKind::Subquery(_) => {
                report
                    .fatal("subquery-position", expr.span, "a subquery may stand on the right of IN and && only")
                    .help("write `x IN (SELECT …)` as a condition by itself, or within AND and OR");
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

    fn all(
        &mut self,
        scope: &Scope<'_>,
        members: &[Expr],
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<Condition>> {
        self.all_of(scope, members.iter(), place, report)
    }

    /// All of them, so that all problems are reported at once.
    fn all_of<'e>(
        &mut self,
        scope: &Scope<'_>,
        members: impl IntoIterator<Item = &'e Expr>,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<Condition>> {
        let resolved: Vec<_> =
            members.into_iter().map(|member| self.expression(scope, member, place, report)).collect();
        resolved.into_iter().collect()
    }

    fn binary(
        &mut self,
        scope: &Scope<'_>,
        operator: BinaryOperator,
        expr: &Expr,
        sides: [&Expr; 2],
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        use BinaryOperator as B;
        if operator == BinaryOperator::Overlap
            && let [left, Expr { kind: ExprKind::Subquery(select), .. }] = sides
        {
            let needle = self.expression(scope, left, place.inner(), report);
            let found = self.subquery_after(scope, expr.span, sides[1].span, select, place, report);
            let (needle, (value, condition)) = (needle?, found?);
            let equal = Expression::Call(Operation::InEach, vec![value, needle]);
            return Some(Expression::all(Operation::And, vec![equal, condition]));
        }
        let arguments = self.all_of(scope, sides, place.inner(), report)?;
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
        &mut self,
        scope: &Scope<'_>,
        expr: &Expr,
        [operand, list]: [&Expr; 2],
        negated: bool,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let needle = self.expression(scope, operand, place.inner(), report);
        let value = match &list.kind {
            ExprKind::Subquery(select) => {
                let found = self.subquery_after(scope, expr.span, list.span, select, place, report);
                joined(needle?, found?)
            }
            ExprKind::Column { schema: None, table: None, name } if self.ctes.find(&name.text).is_some() => {
                let found = self.named_query_after(expr.span, name, place, report);
                joined(needle?, found?)
            }
            ExprKind::List(members) => {
                let members = self.all(scope, members, place.inner(), report);
                let mut arguments = vec![needle?];
                arguments.extend(members?);
                Expression::Call(Operation::InList, arguments)
            }
            _ => {
                let array = self.expression(scope, list, place.inner(), report);
                let (needle, array) = (needle?, array?);
                let each = !negated && place != Place::Output;
                if each && is_request(&needle) && !has_column(&array) {
                    return partitioned(expr.span, report);
                }
                Expression::Call(if each { Operation::InEach } else { Operation::InJson }, vec![needle, array])
            }
        };
        Some(if negated { value.not() } else { value })
    }

    fn call(&mut self, scope: &Scope<'_>, call: &Call, place: Place, report: &mut SqlReport<'_>) -> Option<Condition> {
        let Some(schema) = &call.schema else { return self.function(scope, call, place, report) };
        let source = match schema.text.as_str() {
            "auth" => RequestSource::Auth,
            "connection" => RequestSource::Connection,
            "subscription" => RequestSource::Subscription,
            other if scope.set(other).is_some() => return self.table_part(scope, other, call, report),
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
        let span = report.place(call.span);
        Some(Expression::Input(ConditionInput::Request(RequestInput { source, path, span })))
    }

    /// `t.schema()`, `t.table_name()` and `t.table_suffix()` of a table in FROM.
    fn table_part(
        &mut self,
        scope: &Scope<'_>,
        table: &str,
        call: &Call,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let part = match call.name.text.to_lowercase().as_str() {
            "schema" => TablePart::Schema,
            "table_name" => TablePart::Name,
            "table_suffix" => TablePart::Suffix,
            name => {
                let message = format!("there is no function `{}`", call.full_name());
                let diagnostic = report.fatal("bad-function-schema", call.name_span(), message);
                diagnostic
                    .help(format!("a table has {}", TABLE_PARTS.map(|part| format!("{table}.{part}()")).join(", ")));
                diagnostic.near(name, &TABLE_PARTS);
                return None;
            }
        };
        if !call.arguments.is_empty() {
            let message = format!("`{}` takes no arguments", call.full_name());
            report.fatal("argument-count", call.name_span(), message);
            return None;
        }
        let Some(SetKind::Table(source)) = scope.set(table).map(|set| &set.kind) else {
            let message = format!("`{table}` is not a table of the source, so that it has no name of its own");
            report.fatal("metadata-on-subquery", call.name_span(), message);
            return None;
        };
        if let (TablePart::Suffix, Some(QuerySource::Table { reference, .. })) = (part, self.sources.get(source.0))
            && !reference.prefix
        {
            report
                .warning("table-suffix-without-wildcard", call.span, "this table has no suffix: its name is no pattern")
                .help("write the table as `\"name_%\"`");
        }
        Some(table_input(*source, part, report.place(call.span)))
    }

    fn function(
        &mut self,
        scope: &Scope<'_>,
        call: &Call,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
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
        let arguments = self.all(scope, &call.arguments, place.inner(), report);
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

/// `x IN (SELECT e …)` as a join: `x = e`, and what the subquery asks for.
fn joined(needle: Condition, (value, condition): (Condition, Condition)) -> Condition {
    let equal = Expression::Call(Operation::Equal, vec![needle, value]);
    Expression::all(Operation::And, vec![equal, condition])
}

fn unknown_name(
    error: NameError,
    table: Option<&Name>,
    name: &Name,
    span: Span,
    report: &mut SqlReport<'_>,
) -> Option<Condition> {
    let near = |name: &str, names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        nearest_name(name, &names).map(str::to_owned)
    };
    let table = table.map_or("", |table| &table.text);
    match error {
        NameError::NoTable => {
            let message = format!("`{}` is a column, and this query has no table", name.text);
            report.fatal("unknown-table-reference", span, message).help("texts stand in single quotes");
        }
        NameError::Ambiguous(tables) => {
            let message = format!("`{}` may be a column of several tables", name.text);
            let help = format!("write the table before it: {}", tables.join(", "));
            report.fatal("ambiguous-reference", span, message).help(help);
        }
        NameError::UnknownTable(tables) => {
            let diagnostic =
                report.fatal("unknown-table-reference", span, format!("there is no table `{table}` in this query"));
            match near(table, &tables) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None if tables.is_empty() => {}
                None => diagnostic.help(format!("it has {}", tables.join(", "))),
            }
        }
        NameError::UnknownColumn(columns) => {
            let diagnostic = report.fatal("column-not-found", span, format!("there is no column `{}` here", name.text));
            match near(&name.text, &columns) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None if columns.is_empty() => {}
                None => diagnostic.help(format!("there are {}", columns.join(", "))),
            }
        }
    }
    None
}

fn table_input(source: SourceId, part: TablePart, span: Span) -> Condition {
    Expression::Input(ConditionInput::Table { source, part, span })
}

fn has_column(condition: &Condition) -> bool {
    let mut found = false;
    condition.inputs(&mut |input| found |= input.source().is_some());
    found
}

fn is_request(condition: &Condition) -> bool {
    !has_column(condition) && !condition.is_constant()
}

/// `name` is one key, dots included; `$.a.b` is a path, `$` all of it.
pub(super) fn path_of(path: &str) -> Vec<std::sync::Arc<str>> {
    if path.starts_with('$') { path.split('.').skip(1).map(std::sync::Arc::from).collect() } else { vec![path.into()] }
}
