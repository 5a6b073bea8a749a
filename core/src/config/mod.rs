//! The sync config language: which rows of which tables go to which users.
//!
//! YAML with SQL in it is compiled in stages: the YAML [outline] and its SQL are read, names are *resolved*, conditions
//! brought into a *normal form* (an OR of branches that each compare rows with the request), and branches become a *plan*
//! of row evaluators, grouped into bucket definitions, and of queriers. Rows and requests are then *evaluated* without
//! looking at the text again. Everything here is pure; nothing in it depends on the order of a hash map.

mod alpha;
mod assembly;
mod cast;
mod chain;
mod cte;
mod definition;
mod deployment;
mod diagnostic;
mod document;
mod editor;
mod evaluate;
mod event;
mod explain;
mod expression;
mod finder;
mod functions;
mod json_tree;
mod lines;
// It reads the syntax tree, which is nobody else's business, and stands with the other means to test.
#[cfg(feature = "testing")]
#[path = "../testing/naive_config/mod.rs"]
pub(crate) mod naive_config;
mod normal_form;
mod operation;
mod options;
mod outline;
mod places;
mod plan;
mod planner;
mod querying;
mod relation;
mod request;
mod request_resolver;
mod resolve;
mod resolve_expression;
mod resolve_from;
mod row_matcher;
mod rules;
mod scalar;
mod schema_lint;
mod scope;
mod shared_text;
mod source_schema;
mod span;
mod sql;
mod sql_text;
mod stages;
mod table_evaluator;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytestring::ByteString;

pub use definition::Definition;
pub use diagnostic::{Diagnostic, DiagnosticLevel, Diagnostics};
pub use editor::{EditorDiagnostic, EditorPosition, EditorRange};
pub use event::EvaluatedEvent;
pub use explain::{ExplainedBranch, Explanation, RequestOutcome, RowOutcome};
pub use querying::ConfigLookup;
pub use request::{
    ConfigRequest, Reason, ResolvedBucket, ResolvedChanges, ResolvedRequest, ResolvedStream, StreamSubscription,
    SubscriptionRef,
};
pub use request_resolver::{RequestResolver, ResolveStep};
pub use source_schema::SourceSchema;
pub use table_evaluator::{EvaluatedLookup, EvaluatedRow, Evaluation, EvaluationError, TableEvaluator};

use crate::checkpoint::LookupRows;
use crate::error::Result;
use crate::table::{SourceTable, TablePattern, TableSelection};
use crate::value_options::ValueOptions;
use cte::{Cte, Ctes};
use diagnostic::Report;
use expression::{Expression, RowInput};
use outline::{EDITION, Outline, StreamOutline};
use places::Places;
use plan::{Plan, RowMatch, StreamKind};
use planner::{Planner, StreamQueries};
use resolve::{Output, TableReference};
use scalar::Scalar;
use shared_text::SharedTexts;
use sql::SqlDialect;

/// A compiled sync config. A handle: cheap to clone.
///
/// ```
/// use syncline_core::{ConfigRequest, Identity, SyncConfig};
///
/// let config = SyncConfig::parse(
///     "
/// config: { edition: 3 }
/// streams:
///   my_lists:
///     auto_subscribe: true
///     query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
/// ",
/// )?;
/// let request = ConfigRequest {
///     identity: &Identity::new("anna"),
///     parameters: &Default::default(),
///     include_defaults: true,
///     subscriptions: &[],
/// };
/// let resolved = config.resolve(&request);
/// assert_eq!(resolved.buckets[0].parameters, r#"["anna"]"#);
/// # Ok::<(), syncline_core::Diagnostics>(())
/// ```
#[derive(Debug, Clone)]
pub struct SyncConfig(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: ByteString,
    warnings: Diagnostics,
    plan: Plan,
    /// Those of all requests.
    texts: SharedTexts,
    selection: TableSelection,
    names: Vec<Arc<str>>,
}

