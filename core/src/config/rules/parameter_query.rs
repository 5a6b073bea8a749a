//! Parameter queries of bucket definitions: requests to buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::diagnostic::{Report, SqlReport};
use super::super::expression::{ConditionInput, Expression, RequestInput, RequestSource, RowInput, SourceId};
use super::super::normal_form::{Branch, Side, normalize_condition};
use super::super::plan::{KeyValue, LookupIndex, Stage, Wanted, side_form};
use super::super::resolve::Owner;
use super::super::scalar::Scalar;
use super::super::scope::Condition;
use super::super::sql::SqlDialect;
use super::super::sql::ast::{Call, ExprKind, FromItem, Relation, Select, SelectItem};
use super::super::stages::{each_side, request_side, row_side};
use super::clause::{Class, Clause};
use super::clause_resolver::{ClauseResolver, Kind};
use super::references::{Rows, RowsKind};
use super::table_query::{Table, as_query, refuse_distinct, single_table};
use super::{Context, Names};
use crate::bucket::BucketPriority;

/// The name of the output that is no parameter.
const PRIORITY: &str = "_priority";

/// A parameter query as far as it is understood.
#[derive(Debug)]
pub(super) struct ParameterQuery {
    /// The parameters that it names, in its order.
    pub(super) names: Names,
    /// What asks a request for buckets; none after problems were reported.
    pub(super) ways: Vec<Way>,
}

/// One way for a request to have buckets.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) priority: Option<BucketPriority>,
    pub(super) wanted: Wanted,
    pub(super) values: BTreeMap<Arc<str>, KeyValue>,
}

/// What FROM reads.
enum From {
    Nothing,
    Table(Table),
    /// `json_each` over this; `None` after a problem was reported.
    Each(Rows, Option<Clause>),
}

/// A query with everything resolved.
struct Resolved {
    from: From,
    priority: Option<BucketPriority>,
    filter: Option<Clause>,
    outputs: Vec<(Arc<str>, Clause)>,
}

/// Compiles a parameter query; `None` if not even its parameters are known.
pub(super) fn compile(
    scalar: &Scalar,
    own_priority: Option<BucketPriority>,
    context: &mut Context<'_, '_>,
    report: &mut Report,
) -> Option<ParameterQuery> {
    let select = super::super::parse_sql(scalar, SqlDialect::Rules, report)?;
    let mut sql = report.of(scalar);
    refuse_distinct(&select, &mut sql);
    let from = from(&select, context, &mut sql)?;
    let names = names(&select, &mut sql)?;
    let Some(resolved) = resolve(&select, from, own_priority, context, &mut sql) else {
        return Some(ParameterQuery { names, ways: Vec::new() });
    };
    let span = sql.place(select.span);
    let branches = match (&resolved.from, &resolved.filter) {
        (From::Table(table), Some(filter)) => normalize_condition(&filter.value, &[table.source()], span, report),
        _ => Some(vec![Branch::default()]),
    };
    let Some(branches) = branches else { return Some(ParameterQuery { names, ways: Vec::new() }) };
    if !context.accept_dangerous && is_dangerous(&resolved, &branches) {
        report
            .warning("dangerous-parameter", span, "any client can send any value here, so that this authorizes nobody")
            .help(
                "select or compare request.user_id() or another value of the token too, or set \
                 `accept_potentially_dangerous_queries: true` if all rows may be seen by everyone",
            );
    }
    let ways = branches.iter().filter_map(|branch| way(&resolved, branch, context)).collect();
    Some(ParameterQuery { names, ways })
}

fn from(select: &Select, context: &Context<'_, '_>, report: &mut SqlReport<'_>) -> Option<From> {
    match select.from.as_slice() {
        [] => Some(From::Nothing),
        [FromItem { relation: Relation::Function(call), alias, .. }] => {
            let argument = each_argument(call, context, report)?;
            let name = alias.as_ref().unwrap_or(&call.name).text.clone();
            Some(From::Each(Rows { name, source: SourceId(0), kind: RowsKind::Each }, argument))
        }
        items => {
            let table = single_table(select, SourceId(0), report)?;
            if let Some(alias) = items.first().and_then(|item| item.alias.as_ref()) {
                report
                    .fatal("parameter-query-alias", alias.span, "a table has no other name in a parameter query")
                    .help(format!("remove `{}`", alias.text));
            }
            Some(From::Table(table))
        }
    }
}

