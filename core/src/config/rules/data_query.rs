//! Data queries of bucket definitions: rows to buckets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::diagnostic::{Report, SqlReport};
use super::super::evaluate::{evaluate, is_true};
use super::super::expression::{ConditionInput, Expression, RowInput, SourceId};
use super::super::normal_form::{Branch, Side, normalize_condition};
use super::super::operation::Operation;
use super::super::plan::{RowEvaluator, RowMatch, side_form};
use super::super::resolve::{Output, Owner};
use super::super::scalar::Scalar;
use super::super::scope::Condition;
use super::super::sql::SqlDialect;
use super::super::sql::ast::Select;
use super::super::stages::row_side;
use super::clause::Clause;
use super::clause_resolver::{ClauseResolver, Kind};
use super::table_query::{Table, as_query, select_list, single_table};
use super::{Context, Names};
use crate::value::Value;

/// A parameter of the bucket, and the values of a row that it may have.
type Pair = (Arc<str>, Side<ConditionInput>);

/// The values of a row for one parameter, with what can be searched last.
type Sides = BTreeMap<(bool, String), Side<RowInput>>;

/// What becomes of a data query; nothing after problems were reported.
pub(super) fn compile(
    scalar: &Scalar,
    names: Option<&Names>,
    context: &mut Context<'_, '_>,
    report: &mut Report,
) -> Vec<RowEvaluator> {
    let Some(select) = super::super::parse_sql(scalar, SqlDialect::Rules, report) else { return Vec::new() };
    let Some(names) = names else {
        report
            .fatal("parameters-unusable", scalar.span(), "what the buckets of this query are is not known")
            .help("mend the queries under `parameters` first, or remove the key for one bucket without parameters");
        return Vec::new();
    };
    let Some((table, filter, columns)) = resolve(&select, names, context, &mut report.of(scalar)) else {
        return Vec::new();
    };
    let span = report.of(scalar).place(select.span);
    let branches = match &filter {
        Some(filter) => normalize_condition(&filter.value, &[table.source()], span, report),
        None => Some(vec![Branch::default()]),
    };
    let columns = Arc::new(columns);
    let mut evaluators = Vec::new();
    for branch in branches.into_iter().flatten() {
        let Some(all) = matched_rows(&table, &branch, names) else {
            let message = "this condition compares parameters of the bucket in a way that no row can answer";
            report
                .fatal("parameter-in-expression", span, message)
                .help("compare each of them with a column, by `=` or IN, within AND and OR");
            continue;
        };
        evaluators.extend(all.into_iter().map(|rows| RowEvaluator {
            rows,
            output: table.output.clone(),
            columns: Arc::clone(&columns),
        }));
    }
    evaluators
}

fn resolve(
    select: &Select,
    names: &Names,
    context: &mut Context<'_, '_>,
    report: &mut SqlReport<'_>,
) -> Option<(Table, Option<Clause>, Vec<Output>)> {
    let table = single_table(select, SourceId(0), report)?;
    let resolver = ClauseResolver { kind: Kind::Data, fixed_json: context.fixed_json, rows: Some(&table.rows) };
    let filter = select.condition.as_ref().map(|condition| resolver.clause(condition, report));
    let columns = select_list(select, &resolver, true, report);
    let filter = match filter {
        Some(filter) => Some(filter?),
        None => None,
    };
    let used = filter.as_ref().map(|filter| filter.inputs().parameters).unwrap_or_default();
    let bucket = |name: &Arc<str>| ConditionInput::Bucket { name: Arc::clone(name), span: Default::default() };
    let wanted: BTreeSet<String> = names.iter().map(|name| Expression::Input(bucket(name)).form()).collect();
    if used != wanted {
        let (message, help) = match names.as_slice() {
            [] => {
                ("this definition has no parameters, and this query names one", "define it under `parameters`".into())
            }
            names => {
                let all: Vec<String> = names.iter().map(|name| format!("bucket.{name}")).collect();
                let help = format!("it has {}; write `column = bucket.name` for each", all.join(", "));
                ("a query must match each parameter of its bucket, and no other", help)
            }
        };
        report.fatal("bucket-parameters-not-covered", select.span, message).help(help);
        return None;
    }
    let (columns, values) = columns?;
    let read: Vec<&Condition> = values.iter().chain(filter.as_ref().map(|filter| &filter.value)).collect();
    context.places.add(&context.name, &as_query(&table, &read, table.span));
    Some((table, filter, columns))
}