impl SyncConfig {
    /// Compiles the text of a sync config.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included, if anything is fatal.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        Self::parse_for(text, None)
    }

    /// The same for a source whose tables are known: names that it does not have are [warnings](Self::warnings). What comes of
    /// the config does not depend on it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with_schema(text: &str, schema: &SourceSchema) -> Result<Self, Diagnostics> {
        Self::parse_for(text, Some(schema))
    }

    fn parse_for(text: &str, schema: Option<&SourceSchema>) -> Result<Self, Diagnostics> {
        let mut report = Report::default();
        let root = document::read(text, &mut report);
        let mut planner = Planner::default();
        let mut places = Places::new(text);
        let mut values = ValueOptions::default();
        if (root.is_some() || report.is_empty())
            && let Some(outline) = outline::read(root.as_ref(), &mut report)
        {
            values = outline.options.values;
            compile_all(&outline, &mut planner, &mut places, &mut report);
            if let Some(schema) = schema {
                schema_lint::lint(&outline, schema, &mut report);
            }
        }
        let warnings = report.finish(text);
        if warnings.is_fatal() {
            return Err(warnings);
        }
        let mut plan = planner.finish();
        if let Some(form) = values.form() {
            plan.add_to_forms(&form);
        }
        let selection = selection(&plan, places, values);
        let streams = plan.streams.iter().filter(|stream| stream.kind == StreamKind::Stream);
        let names = streams.map(|stream| Arc::clone(&stream.name)).collect();
        Ok(Self(Arc::new(Inner { text: text.into(), warnings, plan, texts: SharedTexts::default(), selection, names })))
    }

    /// What is not wrong, but should be looked at.
    pub fn warnings(&self) -> &[Diagnostic] {
        self.0.warnings.as_slice()
    }

    /// The YAML text.
    pub fn text(&self) -> &ByteString {
        &self.0.text
    }

    /// How the source is to map the types of its columns; part of the [`selection`](Self::selection) that it is given.
    pub fn value_options(&self) -> &ValueOptions {
        &self.0.selection.values
    }

    /// The names of the events, in the order of the config.
    pub fn event_names(&self) -> impl Iterator<Item = &ByteString> {
        let mut known = BTreeSet::new();
        self.0.plan.events.iter().map(|query| &query.event).filter(move |event| known.insert(*event))
    }

    /// The names of those that nothing takes: their payloads are made and dropped.
    pub fn unused_event_names(&self) -> impl Iterator<Item = &ByteString> {
        self.event_names().filter(|name| !event::is_taken(name))
    }

    /// The names of the streams, in the order of the config; bucket definitions are none.
    pub fn stream_names(&self) -> &[Arc<str>] {
        &self.0.names
    }

    /// The tables and columns that it reads.
    pub fn selection(&self) -> &TableSelection {
        &self.0.selection
    }

    /// The bucket definitions; indexes into this slice name them elsewhere.
    pub fn definitions(&self) -> &[Definition] {
        &self.0.plan.definitions
    }

    /// The part that concerns one table, for a source whose default schema is `public`, as in Postgres.
    ///
    /// Done once per description of a table: when it is first seen, and when its columns change.
    pub fn bind(&self, table: &SourceTable) -> TableEvaluator {
        self.bind_in("public", table)
    }

    /// The same for a source with another default schema.
    pub fn bind_in(&self, default_schema: &str, table: &SourceTable) -> TableEvaluator {
        TableEvaluator::bind(&self.0.plan, default_schema, table)
    }

    /// The canonical forms of the lookup indexes, which are deployed after those of the definitions; indexes into them name
    /// lookups elsewhere.
    pub fn lookup_forms(&self) -> impl ExactSizeIterator<Item = &ByteString> {
        self.0.plan.indexes.iter().map(|index| &index.form)
    }

    /// Everything that a store keeps for this config, as it is deployed: the forms of definitions, then of lookup indexes.
    pub fn forms(&self) -> impl Iterator<Item = &ByteString> {
        self.definitions().iter().map(Definition::form).chain(self.lookup_forms())
    }

    /// Finds the buckets of a request, of which it may have `limit` (S9).
    pub fn resolver(&self, request: &ConfigRequest<'_>, limit: usize) -> RequestResolver {
        RequestResolver::new(self.clone(), request, limit)
    }

    /// Which buckets a request may have, whatever it takes, with lookups that find nothing: for tests and tools. Pure: the
    /// same request has the same answer. A request that fails as a whole has nothing; [`resolve_with`](Self::resolve_with)
    /// tells why.
    pub fn resolve(&self, request: &ConfigRequest<'_>) -> ResolvedRequest {
        self.resolve_with(request, |_| LookupRows::default()).unwrap_or_default()
    }

    /// The same with lookups that `lookup` answers.
    ///
    /// # Errors
    /// `Invalid` if a bucket definition cannot be evaluated for this request.
    pub fn resolve_with(
        &self,
        request: &ConfigRequest<'_>,
        mut lookup: impl FnMut(&ConfigLookup) -> LookupRows,
    ) -> Result<ResolvedRequest> {
        let mut resolver = self.resolver(request, usize::MAX);
        loop {
            match resolver.poll()? {
                ResolveStep::Done(resolved) => return Ok(resolved),
                ResolveStep::Lookups(wanted) | ResolveStep::Changed(wanted) => {
                    let answers = wanted.iter().map(&mut lookup).collect();
                    resolver.answer(wanted, answers)?;
                }
            }
        }
    }

    /// The same for a client's request without lookups: gives up as soon as it yields more than `limit` buckets, or other
    /// things out of proportion to them (S9).
    ///
    /// # Errors
    /// `Invalid` with `PSYNC_S2305`.
    pub fn resolve_within(&self, request: &ConfigRequest<'_>, limit: usize) -> Result<ResolvedRequest> {
        match self.resolver(request, limit).poll()? {
            ResolveStep::Done(resolved) => Ok(resolved),
            ResolveStep::Lookups(_) | ResolveStep::Changed(_) => {
                Err(crate::Error::internal("this request needs lookups"))
            }
        }
    }

    fn texts(&self) -> &SharedTexts {
        &self.0.texts
    }

    fn plan(&self) -> &Plan {
        &self.0.plan
    }
}

