//! The plan: row evaluators grouped into bucket definitions, lookup indexes, and queriers that turn requests into buckets.

use std::sync::Arc;

use bytestring::ByteString;

use super::definition::Definition;
use super::expression::{EachInput, Expression, Form, RequestInput, RowInput};
use super::normal_form::Side;
use super::resolve::{Output, TableReference};
use crate::bucket::BucketPriority;

/// A compiled sync config.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) definitions: Vec<Definition>,
    pub(super) indexes: Vec<LookupIndex>,
    pub(super) streams: Vec<Stream>,
    pub(super) events: Vec<EventQuery>,
}

impl Plan {
    /// All that a store keeps for it depends on this as well.
    pub(super) fn add_to_forms(&mut self, text: &str) {
        self.definitions.iter_mut().for_each(|definition| definition.add_to_form(text));
        self.indexes.iter_mut().for_each(|index| index.form = format!("{}\n{text}", index.form).into());
    }
}

/// A stream or a bucket definition, as requests see it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: Arc<str>,
    pub(super) kind: StreamKind,
    pub(super) auto_subscribe: bool,
    pub(super) queriers: Vec<Querier>,
}

/// What a [`Stream`] is in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    Stream,
    /// Nobody can subscribe to it by name, and a request for which it cannot be evaluated fails.
    BucketDefinition,
}

/// Rows of some tables that are handed to an event as they change.
#[derive(Debug, Clone)]
pub(super) struct EventQuery {
    pub(super) event: ByteString,
    /// Without keys.
    pub(super) rows: RowMatch,
    pub(super) columns: Arc<Vec<Output>>,
}

/// How a request finds buckets of one definition.
#[derive(Debug)]
pub(super) struct Querier {
    pub(super) definition: usize,
    pub(super) priority: BucketPriority,
    pub(super) wanted: Wanted,
    /// For each bucket parameter, the values it may have: those that all of them yield.
    pub(super) parameters: Vec<Vec<KeyValue>>,
}

/// What a request must satisfy, and what is looked up for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// All must be true of the request.
    pub(super) filters: Vec<Expression<RequestInput>>,
    /// Each yields rows, of which there must be one; later stages may use the outputs of earlier ones.
    pub(super) stages: Vec<Stage>,
}

/// A step of a [`Querier`].
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// The rows of `json_each` over a value of the request.
    Each { argument: Expression<RequestInput>, filters: Vec<Expression<EachInput>>, outputs: Vec<Side<EachInput>> },
    /// The rows of a lookup index under these keys.
    Lookup {
        /// Index into [`Plan::indexes`].
        index: usize,
        /// For each key of the index, the values it may have: those that all of them yield.
        keys: Vec<Vec<KeyValue>>,
    },
}

/// Where a value of a key or of a bucket parameter comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeyValue {
    Request(Side<RequestInput>),
    /// An output of an earlier stage; those of one row stay together.
    Output {
        stage: usize,
        output: usize,
    },
}

/// Rows of some tables, those that a condition leaves, and their keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowMatch {
    pub(super) table: TableReference,
    /// Arguments of `json_each`, over columns; a row counts once for each combination of their rows.
    pub(super) functions: Vec<Expression<RowInput>>,
    pub(super) filters: Vec<Expression<RowInput>>,
    pub(super) keys: Vec<Side<RowInput>>,
}

/// What turns a row of some tables into operations of one bucket definition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowEvaluator {
    /// Its keys are the bucket parameters, in the order of the definition.
    pub(super) rows: RowMatch,
    pub(super) output: Option<Arc<str>>,
    pub(super) columns: Arc<Vec<Output>>,
}

/// Rows by their keys, kept so that requests can ask for them.
#[derive(Debug, Clone)]
pub(super) struct LookupIndex {
    pub(super) form: ByteString,
    pub(super) rows: RowMatch,
    pub(super) outputs: Vec<Side<RowInput>>,
}