#[allow(clippy::option_option, reason = "no rows at all, or a problem in what they are read from")]
fn each_argument(call: &Call, context: &Context<'_, '_>, report: &mut SqlReport<'_>) -> Option<Option<Clause>> {
    if call.schema.is_some() || call.name.text != "json_each" {
        let message = format!("there is no function `{}` that yields rows", call.full_name());
        report.fatal("unknown-function", call.span, message).help("there is json_each(…)");
        return None;
    }
    let [argument] = call.arguments.as_slice() else {
        let message = format!("`json_each` takes 1 argument, not {}", call.arguments.len());
        report.fatal("argument-count", call.span, message);
        return Some(None);
    };
    let resolver = ClauseResolver { kind: Kind::Parameters, fixed_json: context.fixed_json, rows: None };
    Some(resolver.clause(argument, report))
}

/// The names of the parameters; `None` if they are not known.
fn names(select: &Select, report: &mut SqlReport<'_>) -> Option<Names> {
    let mut names = Names::new();
    let mut known = true;
    for item in &select.columns {
        let name = match (&item.alias, &item.expr.kind) {
            (_, ExprKind::Star { .. }) => {
                report
                    .fatal("star-not-allowed", item.expr.span, "the parameters of a bucket are named one by one")
                    .help("name the columns that are used");
                known = false;
                continue;
            }
            _ => name_of(item),
        };
        match name {
            Some(PRIORITY) => {}
            Some(name) if names.iter().any(|known| **known == *name) => {}
            Some(name) => names.push(name.into()),
            None => {
                report.fatal("alias-required", item.expr.span, "this parameter has no name").help("name it with AS");
            }
        }
    }
    known.then_some(names)
}

fn name_of(item: &SelectItem) -> Option<&str> {
    match (&item.alias, &item.expr.kind) {
        (Some(alias), _) => Some(&alias.text),
        (None, ExprKind::Column { name, .. }) => Some(&name.text),
        (None, _) => None,
    }
}

fn resolve(
    select: &Select,
    from: From,
    own_priority: Option<BucketPriority>,
    context: &mut Context<'_, '_>,
    report: &mut SqlReport<'_>,
) -> Option<Resolved> {
    let rows = match &from {
        From::Nothing => None,
        From::Table(table) => Some(&table.rows),
        From::Each(rows, _) => Some(rows),
    };
    let resolver = ClauseResolver { kind: Kind::Parameters, fixed_json: context.fixed_json, rows };
    let filter = select.condition.as_ref().map(|condition| resolver.clause(condition, report));
    let mut outputs = Vec::new();
    let mut priority = None;
    let mut complete = true;
    for item in &select.columns {
        if name_of(item) == Some(PRIORITY) {
            priority = read_priority(item, report);
            complete &= priority.is_some();
            continue;
        }
        let Some(clause) = resolver.clause(&item.expr, report) else {
            complete = false;
            continue;
        };
        let is_column = matches!(clause.value, Expression::Input(_));
        if clause.is_match() || (clause.class == Class::Row && !is_column) {
            report
                .fatal("match-not-allowed-here", item.expr.span, "a parameter is a column, or a value of the request")
                .help("keep what is computed from the row in a column of its own");
            complete = false;
            continue;
        }
        match name_of(item) {
            Some(name) => outputs.push((Arc::from(name), clause)),
            None => complete = false,
        }
    }
    if priority.is_some() && own_priority.is_some() {
        report
            .fatal("priority-set-twice", select.span, "the priority is set by the definition and by this query")
            .help("remove one of them");
        complete = false;
    }
    let filter = match filter {
        Some(filter) => Some(filter?),
        None => None,
    };
    if let From::Table(table) = &from {
        let read = outputs.iter().map(|(_, output)| output).chain(&filter).map(|clause| &clause.value);
        context.places.add(&context.name, &as_query(table, &read.collect::<Vec<_>>(), table.span));
    }
    complete &= !matches!(from, From::Each(_, None));
    let priority = priority.or(own_priority);
    complete.then_some(Resolved { from, priority, filter, outputs })
}

fn read_priority(item: &SelectItem, report: &mut SqlReport<'_>) -> Option<BucketPriority> {
    let ExprKind::Integer(digits) = &item.expr.kind else {
        report
            .fatal("priority-not-literal", item.expr.span, "a priority is written as a number")
            .help("write a query for each priority");
        return None;
    };
    match digits.parse() {
        Ok(priority @ 0..=3) => Some(BucketPriority(priority)),
        _ => {
            report
                .fatal("bad-priority", item.expr.span, "a priority is a number from 0 (first) to 3 (last)")
                .help("the default is 3");
            None
        }
    }
}

