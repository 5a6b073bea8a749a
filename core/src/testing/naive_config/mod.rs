//! A second reading of sync configs, for tests: which rows does this user see?
//!
//! It asks each query of each row, as if the rows of the source lay there and the user were known: tables of FROM are nested
//! loops, and conditions are evaluated as they stand. There are no buckets, no normal forms, no keys, no lookups, nothing
//! prepared. It is as slow as it is plain, and shares nothing with the engine but the parsed syntax tree, so that the two are
//! wrong in the same way only where the tree is. What it does not know (time, geometry, and whatever the engine refuses) it
//! says.

mod definitions;
mod from;
mod interpreter;
mod json;
mod output;
mod scalar;
mod text;
mod truth;

use super::diagnostic::Report;
use super::outline::{self, Outline};
use super::request::{ConfigRequest, StreamSubscription};
use super::scalar::Scalar;
use super::sql::SqlDialect;
use super::sql::ast::Select;
use super::{Diagnostics, document, sql};
use crate::error::{Error, Result};
use crate::table::SourceTable;
use crate::value::Value;
use definitions::NaiveDefinition;
use from::Scope;
use interpreter::Stop;
use json::Json;

/// A sync config that is interpreted rather than compiled: the answer to "which rows does this user see" without buckets.
///
/// An application can hold its own config against it: give it rows of all tables and a request, and compare with what a
/// client has, or with what the application means.
#[derive(Debug)]
pub struct NaiveConfig {
    /// Of its streams.
    language: Language,
    /// Whether JSON paths follow the rules of edition 2.
    fixed_json: bool,
    streams: Vec<NaiveStream>,
    definitions: Vec<NaiveDefinition>,
    with: Vec<(String, Select)>,
}

#[derive(Debug)]
struct NaiveStream {
    name: String,
    auto_subscribe: bool,
    queries: Vec<Select>,
    with: Vec<(String, Select)>,
}

/// Which of the languages a query is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    /// Streams of edition 3.
    Streams,
    /// Streams of edition 2.
    OldStreams { fixed_json: bool },
    /// Bucket definitions; whether JSON paths follow the rules of edition 2.
    Rules { fixed_json: bool },
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

impl Language {
    fn is_old(self) -> bool {
        self != Self::Streams
    }

    /// Whether JSON paths are those of edition 1.
    fn has_old_paths(self) -> bool {
        matches!(self, Self::OldStreams { fixed_json: false } | Self::Rules { fixed_json: false })
    }
}

/// The values of a request, each source as one JSON object; an automatic subscription has none.
#[derive(Debug)]
struct RequestValues {
    auth: Json,
    connection: Json,
    subscription: Option<Json>,
}

/// Everything that a query may look at.
#[derive(Debug, Clone, Copy)]
struct World<'a> {
    language: Language,
    tables: &'a [NaiveTable<'a>],
    /// Of tables that are named without one.
    schema: &'a str,
    request: &'a RequestValues,
    /// The named queries of the stream, and those of the whole config.
    with: [&'a [(String, Select)]; 2],
    /// The values of `bucket.…`.
    bucket: &'a [(String, Value)],
}

impl<'a> World<'a> {
    /// The named query of this name; that of the stream hides that of the config.
    fn named(&self, name: &str) -> Option<&'a Select> {
        let name = name.to_lowercase();
        let mut all = self.with.into_iter().flatten();
        all.find(|(known, _)| known.to_lowercase() == name).map(|(_, select)| select)
    }

    fn without_named(&self) -> Self {
        Self { with: [&[], &[]], ..*self }
    }
}

/// The rows that were found.
#[derive(Debug, Default)]
struct Answer {
    rows: Vec<NaiveRow>,
    /// The request fails as a whole.
    fails: bool,
}

impl Answer {
    /// Adds the rows that one query shows; `certain` is whether the query is asked for sure.
    fn add<'a>(&mut self, select: &'a Select, world: &World<'a>, certain: bool) -> std::result::Result<(), String> {
        for (scope, truth) in from::combinations(select, Scope::empty(), world)? {
            match output::of(select, &scope, world) {
                Ok(None) => {}
                Ok(Some(sent)) => self.rows.push(NaiveRow {
                    source: sent.source,
                    object_type: sent.object_type,
                    object_id: sent.object_id,
                    data: sent.data,
                    certain: certain && truth.must_hold(),
                }),
                // A row that cannot be written is not there.
                Err(Stop::Error) => {}
                Err(Stop::Unknown(what)) => return Err(what),
            }
        }
        Ok(())
    }
}

