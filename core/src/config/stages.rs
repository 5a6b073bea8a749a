//! A branch taken apart: what a request looks up, in which order, and by what keys the rows of each table are found.
//!
//! Tables that matches connect are a graph. It is walked from the table whose rows are wanted: a table that it is matched with
//! becomes a lookup, whose output is the other side; what that one is matched with comes earlier; and so on up to the request.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::Report;
use super::evaluate;
use super::expression::{ConditionInput, EachInput, Expression, RequestInput, RowInput, SourceId};
use super::normal_form::{Branch, MatchSide, Side};
use super::plan::{KeyValue, LookupIndex, RowMatch, Stage, Wanted, side_form, values_form};
use super::resolve::{Owner, QuerySource};
use super::scope::Condition;
use crate::value::Value;

/// A key of the rows that are wanted: the row's side, and the values that it may have.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) row: Side<RowInput>,
    pub(super) values: Vec<KeyValue>,
}

/// What a key is matched with, by form.
type Values = BTreeMap<String, KeyValue>;

/// Takes a branch of a query apart.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    sources: &'a [QuerySource],
    branch: &'a Branch,
    /// The lookup indexes of the whole config.
    indexes: &'a mut Vec<LookupIndex>,
    report: &'a mut Report,
    visited: BTreeMap<SourceId, Visit>,
    drafts: Vec<Draft>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// It is under way: whoever is matched with it leaves that to it.
    Open,
    /// It is this stage.
    Stage(usize),
}

/// A stage whose outputs are still being collected.
#[derive(Debug)]
struct Draft {
    kind: DraftKind,
    /// By their forms.
    outputs: Vec<String>,
}

#[derive(Debug)]
enum DraftKind {
    Each { argument: Expression<RequestInput>, filters: Vec<Expression<EachInput>>, outputs: Vec<Side<EachInput>> },
    Lookup { rows: RowMatch, keys: Vec<Vec<KeyValue>>, outputs: Vec<Side<RowInput>> },
}

