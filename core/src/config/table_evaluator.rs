//! Table evaluators: a config bound to one description of a table, turning its rows into operations.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::evaluate::{Failure, evaluate, has_equals, is_true};
use super::expression::Expression;
use super::json_tree;
use super::normal_form::Side;
use super::plan::{Plan, RowEvaluator};
use super::resolve::Output;
use crate::json;
use crate::table::{SourceTable, TablePattern};
use crate::value::Value;

/// Bytes that are reserved at a time for the data of rows.
const BLOCK: usize = 64 << 10;
/// Buckets that one row may be in through one query, so that a hostile list cannot exhaust the memory.
const ROW_LIMIT: usize = 10_000;

/// The parts of a sync config that concern one table, with its columns as indexes.
#[derive(Debug, Clone, Default)]
pub struct TableEvaluator {
    evaluators: Vec<Evaluator>,
    objects: Vec<Object>,
    missing: Vec<Arc<str>>,
}

/// One operation that a row leads to: it is in this bucket, as this object.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatedRow {
    /// Index into [`SyncConfig::definitions`](super::SyncConfig::definitions).
    pub definition: usize,
    /// The parameters of the bucket as a compact JSON array.
    pub parameters: ByteString,
    /// The table that clients see.
    pub object_type: ByteString,
    /// The text of the column `id` that clients see; empty if there is none.
    pub object_id: ByteString,
    /// The row as a JSON object.
    pub data: Bytes,
}

/// Why a query yields nothing for a row. The row leaves the buckets of that query; other queries are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationError {
    /// Index into [`SyncConfig::definitions`](super::SyncConfig::definitions).
    pub definition: usize,
    /// A stable name of the kind of problem, such as `bad-json`.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Where evaluated rows are collected. Made once and used for many rows, so that its buffers are reused.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// What rows lead to; the caller takes them out.
    pub rows: Vec<EvaluatedRow>,
    /// What could not be evaluated.
    pub errors: Vec<EvaluationError>,
    scratch: Vec<u8>,
    block: BytesMut,
    written: Vec<Option<(ByteString, Bytes)>>,
    buckets: Vec<ByteString>,
}

impl Evaluation {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets rows and errors, and keeps the buffers.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.errors.clear();
    }

    /// The scratch text as bytes of their own, cut from a shared block.
    fn take_scratch(&mut self) -> Bytes {
        if self.block.capacity() < self.scratch.len() {
            self.block.reserve(BLOCK.max(self.scratch.len()));
        }
        self.block.extend_from_slice(&self.scratch);
        self.block.split().freeze()
    }
}

#[derive(Debug, Clone)]
struct Evaluator {
    definition: usize,
    filters: Vec<Expression<Bound>>,
    keys: Vec<Side<Bound>>,
    object: usize,
}

/// A column of the table, or one that it does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    At(usize),
    Missing,
}

/// What a row looks like to clients. Equal objects are written once per row, however many buckets they are in.
#[derive(Debug, Clone, PartialEq)]
struct Object {
    object_type: ByteString,
    members: Vec<Member>,
    id: Option<usize>,
}

/// A member of the JSON object.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    name: Arc<str>,
    /// The name as JSON, with its colon.
    key: Vec<u8>,
    /// The last that has something to write wins.
    values: Vec<MemberValue>,
}

#[derive(Debug, Clone, PartialEq)]
struct MemberValue {
    value: Expression<Bound>,
    /// From `*`, where a blob leaves an earlier value of that name alone.
    star: bool,
}

impl TableEvaluator {
    /// Binds the evaluators of `plan` that read `table`.
    pub(super) fn bind(plan: &Plan, default_schema: &str, table: &SourceTable) -> Self {
        let mut bound = Self::default();
        for (definition, evaluators) in plan.definitions.iter().map(|d| d.evaluators()).enumerate() {
            for evaluator in evaluators {
                if pattern(evaluator).matches(default_schema, &table.schema, &table.name) {
                    bound.add(definition, evaluator, table);
                }
            }
        }
        bound.missing.sort();
        bound.missing.dedup();
        bound
    }