/// The rows of a branch with their keys, one for each parameter; `None` if parameters are compared among themselves.
fn matched_rows(table: &Table, branch: &Branch, names: &Names) -> Option<Vec<RowMatch>> {
    let mut filters: BTreeMap<String, Expression<RowInput>> = BTreeMap::new();
    let mut pairs = vec![Vec::new()];
    for (owner, filter) in &branch.filters {
        if *owner == Owner::Request {
            pairs = product(&pairs, &alternatives(filter)?);
        } else {
            let filter = row_side(filter, &[])?;
            filters.insert(filter.form(), filter);
        }
    }
    for found in &branch.matches {
        let (name, side) = match (bucket(found.left.value.expression()), bucket(found.right.value.expression())) {
            (Some(name), None) => (name, &found.right.value),
            (None, Some(name)) => (name, &found.left.value),
            _ => return None,
        };
        pairs = product(&pairs, &[vec![(name, side.clone())]]);
    }
    pairs.into_iter().map(|pairs| keyed(table, filters.clone(), pairs, names)).collect()
}

/// Filters and keys of one way to match. Further values for the same parameter must be equal to the first.
fn keyed(
    table: &Table,
    mut filters: BTreeMap<String, Expression<RowInput>>,
    pairs: Vec<Pair>,
    names: &Names,
) -> Option<RowMatch> {
    let mut keys: BTreeMap<Arc<str>, Sides> = BTreeMap::new();
    for (name, side) in pairs {
        let side = side.with(row_side(side.expression(), &[])?);
        // A value comes before a list, in which it is then searched.
        let order = (matches!(side, Side::Elements(_)), side_form(&side));
        keys.entry(name).or_default().insert(order, side);
    }
    let mut ordered = Vec::new();
    for name in names {
        let mut sides = keys.remove(name)?.into_values();
        let first = sides.next()?;
        for side in sides {
            let operation = if matches!(side, Side::Elements(_)) { Operation::InEach } else { Operation::Equal };
            let both = vec![first.expression().clone(), side.expression().clone()];
            let filter = Expression::Call(operation, both);
            filters.insert(filter.form(), filter);
        }
        ordered.push(first);
    }
    Some(RowMatch { filters: filters.into_values().collect(), keys: ordered, ..table.row_match() })
}

/// The ways in which a condition over parameters of the bucket and constants alone can be true.
fn alternatives(condition: &Condition) -> Option<Vec<Vec<Pair>>> {
    let one = |name, value| Some(vec![vec![(name, value)]]);
    if condition.is_constant() {
        let value = evaluate(condition, &|_| Cow::Owned(Value::Null)).ok()?;
        return Some(if is_true(&value) { vec![Vec::new()] } else { Vec::new() });
    }
    match condition {
        Expression::Call(Operation::And, members) => {
            let mut all = vec![Vec::new()];
            for member in members {
                all = product(&all, &alternatives(member)?);
            }
            Some(all)
        }
        Expression::Call(Operation::Or, members) => {
            let all = members.iter().map(alternatives).collect::<Option<Vec<_>>>()?;
            Some(all.into_iter().flatten().collect())
        }
        Expression::Call(Operation::Equal, sides) => match sides.as_slice() {
            [left, right] if right.is_constant() => one(bucket(left)?, Side::Value(right.clone())),
            [left, right] if left.is_constant() => one(bucket(right)?, Side::Value(left.clone())),
            _ => None,
        },
        Expression::Call(Operation::InEach, sides) => match sides.as_slice() {
            [value, list] if list.is_constant() => one(bucket(value)?, Side::Elements(list.clone())),
            _ => None,
        },
        // The bucket whose parameter is 1.
        alone => one(bucket(alone)?, Side::Value(Expression::Literal(Value::Integer(1)))),
    }
}

fn product(left: &[Vec<Pair>], right: &[Vec<Pair>]) -> Vec<Vec<Pair>> {
    left.iter().flat_map(|left| right.iter().map(move |right| [left.as_slice(), right].concat())).collect()
}

/// The parameter of the bucket that an expression is.
fn bucket(expression: &Condition) -> Option<Arc<str>> {
    match expression {
        Expression::Input(ConditionInput::Bucket { name, .. }) => Some(Arc::clone(name)),
        _ => None,
    }
}