/// What a branch comes to.
#[derive(Debug)]
pub(super) struct Parts {
    /// The rows that are wanted, without keys.
    pub(super) rows: RowMatch,
    pub(super) keys: Vec<Key>,
    pub(super) wanted: Wanted,
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        sources: &'a [QuerySource],
        branch: &'a Branch,
        indexes: &'a mut Vec<LookupIndex>,
        report: &'a mut Report,
    ) -> Self {
        Self { sources, branch, indexes, report, visited: BTreeMap::new(), drafts: Vec::new() }
    }

    /// The rows of `primary` that belong to a request; `None` if there are none, or after problems were reported.
    pub(super) fn of_rows(mut self, primary: SourceId) -> Option<Parts> {
        let filters = self.request_filters()?;
        self.check_request_rows();
        self.visited.insert(primary, Visit::Open);
        let (rows, keys) = self.table(primary)?;
        let (wanted, orders) = self.finish(filters)?;
        let mut keys = keys;
        keys.iter_mut().for_each(|key| renumber(&mut key.values, &orders));
        Some(Parts { rows, keys, wanted })
    }

    /// Everything that must be true of the request alone; `None` if a constant condition is not.
    fn request_filters(&self) -> Option<Vec<Expression<RequestInput>>> {
        let mut filters: BTreeMap<String, Expression<RequestInput>> = BTreeMap::new();
        for (owner, filter) in &self.branch.filters {
            if !matches!(owner, Owner::Request | Owner::Constant) {
                continue;
            }
            let filter = request_side(filter)?;
            if *owner == Owner::Constant {
                let value = evaluate::evaluate(&filter, &|_| std::borrow::Cow::Owned(Value::Null));
                if !value.is_ok_and(|value| evaluate::is_true(&value)) {
                    return None;
                }
                continue;
            }
            filters.insert(filter.form(), filter);
        }
        Some(filters.into_values().collect())
    }

    /// Rows of the request can be matched with one table only, and not with the request.
    fn check_request_rows(&mut self) {
        let mut partners: BTreeMap<SourceId, BTreeSet<Owner>> = BTreeMap::new();
        for found in &self.branch.matches {
            for (side, other) in [(&found.left, &found.right), (&found.right, &found.left)] {
                if let Owner::Each(source) = side.owner {
                    partners.entry(source).or_default().insert(other.owner);
                }
            }
        }
        for (source, owners) in partners {
            if owners.len() > 1 || !matches!(owners.first(), Some(Owner::Table(_))) {
                let Some(QuerySource::Each { span, .. }) = self.sources.get(source.0) else { continue };
                self.report
                    .fatal(
                        "request-function-partitioned",
                        *span,
                        "a list of the request can be matched with one table only",
                    )
                    .help("write the list once for each table; for fixed values write `x IN ARRAY['a', 'b']`");
            }
        }
    }

    /// The filters and keys of a table; what it is matched with is added to the stages.
    fn table(&mut self, source: SourceId) -> Option<(RowMatch, Vec<Key>)> {
        let sources = self.sources;
        let Some(QuerySource::Table { reference, .. }) = sources.get(source.0) else { return None };
        let functions = self.functions_of(source);
        let mut arguments = Vec::new();
        for function in &functions {
            let Some(QuerySource::Each { argument, .. }) = sources.get(function.0) else { return None };
            arguments.push(row_side(argument, &[])?);
        }
        let mut filters: BTreeMap<String, Expression<RowInput>> = BTreeMap::new();
        for (owner, filter) in &self.branch.filters {
            if *owner == Owner::Table(source) && !matches!(filter, Expression::Input(ConditionInput::Present(_))) {
                let filter = row_side(filter, &functions)?;
                filters.insert(filter.form(), filter);
            }
        }
        let mut keys: BTreeMap<(String, String), (Side<RowInput>, Values)> = BTreeMap::new();
        for (own, other) in self.matches_of(Owner::Table(source)) {
            let Some(value) = self.value(other)? else { continue };
            let row = own.value.with(row_side(own.value.expression(), &functions)?);
            let value_form = values_form(std::slice::from_ref(&value));
            let apart = match &row {
                // All that one value equals is the same, and becomes one key.
                Side::Value(_) => String::new(),
                // Two conditions may be met by two elements of one list.
                Side::Elements(_) => value_form.clone(),
            };
            let (_, values) = keys.entry((side_form(&row), apart)).or_insert_with(|| (row, Values::new()));
            values.insert(value_form, value);
        }
        let keys = keys.into_values().map(|(row, values)| Key { row, values: values.into_values().collect() });
        let filters = filters.into_values().collect();
        let rows = RowMatch { table: reference.clone(), functions: arguments, filters, keys: Vec::new() };
        Some((rows, keys.collect()))
    }

    /// The matches of a table, in an order that does not depend on how they are written.
    fn matches_of(&self, owner: Owner) -> Vec<(&'a MatchSide, &'a MatchSide)> {
        let branch = self.branch;
        let mut found = Vec::new();
        for found_match in &branch.matches {
            let (left, right) = (&found_match.left, &found_match.right);
            if left.owner == owner {
                found.push((left, right));
            }
            if right.owner == owner {
                found.push((right, left));
            }
        }
        found.sort_by_cached_key(|(own, other)| (self.form(&own.value), self.form(&other.value)));
        found
    }

    /// A form without numbers of sources.
    fn form(&self, side: &Side<ConditionInput>) -> String {
        let mut tables = Vec::new();
        side.expression().inputs(&mut |input| {
            if let Some(QuerySource::Table { reference, .. }) = input.source().and_then(|id| self.sources.get(id.0)) {
                tables.push(reference.clone());
            }
        });
        format!("{}{tables:?}", side_form(side))
    }

    /// The value that a key is compared with; `None` inside if the other side has the key.
    #[allow(clippy::option_option, reason = "problem, nothing, or a value")]
    fn value(&mut self, other: &MatchSide) -> Option<Option<KeyValue>> {
        let expression = other.value.expression();
        Some(match other.owner {
            Owner::Constant | Owner::Request => Some(KeyValue::Request(other.value.with(request_side(expression)?))),
            Owner::Each(source) => {
                let stage = self.each_stage(source)?;
                let output = other.value.with(each_side(expression)?);
                Some(KeyValue::Output { stage, output: self.drafts[stage].each_output(output)? })
            }
            Owner::Table(source) => {
                let stage = match self.visited.get(&source) {
                    Some(Visit::Open) => return Some(None),
                    Some(Visit::Stage(stage)) => *stage,
                    None => self.lookup_stage(source)?,
                };
                let functions = self.functions_of(source);
                let output = other.value.with(row_side(expression, &functions)?);
                Some(KeyValue::Output { stage, output: self.drafts[stage].row_output(output)? })
            }
        })
    }

    fn lookup_stage(&mut self, source: SourceId) -> Option<usize> {
        self.visited.insert(source, Visit::Open);
        let (mut rows, keys) = self.table(source)?;
        let (sides, values): (Vec<_>, Vec<_>) = keys.into_iter().map(|key| (key.row, key.values)).unzip();
        rows.keys = sides;
        let kind = DraftKind::Lookup { rows, keys: values, outputs: Vec::new() };
        Some(self.push(source, kind))
    }

    fn each_stage(&mut self, source: SourceId) -> Option<usize> {
        if let Some(Visit::Stage(stage)) = self.visited.get(&source) {
            return Some(*stage);
        }
        let sources = self.sources;
        let Some(QuerySource::Each { argument, .. }) = sources.get(source.0) else { return None };
        let mut filters: BTreeMap<String, Expression<EachInput>> = BTreeMap::new();
        for (owner, filter) in &self.branch.filters {
            if *owner == Owner::Each(source) && !matches!(filter, Expression::Input(ConditionInput::Present(_))) {
                let filter = each_side(filter)?;
                filters.insert(filter.form(), filter);
            }
        }
        let filters = filters.into_values().collect();
        let kind = DraftKind::Each { argument: request_side(argument)?, filters, outputs: Vec::new() };
        Some(self.push(source, kind))
    }

    fn push(&mut self, source: SourceId, kind: DraftKind) -> usize {
        self.drafts.push(Draft { kind, outputs: Vec::new() });
        let stage = self.drafts.len() - 1;
        self.visited.insert(source, Visit::Stage(stage));
        stage
    }

    /// The `json_each` over columns of a table that the branch uses.
    fn functions_of(&self, table: SourceId) -> Vec<SourceId> {
        let mut found = BTreeSet::new();
        let mut note = |condition: &Condition| {
            condition.inputs(&mut |input| {
                if let Some(source) = input.source()
                    && let Some(QuerySource::Each { owner: Owner::Table(owner), .. }) = self.sources.get(source.0)
                    && *owner == table
                {
                    found.insert(source);
                }
            });
        };
        self.branch.filters.iter().for_each(|(_, filter)| note(filter));
        for found_match in &self.branch.matches {
            note(found_match.left.value.expression());
            note(found_match.right.value.expression());
        }
        found.into_iter().collect()
    }

    /// Adds what the branch needs a row of without matching it, and numbers everything for good.
    fn finish(mut self, filters: Vec<Expression<RequestInput>>) -> Option<(Wanted, Vec<Vec<usize>>)> {
        let mut needed = BTreeSet::new();
        self.branch.filters.iter().for_each(|(owner, _)| {
            needed.insert(*owner);
        });
        for found in &self.branch.matches {
            needed.insert(found.left.owner);
            needed.insert(found.right.owner);
        }
        for owner in needed {
            match owner {
                Owner::Table(source) if !self.visited.contains_key(&source) => {
                    self.lookup_stage(source)?;
                }
                Owner::Each(source) => {
                    self.each_stage(source)?;
                }
                _ => {}
            }
        }
        // Outputs in the order of their forms, so that equal indexes are one.
        let orders: Vec<Vec<usize>> = self.drafts.iter().map(|draft| order_of(&draft.outputs)).collect();
        let mut stages = Vec::new();
        for (draft, order) in self.drafts.into_iter().zip(&orders) {
            stages.push(match draft.kind {
                DraftKind::Each { argument, filters, outputs } => {
                    Stage::Each { argument, filters, outputs: arranged(outputs, order) }
                }
                DraftKind::Lookup { rows, mut keys, outputs } => {
                    keys.iter_mut().for_each(|values| renumber(values, &orders));
                    let index = LookupIndex::new(rows, arranged(outputs, order));
                    let known = self.indexes.iter().position(|known| known.form == index.form);
                    let index = known.unwrap_or_else(|| {
                        self.indexes.push(index);
                        self.indexes.len() - 1
                    });
                    Stage::Lookup { index, keys }
                }
            });
        }
        Some((Wanted { filters, stages }, orders))
    }
}

