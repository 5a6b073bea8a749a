//! The plan: row evaluators grouped into bucket definitions, and queriers that turn requests into buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;

use super::definition::Definition;
use super::diagnostic::Report;
use super::evaluate;
use super::expression::{Column, Expression, Form, RequestInput, RequestSource};
use super::normal_form::{Branch, Side};
use super::resolve::{Output, Query, TableReference};
use super::scalar::Scalar;
use super::span::Span;
use crate::bucket::BucketPriority;

/// Buckets that one stream may have.
const STREAM_LIMIT: usize = 100;

/// A compiled sync config.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) definitions: Vec<Definition>,
    pub(super) streams: Vec<Stream>,
}

/// A stream, as requests see it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: Arc<str>,
    pub(super) auto_subscribe: bool,
    pub(super) priority: BucketPriority,
    pub(super) queriers: Vec<Querier>,
}

/// How a request finds buckets of one definition.
#[derive(Debug)]
pub(super) struct Querier {
    pub(super) definition: usize,
    /// All must be true of the request.
    pub(super) filters: Vec<Expression<RequestInput>>,
    /// For each bucket parameter, the values it may have: those that are in all sets.
    pub(super) parameters: Vec<Vec<Side<RequestInput>>>,
}

/// What turns a row of some tables into operations of one bucket definition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowEvaluator {
    pub(super) table: TableReference,
    pub(super) output: Option<Arc<str>>,
    pub(super) filters: Vec<Expression<Column>>,
    /// The bucket parameters, in the order of the definition.
    pub(super) keys: Vec<Side<Column>>,
    pub(super) columns: Arc<Vec<Output>>,
}

impl RowEvaluator {
    /// The canonical form without keys.
    fn form(&self) -> Vec<u8> {
        let mut out = b"{\"table\":".to_vec();
        write_name(&mut out, self.table.schema.as_deref());
        out.extend_from_slice(if self.table.prefix { b",\"prefix\":" } else { b",\"name\":" });
        crate::json::write_string(&mut out, &self.table.name);
        out.extend_from_slice(b",\"as\":");
        write_name(&mut out, self.output.as_deref());
        out.extend_from_slice(b",\"where\":[");
        write_separated(&mut out, &self.filters, |out, filter| filter.write_form(out));
        out.extend_from_slice(b"],\"select\":[");
        write_separated(&mut out, self.columns.iter(), |out, column| match column {
            Output::Star => out.extend_from_slice(b"\"*\""),
            Output::Column { name, value } => {
                out.push(b'[');
                crate::json::write_string(out, name);
                out.push(b',');
                value.write_form(out);
                out.push(b']');
            }
        });
        out.push(b']');
        out
    }

    /// The canonical form with keys.
    fn keyed_form(&self) -> Vec<u8> {
        let mut out = self.form();
        out.extend_from_slice(b",\"keys\":[");
        write_separated(&mut out, &self.keys, |out, key| out.extend_from_slice(side_form(key).as_bytes()));
        out.extend_from_slice(b"]}");
        out
    }
}

