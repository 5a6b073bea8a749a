//! Events: payloads made of rows as they change.

use std::sync::Arc;

use super::super::diagnostic::{Report, SqlReport};
use super::super::event::{REQUIRED, WRITE_CHECKPOINTS, is_taken};
use super::super::expression::SourceId;
use super::super::outline::EventOutline;
use super::super::places::Places;
use super::super::plan::EventQuery;
use super::super::planner::Planner;
use super::super::resolve::Output;
use super::super::scalar::Scalar;
use super::super::scope::Condition;
use super::super::sql::SqlDialect;
use super::super::sql::ast::Select;
use super::super::stages::row_side;
use super::clause_resolver::{ClauseResolver, Kind};
use super::table_query::{as_query, select_list, single_table};

/// Compiles the payload queries of an event.
pub(in crate::config) fn compile(
    event: &EventOutline,
    fixed_json: bool,
    planner: &mut Planner,
    places: &mut Places<'_>,
    report: &mut Report,
) {
    let name = event.name.text();
    let is_taken = is_taken(name);
    if !is_taken {
        let message = format!("nothing takes the event `{name}`");
        let diagnostic = report.warning("event-unused", event.name.span(), message);
        diagnostic.help(format!("those that mean something are {}", WRITE_CHECKPOINTS.join(" and ")));
        diagnostic.near(name, &WRITE_CHECKPOINTS);
    }
    let mut known: Vec<EventQuery> = Vec::new();
    for scalar in &event.payloads {
        let Some(select) = super::super::parse_sql(scalar, SqlDialect::Rules, report) else { continue };
        let Some(query) = payload(event, &select, fixed_json, places, &mut report.of(scalar)) else { continue };
        if known.iter().any(|known| known.rows.table == query.rows.table) {
            let message = format!("`{name}` has a query of this table already");
            report.fatal("event-table-not-unique", scalar.span(), message).help("join their conditions with OR");
            continue;
        }
        if is_taken {
            warn_of_missing(&query.columns, scalar, report);
        }
        known.push(query);
    }
    known.into_iter().for_each(|query| planner.add_event(query));
}

/// What the payload of a write checkpoint lacks for every row.
fn warn_of_missing(columns: &[Output], query: &Scalar, report: &mut Report) {
    let named = |wanted: &str| {
        columns.iter().any(|column| match column {
            Output::Star | Output::LegacyStar => true,
            Output::Column { name, .. } => **name == *wanted,
        })
    };
    for missing in REQUIRED.iter().filter(|required| !named(required)) {
        let message = format!("a write checkpoint needs the column `{missing}`, and this payload has none");
        report
            .warning("event-column-missing", query.span(), message)
            .help("write `SELECT user_id, client_id, checkpoint FROM …`, with AS where columns have other names");
    }
}

fn payload(
    event: &EventOutline,
    select: &Select,
    fixed_json: bool,
    places: &mut Places<'_>,
    report: &mut SqlReport<'_>,
) -> Option<EventQuery> {
    let table = single_table(select, SourceId(0), report)?;
    let resolver = ClauseResolver { kind: Kind::Payload, fixed_json, rows: Some(&table.rows) };
    let filter = select.condition.as_ref().map(|condition| resolver.clause(condition, report));
    let (columns, values) = select_list(select, &resolver, false, report)?;
    let filter = match filter {
        Some(filter) => Some(filter?),
        None => None,
    };
    let read: Vec<&Condition> = values.iter().chain(filter.as_ref().map(|filter| &filter.value)).collect();
    let name = Arc::from(event.name.text());
    places.add(&name, &as_query(&table, &read, table.span));
    let mut rows = table.row_match();
    if let Some(filter) = filter {
        rows.filters.push(row_side(&filter.value, &[])?);
    }
    Some(EventQuery { event: event.name.text().into(), rows, columns: Arc::new(columns) })
}
