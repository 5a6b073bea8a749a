//! A second reading of sync configs, for tests: which rows does this user see?
//!
//! It asks each query of each row, as if the rows of the source lay there and the user were known: no buckets, no normal
//! forms, no keys, no lookups, nothing prepared. It is as slow as it is plain, and shares nothing with the engine but the
//! parsed syntax tree, so that the two are wrong in the same way only where the tree is. What it does not know yet (time,
//! geometry, and whatever the engine refuses) it says.

mod interpreter;
mod json;
mod scalar;
mod text;
mod truth;

use super::diagnostic::Report;
use super::outline::{self, Outline};
use super::request::{ConfigRequest, StreamSubscription};
use super::sql::ast::{Expr, ExprKind, FromItem, Relation, Select};
use super::{Diagnostics, document, sql};
use crate::error::{Error, Result};
use crate::table::SourceTable;
use crate::value::Value;
use interpreter::{Environment, Place, Stop};
use json::Json;
use truth::Truth;

/// A sync config that is interpreted rather than compiled.
#[derive(Debug)]
pub struct NaiveConfig {
    streams: Vec<NaiveStream>,
}

#[derive(Debug)]
struct NaiveStream {
    name: String,
    auto_subscribe: bool,
    queries: Vec<Select>,
}

/// A table of the source with all its rows.
#[derive(Debug, Clone, Copy)]
pub struct NaiveTable<'a> {
    /// Its description.
    pub table: &'a SourceTable,
    /// Its rows: one value per column.
    pub rows: &'a [Vec<Value>],
}

/// A row that a user sees, as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NaiveRow {
    /// The source row: index of the table, and index of the row in it.
    pub source: (usize, usize),
    /// The client's table.
    pub object_type: String,
    /// The client's row id.
    pub object_id: String,
    /// The row as JSON text.
    pub data: String,
    /// Whether the user must see it. If not, one part of the condition says yes and another one cannot be evaluated:
    /// either answer is right, since the language does not say which parts are evaluated together.
    pub certain: bool,
}

/// The values of a request, each source as one JSON object; an automatic subscription has none.
#[derive(Debug)]
struct RequestValues {
    auth: Json,
    connection: Json,
    subscription: Option<Json>,
}

impl NaiveConfig {
    /// Reads a config. Whether its queries make sense is for [`SyncConfig::parse`](crate::SyncConfig::parse) to say.
    ///
    /// # Errors
    /// What is wrong with its YAML or the syntax of its SQL.
    pub fn parse(text: &str) -> std::result::Result<Self, Diagnostics> {
        let mut report = Report::default();
        let root = document::read(text, &mut report);
        let streams = match outline::read(root.as_ref(), &mut report) {
            Some(Outline { options, streams, .. }) if options.edition == Some(outline::EDITION) => streams,
            _ => {
                report.fatal("not-known-here", Default::default(), "only streams of edition 3 are known here");
                Vec::new()
            }
        };
        let mut naive = Self { streams: Vec::new() };
        for stream in &streams {
            let mut queries = Vec::new();
            for scalar in &stream.queries {
                match sql::parse(scalar.text(), sql::SqlDialect::Streams) {
                    Ok(select) => queries.push(select),
                    Err(errors) => {
                        for error in errors {
                            report.of(scalar).fatal(error.kind, error.span, error.message);
                        }
                    }
                }
            }
            let (name, auto_subscribe) = (stream.name.text().to_owned(), stream.auto_subscribe);
            naive.streams.push(NaiveStream { name, auto_subscribe, queries });
        }
        let diagnostics = report.finish(text);
        if diagnostics.is_fatal() { Err(diagnostics) } else { Ok(naive) }
    }

