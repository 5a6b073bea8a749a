//! Table evaluators: a config bound to one description of a table, turning its rows into operations.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::evaluate::{Failure, evaluate};
use super::event::EvaluatedEvent;
use super::expression::Expression;
use super::plan::{EventQuery, LookupIndex, Plan, RowEvaluator, RowMatch};
use super::resolve::Output;
use super::row_matcher::{Binder, Bound, RowMatcher, read};
use crate::json;
use crate::table::{SourceTable, TablePattern};
use crate::value::Value;

/// Bytes that are reserved at a time for the data of rows.
const BLOCK: usize = 64 << 10;
/// Buckets of one row that are looked through one by one.
const FEW: usize = 16;

/// The parts of a sync config that concern one table, with its columns as indexes.
#[derive(Debug, Clone, Default)]
pub struct TableEvaluator {
    evaluators: Vec<Evaluator>,
    indexes: Vec<Index>,
    events: Vec<Event>,
    objects: Vec<Object>,
    /// How many evaluators write each object.
    uses: Vec<usize>,
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

/// One entry of a lookup index that a row leads to: whoever asks for this key gets these outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedLookup {
    /// The index: [`SyncConfig::lookup_forms`](super::SyncConfig::lookup_forms) has its form.
    pub index: usize,
    /// The key as a compact JSON array.
    pub values: ByteString,
    /// Output rows, each a compact JSON array; no two are the same.
    pub outputs: Vec<ByteString>,
}

/// Why a query yields nothing for a row. The row leaves the buckets of that query; other queries are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationError {
    /// The definition or lookup index that does without the row: in the order of the deployed forms, first
    /// [`SyncConfig::definitions`](super::SyncConfig::definitions), then lookup indexes. Payload queries of events, which have
    /// no form, count on behind them.
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
    /// Entries of lookup indexes; the caller takes them out.
    pub lookups: Vec<EvaluatedLookup>,
    /// Payloads of events; the caller takes them out.
    pub events: Vec<EvaluatedEvent>,
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
        self.lookups.clear();
        self.events.clear();
        self.errors.clear();
    }
}

#[derive(Debug, Clone)]
struct Evaluator {
    definition: usize,
    rows: RowMatcher,
    object: usize,
}

#[derive(Debug, Clone)]
struct Index {
    index: usize,
    /// Where its form stands among those of definitions and indexes.
    form: usize,
    rows: RowMatcher,
}

#[derive(Debug, Clone)]
struct Event {
    event: ByteString,
    /// Behind the numbers of all forms.
    number: usize,
    rows: RowMatcher,
    payload: Object,
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
    /// The column that it is, if it is nothing else: so are most.
    column: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct MemberValue {
    value: Expression<Bound>,
    origin: Origin,
}

/// What a value of a member comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It replaces what is before it.
    Column,
    /// It replaces what is before it, unless it is a blob.
    Star,
    /// It replaces NULL only.
    LegacyStar,
}

impl TableEvaluator {
    /// Binds the evaluators and indexes of `plan` that read `table`.
    pub(super) fn bind(plan: &Plan, default_schema: &str, table: &SourceTable) -> Self {
        let mut bound = Self::default();
        let is_read = |rows: &RowMatch| pattern(rows).matches(default_schema, &table.schema, &table.name);
        for (definition, evaluators) in plan.definitions.iter().map(|d| d.evaluators()).enumerate() {
            for evaluator in evaluators.iter().filter(|evaluator| is_read(&evaluator.rows)) {
                bound.add(definition, evaluator, table);
            }
        }
        for (index, lookup) in plan.indexes.iter().enumerate().filter(|(_, lookup)| is_read(&lookup.rows)) {
            let LookupIndex { rows, outputs, .. } = lookup;
            let mut binder = Binder::new(table, &rows.table.name);
            let rows = RowMatcher::bind(rows, outputs, &mut binder);
            bound.missing.append(&mut binder.missing);
            bound.indexes.push(Index { index, form: plan.definitions.len() + index, rows });
        }
        let forms = plan.definitions.len() + plan.indexes.len();
        for (number, event) in plan.events.iter().enumerate().filter(|(_, event)| is_read(&event.rows)) {
            let EventQuery { event, rows, columns } = event;
            let mut binder = Binder::new(table, &rows.table.name);
            let rows = RowMatcher::bind(rows, &[], &mut binder);
            let payload = Object::bind(event.clone(), columns, table, &mut binder);
            bound.missing.append(&mut binder.missing);
            bound.events.push(Event { event: event.clone(), number: forms + number, rows, payload });
        }
        bound.missing.sort();
        bound.missing.dedup();
        bound
    }

