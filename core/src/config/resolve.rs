//! Names to meanings: the tables of a query and of the queries inside it, its output columns, and one condition over all of
//! them. Subqueries, named queries and joins are all the same thing afterwards: sources, and conditions between them.

use std::sync::Arc;

use super::cte::Ctes;
use super::diagnostic::SqlReport;
use super::expression::{Column, ConditionInput, Expression, RowInput, SourceId};
use super::operation::Operation;
use super::resolve_expression::Place;
use super::resolve_from::{attach_constants, owner_of_argument};
use super::scope::{Condition, Scope, SetKind};
use super::span::Span;
use super::sql::ast::{ExprKind, Select, SelectItem};

/// A query whose names are resolved.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) sources: Vec<QuerySource>,
    /// The table whose rows are sent.
    pub(super) primary: SourceId,
    pub(super) columns: Vec<Output>,
    pub(super) condition: Condition,
    /// The columns that it names, and where.
    pub(super) named: Vec<(SourceId, Column, Span)>,
    /// The query's place in the document.
    pub(super) span: Span,
}

/// Where rows of a query come from.
#[derive(Debug)]
pub(super) enum QuerySource {
    Table {
        reference: TableReference,
        /// Where it is named.
        span: Span,
        /// The table that its rows are sent as; `None` is the name of the row's own table.
        output: Option<Arc<str>>,
        /// It has a name of its own in the query, without quotes.
        plain_alias: bool,
    },
    /// `json_each(argument)`.
    Each { argument: Condition, owner: Owner, span: Span },
}

/// What an expression depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    Constant,
    Request,
    /// A `json_each` over a value of the request, or over a constant.
    Each(SourceId),
    Table(SourceId),
}

/// Which source tables a query reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TableReference {
    /// `None` is the default schema; with a `%` at its end it is a prefix.
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
    /// All columns but those whose names begin with `_`; a value that is there already stays, unless it is NULL.
    LegacyStar,
    Column {
        name: Arc<str>,
        value: Expression<RowInput>,
    },
}

/// Resolves a query and the queries inside it.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    pub(super) ctes: Ctes<'a>,
    pub(super) sources: Vec<QuerySource>,
    /// Queries inside each other.
    pub(super) depth: usize,
}

/// Resolves a query of a stream; `None` after problems were reported.
pub(super) fn resolve(select: &Select, ctes: Ctes<'_>, report: &mut SqlReport<'_>) -> Option<Query> {
    let mut resolver = Resolver { ctes, sources: Vec::new(), depth: 0 };
    if select.from.is_empty() {
        report
            .fatal("no-result-table", select.span, "this query reads no table")
            .help("write FROM and the table whose rows are to be synced");
        return None;
    }
    let mut scope = Scope::default();
    let joined = resolver.from(select, &mut scope, report);
    let condition = resolver.condition(select, &scope, joined, report);
    let (primary, columns) = resolver.outputs(select, &scope, report)?;
    let condition = condition?;
    attach_constants(&condition, &mut resolver.sources);
    let mut named = Vec::new();
    let mut note = |input: &ConditionInput| {
        if let ConditionInput::Column { source, name, span } = input {
            named.push((*source, name.clone(), *span));
        }
    };
    let mut outputs = Vec::new();
    for column in columns {
        outputs.push(match column {
            Selected::Star => Output::Star,
            Selected::Column(name, value) => {
                value.inputs(&mut note);
                Output::Column { name, value: resolver.row_value(&value)? }
            }
        });
    }
    condition.inputs(&mut note);
    for source in &resolver.sources {
        if let QuerySource::Each { argument, .. } = source {
            argument.inputs(&mut note);
        }
    }
    let span = report.place(select.span);
    Some(Query { sources: resolver.sources, primary, columns: outputs, condition, named, span })
}

/// An entry of the select list whose names are resolved.
enum Selected {
    Star,
    Column(Arc<str>, Condition),
}

impl Selected {
    fn is_named(&self) -> bool {
        matches!(self, Self::Column(..))
    }
}