/// Reads an SQL text, and reports what is wrong with it.
fn parse_sql(scalar: &Scalar, dialect: SqlDialect, report: &mut Report) -> Option<sql::ast::Select> {
    match sql::parse(scalar.text(), dialect) {
        Ok(select) => Some(select),
        Err(errors) => {
            let mut report = report.of(scalar);
            for error in errors {
                let diagnostic = report.fatal(error.kind, error.span, error.message);
                diagnostic.suggestion = error.help;
            }
            None
        }
    }
}

/// Compiles everything that an outline has, each part in the language of its edition.
fn compile_all(outline: &Outline, planner: &mut Planner, places: &mut Places<'_>, report: &mut Report) {
    let Outline { options, streams, with, definitions, events } = outline;
    let fixed_json = options.fixed_json;
    for definition in definitions {
        rules::compile(definition, fixed_json, planner, places, report);
    }
    if options.edition.is_some_and(|edition| edition < EDITION) {
        for stream in streams {
            planner.add(alpha::compile(stream, fixed_json, places, report), report);
        }
    } else {
        let global = compile_ctes(with, report);
        for stream in streams {
            let local = compile_ctes(&stream.with, report);
            let ctes = Ctes { local: &local, global: &global };
            planner.add(compile(stream, ctes, places, report), report);
            cte::warn_of_unused(&local, report);
        }
        cte::warn_of_unused(&global, report);
    }
    for event in events {
        rules::compile_event(event, fixed_json, planner, places, report);
    }
}

fn compile_ctes(with: &[(Scalar, Scalar)], report: &mut Report) -> Vec<Cte> {
    let mut ctes = Vec::new();
    for (name, sql) in with {
        if let Some(select) = parse_sql(sql, SqlDialect::Streams, report) {
            let cte = Cte::new(name.clone(), sql.clone(), select);
            resolve_from::check(&cte, report);
            ctes.push(cte);
        }
    }
    ctes
}

/// Compiles the queries of a stream up to their normal form, and reports what is wrong with them.
fn compile<'a>(
    stream: &'a StreamOutline,
    ctes: Ctes<'_>,
    places: &mut Places<'_>,
    report: &mut Report,
) -> StreamQueries<'a> {
    let mut queries = Vec::new();
    let name = Arc::from(stream.name.text());
    for scalar in &stream.queries {
        let Some(select) = parse_sql(scalar, SqlDialect::Streams, report) else { continue };
        let Some(query) = resolve::resolve(&select, ctes, &mut report.of(scalar)) else { continue };
        places.add(&name, &query);
        let Some(branches) = normal_form::normalize(&query, report) else { continue };
        queries.push((query, branches));
    }
    StreamQueries {
        name: &stream.name,
        auto_subscribe: stream.auto_subscribe,
        priority: stream.priority,
        accept_dangerous: stream.accept_dangerous,
        queries,
    }
}

/// What is read of each table; `None` is all columns.
type ReadColumns = BTreeMap<TableReference, Option<BTreeSet<Arc<str>>>>;