impl Draft {
    fn row_output(&mut self, output: Side<RowInput>) -> Option<usize> {
        let DraftKind::Lookup { outputs, .. } = &mut self.kind else { return None };
        Some(place(&mut self.outputs, outputs, side_form(&output), output))
    }

    fn each_output(&mut self, output: Side<EachInput>) -> Option<usize> {
        let DraftKind::Each { outputs, .. } = &mut self.kind else { return None };
        Some(place(&mut self.outputs, outputs, side_form(&output), output))
    }
}

/// The place of an output. Two conditions may be met by two elements of one list, so that each has an output of its own.
fn place<I>(forms: &mut Vec<String>, outputs: &mut Vec<Side<I>>, form: String, output: Side<I>) -> usize {
    let known = match &output {
        Side::Value(_) => forms.iter().position(|known| *known == form),
        Side::Elements(_) => None,
    };
    known.unwrap_or_else(|| {
        forms.push(form);
        outputs.push(output);
        outputs.len() - 1
    })
}

/// For each output its number in the order of forms.
fn order_of(forms: &[String]) -> Vec<usize> {
    let before = |(place, form): (usize, &String)| {
        let others = forms.iter().enumerate();
        others.filter(|(other_place, other)| (*other, *other_place) < (form, place)).count()
    };
    forms.iter().enumerate().map(before).collect()
}