fn write_name(out: &mut Vec<u8>, name: Option<&str>) {
    match name {
        Some(name) => crate::json::write_string(out, name),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_separated<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn side_form<I: Form>(side: &Side<I>) -> String {
    match side {
        Side::Value(expression) => expression.form(),
        Side::Elements(expression) => format!("[\"each\",{}]", expression.form()),
    }
}

/// One key of a variant: the row's side, the values of the request that it is matched with, and their joint form.
#[derive(Debug, Clone)]
struct Key {
    row: Side<Column>,
    row_form: String,
    values: Vec<Side<RequestInput>>,
    values_form: String,
}

/// What a key is matched with, by form.
type Values = BTreeMap<String, Side<RequestInput>>;

/// One branch of a query, ready to be grouped.
#[derive(Debug)]
struct Variant {
    evaluator: RowEvaluator,
    keys: Vec<Key>,
    request: Vec<(String, Expression<RequestInput>)>,
    /// The number in the bucket's logical name.
    number: usize,
    query: usize,
}

/// Builds the plan, stream by stream.
#[derive(Debug, Default)]
pub(super) struct Planner {
    plan: Plan,
    by_form: BTreeMap<ByteString, usize>,
}

/// A stream whose queries are in normal form.
#[derive(Debug)]
pub(super) struct StreamQueries<'a> {
    pub(super) name: &'a Scalar,
    pub(super) auto_subscribe: bool,
    pub(super) priority: BucketPriority,
    pub(super) accept_dangerous: bool,
    /// Each query with the scalar it was written in.
    pub(super) queries: Vec<(&'a Scalar, Query, Vec<Branch>)>,
}

impl Planner {
    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    pub(super) fn add(&mut self, stream: StreamQueries<'_>, report: &mut Report) {
        // Grouped by what a request must satisfy and provide: these share buckets.
        let mut groups: BTreeMap<(Vec<String>, Vec<String>), Vec<Variant>> = BTreeMap::new();
        let mut number = 0;
        let mut places = Vec::new();
        for (index, (scalar, query, branches)) in stream.queries.into_iter().enumerate() {
            places.push((scalar, query.span));
            let columns = Arc::new(query.columns);
            for branch in branches {
                let evaluator = RowEvaluator {
                    table: query.table.clone(),
                    output: query.output.clone(),
                    filters: Vec::new(),
                    keys: Vec::new(),
                    columns: Arc::clone(&columns),
                };
                if let Some(variant) = variant(branch, evaluator, number, index) {
                    let filters = variant.request.iter().map(|(form, _)| form.clone()).collect();
                    let mut values: Vec<_> = variant.keys.iter().map(|key| key.values_form.clone()).collect();
                    values.sort();
                    groups.entry((filters, values)).or_default().push(variant);
                }
                number += 1;
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|variants| variants.iter().map(|variant| variant.number).min());
        if groups.len() > STREAM_LIMIT
            && let Some((scalar, span)) = places.first()
        {
            let message = format!("this stream has {} kinds of buckets, and {STREAM_LIMIT} are allowed", groups.len());
            report
                .fatal("too-many-bucket-variants", scalar.map(*span), message)
                .help("split it into several streams, or use the same condition in more of its queries");
        }
        let mut queriers = Vec::new();
        for variants in groups {
            if !stream.accept_dangerous {
                for variant in &variants {
                    warn_of_danger(variant, places[variant.query].0, report);
                }
            }
            let first = variants.iter().map(|variant| variant.number).min().unwrap_or(0);
            let filters = variants[0].request.iter().map(|(_, filter)| filter.clone()).collect();
            let (evaluators, parameters) = align(variants);
            let definition = self.definition(format!("{}|{first}", stream.name.text()), evaluators);
            queriers.push(Querier { definition, filters, parameters });
        }
        self.plan.streams.push(Stream {
            name: stream.name.text().into(),
            auto_subscribe: stream.auto_subscribe,
            priority: stream.priority,
            queriers,
        });
    }

    /// The index of the definition of these evaluators, shared with every other of the same form.
    fn definition(&mut self, name: String, evaluators: Vec<RowEvaluator>) -> usize {
        let mut forms: BTreeMap<Vec<u8>, RowEvaluator> = BTreeMap::new();
        for evaluator in evaluators {
            forms.insert(evaluator.keyed_form(), evaluator);
        }
        let mut form = b"{\"v\":1,\"rows\":[".to_vec();
        write_separated(&mut form, forms.keys(), |out, key| out.extend_from_slice(key));
        form.extend_from_slice(b"]}");
        let form = ByteString::from(String::from_utf8_lossy(&form).into_owned());
        let definitions = &mut self.plan.definitions;
        *self.by_form.entry(form.clone()).or_insert_with(|| {
            definitions.push(Definition::new(name.into(), form, forms.into_values().collect()));
            definitions.len() - 1
        })
    }
}

/// Sorts the parts of a branch into a canonical order; `None` if it can never hold.
fn variant(branch: Branch, mut evaluator: RowEvaluator, number: usize, query: usize) -> Option<Variant> {
    let mut request = BTreeMap::new();
    for filter in branch.request {
        if filter.is_constant() {
            let value = evaluate::evaluate(&filter, &|_| std::borrow::Cow::Owned(crate::Value::Null));
            if value.is_ok_and(|value| evaluate::is_true(&value)) {
                continue;
            }
            return None;
        }
        request.insert(filter.form(), filter);
    }
    let filters: BTreeMap<_, _> = branch.row.into_iter().map(|filter| (filter.form(), filter)).collect();
    evaluator.filters = filters.into_values().collect();
    let mut keys: BTreeMap<(String, String), (Side<Column>, Values)> = BTreeMap::new();
    for found in branch.matches {
        let request_form = side_form(&found.request);
        let apart = match found.row {
            // All that one value equals is the same, and becomes one key.
            Side::Value(_) => String::new(),
            // Two conditions may be met by two elements of one list.
            Side::Elements(_) => request_form.clone(),
        };
        let (_, values) = keys.entry((side_form(&found.row), apart)).or_insert_with(|| (found.row, Values::new()));
        values.insert(request_form, found.request);
    }
    let keys = keys.into_iter().map(|((row_form, _), (row, values))| Key {
        row,
        row_form,
        values_form: values.keys().cloned().collect::<Vec<_>>().join(","),
        values: values.into_values().collect(),
    });
    Some(Variant { evaluator, keys: keys.collect(), request: request.into_iter().collect(), number, query })
}

/// Gives all variants of a group the same order of parameters: that of their keys, so that the order, and with it the
/// canonical form, does not depend on how the request is written.
fn align(variants: Vec<Variant>) -> (Vec<RowEvaluator>, Vec<Vec<Side<RequestInput>>>) {
    let mut rows: Vec<(Vec<u8>, RowEvaluator, Vec<Key>)> = variants
        .into_iter()
        .map(|variant| {
            let mut keys = variant.keys;
            keys.sort_by(|a, b| (&a.values_form, &a.row_form).cmp(&(&b.values_form, &b.row_form)));
            (variant.evaluator.form(), variant.evaluator, keys)
        })
        .collect();
    let forms = |keys: &[Key]| keys.iter().map(|key| key.row_form.clone()).collect::<Vec<_>>();
    rows.sort_by(|a, b| (&a.0, forms(&a.2)).cmp(&(&b.0, forms(&b.2))));
    let count = rows.first().map_or(0, |(_, _, keys)| keys.len());
    let mut positions: Vec<usize> = (0..count).collect();
    positions.sort_by_cached_key(|position| {
        rows.iter().map(|(_, _, keys)| keys[*position].row_form.clone()).collect::<Vec<_>>()
    });
    let parameters = match rows.first() {
        Some((_, _, keys)) => positions.iter().map(|position| keys[*position].values.clone()).collect(),
        None => Vec::new(),
    };
    let evaluators = rows.into_iter().map(|(_, mut evaluator, keys)| {
        evaluator.keys = positions.iter().map(|position| keys[*position].row.clone()).collect();
        evaluator
    });
    (evaluators.collect(), parameters)
}

/// Warns of buckets that any client can ask for, whoever its user is.
fn warn_of_danger(variant: &Variant, scalar: &Scalar, report: &mut Report) {
    let mut authorized = false;
    let mut place: Option<Span> = None;
    let mut visit = |input: &RequestInput| match input.source {
        RequestSource::Auth => authorized = true,
        RequestSource::Connection | RequestSource::Subscription => {
            place.get_or_insert(input.span);
        }
    };
    if variant.keys.is_empty() {
        variant.request.iter().for_each(|(_, filter)| filter.inputs(&mut visit));
    } else {
        let values = variant.keys.iter().flat_map(|key| &key.values);
        values.for_each(|value| value.expression().inputs(&mut visit));
    }
    if let (false, Some(span)) = (authorized, place) {
        report
            .warning(
                "dangerous-parameter",
                scalar.map(span),
                "any client can send any value here, so that this authorizes nobody",
            )
            .help(
                "compare a column with auth.user_id() or auth.parameter('…') too, or set \
                 `accept_potentially_dangerous_queries: true` if all rows may be seen by everyone",
            );
    }
}
