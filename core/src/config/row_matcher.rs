//! Rows against filters and keys, with columns as places in the row.

use std::borrow::Cow;
use std::sync::Arc;

use super::evaluate::{Failure, evaluate, has_equals, is_true};
use super::expression::{EachPart, Expression, RowInput, TablePart};
use super::json_tree;
use super::normal_form::Side;
use super::plan::RowMatch;
use crate::table::SourceTable;
use crate::value::Value;

/// Combinations of list elements that one row may have in one query, so that a hostile list cannot exhaust the memory.
const ROW_LIMIT: usize = 10_000;

/// An input of an expression over a row of a known table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// A column.
    At(usize),
    /// A column that the table does not have.
    Missing,
    /// A column of one of the row's `json_each`.
    Each(usize, EachPart),
}

/// Binds expressions to the columns of a table.
#[derive(Debug)]
pub(super) struct Binder<'t> {
    table: &'t SourceTable,
    /// What follows the prefix of the pattern that the table matches.
    suffix: &'t str,
    pub(super) missing: Vec<Arc<str>>,
}

impl<'t> Binder<'t> {
    pub(super) fn new(table: &'t SourceTable, pattern: &str) -> Self {
        Self { table, suffix: table.name.strip_prefix(pattern).unwrap_or(""), missing: Vec::new() }
    }

    pub(super) fn bind(&mut self, expression: &Expression<RowInput>) -> Expression<Bound> {
        let bound = expression.replace(&mut |input| {
            Some(match input {
                RowInput::Column(name) => {
                    let index = self.table.columns.iter().position(|column| column.name == *name);
                    if index.is_none() {
                        self.missing.push(Arc::clone(name));
                    }
                    Expression::Input(index.map_or(Bound::Missing, Bound::At))
                }
                RowInput::Each(function, part) => Expression::Input(Bound::Each(*function, *part)),
                RowInput::Table(part) => Expression::Literal(Value::text(match part {
                    TablePart::Schema => &*self.table.schema,
                    TablePart::Name => &*self.table.name,
                    TablePart::Suffix => self.suffix,
                })),
            })
        });
        bound.unwrap_or(Expression::Literal(Value::Null))
    }

    fn side(&mut self, side: &Side<RowInput>) -> Side<Bound> {
        side.with(self.bind(side.expression()))
    }

    pub(super) fn sides(&mut self, sides: &[Side<RowInput>]) -> Vec<Side<Bound>> {
        sides.iter().map(|side| self.side(side)).collect()
    }
}

/// A [`RowMatch`] bound to a table.
#[derive(Debug, Clone)]
pub(super) struct RowMatcher {
    functions: Vec<Expression<Bound>>,
    /// What needs no row of a function, and is looked at first.
    filters: Vec<Expression<Bound>>,
    element_filters: Vec<Expression<Bound>>,
    /// Keys, and after them what else is wanted of a row.
    sides: Vec<Side<Bound>>,
    keys: usize,
}

impl RowMatcher {
    pub(super) fn bind(rows: &RowMatch, outputs: &[Side<RowInput>], binder: &mut Binder<'_>) -> Self {
        let functions = rows.functions.iter().map(|function| binder.bind(function)).collect();
        let bound = rows.filters.iter().map(|filter| binder.bind(filter));
        let (element_filters, filters) = bound.partition(|filter| {
            let mut elements = false;
            filter.inputs(&mut |input| elements |= matches!(input, Bound::Each(..)));
            elements
        });
        let mut sides = binder.sides(&rows.keys);
        let keys = sides.len();
        sides.extend(binder.sides(outputs));
        Self { functions, filters, element_filters, sides, keys }
    }

