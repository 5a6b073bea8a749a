//! From branches to the plan: those that ask a request for the same share buckets, and equal content is one definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;

use super::definition::Definition;
use super::diagnostic::Report;
use super::expression::{RequestInput, RequestSource};
use super::normal_form::Branch;
use super::plan::{
    EventQuery, KeyValue, LookupIndex, Plan, Querier, RowEvaluator, Stage, Stream, StreamKind, Wanted, side_form,
    values_form, write_separated,
};
use super::resolve::{Query, QuerySource};
use super::scalar::Scalar;
use super::span::Span;
use super::stages::{Key, Stages};
use crate::bucket::BucketPriority;

/// Buckets that one stream may have.
const STREAM_LIMIT: usize = 100;

/// One branch of a query, ready to be grouped.
#[derive(Debug)]
struct Variant {
    evaluator: RowEvaluator,
    keys: Vec<Key>,
    wanted: Wanted,
    /// The number in the bucket's logical name.
    number: usize,
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
    pub(super) queries: Vec<(Query, Vec<Branch>)>,
}

impl Planner {
    pub(super) fn finish(self) -> Plan {
        self.plan
    }

    pub(super) fn add(&mut self, stream: StreamQueries<'_>, report: &mut Report) {
        // Grouped by what a request must satisfy and provide: these share buckets.
        let mut groups: BTreeMap<(String, Vec<String>), Vec<Variant>> = BTreeMap::new();
        let mut number = 0;
        let mut first_query = None;
        for (query, branches) in stream.queries {
            first_query.get_or_insert(query.span);
            let columns = Arc::new(query.columns);
            let Some(QuerySource::Table { output, .. }) = query.sources.get(query.primary.0) else { continue };
            for branch in &branches {
                let parts = Stages::new(&query.sources, branch, &mut self.plan.indexes, report).of_rows(query.primary);
                if let Some(parts) = parts {
                    let mut values: Vec<_> = parts.keys.iter().map(|key| values_form(&key.values)).collect();
                    values.sort();
                    let group = (parts.wanted.form(&self.plan.indexes), values);
                    let evaluator =
                        RowEvaluator { rows: parts.rows, output: output.clone(), columns: Arc::clone(&columns) };
                    let variant = Variant { evaluator, keys: parts.keys, wanted: parts.wanted, number };
                    groups.entry(group).or_default().push(variant);
                }
                number += 1;
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|variants| variants.iter().map(|variant| variant.number).min());
        if groups.len() > STREAM_LIMIT
            && let Some(span) = first_query
        {
            let message = format!("this stream has {} kinds of buckets, and {STREAM_LIMIT} are allowed", groups.len());
            report
                .fatal("too-many-bucket-variants", span, message)
                .help("split it into several streams, or use the same condition in more of its queries");
        }
        let mut queriers = Vec::new();
        for variants in groups {
            if !stream.accept_dangerous {
                // Once per bucket, however many queries fill it.
                let _ = variants.iter().any(|variant| warn_of_danger(variant, report));
            }
            let first = variants.iter().map(|variant| variant.number).min().unwrap_or(0);
            let wanted = variants[0].wanted.clone();
            let (evaluators, parameters) = align(variants);
            let definition = self.definition(format!("{}|{first}", stream.name.text()), evaluators);
            queriers.push(Querier { definition, priority: stream.priority, wanted, parameters });
        }
        self.plan.streams.push(Stream {
            name: stream.name.text().into(),
            kind: StreamKind::Stream,
            auto_subscribe: stream.auto_subscribe,
            queriers,
        });
    }

    /// Adds a bucket definition whose evaluators have their keys in the order of its parameters, as its queriers have.
    pub(super) fn add_bucket_definition(
        &mut self,
        name: &str,
        evaluators: Vec<RowEvaluator>,
        queriers: Vec<(BucketPriority, Wanted, Vec<Vec<KeyValue>>)>,
    ) {
        let mut stream = Stream {
            name: name.into(),
            kind: StreamKind::BucketDefinition,
            auto_subscribe: true,
            queriers: Vec::new(),
        };
        // Without data queries there is nothing that a bucket could hold.
        if !evaluators.is_empty() {
            let definition = self.definition(name.to_owned(), evaluators);
            let queriers = queriers.into_iter();
            stream.queriers = queriers
                .map(|(priority, wanted, parameters)| Querier { definition, priority, wanted, parameters })
                .collect();
        }
        self.plan.streams.push(stream);
    }

    pub(super) fn add_event(&mut self, event: EventQuery) {
        self.plan.events.push(event);
    }

    /// The number of a lookup index, shared with every other of the same form.
    pub(super) fn index(&mut self, index: LookupIndex) -> usize {
        let known = self.plan.indexes.iter().position(|known| known.form == index.form);
        known.unwrap_or_else(|| {
            self.plan.indexes.push(index);
            self.plan.indexes.len() - 1
        })
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

/// Gives all variants of a group the same order of parameters: that of their keys, so that the order, and with it the
/// canonical form, does not depend on how the request is written.
fn align(variants: Vec<Variant>) -> (Vec<RowEvaluator>, Vec<Vec<KeyValue>>) {
    let row_form = |key: &Key| side_form(&key.row);
    let mut rows: Vec<(Vec<u8>, RowEvaluator, Vec<Key>)> = variants
        .into_iter()
        .map(|variant| {
            let mut keys = variant.keys;
            keys.sort_by_cached_key(|key| (values_form(&key.values), row_form(key)));
            (variant.evaluator.form(), variant.evaluator, keys)
        })
        .collect();
    let forms = |keys: &[Key]| keys.iter().map(row_form).collect::<Vec<_>>();
    rows.sort_by_cached_key(|(form, _, keys)| (form.clone(), forms(keys)));
    let count = rows.first().map_or(0, |(_, _, keys)| keys.len());
    let mut positions: Vec<usize> = (0..count).collect();
    positions
        .sort_by_cached_key(|position| rows.iter().map(|(_, _, keys)| row_form(&keys[*position])).collect::<Vec<_>>());
    let parameters = match rows.first() {
        Some((_, _, keys)) => positions.iter().map(|position| keys[*position].values.clone()).collect(),
        None => Vec::new(),
    };
    let evaluators = rows.into_iter().map(|(_, mut evaluator, keys)| {
        evaluator.rows.keys = positions.iter().map(|position| keys[*position].row.clone()).collect();
        evaluator
    });
    (evaluators.collect(), parameters)
}

/// Warns of buckets that any client can ask for, whoever its user is; whether it did.
fn warn_of_danger(variant: &Variant, report: &mut Report) -> bool {
    let mut authorized = false;
    let mut place: Option<Span> = None;
    let mut visit = |input: &RequestInput| match input.source {
        RequestSource::Auth | RequestSource::TokenParameters => authorized = true,
        RequestSource::Connection | RequestSource::UserParameters | RequestSource::Subscription => {
            place.get_or_insert(input.span);
        }
    };
    if variant.keys.is_empty() {
        variant.wanted.filters.iter().for_each(|filter| filter.inputs(&mut visit));
    } else {
        let values = variant.keys.iter().flat_map(|key| &key.values);
        values.for_each(|value| variant.wanted.request_inputs(value, &mut visit));
    }
    let (false, Some(span)) = (authorized, place) else { return false };
    report
        .warning("dangerous-parameter", span, "any client can send any value here, so that this authorizes nobody")
        .help(
            "compare a column with auth.user_id() or auth.parameter('…') too, or set \
             `accept_potentially_dangerous_queries: true` if all rows may be seen by everyone",
        );
    true
}

impl Wanted {
    /// Visits the request values that a value comes from, through all lookups.
    fn request_inputs<'a>(&'a self, value: &'a KeyValue, visit: &mut dyn FnMut(&'a RequestInput)) {
        match value {
            KeyValue::Request(side) => side.expression().inputs(&mut |input| visit(input)),
            KeyValue::Output { stage, .. } => match self.stages.get(*stage) {
                Some(Stage::Each { argument, .. }) => argument.inputs(&mut |input| visit(input)),
                // Stages only use earlier ones.
                Some(Stage::Lookup { keys, .. }) => {
                    keys.iter().flatten().for_each(|value| self.request_inputs(value, visit));
                }
                None => {}
            },
        }
    }
}