    fn add(&mut self, definition: usize, evaluator: &RowEvaluator, table: &SourceTable) {
        let mut binder = Binder::new(table, &evaluator.rows.table.name);
        let rows = RowMatcher::bind(&evaluator.rows, &[], &mut binder);
        let name = evaluator.output.as_deref().unwrap_or(&table.name);
        let object = Object::bind(name.into(), &evaluator.columns, table, &mut binder);
        let object = self.objects.iter().position(|other| *other == object).unwrap_or_else(|| {
            self.objects.push(object);
            self.uses.push(0);
            self.objects.len() - 1
        });
        self.uses[object] += 1;
        self.missing.append(&mut binder.missing);
        self.evaluators.push(Evaluator { definition, rows, object });
    }

    /// Whether no query reads the table.
    pub fn is_empty(&self) -> bool {
        self.evaluators.is_empty() && self.indexes.is_empty() && self.events.is_empty()
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
        for event in &self.events {
            if let Err(Failure { kind, message }) = event.evaluate(values, out) {
                out.errors.push(EvaluationError { definition: event.number, kind, message });
            }
        }
        self.evaluate_lookups(values, out);
    }

    /// Appends the lookup entries of a row alone.
    pub fn evaluate_lookups(&self, values: &[Value], out: &mut Evaluation) {
        let first = out.lookups.len();
        for index in &self.indexes {
            if let Err(failure) = index.evaluate(values, first, out) {
                // Those of rows before stay.
                let own = out.lookups.split_off(first);
                out.lookups.extend(own.into_iter().filter(|entry| entry.index != index.index));
                let Failure { kind, message } = failure;
                out.errors.push(EvaluationError { definition: index.form, kind, message });
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
        out.buckets.clear();
        let (scratch, block, buckets) = (&mut out.scratch, &mut out.block, &mut out.buckets);
        evaluator.rows.matches(values, &mut |keys, _| {
            if keys.is_empty() {
                if buckets.is_empty() {
                    buckets.push(ByteString::from_static("[]"));
                }
                return Ok(());
            }
            write_array(scratch, keys);
            // One row is in few buckets, unless a list is long: then they are sorted below.
            if buckets.len() >= FEW || !buckets.iter().any(|known| known.as_bytes() == scratch.as_slice()) {
                buckets.push(take_text(scratch, block)?);
            }
            Ok(())
        })?;
        if buckets.len() > FEW {
            buckets.sort_unstable();
            buckets.dedup();
        }
        if out.buckets.is_empty() {
            return Ok(());
        }
        let object = &self.objects[evaluator.object];
        let (mut object_id, mut data) = match &out.written[evaluator.object] {
            Some(written) => written.clone(),
            None => {
                let written = object.write(values, out)?;
                if self.uses[evaluator.object] > 1 {
                    out.written[evaluator.object] = Some(written.clone());
                }
                written
            }
        };
        // The buckets of one query are distinct, so that only those of earlier queries can be met again.
        let earlier = out.rows.len();
        let mut buckets = out.buckets.drain(..);
        while let Some(parameters) = buckets.next() {
            // Most rows are in one bucket: it takes them without another reference.
            let (object_id, data) = match buckets.len() {
                0 => (std::mem::take(&mut object_id), std::mem::take(&mut data)),
                _ => (object_id.clone(), data.clone()),
            };
            let object_type = object.object_type.clone();
            let row = EvaluatedRow { definition: evaluator.definition, parameters, object_type, object_id, data };
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

impl Event {
    fn evaluate(&self, values: &[Value], out: &mut Evaluation) -> Result<(), Failure> {
        let mut found = false;
        self.rows.matches(values, &mut |_, _| {
            found = true;
            Ok(())
        })?;
        if found {
            let (_, data) = self.payload.write(values, out)?;
            out.events.push(EvaluatedEvent { event: self.event.clone(), data });
        }
        Ok(())
    }
}

impl Index {
    /// Appends the entries of a row; those of this row begin at `first`.
    fn evaluate(&self, values: &[Value], first: usize, out: &mut Evaluation) -> Result<(), Failure> {
        let (scratch, block, lookups) = (&mut out.scratch, &mut out.block, &mut out.lookups);
        let first = first.max(lookups.iter().rposition(|entry| entry.index != self.index).map_or(0, |at| at + 1));
        self.rows.matches(values, &mut |keys, outputs| {
            write_array(scratch, keys);
            let known = lookups[first..].iter().position(|entry| entry.values.as_bytes() == scratch.as_slice());
            let place = match known {
                Some(known) => first + known,
                None => {
                    let values = take_text(scratch, block)?;
                    lookups.push(EvaluatedLookup { index: self.index, values, outputs: Vec::new() });
                    lookups.len() - 1
                }
            };
            write_array(scratch, outputs);
            let entry = &mut lookups[place];
            if !entry.outputs.iter().any(|known| known.as_bytes() == scratch.as_slice()) {
                entry.outputs.push(take_text(scratch, block)?);
            }
            Ok(())
        })
    }
}

/// The pattern of the tables that are read, without their columns.
pub(super) fn pattern(rows: &RowMatch) -> TablePattern {
    let table = &rows.table;
    TablePattern {
        schema: table.schema.clone(),
        name: Arc::clone(&table.name),
        prefix: table.prefix,
        ..TablePattern::default()
    }
}

/// Values as a compact JSON array, as they stand in parameters of buckets and keys of lookups.
pub(super) fn write_array(scratch: &mut Vec<u8>, values: &[Cow<'_, Value>]) {
    scratch.clear();
    scratch.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            scratch.push(b',');
        }
        json::write_parameter(scratch, value);
    }
    scratch.push(b']');
}

/// The scratch text as bytes of their own, cut from a shared block.
fn take_scratch(scratch: &[u8], block: &mut BytesMut) -> Bytes {
    if block.capacity() < scratch.len() {
        block.reserve(BLOCK.max(scratch.len()));
    }
    block.extend_from_slice(scratch);
    block.split().freeze()
}

fn take_text(scratch: &[u8], block: &mut BytesMut) -> Result<ByteString, Failure> {
    ByteString::try_from(take_scratch(scratch, block))
        .map_err(|error| Failure::new("bad-parameter-value", error.to_string()))
}

impl Object {
    fn bind(object_type: ByteString, columns: &[Output], table: &SourceTable, binder: &mut Binder<'_>) -> Self {
        let mut object = Self { object_type, members: Vec::new(), id: None };
        for column in columns {
            let (origin, hides) = match column {
                Output::Star => (Origin::Star, false),
                Output::LegacyStar => (Origin::LegacyStar, true),
                Output::Column { name, value } => {
                    object.set(name, binder.bind(value), Origin::Column);
                    continue;
                }
            };
            for (index, column) in table.columns.iter().enumerate() {
                if !hides || !column.name.starts_with('_') {
                    object.set(&column.name, Expression::Input(Bound::At(index)), origin);
                }
            }
        }
        object.id = object.members.iter().position(|member| &*member.name == "id");
        for member in &mut object.members {
            member.column = match member.values.as_slice() {
                [MemberValue { value: Expression::Input(Bound::At(index)), .. }] => Some(*index),
                _ => None,
            };
        }
        object
    }

    /// Adds a value; a name that is there already keeps its place.
    fn set(&mut self, name: &Arc<str>, value: Expression<Bound>, origin: Origin) {
        let value = MemberValue { value, origin };
        if let Some(member) = self.members.iter_mut().find(|member| member.name == *name) {
            if origin == Origin::Column {
                member.values.clear();
            }
            member.values.push(value);
            return;
        }
        let mut key = Vec::new();
        json::write_string(&mut key, name);
        key.push(b':');
        self.members.push(Member { name: Arc::clone(name), key, values: vec![value], column: None });
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
        Ok((id, take_scratch(&out.scratch, &mut out.block)))
    }
}

impl Member {
    /// What is written; `None` for a blob and for a column that the table does not have.
    fn value<'v>(&'v self, values: &'v [Value]) -> Result<Option<Cow<'v, Value>>, Failure> {
        if let Some(column) = self.column {
            let value = values.get(column).unwrap_or(&Value::Null);
            return Ok((!matches!(value, Value::Blob(_))).then_some(Cow::Borrowed(value)));
        }
        if self.values.iter().any(|value| value.origin == Origin::LegacyStar) {
            return self.legacy_value(values);
        }
        for candidate in self.values.iter().rev() {
            if candidate.value == Expression::Input(Bound::Missing) {
                return Ok(None);
            }
            let value = evaluate(&candidate.value, &|bound| read(values, &[], *bound))?;
            if !matches!(*value, Value::Blob(_)) {
                return Ok(Some(value));
            }
            if candidate.origin == Origin::Column {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The same where `*` only fills in what is missing or NULL.
    fn legacy_value<'v>(&'v self, values: &'v [Value]) -> Result<Option<Cow<'v, Value>>, Failure> {
        let mut found: Option<Cow<'v, Value>> = None;
        for candidate in &self.values {
            if candidate.origin == Origin::LegacyStar && found.as_ref().is_some_and(|value| !value.is_null()) {
                continue;
            }
            found = match candidate.value {
                Expression::Input(Bound::Missing) => None,
                _ => Some(evaluate(&candidate.value, &|bound| read(values, &[], *bound))?),
            };
        }
        Ok(found.filter(|value| !matches!(**value, Value::Blob(_))))
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
