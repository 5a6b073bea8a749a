//! Streams of edition 2: one table, and conditions that may ask for a row of another.
//!
//! Their conditions become what those of edition 3 become, joins of tables by equality, so that everything behind the names is
//! the same for both.

mod filter;

use std::sync::Arc;

use super::diagnostic::Report;
use super::expression::{ConditionInput, Expression, RequestSource, SourceId};
use super::normal_form::{Branch, normalize};
use super::operation::Operation;
use super::outline::StreamOutline;
use super::places::Places;
use super::planner::StreamQueries;
use super::resolve::Query;
use super::rules::{ClauseResolver, Kind, is_token, select_list, single_table};
use super::scalar::Scalar;
use super::scope::Condition;
use super::sql::SqlDialect;
use filter::Filters;

/// Compiles a stream up to its normal form, and reports what is wrong with it.
pub(super) fn compile<'a>(
    stream: &'a StreamOutline,
    fixed_json: bool,
    places: &mut Places<'_>,
    report: &mut Report,
) -> StreamQueries<'a> {
    let name = Arc::from(stream.name.text());
    let mut queries = Vec::new();
    for scalar in &stream.queries {
        let Some(query) = resolve(scalar, fixed_json, report) else { continue };
        places.add(&name, &query);
        let Some(branches) = normalize(&query, report) else { continue };
        warn(stream, &query, &branches, report);
        queries.push((query, branches));
    }
    StreamQueries {
        name: &stream.name,
        auto_subscribe: stream.auto_subscribe,
        priority: stream.priority,
        // Looked for above, by other rules.
        accept_dangerous: true,
        queries,
    }
}

fn resolve(scalar: &Scalar, fixed_json: bool, report: &mut Report) -> Option<Query> {
    let select = super::parse_sql(scalar, SqlDialect::Rules, report)?;
    let report = &mut report.of(scalar);
    let table = single_table(&select, SourceId(0), report)?;
    let resolver = ClauseResolver { kind: Kind::Stream, fixed_json, rows: Some(&table.rows) };
    let mut filters = Filters { fixed_json, whole: select.span, sources: vec![table.source()] };
    let condition = match &select.condition {
        Some(condition) => filters.condition(condition, &resolver, false, report),
        None => Some(Expression::all(Operation::And, Vec::new())),
    };
    let (columns, values) = select_list(&select, &resolver, true, report)?;
    let condition = condition?;
    let mut named = Vec::new();
    for read in values.iter().chain([&condition]) {
        read.inputs(&mut |input| {
            if let ConditionInput::Column { source, name, span } = input {
                named.push((*source, name.clone(), *span));
            }
        });
    }
    let span = report.place(select.span);
    Some(Query { sources: filters.sources, primary: SourceId(0), columns, condition, named, span })
}

fn warn(stream: &StreamOutline, query: &Query, branches: &[Branch], report: &mut Report) {
    let mut of_subscription = None;
    query.condition.inputs(&mut |input| {
        if let ConditionInput::Request(request) = input
            && request.source == RequestSource::Subscription
        {
            of_subscription.get_or_insert(request.span);
        }
    });
    if let Some(span) = of_subscription.filter(|_| stream.auto_subscribe) {
        report
            .warning(
                "auto-subscribe-with-subscription-parameter",
                span,
                "clients that do not ask for this stream send no parameters, and get nothing of it",
            )
            .help("remove `auto_subscribe`, or compare with a value of the token");
    }
    if !stream.accept_dangerous && branches.iter().any(is_dangerous) {
        report
            .warning(
                "dangerous-parameter",
                query.span,
                "any client can send any value here, so that this authorizes nobody",
            )
            .help(
                "compare a column with auth.user_id() or auth.parameter('…') too, or set \
                 `accept_potentially_dangerous_queries: true` if all rows may be seen by everyone",
            );
    }
}

/// Whether clients choose what they see of a branch, and nothing of the token has a say in it.
fn is_dangerous(branch: &Branch) -> bool {
    let (mut of_token, mut of_client) = (false, false);
    let mut visit = |value: &Condition| {
        value.inputs(&mut |input| {
            if let ConditionInput::Request(request) = input {
                let token = is_token(request.source);
                of_token |= token;
                of_client |= !token;
            }
        });
    };
    branch.filters.iter().for_each(|(_, filter)| visit(filter));
    for found in &branch.matches {
        visit(found.left.value.expression());
        visit(found.right.value.expression());
    }
    of_client && !of_token
}