impl NaiveConfig {
    /// Reads a config. Whether its queries make sense is for [`SyncConfig::parse`](crate::SyncConfig::parse) to say.
    ///
    /// # Errors
    /// What is wrong with its YAML or the syntax of its SQL.
    pub fn parse(text: &str) -> std::result::Result<Self, Diagnostics> {
        let mut report = Report::default();
        let root = document::read(text, &mut report);
        let mut naive = Self {
            language: Language::Streams,
            fixed_json: true,
            streams: Vec::new(),
            definitions: Vec::new(),
            with: Vec::new(),
        };
        if let Some(outline) = outline::read(root.as_ref(), &mut report) {
            naive.read(outline, &mut report);
        }
        let diagnostics = report.finish(text);
        if diagnostics.is_fatal() { Err(diagnostics) } else { Ok(naive) }
    }

    fn read(&mut self, outline: Outline, report: &mut Report) {
        let newest = outline.options.edition == Some(outline::EDITION);
        let dialect = || if newest { SqlDialect::Streams } else { SqlDialect::Rules };
        if !newest {
            self.fixed_json = outline.options.fixed_json;
            self.language = Language::OldStreams { fixed_json: self.fixed_json };
        }
        let mut read = |scalar: &Scalar| match sql::parse(scalar.text(), dialect()) {
            Ok(select) => Some(select),
            Err(errors) => {
                for error in errors {
                    report.of(scalar).fatal(error.kind, error.span, error.message);
                }
                None
            }
        };
        let mut named = |with: &[(Scalar, Scalar)]| {
            with.iter().filter_map(|(name, scalar)| Some((name.text().to_owned(), read(scalar)?))).collect()
        };
        self.with = named(&outline.with);
        for stream in &outline.streams {
            let with = named(&stream.with);
            self.streams.push(NaiveStream {
                name: stream.name.text().to_owned(),
                auto_subscribe: stream.auto_subscribe,
                queries: Vec::new(),
                with,
            });
        }
        for (stream, naive) in outline.streams.iter().zip(&mut self.streams) {
            naive.queries = stream.queries.iter().filter_map(&mut read).collect();
        }
        for definition in &outline.definitions {
            let parameters = definition.parameters.as_ref();
            let parameters = parameters.map(|queries| queries.iter().filter_map(&mut read).collect());
            let data = definition.data.iter().filter_map(&mut read).collect();
            self.definitions.push(NaiveDefinition { parameters, data });
        }
    }

    /// Every row of `tables` that this request makes visible, in order, each form of it once. Tables that are named without
    /// a schema are those of `public`.
    ///
    /// # Errors
    /// As [`rows_in`](Self::rows_in).
    pub fn rows(&self, tables: &[NaiveTable<'_>], request: &ConfigRequest<'_>) -> Result<Vec<NaiveRow>> {
        Ok(self.rows_in("public", tables, request)?.unwrap_or_default())
    }

    /// The same with another schema for tables that are named without one. `None` if the request fails as a whole: a
    /// bucket definition cannot be evaluated for it.
    ///
    /// # Errors
    /// `Invalid` if the config uses what is not known here.
    pub fn rows_in(
        &self,
        schema: &str,
        tables: &[NaiveTable<'_>],
        request: &ConfigRequest<'_>,
    ) -> Result<Option<Vec<NaiveRow>>> {
        let not_known = |what: String| Error::invalid(format!("the naive evaluator does not know {what}"));
        let mut answer = Answer::default();
        if request.include_defaults {
            let values = RequestValues::of(request, None);
            let language = Language::Rules { fixed_json: self.fixed_json };
            let world = World { language, ..self.world(schema, tables, &values, &[]) };
            for definition in &self.definitions {
                definition.answer(&world, &mut answer).map_err(not_known)?;
            }
        }
        for stream in &self.streams {
            let explicit = request.subscriptions.iter().filter(|wish| wish.stream == stream.name).map(Some);
            let automatic = (stream.auto_subscribe && request.include_defaults).then_some(None);
            for wish in automatic.into_iter().chain(explicit) {
                let mut values = RequestValues::of(request, wish);
                if self.language.is_old() && values.subscription.is_none() {
                    values.subscription = Some(Json::Object(Vec::new()));
                }
                let world = self.world(schema, tables, &values, &stream.with);
                for select in &stream.queries {
                    answer.add(select, &world, true).map_err(not_known)?;
                }
            }
        }
        if answer.fails {
            return Ok(None);
        }
        // What one query shows for sure is not made doubtful by another.
        let mut rows = answer.rows;
        rows.sort_by(|a, b| key(a).cmp(&key(b)).then(b.certain.cmp(&a.certain)));
        rows.dedup_by(|a, b| key(a) == key(b));
        Ok(Some(rows))
    }

    fn world<'a>(
        &'a self,
        schema: &'a str,
        tables: &'a [NaiveTable<'a>],
        request: &'a RequestValues,
        with: &'a [(String, Select)],
    ) -> World<'a> {
        World { language: self.language, tables, schema, request, with: [with, &self.with], bucket: &[] }
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