/// One branch of a query; `None` cannot happen with what was resolved.
fn way(resolved: &Resolved, branch: &Branch, context: &mut Context<'_, '_>) -> Option<Way> {
    let mut wanted = Wanted::default();
    let mut values = BTreeMap::new();
    let of_request = |value: &Condition| Some(KeyValue::Request(Side::Value(request_side(value)?)));
    match &resolved.from {
        From::Nothing => {
            if let Some(filter) = &resolved.filter {
                wanted.filters.push(request_side(&filter.value)?);
            }
            for (name, output) in &resolved.outputs {
                values.insert(Arc::clone(name), of_request(&output.value)?);
            }
        }
        From::Each(_, argument) => {
            let argument = request_side(&argument.as_ref()?.value)?;
            let filters = match &resolved.filter {
                Some(filter) => vec![each_side(&filter.value)?],
                None => Vec::new(),
            };
            let mut outputs = Vec::new();
            for (name, output) in &resolved.outputs {
                if reads_rows(&output.value) {
                    outputs.push(Side::Value(each_side(&output.value)?));
                    values.insert(Arc::clone(name), KeyValue::Output { stage: 0, output: outputs.len() - 1 });
                } else {
                    values.insert(Arc::clone(name), of_request(&output.value)?);
                }
            }
            wanted.stages.push(Stage::Each { argument, filters, outputs });
        }
        From::Table(table) => {
            let mut filters: BTreeMap<String, Expression<RowInput>> = BTreeMap::new();
            let mut asked: BTreeMap<String, Expression<RequestInput>> = BTreeMap::new();
            for (owner, filter) in &branch.filters {
                if *owner == Owner::Request {
                    let filter = request_side(filter)?;
                    asked.insert(filter.form(), filter);
                } else {
                    let filter = row_side(filter, &[])?;
                    filters.insert(filter.form(), filter);
                }
            }
            let mut keys: BTreeMap<(String, String), (Side<RowInput>, KeyValue)> = BTreeMap::new();
            for found in &branch.matches {
                let (row, request) = match found.left.owner {
                    Owner::Request => (&found.right.value, &found.left.value),
                    _ => (&found.left.value, &found.right.value),
                };
                let row = row.with(row_side(row.expression(), &[])?);
                let request = request.with(request_side(request.expression())?);
                let order = (side_form(&row), side_form(&request));
                keys.insert(order, (row, KeyValue::Request(request)));
            }
            let (sides, key_values): (Vec<_>, Vec<_>) = keys.into_values().unzip();
            let mut outputs = Vec::new();
            for (name, output) in &resolved.outputs {
                if output.class == Class::Row {
                    outputs.push(Side::Value(row_side(&output.value, &[])?));
                    values.insert(Arc::clone(name), KeyValue::Output { stage: 0, output: outputs.len() - 1 });
                } else {
                    values.insert(Arc::clone(name), of_request(&output.value)?);
                }
            }
            let mut rows = table.row_match();
            rows.filters = filters.into_values().collect();
            rows.keys = sides;
            let index = context.planner.index(LookupIndex::new(rows, outputs));
            wanted.filters = asked.into_values().collect();
            wanted
                .stages
                .push(Stage::Lookup { index, keys: key_values.into_iter().map(|value| vec![value]).collect() });
        }
    }
    Some(Way { priority: resolved.priority, wanted, values })
}

fn reads_rows(value: &Condition) -> bool {
    let mut found = false;
    value.inputs(&mut |input| found |= input.source().is_some());
    found
}

/// Whether clients can choose buckets, and nothing of the token has a say in it.
fn is_dangerous(resolved: &Resolved, branches: &[Branch]) -> bool {
    let reads = |value: &Condition, token: bool| {
        let mut found = false;
        value.inputs(&mut |input| {
            if let ConditionInput::Request(request) = input {
                found |= is_token(request.source) == token;
            }
        });
        found
    };
    let argument = match &resolved.from {
        From::Each(_, argument) => argument.as_ref(),
        _ => None,
    };
    let outputs = || resolved.outputs.iter().map(|(_, output)| output).chain(argument).map(|clause| &clause.value);
    if !outputs().chain(resolved.filter.as_ref().map(|filter| &filter.value)).any(|value| reads(value, false)) {
        return false;
    }
    let is_checked = |branch: &Branch| {
        let sides = branch.matches.iter().flat_map(|found| [&found.left, &found.right]);
        let mut values = sides.map(|side| side.value.expression());
        values.any(|value| reads(value, true)) || branch.filters.iter().any(|(_, filter)| reads(filter, true))
    };
    let by_match = matches!(resolved.from, From::Table(_)) && branches.iter().all(is_checked);
    !by_match && !outputs().any(|value| reads(value, true))
}

/// Whether a value of the request was verified with its token.
pub(in crate::config) fn is_token(source: RequestSource) -> bool {
    match source {
        RequestSource::Auth | RequestSource::TokenParameters => true,
        RequestSource::Connection | RequestSource::Subscription | RequestSource::UserParameters => false,
    }
}