    fn add(&mut self, definition: usize, evaluator: &RowEvaluator, table: &SourceTable) {
        let missing = &mut self.missing;
        let mut bind = |expression: &Expression<Arc<str>>| {
            let bound = expression.map(&mut |name| {
                let index = table.columns.iter().position(|column| column.name == *name);
                if index.is_none() {
                    missing.push(Arc::clone(name));
                }
                Some(index.map_or(Bound::Missing, Bound::At))
            });
            bound.unwrap_or(Expression::Literal(Value::Null))
        };
        let filters = evaluator.filters.iter().map(&mut bind).collect();
        let keys = (evaluator.keys.iter())
            .map(|key| match key {
                Side::Value(expression) => Side::Value(bind(expression)),
                Side::Elements(expression) => Side::Elements(bind(expression)),
            })
            .collect();
        let name = evaluator.output.as_deref().unwrap_or(&table.name);
        let mut object = Object { object_type: name.into(), members: Vec::new(), id: None };
        for column in evaluator.columns.iter() {
            match column {
                Output::Star => {
                    for (index, column) in table.columns.iter().enumerate() {
                        object.set(&column.name, Expression::Input(Bound::At(index)), true);
                    }
                }
                Output::Column { name, value } => object.set(name, bind(value), false),
            }
        }
        object.id = object.members.iter().position(|member| &*member.name == "id");
        let object = self.objects.iter().position(|other| *other == object).unwrap_or_else(|| {
            self.objects.push(object);
            self.objects.len() - 1
        });
        self.evaluators.push(Evaluator { definition, filters, keys, object });
    }

    /// Whether no query reads the table.
    pub fn is_empty(&self) -> bool {
        self.evaluators.is_empty()
    }

    /// Columns that the config names and the table does not have. They read as NULL, and are left out of the data;
    /// someone should be told.
    pub fn missing_columns(&self) -> &[Arc<str>] {
        &self.missing
    }

    /// Appends what a row leads to. `values` has one value per column of the table that was bound, in its order; what
    /// the config does not use may be NULL.
    ///
    /// A query that cannot be evaluated adds an error instead, and does not stop the others. If several queries put
    /// the same object into the same bucket, it is there once, as the last of them gives it.
    pub fn evaluate(&self, values: &[Value], out: &mut Evaluation) {
        let first = out.rows.len();
        out.written.clear();
        out.written.resize(self.objects.len(), None);
        for evaluator in &self.evaluators {
            if let Err(failure) = self.evaluate_one(evaluator, values, first, out) {
                let Failure { kind, message } = failure;
                out.errors.push(EvaluationError { definition: evaluator.definition, kind, message });
            }
        }
    }

    fn evaluate_one(
        &self,
        evaluator: &Evaluator,
        values: &[Value],
        first: usize,
        out: &mut Evaluation,
    ) -> Result<(), Failure> {
        for filter in &evaluator.filters {
            if !is_true(&*evaluate(filter, &|bound| read(values, *bound))?) {
                return Ok(());
            }
        }
        out.buckets.clear();
        parameters(&evaluator.keys, values, out)?;
        if out.buckets.is_empty() {
            return Ok(());
        }
        let object = &self.objects[evaluator.object];
        let (object_id, data) = match &out.written[evaluator.object] {
            Some(written) => written.clone(),
            None => {
                let written = object.write(values, out)?;
                out.written[evaluator.object] = Some(written.clone());
                written
            }
        };
        // The buckets of one query are distinct, so that only those of earlier queries can be met again.
        let earlier = out.rows.len();
        for parameters in out.buckets.drain(..) {
            let row = EvaluatedRow {
                definition: evaluator.definition,
                parameters,
                object_type: object.object_type.clone(),
                object_id: object_id.clone(),
                data: data.clone(),
            };
            let same = |other: &&mut EvaluatedRow| {
                other.definition == row.definition
                    && other.parameters == row.parameters
                    && other.object_type == row.object_type
                    && other.object_id == row.object_id
            };
            match out.rows[first..earlier].iter_mut().find(same) {
                Some(other) => *other = row,
                None => out.rows.push(row),
            }
        }
        Ok(())
    }
}

/// The pattern of the tables that an evaluator reads, without its columns.
pub(super) fn pattern(evaluator: &RowEvaluator) -> TablePattern {
    let table = &evaluator.table;
    TablePattern {
        schema: table.schema.clone(),
        name: Arc::clone(&table.name),
        prefix: table.prefix,
        ..TablePattern::default()
    }
}

fn read(values: &[Value], bound: Bound) -> Cow<'_, Value> {
    match bound {
        Bound::At(index) => values.get(index).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        Bound::Missing => Cow::Owned(Value::Null),
    }
}

