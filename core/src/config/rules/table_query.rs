//! Queries over one table: FROM and the select list of data queries, payloads, and streams of edition 2.

use std::sync::Arc;

use super::super::diagnostic::SqlReport;
use super::super::expression::{ConditionInput, SourceId};
use super::super::plan::RowMatch;
use super::super::resolve::{Output, Query, QuerySource, TableReference};
use super::super::resolve_from::table_reference;
use super::super::scope::Condition;
use super::super::span::Span;
use super::super::sql::ast::{ExprKind, FromItem, Relation, Select};
use super::super::stages::row_side;
use super::clause::Class;
use super::clause_resolver::ClauseResolver;
use super::references::{Rows, RowsKind, warn_of_folding};

/// The table of a query.
#[derive(Debug)]
pub(in crate::config) struct Table {
    pub(in crate::config) reference: TableReference,
    /// The table that its rows are sent as; `None` is the name of the row's own table.
    pub(in crate::config) output: Option<Arc<str>>,
    /// Where it is named in the document.
    pub(in crate::config) span: Span,
    pub(in crate::config) rows: Rows,
}

/// The only table of FROM; `None` after a problem was reported.
pub(in crate::config) fn single_table(select: &Select, source: SourceId, report: &mut SqlReport<'_>) -> Option<Table> {
    refuse_distinct(select, report);
    let [FromItem { relation: Relation::Table { schema, name }, alias, columns, .. }] = select.from.as_slice() else {
        let span = select.from.first().map_or(select.span, |first| first.span);
        report
            .fatal("not-a-single-table", span, "this query must read one table, and nothing else")
            .help("streams of edition 3 have joins and subqueries");
        return None;
    };
    if let Some(column) = columns.first() {
        report
            .fatal("clause-not-supported", column.span, "the columns of a table cannot be given other names here")
            .help("rename them in the select list, with AS");
    }
    warn_of_folding(name, report);
    let reference = table_reference(schema.as_ref(), name, report)?;
    let output = match alias {
        Some(alias) => Some(Arc::from(alias.text.as_str())),
        None if reference.prefix => None,
        None => Some(Arc::clone(&reference.name)),
    };
    let kind = if reference.prefix { RowsKind::Tables } else { RowsKind::Table };
    let rows = Rows { name: alias.as_ref().unwrap_or(name).text.clone(), source, kind };
    Some(Table { reference, output, span: report.place(name.span), rows })
}

pub(in crate::config) fn refuse_distinct(select: &Select, report: &mut SqlReport<'_>) {
    if let Some(span) = select.distinct {
        report
            .fatal("clause-not-supported", span, "DISTINCT is not supported: a query selects rows, one by one")
            .help("remove it: rows are distinct by their table and id");
    }
}

impl Table {
    pub(in crate::config) fn source(&self) -> QuerySource {
        QuerySource::Table {
            reference: self.reference.clone(),
            span: self.span,
            output: self.output.clone(),
            plain_alias: false,
        }
    }

    /// Its rows, without filters and keys.
    pub(super) fn row_match(&self) -> RowMatch {
        RowMatch { table: self.reference.clone(), functions: Vec::new(), filters: Vec::new(), keys: Vec::new() }
    }
}

/// The select list, and every column that it names. `None` after problems were reported.
pub(in crate::config) fn select_list(
    select: &Select,
    resolver: &ClauseResolver<'_>,
    needs_id: bool,
    report: &mut SqlReport<'_>,
) -> Option<(Vec<Output>, Vec<Condition>)> {
    let mut outputs = Vec::new();
    let mut values = Vec::new();
    let mut complete = true;
    for item in &select.columns {
        let span = item.expr.span;
        if let ExprKind::Star { table } = &item.expr.kind {
            let known = resolver.rows.map(|rows| rows.name.as_str());
            match table {
                Some(table) if known != Some(table.text.as_str()) => {
                    let message = format!("there is no table `{}` in this query", table.text);
                    report.fatal("undefined-reference", span, message);
                    complete = false;
                }
                _ => outputs.push(Output::LegacyStar),
            }
            continue;
        }
        let clause = resolver.clause(&item.expr, report);
        let name = match (&item.alias, &item.expr.kind) {
            (Some(alias), _) => alias.text.as_str(),
            (None, ExprKind::Column { name, .. }) => name.text.as_str(),
            (None, _) => {
                report.fatal("alias-required", span, "this column has no name").help("name it with AS");
                complete = false;
                continue;
            }
        };
        let Some(clause) = clause else {
            complete = false;
            continue;
        };
        let value = match clause.class {
            Class::Static | Class::Row => row_side(&clause.value, &[]),
            Class::Parameter | Class::Match(_) => None,
        };
        let Some(value) = value else {
            report
                .fatal("match-not-allowed-here", span, "only values of the row can be sent")
                .help("rows are stored once for all users; the client knows its own user and parameters");
            complete = false;
            continue;
        };
        values.push(clause.value);
        outputs.push(Output::Column { name: name.into(), value });
    }
    let is_id = |output: &Output| match output {
        Output::Star | Output::LegacyStar => true,
        Output::Column { name, .. } => &**name == "id",
    };
    if needs_id && !outputs.iter().any(is_id) {
        let span = match (select.columns.first(), select.columns.last()) {
            (Some(first), Some(last)) => first.expr.span.to(last.expr.span),
            _ => select.span,
        };
        report
            .fatal("no-id-column", span, "clients know a row by its column `id`, and this query has none")
            .help("select `id`, or another column `AS id`");
        complete = false;
    }
    complete.then_some((outputs, values))
}

/// A query over one table, for what looks at queries as those of streams.
pub(in crate::config) fn as_query(table: &Table, read: &[&Condition], span: Span) -> Query {
    let mut named = Vec::new();
    for condition in read {
        condition.inputs(&mut |input| {
            if let ConditionInput::Column { source, name, span } = input {
                named.push((*source, name.clone(), *span));
            }
        });
    }
    let condition = super::super::expression::Expression::all(super::super::operation::Operation::And, Vec::new());
    let primary = table.rows.source;
    Query { sources: vec![table.source()], primary, columns: Vec::new(), condition, named, span }
}