fn arranged<T>(items: Vec<T>, order: &[usize]) -> Vec<T> {
    let mut numbered: Vec<_> = order.iter().zip(items).collect();
    numbered.sort_by_key(|(number, _)| **number);
    numbered.into_iter().map(|(_, item)| item).collect()
}

fn renumber(values: &mut [KeyValue], orders: &[Vec<usize>]) {
    for value in values {
        if let KeyValue::Output { stage, output } = value {
            *output = orders[*stage][*output];
        }
    }
}

/// The expression over one row; `functions` are its `json_each`.
pub(super) fn row_side(condition: &Condition, functions: &[SourceId]) -> Option<Expression<RowInput>> {
    condition.replace(&mut |input| {
        Some(match input {
            ConditionInput::Column { name, .. } => Expression::Input(RowInput::Column(name.clone())),
            ConditionInput::Table { part, .. } => Expression::Input(RowInput::Table(*part)),
            ConditionInput::Each { source, part, .. } => {
                let function = functions.iter().position(|function| function == source)?;
                Expression::Input(RowInput::Each(function, *part))
            }
            ConditionInput::Present(_) => Expression::Literal(Value::Integer(1)),
            ConditionInput::Request(_) | ConditionInput::Bucket { .. } => return None,
        })
    })
}

/// The expression over request values and constants alone.
pub(super) fn request_side(condition: &Condition) -> Option<Expression<RequestInput>> {
    condition.replace(&mut |input| match input {
        ConditionInput::Request(request) => Some(Expression::Input(request.clone())),
        _ => None,
    })
}

/// The expression over a row of `json_each` and the request.
pub(super) fn each_side(condition: &Condition) -> Option<Expression<EachInput>> {
    condition.replace(&mut |input| match input {
        ConditionInput::Each { part, .. } => Some(Expression::Input(EachInput::Part(*part))),
        ConditionInput::Present(_) => Some(Expression::Literal(Value::Integer(1))),
        ConditionInput::Request(request) => Some(Expression::Input(EachInput::Request(request.clone()))),
        _ => None,
    })
}