    /// Every row of `tables` that this request makes visible, in order, each form of it once.
    ///
    /// # Errors
    /// `Invalid` if the config uses what is not known here.
    pub fn rows(&self, tables: &[NaiveTable<'_>], request: &ConfigRequest<'_>) -> Result<Vec<NaiveRow>> {
        let mut seen: Vec<NaiveRow> = Vec::new();
        for stream in &self.streams {
            let explicit = request.subscriptions.iter().filter(|wish| wish.stream == stream.name).map(Some);
            let automatic = (stream.auto_subscribe && request.include_defaults).then_some(None);
            for wish in automatic.into_iter().chain(explicit) {
                let values = RequestValues::of(request, wish);
                for select in &stream.queries {
                    answer(select, tables, &values, &mut seen)
                        .map_err(|what| Error::invalid(format!("the naive evaluator does not know {what}")))?;
                }
            }
        }
        // What one query shows for sure is not made doubtful by another.
        seen.sort_by(|a, b| key(a).cmp(&key(b)).then(b.certain.cmp(&a.certain)));
        seen.dedup_by(|a, b| key(a) == key(b));
        Ok(seen)
    }
}

fn key(row: &NaiveRow) -> ((usize, usize), &str, &str, &str) {
    (row.source, &row.object_type, &row.object_id, &row.data)
}

impl RequestValues {
    fn of(request: &ConfigRequest<'_>, wish: Option<&StreamSubscription>) -> Self {
        Self {
            auth: Json::of_map(request.identity.claims()),
            connection: Json::of_map(request.parameters),
            subscription: wish.map(|wish| wish.parameters.as_ref().map_or(Json::Object(Vec::new()), Json::of_map)),
        }
    }
}

/// Adds the rows that one query shows.
fn answer(
    select: &Select,
    tables: &[NaiveTable<'_>],
    request: &RequestValues,
    seen: &mut Vec<NaiveRow>,
) -> std::result::Result<(), String> {
    let [from] = select.from.as_slice() else { return Err("queries of several tables".into()) };
    for (table_number, &NaiveTable { table, rows }) in tables.iter().enumerate() {
        if !reads(from, table)? {
            continue;
        }
        for (row_number, values) in rows.iter().enumerate() {
            let environment = Environment { table, values, request, place: Place::Condition };
            let truth = match &select.condition {
                None => Truth::YES,
                Some(condition) => truth::of(condition, &environment)?,
            };
            if !truth.may_hold() {
                continue;
            }
            let environment = Environment { place: Place::Output, ..environment };
            let (object_id, data) = match output(select, &environment) {
                Ok(output) => output,
                // A row that cannot be written is not there.
                Err(Stop::Error) => continue,
                Err(Stop::Unknown(what)) => return Err(what),
            };
            let object_type = match (&from.alias, &from.relation) {
                (Some(alias), _) => alias.text.clone(),
                (None, _) => table.name.to_string(),
            };
            let source = (table_number, row_number);
            seen.push(NaiveRow { source, object_type, object_id, data, certain: truth.must_hold() });
        }
    }
    Ok(())
}

/// Whether an entry of FROM means this table.
fn reads(from: &FromItem, table: &SourceTable) -> std::result::Result<bool, String> {
    let Relation::Table { schema, name } = &from.relation else { return Err("FROM without a table".into()) };
    let schema = schema.as_ref().map_or("public", |schema| &schema.text);
    Ok(schema == &*table.schema
        && match name.text.strip_suffix('%') {
            Some(prefix) => table.name.starts_with(prefix),
            None => name.text == *table.name,
        })
}

/// The id of a row and its JSON text.
fn output(select: &Select, environment: &Environment<'_>) -> std::result::Result<(String, String), Stop> {
    // A name keeps the place where it first stood, and only its last value is asked for.
    let mut members: Vec<(&str, Content<'_>)> = Vec::new();
    let mut set = |name, content| match members.iter_mut().find(|(known, _)| *known == name) {
        // A blob of `*` is not sent, and does not hide what is.
        Some(_) if matches!(content, Content::Value(Value::Blob(_))) => {}
        Some((_, before)) => *before = content,
        None => members.push((name, content)),
    };
    for item in &select.columns {
        match &item.expr.kind {
            ExprKind::Star { .. } => {
                for (column, value) in environment.table.columns.iter().zip(environment.values) {
                    set(&*column.name, Content::Value(value));
                }
            }
            kind => {
                let name = match (&item.alias, kind) {
                    (Some(alias), _) => &alias.text,
                    (None, ExprKind::Column { name, .. }) => &name.text,
                    (None, _) => return Err(Stop::Unknown("columns without a name".into())),
                };
                set(name, Content::Expression(&item.expr));
            }
        }
    }
    let mut written: Vec<(&str, Value)> = Vec::new();
    for (name, content) in members {
        let value = match content {
            Content::Value(value) => value.clone(),
            Content::Expression(expr) => match &expr.kind {
                // A column that the table does not have is left out, rather than NULL.
                ExprKind::Column { name, .. } if environment.column(&name.text).is_none() => continue,
                _ => interpreter::value(expr, environment)?,
            },
        };
        if !matches!(value, Value::Blob(_)) {
            written.push((name, value));
        }
    }
    let id = written.iter().find(|(name, _)| *name == "id").and_then(|(_, value)| scalar::text(value));
    let member = |(name, value): &(&str, Value)| format!("{}:{}", text::json_string(name), text::json_value(value));
    let data = written.iter().map(member).collect::<Vec<_>>().join(",");
    Ok((id.unwrap_or_default(), format!("{{{data}}}")))
}

/// What a member of a row is made of.
enum Content<'a> {
    Value(&'a Value),
    Expression(&'a Expr),
}
