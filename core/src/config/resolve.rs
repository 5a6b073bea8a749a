//! Names to meanings: the table of a query, its output columns, and its condition over columns and request values.

use std::sync::Arc;

use super::diagnostic::SqlReport;
use super::expression::{Column, ConditionInput, Expression};
use super::resolve_expression::Scope;
use super::span::Span;
use super::sql::ast::{ExprKind, FromItem, JoinKind, Relation, Select, SelectItem};

/// A query whose names are resolved.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) table: TableReference,
    /// Where the table is named.
    pub(super) table_span: Span,
    /// The columns that it names, and where.
    pub(super) named: Vec<(Column, Span)>,
    /// The table that rows are sent as; `None` is the name of the row's own table.
    pub(super) output: Option<Arc<str>>,
    pub(super) columns: Vec<Output>,
    pub(super) condition: Option<Expression<ConditionInput>>,
    /// The query's place in its SQL text.
    pub(super) span: Span,
}

/// Which source tables a query reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TableReference {
    /// `None` is the default schema.
    pub(super) schema: Option<Arc<str>>,
    pub(super) name: Arc<str>,
    /// Whether `name` is a prefix.
    pub(super) prefix: bool,
}

/// An entry of the select list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    /// All columns of the table.
    Star,
    Column {
        name: Arc<str>,
        value: Expression<Column>,
    },
}

/// Resolves a query; `None` after problems were reported.
pub(super) fn resolve(select: &Select, report: &mut SqlReport<'_>) -> Option<Query> {
    let item = single_table(select, report)?;
    let (table, table_span, scope) = table(item, report)?;
    let mut named = Vec::new();
    let mut columns = Vec::new();
    let mut complete = true;
    for item in &select.columns {
        match output(item, &scope, !columns.is_empty(), &mut named, report) {
            Some(column) => columns.push(column),
            None => complete = false,
        }
    }
    let from_table = columns.iter().any(|column| match column {
        Output::Star => true,
        Output::Column { value, .. } => !value.is_constant(),
    });
    if !from_table {
        report
            .fatal("no-result-table", select.span, "this query selects nothing from its table")
            .help("select at least one of its columns, or `*`");
        complete = false;
    }
    let condition = match &select.condition {
        Some(condition) => match scope.condition(condition, report) {
            Some(condition) => {
                condition.inputs(&mut |input| {
                    if let ConditionInput::Column(name, span) = input {
                        named.push((name.clone(), *span));
                    }
                });
                Some(condition)
            }
            None => {
                complete = false;
                None
            }
        },
        None => None,
    };
    let output = match &item.alias {
        Some(alias) => Some(Arc::from(alias.text.as_str())),
        None if table.prefix => None,
        None => Some(Arc::clone(&table.name)),
    };
    complete.then(|| Query { table, table_span, named, output, columns, condition, span: select.span })
}

fn single_table<'a>(select: &'a Select, report: &mut SqlReport<'_>) -> Option<&'a FromItem> {
    let Some((first, rest)) = select.from.split_first() else {
        report
            .fatal("no-result-table", select.span, "this query reads no table")
            .help("write FROM and the table whose rows are to be synced");
        return None;
    };
    for item in rest {
        let Some(join) = &item.join else { continue };
        match join.kind {
            JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::Cross | JoinKind::Natural => {
                let message = "this kind of join is not supported: a joined row either exists or hides the row";
                report.fatal("join-kind-not-supported", join.span, message);
            }
            JoinKind::Inner if join.using.is_some() => {
                let message = "USING is not supported; write ON with an equality";
                report.fatal("join-using-not-supported", join.using.unwrap_or(join.span), message);
            }
            JoinKind::Inner | JoinKind::Comma => {
                report.fatal("not-supported-yet", item.span, "joins are not supported yet").help(
                    "copy the column that decides (such as the owner) into this table, or use subscription parameters",
                );
            }
        }
    }
    let relation = match &first.relation {
        Relation::Table { .. } => None,
        Relation::Function(call) => Some(format!("`{}` in FROM is not supported yet", call.full_name())),
        Relation::Subquery(_) => Some("subqueries in FROM are not supported yet".to_owned()),
    };
    if let Some(message) = relation {
        report.fatal("not-supported-yet", first.span, message);
        return None;
    }
    rest.is_empty().then_some(first)
}

fn table(item: &FromItem, report: &mut SqlReport<'_>) -> Option<(TableReference, Span, Scope)> {
    let Relation::Table { schema, name } = &item.relation else { return None };
    if let Some(column) = item.columns.first() {
        report.fatal("not-supported-yet", column.span, "names for the columns of a table are not supported yet");
        return None;
    }
    if let Some(schema) = schema {
        if schema.text.ends_with('%') {
            report
                .fatal("not-supported-yet", schema.span, "a pattern as schema is not supported yet")
                .help("write one query per schema");
            return None;
        }
        if schema.text.contains('.') {
            report.fatal("not-supported-yet", schema.span, "several source connections are not supported yet");
            return None;
        }
    }
    let (prefix, text) = match name.text.strip_suffix('%') {
        Some(prefix) => (true, prefix),
        None => (false, name.text.as_str()),
    };
    let table = TableReference {
        schema: schema.as_ref().map(|schema| Arc::from(schema.text.as_str())),
        name: text.into(),
        prefix,
    };
    let scope = Scope::new(item.alias.as_ref().unwrap_or(name).text.clone());
    Some((table, name.span, scope))
}

fn output(
    item: &SelectItem,
    scope: &Scope,
    follows: bool,
    named: &mut Vec<(Column, Span)>,
    report: &mut SqlReport<'_>,
) -> Option<Output> {
    if let ExprKind::Star { table } = &item.expr.kind {
        if let Some(table) = table {
            scope.check_table(table, item.expr.span, report)?;
        }
        if follows {
            report
                .warning("star-after-alias", item.expr.span, "`*` replaces columns of the same name before it")
                .help("write `*` first");
        }
        return Some(Output::Star);
    }
    let value = scope.row_value(&item.expr, named, report)?;
    let name = match (&item.alias, &item.expr.kind) {
        (Some(alias), _) => alias.text.clone(),
        (None, ExprKind::Column { name, .. }) => name.text.clone(),
        (None, _) => {
            let text = item.expr.span.of(report.sql()).to_owned();
            report
                .warning("unnamed-column", item.expr.span, "this column has no name, and gets its SQL text as one")
                .help("name it with AS");
            text
        }
    };
    Some(Output::Column { name: name.into(), value })
}