/// Collects the parameters of the buckets that a row is in: one per combination of its keys' values, none if a key has
/// no value.
fn parameters(keys: &[Side<Bound>], values: &[Value], out: &mut Evaluation) -> Result<(), Failure> {
    if keys.is_empty() {
        out.buckets.push(ByteString::from_static("[]"));
        return Ok(());
    }
    if keys.iter().any(|key| matches!(key, Side::Elements(_))) {
        return combinations(keys, values, out);
    }
    out.scratch.clear();
    for (index, key) in keys.iter().enumerate() {
        let value = evaluate(key.expression(), &|bound| read(values, *bound))?;
        if !has_equals(&value) {
            return Ok(());
        }
        out.scratch.push(if index == 0 { b'[' } else { b',' });
        json::write_parameter(&mut out.scratch, &value);
    }
    out.scratch.push(b']');
    let parameters = take_parameters(out)?;
    out.buckets.push(parameters);
    Ok(())
}

fn take_parameters(out: &mut Evaluation) -> Result<ByteString, Failure> {
    ByteString::try_from(out.take_scratch()).map_err(|error| Failure::new("bad-parameter-value", error.to_string()))
}

/// The same where a key may have several values.
fn combinations(keys: &[Side<Bound>], values: &[Value], out: &mut Evaluation) -> Result<(), Failure> {
    let mut sets: Vec<Vec<Cow<'_, Value>>> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = evaluate(key.expression(), &|bound| read(values, *bound))?;
        let mut set = match key {
            Side::Value(_) => vec![value],
            Side::Elements(_) => json_tree::each(&value)?.into_iter().map(Cow::Owned).collect(),
        };
        set.retain(|value| has_equals(value));
        if set.is_empty() {
            return Ok(());
        }
        sets.push(set);
    }
    let count = sets.iter().try_fold(1usize, |count, set| count.checked_mul(set.len()));
    let Some(count) = count.filter(|count| *count <= ROW_LIMIT) else {
        let message = format!("this row is in more than {ROW_LIMIT} buckets of one query");
        return Err(Failure::new("too-many-buckets", message));
    };
    let mut seen = BTreeSet::new();
    for combination in 0..count {
        out.scratch.clear();
        let mut rest = combination;
        for (index, set) in sets.iter().enumerate() {
            out.scratch.push(if index == 0 { b'[' } else { b',' });
            json::write_parameter(&mut out.scratch, &set[rest % set.len()]);
            rest /= set.len();
        }
        out.scratch.push(b']');
        let parameters = take_parameters(out)?;
        if seen.insert(parameters.clone()) {
            out.buckets.push(parameters);
        }
    }
    Ok(())
}

impl Object {
    /// Adds a value; a name that is there already keeps its place.
    fn set(&mut self, name: &Arc<str>, value: Expression<Bound>, star: bool) {
        let value = MemberValue { value, star };
        if let Some(member) = self.members.iter_mut().find(|member| member.name == *name) {
            if star {
                member.values.push(value);
            } else {
                member.values = vec![value];
            }
            return;
        }
        let mut key = Vec::new();
        json::write_string(&mut key, name);
        key.push(b':');
        self.members.push(Member { name: Arc::clone(name), key, values: vec![value] });
    }

    /// The operation id and the data of a row.
    fn write(&self, values: &[Value], out: &mut Evaluation) -> Result<(ByteString, Bytes), Failure> {
        let mut id = ByteString::new();
        out.scratch.clear();
        out.scratch.push(b'{');
        for (index, member) in self.members.iter().enumerate() {
            let Some(value) = member.value(values)? else { continue };
            if Some(index) == self.id {
                id = text(&value);
            }
            if out.scratch.len() > 1 {
                out.scratch.push(b',');
            }
            out.scratch.extend_from_slice(&member.key);
            json::write_value(&mut out.scratch, &value);
        }
        out.scratch.push(b'}');
        Ok((id, out.take_scratch()))
    }
}

impl Member {
    /// What is written; `None` for a blob and for a column that the table does not have.
    fn value<'v>(&'v self, values: &'v [Value]) -> Result<Option<Cow<'v, Value>>, Failure> {
        for candidate in self.values.iter().rev() {
            if candidate.value == Expression::Input(Bound::Missing) {
                return Ok(None);
            }
            let value = evaluate(&candidate.value, &|bound| read(values, *bound))?;
            if !matches!(*value, Value::Blob(_)) {
                return Ok(Some(value));
            }
            if !candidate.star {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

/// The text form of a value, as an operation id.
fn text(value: &Value) -> ByteString {
    match value {
        Value::Null | Value::Blob(_) => ByteString::new(),
        Value::Integer(integer) => integer.to_string().into(),
        Value::Real(real) => json::shortest_real(*real).into(),
        Value::Text(text) => text.clone(),
    }
}