impl Resolver<'_> {
    /// The condition of a query: that each of its sources has a row, what joins them, and WHERE.
    pub(super) fn condition(
        &mut self,
        select: &Select,
        scope: &Scope<'_>,
        joined: Option<Vec<Condition>>,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let filter = select.condition.as_ref();
        let filter = filter.map(|filter| self.expression(scope, filter, Place::Condition, report));
        let mut all = joined?;
        if let Some(filter) = filter {
            all.push(filter?);
        }
        Some(Expression::all(Operation::And, all))
    }

    /// What an expression depends on; the place of a second thing if there is more than one.
    pub(super) fn owner(&self, condition: &Condition) -> Result<Owner, Span> {
        let mut owner = Owner::Constant;
        let mut second = None;
        condition.inputs(&mut |input| {
            let found = match input.source() {
                None => Owner::Request,
                Some(source) => self.owner_of(source),
            };
            if owner == Owner::Constant {
                owner = found;
            } else if found != owner && second.is_none() {
                second = Some(input.span().unwrap_or_default());
            }
        });
        second.map_or(Ok(owner), Err)
    }

    fn owner_of(&self, source: SourceId) -> Owner {
        owner_of(&self.sources, source)
    }

    /// The table that is selected from, and the select list.
    fn outputs(
        &mut self,
        select: &Select,
        scope: &Scope<'_>,
        report: &mut SqlReport<'_>,
    ) -> Option<(SourceId, Vec<Selected>)> {
        let mut columns = Vec::new();
        let mut primary: Option<SourceId> = None;
        let mut complete = true;
        for item in &select.columns {
            let Some(found) = self.output(item, scope, columns.iter().any(Selected::is_named), report) else {
                complete = false;
                continue;
            };
            for (source, selected) in found {
                match (source, primary) {
                    (Some(source), None) => primary = Some(source),
                    (Some(source), Some(known)) if source != known => {
                        report
                            .fatal(
                                "select-from-two-tables",
                                item.expr.span,
                                "this is of another table than what is before",
                            )
                            .help("a query sends rows of one table: write a query for each");
                        complete = false;
                    }
                    _ => {}
                }
                columns.push(selected);
            }
        }
        if let Some(primary) = primary
            && let Some(QuerySource::Table { plain_alias: true, span, .. }) = self.sources.get(primary.0)
            && select.from.len() > 1
        {
            let message = "the rows are sent under the alias of the table";
            report
                .warning_at("aliased-primary-in-join", *span, message)
                .help("write the alias in double quotes if this is meant");
        }
        if primary.is_none() {
            report
                .fatal("no-result-table", select.span, "this query selects nothing from its table")
                .help("select at least one of its columns, or `*`");
        }
        let primary = primary.filter(|_| complete)?;
        Some((primary, columns))
    }

    fn output(
        &mut self,
        item: &SelectItem,
        scope: &Scope<'_>,
        follows: bool,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<(Option<SourceId>, Selected)>> {
        if let ExprKind::Star { table } = &item.expr.kind {
            return self.star(item, table.as_ref().map(|table| &*table.text), scope, follows, report);
        }
        let value = self.expression(scope, &item.expr, Place::Output, report)?;
        let source = self.output_source(&value, item.expr.span, report)?;
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
        Some(vec![(source, Selected::Column(name.into(), value))])
    }

    fn star(
        &self,
        item: &SelectItem,
        table: Option<&str>,
        scope: &Scope<'_>,
        follows: bool,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<(Option<SourceId>, Selected)>> {
        if follows {
            report
                .warning("star-after-alias", item.expr.span, "`*` replaces columns of the same name before it")
                .help("write `*` first");
        }
        let sets: Vec<_> = match table {
            Some(name) => match scope.set(name) {
                Some(set) => vec![set],
                None => {
                    let message = format!("there is no table `{name}` in this query");
                    let diagnostic = report.fatal("unknown-table-reference", item.expr.span, message);
                    diagnostic.help(format!("it has {}", scope.names().join(", ")));
                    return None;
                }
            },
            None => scope.sets.iter().collect(),
        };
        let mut selected = Vec::new();
        for set in sets {
            match &set.kind {
                SetKind::Table(source) => selected.push((Some(*source), Selected::Star)),
                SetKind::Each(_) => {
                    not_a_table(item.expr.span, report);
                    return None;
                }
                SetKind::Derived(columns) => {
                    for (name, value) in columns {
                        let source = self.output_source(value, item.expr.span, report)?;
                        selected.push((source, Selected::Column(Arc::clone(name), value.clone())));
                    }
                }
            }
        }
        Some(selected)
    }

    /// The table that an output column is of; `Some(None)` for a constant.
    fn output_source(&self, value: &Condition, span: Span, report: &mut SqlReport<'_>) -> Option<Option<SourceId>> {
        let mut requests = Vec::new();
        value.inputs(&mut |input| {
            if let ConditionInput::Request(request) = input {
                requests.push(request.span);
            }
        });
        for span in &requests {
            report
                .fatal_at("sync-of-parameter", *span, "values of the request cannot be synced as a column")
                .help("rows are stored once for all users; the client knows its own user and parameters");
        }
        if !requests.is_empty() {
            return None;
        }
        let mut each = false;
        value.inputs(&mut |input| each |= matches!(input, ConditionInput::Each { .. }));
        if each {
            not_a_table(span, report);
            return None;
        }
        match self.owner(value) {
            Ok(Owner::Table(source)) => Some(Some(source)),
            Ok(_) => Some(None),
            Err(second) => {
                report
                    .fatal_at("select-from-two-tables", second, "a column cannot be made of two tables")
                    .help("a query sends rows of one table, as they are");
                None
            }
        }
    }

    fn row_value(&self, value: &Condition) -> Option<Expression<RowInput>> {
        value.replace(&mut |input| match input {
            ConditionInput::Column { name, .. } => Some(Expression::Input(RowInput::Column(name.clone()))),
            ConditionInput::Table { part, .. } => Some(Expression::Input(RowInput::Table(*part))),
            ConditionInput::Each { .. }
            | ConditionInput::Present(_)
            | ConditionInput::Request(_)
            | ConditionInput::Bucket { .. } => None,
        })
    }
}

fn not_a_table(span: Span, report: &mut SqlReport<'_>) {
    report
        .fatal("select-from-non-table", span, "rows of `json_each` are not rows of a table, and cannot be sent")
        .help("select columns of the table");
}

/// What rows of a source depend on.
pub(super) fn owner_of(sources: &[QuerySource], source: SourceId) -> Owner {
    match sources.get(source.0) {
        Some(QuerySource::Each { owner, .. }) => owner_of_argument(*owner, source),
        _ => Owner::Table(source),
    }
}
