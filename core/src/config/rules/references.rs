//! Names in the older languages: columns, parameters of buckets, and values of the request.

use std::borrow::Cow;

use super::super::cast;
use super::super::diagnostic::SqlReport;
use super::super::evaluate::evaluate;
use super::super::expression::{
    ConditionInput, EachPart, Expression, RequestInput, RequestSource, SourceId, TablePart,
};
use super::super::functions::Function;
use super::super::operation::Operation;
use super::super::resolve_expression::path_of;
use super::super::scope::Condition;
use super::super::span::Span;
use super::super::sql::ast::{Call, Name};
use super::clause::{Class, Clause};
use super::clause_resolver::{ClauseResolver, Kind};
use crate::suggestion::nearest_name;
use crate::value::Value;

/// What FROM reads.
#[derive(Debug, Clone)]
pub(in crate::config) struct Rows {
    /// The name by which columns may be qualified.
    pub(in crate::config) name: String,
    pub(in crate::config) source: SourceId,
    pub(in crate::config) kind: RowsKind,
}

/// Kinds of [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum RowsKind {
    Table,
    /// Tables of one prefix.
    Tables,
    /// `json_each` over a value of the request.
    Each,
}

/// Warns of capitals that are not there: names without quotes are folded.
pub(in crate::config) fn warn_of_folding(name: &Name, report: &mut SqlReport<'_>) {
    let written = name.span.of(report.sql());
    if written.starts_with('"') || written == name.text {
        return;
    }
    let help =
        format!("write \"{written}\" in double quotes to keep its capitals, or {} to say what is read", name.text);
    let message = format!("`{written}` without quotes is `{}`", name.text);
    report.warning("identifier-lowercased", name.span, message).help(help);
}