/// What is read of the table of these rows, the columns of its filters and keys included.
fn read_columns<'a>(patterns: &'a mut ReadColumns, rows: &RowMatch) -> &'a mut Option<BTreeSet<Arc<str>>> {
    let read = patterns.entry(rows.table.clone()).or_insert_with(|| Some(BTreeSet::new()));
    rows.expressions(&mut |expression| note_columns(expression, read));
    read
}

fn note_columns(expression: &Expression<RowInput>, read: &mut Option<BTreeSet<Arc<str>>>) {
    expression.inputs(&mut |input| {
        if let (RowInput::Column(name), Some(columns)) = (input, &mut *read) {
            columns.insert(Arc::clone(name));
        }
    });
}

fn note_outputs(columns: &[Output], read: &mut Option<BTreeSet<Arc<str>>>) {
    for column in columns {
        match column {
            Output::Star | Output::LegacyStar => *read = None,
            Output::Column { value, .. } => note_columns(value, read),
        }
    }
}

/// One pattern per table reference, with every column that is read of it.
fn selection(plan: &Plan, mut places: Places<'_>, values: ValueOptions) -> TableSelection {
    let mut patterns = ReadColumns::new();
    for evaluator in plan.definitions.iter().flat_map(Definition::evaluators) {
        let read = read_columns(&mut patterns, &evaluator.rows);
        note_outputs(&evaluator.columns, read);
    }
    for event in &plan.events {
        let read = read_columns(&mut patterns, &event.rows);
        note_outputs(&event.columns, read);
    }
    for index in &plan.indexes {
        let read = read_columns(&mut patterns, &index.rows);
        index.outputs.iter().for_each(|output| note_columns(output.expression(), read));
    }
    let patterns = patterns.into_iter().map(|(table, columns)| TablePattern {
        schema: table.schema.clone(),
        name: Arc::clone(&table.name),
        prefix: table.prefix,
        columns: columns.map(|columns| columns.into_iter().collect()),
        places: places.take(&table),
    });
    TableSelection { patterns: patterns.collect(), values }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::identity::Identity;
    use crate::table::{SourceColumn, TableId};
    use crate::value::Value;

    fn config(streams: &str) -> SyncConfig {
        SyncConfig::parse(&format!("config: {{ edition: 3 }}\nstreams:\n{streams}")).unwrap_or_else(|d| panic!("{d}"))
    }

    fn table(name: &str, columns: &[&str]) -> SourceTable {
        let column = |name: &&str| SourceColumn { name: (*name).into(), key: *name == "id", type_name: "text".into() };
        SourceTable {
            id: TableId(1),
            schema: "public".into(),
            name: name.into(),
            columns: columns.iter().map(column).collect(),
        }
    }

    fn buckets(config: &SyncConfig, identity: &Identity, subscriptions: &[StreamSubscription]) -> Vec<String> {
        let parameters = &serde_json::Map::new();
        let resolved = config.resolve(&ConfigRequest { identity, parameters, include_defaults: true, subscriptions });
        resolved.buckets.iter().map(|bucket| format!("{}{}", bucket.definition, bucket.parameters)).collect()
    }

    #[test]
    fn a_row_and_its_owner_meet_in_a_bucket() {
        let config =
            config("  s: { auto_subscribe: true, query: SELECT * FROM lists WHERE owner_id = auth.user_id() }");
        let bound = config.bind(&table("lists", &["id", "owner_id", "photo"]));
        let mut out = Evaluation::new();
        bound.evaluate(&["l1".into(), "anna".into(), Value::Blob(vec![1].into())], &mut out);
        bound.evaluate(&["l2".into(), Value::Null, Value::Null], &mut out);
        assert_eq!(out.rows.len(), 1);
        let row = &out.rows[0];
        assert_eq!((&*row.object_type, &*row.object_id, &*row.parameters), ("lists", "l1", "[\"anna\"]"));
        assert_eq!(row.data, r#"{"id":"l1","owner_id":"anna"}"#);
        assert_eq!(buckets(&config, &Identity::new("anna"), &[]), ["0[\"anna\"]"]);
    }

    /// Whether a request of this identity has a bucket that a row of `t(id, a, list)` is in.
    fn meets(condition: &str, row: [Value; 3], identity: &Identity) -> bool {
        let config = config(&format!(
            "  s: {{ auto_subscribe: true, query: {} }}",
            json!(format!("SELECT * FROM t WHERE {condition}"))
        ));
        let mut out = Evaluation::new();
        config.bind(&table("t", &["id", "a", "list"])).evaluate(&row, &mut out);
        assert_eq!(out.errors, []);
        let found = buckets(&config, identity, &[]);
        out.rows.iter().any(|row| found.contains(&format!("{}{}", row.definition, row.parameters)))
    }

    #[test]
    fn two_elements_of_one_list_may_meet_two_conditions() {
        let condition = "auth.user_id() IN list AND auth.parameter('group') IN list";
        let anna = Identity::new("anna").claim("group", "staff");
        let row = |list: &str| ["1".into(), Value::Null, list.into()];
        assert!(meets(condition, row(r#"["anna","staff"]"#), &anna));
        assert!(!meets(condition, row(r#"["anna","ben"]"#), &anna));
        let overlaps = "list && auth.parameter('one') AND list && auth.parameter('other')";
        let ben = Identity::new("ben").claim("one", json!(["a", "b"])).claim("other", json!(["c"]));
        assert!(meets(overlaps, row(r#"["b","c"]"#), &ben));
        assert!(!meets(overlaps, row(r#"["a","b"]"#), &ben));
    }

    #[test]
    fn a_row_that_cannot_be_evaluated_takes_no_entries_of_others_away() {
        let config = config("  s: { query: SELECT t.* FROM t JOIN g ON t.a IN g.list WHERE g.u = auth.user_id() }");
        let bound = config.bind(&table("g", &["id", "u", "list"]));
        let mut out = Evaluation::new();
        bound.evaluate(&["1".into(), "anna".into(), r#"["x"]"#.into()], &mut out);
        bound.evaluate(&["2".into(), "ben".into(), "no list".into()], &mut out);
        assert_eq!((out.lookups.len(), out.errors.len()), (1, 1));
    }

    #[test]
    fn two_elements_of_one_list_of_a_joined_table_may_meet_two_columns() {
        let config = config(
            "  s: { auto_subscribe: true, query: SELECT t.* FROM t JOIN g ON t.a IN g.list AND t.b IN g.list WHERE g.u = auth.user_id() }",
        );
        let mut out = Evaluation::new();
        config
            .bind(&table("g", &["id", "u", "list"]))
            .evaluate(&["g".into(), "anna".into(), r#"["x","y"]"#.into()], &mut out);
        config.bind(&table("t", &["id", "a", "b"])).evaluate(&["t".into(), "x".into(), "y".into()], &mut out);
        let request = ConfigRequest {
            identity: &Identity::new("anna"),
            parameters: &serde_json::Map::new(),
            include_defaults: true,
            subscriptions: &[],
        };
        let resolved = config.resolve_with(&request, |_| LookupRows { rows: out.lookups[0].outputs.clone() }).unwrap();
        assert!(resolved.buckets.iter().any(|bucket| bucket.parameters == out.rows[0].parameters), "{resolved:?}");
    }

    #[test]
    fn a_path_into_the_request_is_read_like_one_into_json() {
        let anna = Identity::new("anna").claim("list", json!(["x", "yz"]));
        let row = |a: &str| ["1".into(), a.into(), Value::Null];
        for (path, found) in [("$.list.1", "yz"), ("$.list.1.0", "y"), ("$.sub.3", "a")] {
            assert!(meets(&format!("a = auth.parameter('{path}')"), row(found), &anna), "{path}");
            assert!(meets(&format!("a = auth.parameters() ->> '{path}'"), row(found), &anna), "{path}");
        }
        for path in ["$.list.01", "$.list.+1", "$.list.2", "$.sub.9"] {
            assert!(meets(&format!("auth.parameter('{path}') IS NULL"), row("yz"), &anna), "{path}");
            assert!(meets(&format!("(auth.parameters() ->> '{path}') IS NULL"), row("yz"), &anna), "{path}");
        }
    }

    #[test]
    fn numbers_meet_exactly_if_they_are_equal() {
        let user = |number: &str| Identity::new("anna").claim("number", number);
        let row = |real: f64| ["1".into(), real.into(), Value::Null];
        for (real, number, equal) in [
            (1.0, "1", true),
            (1_152_921_504_606_846_976.0, "1152921504606846976", true),
            (1_152_921_504_606_846_976.0, "1152921504606847000", false),
            (f64::INFINITY, "1e999", true),
            (f64::NEG_INFINITY, "1e999", false),
            (f64::NAN, "1e999", false),
        ] {
            for condition in
                ["a = auth.parameter('number')::numeric", "'[1]' && list AND auth.parameter('number')::numeric = a"]
            {
                let [id, a, _] = row(real);
                assert_eq!(
                    meets(condition, [id, a, "[1]".into()], &user(number)),
                    equal,
                    "{real} and {number}: {condition}"
                );
            }
        }
    }

    #[test]
    fn one_query_syncs_every_table() {
        let config = config("  s: { auto_subscribe: true, query: 'SELECT * FROM \"%\"' }");
        for name in ["lists", "todos"] {
            let mut out = Evaluation::new();
            config.bind(&table(name, &["id"])).evaluate(&["1".into()], &mut out);
            assert_eq!((&*out.rows[0].object_type, &*out.rows[0].parameters), (name, "[]"));
        }
        assert!(config.selection().matches("public", "public", "anything"));
        assert!(!config.selection().matches("public", "private", "anything"));
        assert_eq!(buckets(&config, &Identity::new("x"), &[]), ["0[]"]);
    }

    #[test]
    fn equal_content_is_one_definition_whatever_its_stream_and_audience() {
        let config = config(
            "  a: { query: SELECT * FROM t WHERE o = auth.user_id() }
  b: { priority: 1, auto_subscribe: true, query: SELECT * FROM t WHERE auth.parameter('x') = o AND auth.parameter('y') = 1 }
  c: { query: 'SELECT * FROM t WHERE o = auth.user_id() AND archived = 0' }",
        );
        assert_eq!(config.definitions().len(), 2);
        assert_eq!(config.definitions()[0].name(), "a|0");
        assert_ne!(config.definitions()[0].form(), config.definitions()[1].form());
    }

    #[test]
    fn one_bucket_through_two_subscriptions_has_both_reasons_and_the_smaller_priority() {
        let config = config("  s: { query: SELECT * FROM t WHERE l = subscription.parameter('l') }");
        let wish = |list: &str, priority| StreamSubscription {
            stream: "s".into(),
            parameters: json!({ "l": list }).as_object().cloned(),
            override_priority: priority,
        };
        let subscriptions = [wish("a", None), wish("a", Some(crate::BucketPriority(1))), wish("b", None)];
        let resolved = config.resolve(&ConfigRequest {
            identity: &Identity::new("anna"),
            parameters: &serde_json::Map::new(),
            include_defaults: true,
            subscriptions: &subscriptions,
        });
        assert_eq!(resolved.buckets.len(), 2);
        assert_eq!(resolved.buckets[0].priority, crate::BucketPriority(1));
        assert_eq!(resolved.buckets[0].reasons, [Reason::Subscription(0), Reason::Subscription(1)]);
        assert_eq!(config.warnings()[0].kind, "dangerous-parameter");
    }

    #[test]
    fn a_request_out_of_proportion_is_refused_before_it_costs_much() {
        let config = config(
            "  s: { query: SELECT * FROM t WHERE l = subscription.parameter('l') }
  lists: { query: SELECT * FROM t WHERE l IN subscription.parameter('l') }
  wide: { query: SELECT * FROM t WHERE a = connection.parameter('big') AND b = subscription.parameter('l') }",
        );
        let wish = |stream: &str, l: serde_json::Value| StreamSubscription {
            stream: stream.into(),
            parameters: json!({ "l": l }).as_object().cloned(),
            override_priority: None,
        };
        let parameters = json!({ "big": "x".repeat(200_000) }).as_object().cloned().unwrap();
        let resolve = |subscriptions: &[StreamSubscription]| {
            let identity = &Identity::new("anna");
            let parameters = &parameters;
            let request = ConfigRequest { identity, parameters, include_defaults: true, subscriptions };
            config.resolve_within(&request, 100)
        };
        let many = |count: usize| (0..count).map(|number| wish("s", json!(number))).collect::<Vec<_>>();
        assert_eq!(resolve(&many(100)).unwrap().buckets.len(), 100);
        let list = wish("lists", json!((0..100).collect::<Vec<_>>()));
        let resolved = resolve(&vec![list.clone(); 4]).unwrap();
        assert_eq!(resolved.buckets[99].reasons.len(), 4);
        let big: Vec<_> = (0..99).map(|number| wish("wide", json!(number))).collect();
        for (what, refused) in [("buckets", many(101)), ("reasons", vec![list; 5]), ("bytes", big)] {
            let error = resolve(&refused).unwrap_err();
            assert_eq!((error.kind(), error.code()), (crate::ErrorKind::Invalid, Some("PSYNC_S2305")), "{what}");
        }
    }

    #[test]
    fn lists_that_ask_for_too_many_buckets_are_an_error_of_their_own() {
        let config = config("  s: { query: SELECT * FROM t WHERE auth.user_id() = o AND a IN subscription.parameter('l') AND b IN subscription.parameter('l') AND c && d }
  fine: { auto_subscribe: true, query: SELECT * FROM t }
  lists: { query: SELECT * FROM t WHERE subscription.parameter('l') && a AND subscription.parameter('m') && b }");
        let list: Vec<_> = (0..1000).collect();
        let subscriptions = [StreamSubscription {
            stream: "s".into(),
            parameters: json!({ "l": list }).as_object().cloned(),
            override_priority: None,
        }];
        let resolved = config.resolve(&ConfigRequest {
            identity: &Identity::new("anna"),
            parameters: &serde_json::Map::new(),
            include_defaults: true,
            subscriptions: &subscriptions,
        });
        assert_eq!(resolved.buckets.len(), 1);
        assert_eq!(resolved.streams[0].errors[0].0, SubscriptionRef::Explicit(0));
        let bound = config.bind(&table("t", &["a", "b"]));
        let list = Value::text(json!(list).to_string());
        let mut out = Evaluation::new();
        bound.evaluate(&[list.clone(), list], &mut out);
        assert_eq!(out.rows.len(), 1);
        assert_eq!(out.errors[0].kind, "too-many-buckets");
    }

    #[test]
    fn a_selection_tells_where_it_is_named_and_is_the_same_wherever_that_is() {
        let text = "config: { edition: 3 }\nstreams:\n  mine:\n    queries:\n      - SELECT * FROM lists WHERE owner_id = auth.user_id()\n      - |\n        SELECT id, größe AS g,\n               upper(name) AS name\n        FROM app.todos WHERE owner_id = auth.user_id()\n  other:\n    query: SELECT id FROM lists\n";
        let selection = SyncConfig::parse(text).unwrap().selection().clone();
        let shown = |pattern: &TablePattern| {
            let columns = pattern.places.columns.iter().map(|(name, place)| format!("{name} {place}"));
            let table = format!("{} {}", pattern.name, pattern.places.table.as_ref().unwrap());
            [table].into_iter().chain(columns).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&selection.patterns[0]),
            ["lists 5:23 (stream mine)", "id 11:19 (stream other)", "owner_id 5:35 (stream mine)"]
        );
        assert_eq!(
            shown(&selection.patterns[1]),
            [
                "todos 9:18 (stream mine)",
                "größe 7:20 (stream mine)",
                "id 7:16 (stream mine)",
                "name 8:22 (stream mine)",
                "owner_id 9:30 (stream mine)"
            ]
        );
        let moved = SyncConfig::parse(&format!("# a comment\n{}", text.replace("mine", "ours"))).unwrap();
        assert_ne!(moved.selection().patterns[0].places, selection.patterns[0].places);
        assert_eq!(*moved.selection(), selection);
        // As it was before places were known: sources compare what they stored.
        let stored = postcard::to_stdvec(&selection).unwrap();
        let names =
            b"\x02\0\x05lists\0\0\x01\x03app\x05todos\0\x01\x04\x07gr\xC3\xB6\xC3\x9Fe\x02id\x04name\x08owner_id";
        assert_eq!(stored, names);
        assert_eq!(postcard::from_bytes::<TableSelection>(&stored).unwrap(), selection);
    }

    #[test]
    fn all_problems_are_listed_with_line_column_and_mark() {
        let text = "config: { edition: 3 }\nstreams:\n  s:\n    qeury: SELECT 1\n  t:\n    query: |\n      SELECT *\n      FROM a JOIN b ON a.x = b.x\n";
        let diagnostics = SyncConfig::parse(text).unwrap_err();
        let shown = diagnostics.to_string();
        assert!(shown.contains("error[unknown-key] at 4:5"), "{shown}");
        assert!(shown.contains("did you mean `query`?"), "{shown}");
        assert!(shown.contains("error[select-from-two-tables] at 7:14: "), "{shown}");
        assert!(shown.contains("  7 |       SELECT *\n    |              ^\n"), "{shown}");
        assert_eq!(format!("{diagnostics:?}").trim_start(), shown);
    }
}