    /// Calls `found` with the values of keys and outputs, once for each combination of list elements that fits. A key or
    /// output that equals nothing matches nothing.
    pub(super) fn matches(
        &self,
        values: &[Value],
        found: &mut impl FnMut(&[Cow<'_, Value>], &[Cow<'_, Value>]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for filter in &self.filters {
            if !is_true(&*evaluate(filter, &|bound| read(values, &[], *bound))?) {
                return Ok(());
            }
        }
        let mut budget = ROW_LIMIT;
        if self.functions.is_empty() {
            return self.combinations(values, &[], &mut budget, found);
        }
        let mut lists = Vec::with_capacity(self.functions.len());
        for function in &self.functions {
            lists.push(json_tree::each_rows(&*evaluate(function, &|bound| read(values, &[], *bound))?)?);
        }
        let mut places = vec![0; lists.len()];
        if lists.iter().any(Vec::is_empty) {
            return Ok(());
        }
        loop {
            let elements: Vec<&(Value, Value)> = lists.iter().zip(&places).map(|(list, place)| &list[*place]).collect();
            let mut fits = true;
            for filter in &self.element_filters {
                fits = fits && is_true(&*evaluate(filter, &|bound| read(values, &elements, *bound))?);
            }
            if fits {
                self.combinations(values, &elements, &mut budget, found)?;
            } else {
                spend(&mut budget)?;
            }
            if !advance(&mut places, |place| lists[place].len()) {
                return Ok(());
            }
        }
    }

    /// Every combination of the values of keys and outputs.
    fn combinations(
        &self,
        values: &[Value],
        elements: &[&(Value, Value)],
        budget: &mut usize,
        found: &mut impl FnMut(&[Cow<'_, Value>], &[Cow<'_, Value>]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if !self.sides.iter().any(|side| matches!(side, Side::Elements(_))) {
            spend(budget)?;
            // Most rows have one key.
            if let [only] = self.sides.as_slice() {
                let value = evaluate(only.expression(), &|bound| read(values, elements, *bound))?;
                if !has_equals(&value) {
                    return Ok(());
                }
                let one = [value];
                return if self.keys == 1 { found(&one, &[]) } else { found(&[], &one) };
            }
            let mut all = Vec::with_capacity(self.sides.len());
            for side in &self.sides {
                let value = evaluate(side.expression(), &|bound| read(values, elements, *bound))?;
                if !has_equals(&value) {
                    return Ok(());
                }
                all.push(value);
            }
            return found(&all[..self.keys], &all[self.keys..]);
        }
        let mut sets: Vec<Vec<Cow<'_, Value>>> = Vec::with_capacity(self.sides.len());
        for side in &self.sides {
            let value = evaluate(side.expression(), &|bound| read(values, elements, *bound))?;
            let mut set = match side {
                Side::Value(_) => vec![value],
                Side::Elements(_) => json_tree::each(&value)?.into_iter().map(Cow::Owned).collect(),
            };
            set.retain(|value| has_equals(value));
            if set.is_empty() {
                return Ok(());
            }
            sets.push(set);
        }
        let mut places = vec![0; sets.len()];
        loop {
            spend(budget)?;
            let all: Vec<Cow<'_, Value>> =
                sets.iter().zip(&places).map(|(set, place)| Cow::Borrowed(&*set[*place])).collect();
            found(&all[..self.keys], &all[self.keys..])?;
            if !advance(&mut places, |place| sets[place].len()) {
                return Ok(());
            }
        }
    }
}

/// Counts places up, the first fastest; whether there is a next combination.
fn advance(places: &mut [usize], length: impl Fn(usize) -> usize) -> bool {
    for (index, place) in places.iter_mut().enumerate() {
        *place += 1;
        if *place < length(index) {
            return true;
        }
        *place = 0;
    }
    false
}

fn spend(budget: &mut usize) -> Result<(), Failure> {
    *budget = budget.checked_sub(1).ok_or_else(|| {
        Failure::new("too-many-buckets", format!("this row has more than {ROW_LIMIT} combinations of list elements"))
    })?;
    Ok(())
}

/// A value of the row, or of an element of one of its lists.
pub(super) fn read<'v>(values: &'v [Value], elements: &[&'v (Value, Value)], bound: Bound) -> Cow<'v, Value> {
    match bound {
        Bound::At(index) => values.get(index).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        Bound::Missing => Cow::Owned(Value::Null),
        Bound::Each(function, part) => match (elements.get(function), part) {
            (Some((key, _)), EachPart::Key) => Cow::Borrowed(key),
            (Some((_, value)), EachPart::Value) => Cow::Borrowed(value),
            (None, _) => Cow::Owned(Value::Null),
        },
    }
}