impl ClauseResolver<'_> {
    pub(super) fn column(
        &self,
        schema: Option<&Name>,
        table: Option<&Name>,
        name: &Name,
        span: Span,
        report: &mut SqlReport<'_>,
    ) -> Option<Clause> {
        if let Some(schema) = schema {
            report
                .fatal("schema-in-column-reference", span, "a column is named without a schema")
                .help(format!("remove `{}.`", schema.text));
            return None;
        }
        for name in table.into_iter().chain([name]) {
            warn_of_folding(name, report);
        }
        let place = report.place(span);
        let parameters = match (self.kind, table.map(|table| table.text.as_str())) {
            (Kind::Data, Some("bucket")) => {
                let input = ConditionInput::Bucket { name: name.text.as_str().into(), span: place };
                return Some(Clause::new(Expression::Input(input), Class::Parameter));
            }
            (Kind::Parameters, Some("token_parameters")) if name.text == "user_id" => {
                Some((RequestSource::Auth, "sub"))
            }
            (Kind::Parameters, Some("token_parameters")) => Some((RequestSource::TokenParameters, name.text.as_str())),
            (Kind::Parameters, Some("user_parameters")) => Some((RequestSource::UserParameters, name.text.as_str())),
            _ => None,
        };
        if let Some((source, key)) = parameters {
            return Some(request(source, vec![key.into()], place));
        }
        match (&self.rows, table) {
            (Some(rows), None) => self.column_of(rows, name, span, report),
            (Some(rows), Some(table)) if rows.name == table.text => self.column_of(rows, name, span, report),
            (rows, table) => {
                let message = match table {
                    Some(table) => format!("there is no table `{}` in this query", table.text),
                    None => format!("`{}` is a column, and this query has no table", name.text),
                };
                let diagnostic = report.fatal("undefined-reference", span, message);
                match (rows, table.map(|table| table.text.as_str())) {
                    (_, Some("bucket")) => diagnostic.help("parameters of the bucket are for the queries under `data`"),
                    (_, Some("token_parameters" | "user_parameters")) => {
                        diagnostic.help("values of the request are for the queries under `parameters`");
                    }
                    (Some(rows), Some(_)) => diagnostic.help(format!("it has `{}`", rows.name)),
                    _ => diagnostic.help("texts stand in single quotes"),
                }
                None
            }
        }
    }

    fn column_of(&self, rows: &Rows, name: &Name, span: Span, report: &mut SqlReport<'_>) -> Option<Clause> {
        let (source, place) = (rows.source, report.place(span));
        let input = match (rows.kind, name.text.as_str()) {
            (RowsKind::Tables, "_table_suffix") => {
                ConditionInput::Table { source, part: TablePart::Suffix, span: place }
            }
            (RowsKind::Table | RowsKind::Tables, column) => {
                ConditionInput::Column { source, name: column.into(), span: place }
            }
            (RowsKind::Each, "key") => ConditionInput::Each { source, part: EachPart::Key, span: place },
            (RowsKind::Each, "value") => {
                let value = Expression::Input(ConditionInput::Each { source, part: EachPart::Value, span: place });
                let value = if self.fixed_json { value } else { if_null(value, "null") };
                return Some(Clause::new(value, Class::Parameter));
            }
            (RowsKind::Each, _) => {
                let message = format!("there is no column `{}` here", name.text);
                report.fatal("undefined-reference", span, message).help("json_each has `key` and `value`");
                return None;
            }
        };
        let class = if rows.kind == RowsKind::Each { Class::Parameter } else { Class::Row };
        Some(Clause::new(Expression::Input(input), class))
    }

    /// `schema.name(…)`: values of the request.
    pub(super) fn request_value(&self, schema: &Name, call: &Call, report: &mut SqlReport<'_>) -> Option<Clause> {
        let (source, known): (_, &[&str]) = match (self.kind, schema.text.as_str()) {
            (Kind::Data | Kind::Payload, "request") => {
                let message = "values of the request are not known where rows are sorted into buckets";
                report.fatal("request-function-in-data-query", call.span, message).help(
                    "select it under `parameters` with a name, and compare a column with `bucket.` and that name here",
                );
                return None;
            }
            (Kind::Parameters, "request") => match call.name.text.as_str() {
                "user_id" | "jwt" => (RequestSource::Auth, &["user_id", "jwt", "parameters", "parameter"]),
                _ => (RequestSource::Connection, &["user_id", "jwt", "parameters", "parameter"]),
            },
            (Kind::Stream, "auth") => (RequestSource::Auth, &["user_id", "parameters", "parameter"]),
            (Kind::Stream, "connection") => (RequestSource::Connection, &["parameters", "parameter"]),
            (Kind::Stream, "subscription") => (RequestSource::Subscription, &["parameters", "parameter"]),
            _ => return self.unknown(call, &[], report),
        };
        let name = call.name.text.as_str();
        if !known.contains(&name) {
            return self.unknown(call, known, report);
        }
        let expected = usize::from(name == "parameter");
        if call.arguments.len() != expected {
            let message = format!("`{}` takes {expected} arguments, not {}", call.full_name(), call.arguments.len());
            report.fatal("argument-count", call.span, message);
            return None;
        }
        let place = report.place(call.span);
        let path = match (name, call.arguments.as_slice()) {
            ("user_id", _) => vec!["sub".into()],
            ("parameter", [argument]) => {
                let argument = self.clause(argument, report)?;
                let value = evaluate(&argument.value, &|_| Cow::Owned(Value::Null)).ok();
                let Some(path) = value.filter(|_| argument.class == Class::Static) else {
                    let message = "the name of a parameter must not depend on anything";
                    report.fatal("expression-not-supported", call.span, message).help("write it in single quotes");
                    return None;
                };
                match cast::text(&path) {
                    Some(path) => path_of(&path),
                    None => return Some(Clause::new(Expression::Literal(Value::Null), Class::Static)),
                }
            }
            _ => Vec::new(),
        };
        let whole = path.is_empty() && source == RequestSource::Subscription;
        let mut clause = request(source, path, place);
        if whole {
            // An automatic subscription has no parameters, which is none at all in edition 3.
            clause.value = if_null(clause.value, "{}");
        }
        Some(clause)
    }

    pub(super) fn unknown(&self, call: &Call, known: &[&str], report: &mut SqlReport<'_>) -> Option<Clause> {
        let message = format!("there is no function `{}`", call.full_name());
        let diagnostic = report.fatal("unknown-function", call.span, message);
        let name = call.name.text.as_str();
        match (&call.schema, self.kind) {
            (None, _) => diagnostic.near(name, &Function::names()),
            (Some(schema), _) if !known.is_empty() => {
                let schema = &schema.text;
                let all: Vec<String> = known.iter().map(|known| format!("{schema}.{known}")).collect();
                diagnostic.help(match nearest_name(name, known) {
                    Some(near) => format!("did you mean `{schema}.{near}`?"),
                    None => format!("there are {}", all.join(", ")),
                });
            }
            (_, Kind::Parameters) => {
                diagnostic.help("bucket definitions use request.user_id(), request.jwt() and request.parameters()");
            }
            (_, Kind::Stream) => diagnostic.help("streams use auth.…, connection.… and subscription.…"),
            (_, Kind::Data | Kind::Payload) => diagnostic.help("functions have no schema"),
        }
        None
    }
}

fn request(source: RequestSource, path: Vec<std::sync::Arc<str>>, span: Span) -> Clause {
    let input = ConditionInput::Request(RequestInput { source, path, span });
    Clause::new(Expression::Input(input), Class::Parameter)
}

fn if_null(value: Condition, otherwise: &str) -> Condition {
    let arguments = vec![value, Expression::Literal(Value::text(otherwise))];
    Expression::Call(Operation::Function(Function::IfNull), arguments)
}