impl RowMatch {
    /// Visits every expression over rows.
    pub(super) fn expressions<'a>(&'a self, visit: &mut impl FnMut(&'a Expression<RowInput>)) {
        self.functions.iter().for_each(&mut *visit);
        self.filters.iter().for_each(&mut *visit);
        self.keys.iter().for_each(|key| visit(key.expression()));
    }

    fn write_table(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"table\":");
        write_name(out, self.table.schema.as_deref());
        out.extend_from_slice(if self.table.prefix { b",\"prefix\":" } else { b",\"name\":" });
        crate::json::write_string(out, &self.table.name);
    }

    fn write_where(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"where\":[");
        write_separated(out, &self.filters, |out, filter| filter.write_form(out));
        out.push(b']');
        if !self.functions.is_empty() {
            out.extend_from_slice(b",\"each\":[");
            write_separated(out, &self.functions, |out, function| function.write_form(out));
            out.push(b']');
        }
    }

    fn write_keys(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"keys\":[");
        write_separated(out, &self.keys, |out, key| out.extend_from_slice(side_form(key).as_bytes()));
        out.push(b']');
    }
}

impl RowEvaluator {
    /// The canonical form without keys.
    pub(super) fn form(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.rows.write_table(&mut out);
        out.extend_from_slice(b",\"as\":");
        write_name(&mut out, self.output.as_deref());
        self.rows.write_where(&mut out);
        out.extend_from_slice(b",\"select\":[");
        write_separated(&mut out, self.columns.iter(), |out, column| match column {
            Output::Star => out.extend_from_slice(b"\"*\""),
            Output::LegacyStar => out.extend_from_slice(b"\"legacy *\""),
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
    pub(super) fn keyed_form(&self) -> Vec<u8> {
        let mut out = self.form();
        self.rows.write_keys(&mut out);
        out.push(b'}');
        out
    }
}

impl LookupIndex {
    /// The index of these rows.
    pub(super) fn new(rows: RowMatch, outputs: Vec<Side<RowInput>>) -> Self {
        let mut form = b"{\"v\":1,\"lookup\":".to_vec();
        rows.write_table(&mut form);
        rows.write_where(&mut form);
        rows.write_keys(&mut form);
        form.extend_from_slice(b",\"outputs\":[");
        write_separated(&mut form, &outputs, |out, output| out.extend_from_slice(side_form(output).as_bytes()));
        form.extend_from_slice(b"]}}");
        Self { form: String::from_utf8_lossy(&form).into_owned().into(), rows, outputs }
    }
}

impl Wanted {
    /// The canonical form: equal for requests that find the same, whatever tables they find it for.
    pub(super) fn form(&self, indexes: &[LookupIndex]) -> String {
        let mut out = String::from("[[");
        out.push_str(&joined(self.filters.iter().map(Expression::form)));
        out.push_str("],[");
        out.push_str(&joined(self.stages.iter().map(|stage| match stage {
            Stage::Each { argument, filters, outputs } => format!(
                "[\"each\",{},[{}],[{}]]",
                argument.form(),
                joined(filters.iter().map(Expression::form)),
                joined(outputs.iter().map(side_form)),
            ),
            Stage::Lookup { index, keys } => {
                let form = indexes.get(*index).map_or("null", |index| &*index.form);
                format!("[\"lookup\",{form},[{}]]", joined(keys.iter().map(|values| values_form(values))))
            }
        })));
        out.push_str("]]");
        out
    }
}

/// The form of the values that a key may have.
pub(super) fn values_form(values: &[KeyValue]) -> String {
    let forms = values.iter().map(|value| match value {
        KeyValue::Request(side) => side_form(side),
        KeyValue::Output { stage, output } => format!("[\"out\",{stage},{output}]"),
    });
    format!("[{}]", joined(forms))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn write_name(out: &mut Vec<u8>, name: Option<&str>) {
    match name {
        Some(name) => crate::json::write_string(out, name),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn write_separated<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

pub(super) fn side_form<I: Form>(side: &Side<I>) -> String {
    match side {
        Side::Value(expression) => expression.form(),
        Side::Elements(expression) => format!("[\"each\",{}]", expression.form()),
    }
}
