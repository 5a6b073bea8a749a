//! FROM: tables, `json_each`, named queries and subqueries, and what joins them.

use std::sync::Arc;

use super::cte::Cte;
use super::diagnostic::{Report, SqlReport};
use super::expression::{ConditionInput, Expression, SourceId};
use super::operation::Operation;
use super::resolve::{Owner, QuerySource, Resolver, TableReference};
use super::resolve_expression::Place;
use super::scope::{Condition, ResultSet, Scope, SetKind};
use super::span::Span;
use super::sql::ast::{Call, ExprKind, FromItem, JoinKind, Name, Relation, Select};

/// Queries inside each other, named ones included: what a text of bounded depth needs is far below.
const DEPTH: usize = 100;

/// The columns of a subquery, and the condition on its sources.
pub(super) type Subquery = (Vec<(Arc<str>, Condition)>, Condition);

impl Resolver<'_> {
    /// Adds the entries of FROM, as far as they have a meaning, to `scope`; returns that each has a row, and the conditions of ON.
    pub(super) fn from(
        &mut self,
        select: &Select,
        scope: &mut Scope<'_>,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<Condition>> {
        let mut conditions = Vec::new();
        let mut complete = true;
        for item in &select.from {
            complete &= check_join(item, report);
            match self.entry(item, scope, report) {
                Some((set, condition)) => {
                    complete &= condition.is_some();
                    let taken = scope.sets.iter().any(|known| known.name.to_lowercase() == set.name.to_lowercase());
                    if taken {
                        let message = format!("there are two tables with the name `{}`", set.name);
                        let span = item.alias.as_ref().map_or(item.span, |alias| alias.span);
                        report.fatal("table-name-taken", span, message).help("give one of them another name with AS");
                        complete = false;
                    } else {
                        scope.sets.push(set);
                    }
                    conditions.extend(condition);
                }
                None => complete = false,
            }
            if let Some(on) = item.join.as_ref().and_then(|join| join.on.as_ref()) {
                match self.expression(scope, on, Place::Condition, report) {
                    Some(condition) => conditions.push(condition),
                    None => complete = false,
                }
            }
        }
        complete.then_some(conditions)
    }

    /// An entry of FROM with the condition that it puts on rows; without one its problems were reported, and its name stays
    /// known, so that not every use of it is one more.
    fn entry(
        &mut self,
        item: &FromItem,
        scope: &Scope<'_>,
        report: &mut SqlReport<'_>,
    ) -> Option<(ResultSet, Option<Condition>)> {
        match &item.relation {
            Relation::Table { schema: None, name } if self.ctes.find(&name.text).is_some() => {
                let cte = self.ctes.find(&name.text)?;
                let found = self.named_query(cte)?;
                let set_name = item.alias.as_ref().unwrap_or(name).text.clone();
                self.derived(item, set_name, found, report)
            }
            Relation::Table { schema, name } => self.table(item, schema.as_ref(), name, report),
            Relation::Function(call) => self.function_rows(item, call, scope, report),
            Relation::Subquery(select) => {
                let found = self.subquery(select, &Scope::default(), !item.columns.is_empty(), report)?;
                let name = item.alias.as_ref().map_or(String::new(), |alias| alias.text.clone());
                self.derived(item, name, found, report)
            }
        }
    }

    fn add(&mut self, source: QuerySource) -> SourceId {
        self.sources.push(source);
        SourceId(self.sources.len() - 1)
    }

    fn table(
        &mut self,
        item: &FromItem,
        schema: Option<&Name>,
        name: &Name,
        report: &mut SqlReport<'_>,
    ) -> Option<(ResultSet, Option<Condition>)> {
        if let Some(column) = item.columns.first() {
            report
                .fatal("column-count-mismatch", column.span, "the columns of a table cannot be given other names here")
                .help("rename them in the select list, with AS");
            return None;
        }
        let reference = table_reference(schema, name, report)?;
        let output = match &item.alias {
            Some(alias) => Some(Arc::from(alias.text.as_str())),
            None if reference.prefix => None,
            None => Some(Arc::clone(&reference.name)),
        };
        let quoted = |alias: &Name| alias.span.of(report.sql()).starts_with('"');
        let plain_alias = item.alias.as_ref().is_some_and(|alias| !quoted(alias));
        let span = report.place(name.span);
        let source = self.add(QuerySource::Table { reference, span, output, plain_alias });
        let set_name = item.alias.as_ref().unwrap_or(name).text.clone();
        Some((ResultSet { name: set_name, kind: SetKind::Table(source) }, Some(present(source))))
    }

    /// `json_each(…)`.
    fn function_rows(
        &mut self,
        item: &FromItem,
        call: &Call,
        scope: &Scope<'_>,
        report: &mut SqlReport<'_>,
    ) -> Option<(ResultSet, Option<Condition>)> {
        if call.schema.is_some() || call.name.text.to_lowercase() != "json_each" {
            let message = format!("there is no function `{}` that yields rows", call.full_name());
            report.fatal("unknown-function", call.name_span(), message).help("there is json_each(…)");
            return None;
        }
        let [argument] = call.arguments.as_slice() else {
            let message = format!("`json_each` takes 1 argument, not {}", call.arguments.len());
            report.fatal("argument-count", call.span, message);
            return None;
        };
        let argument = self.expression(scope, argument, Place::Output, report)?;
        let mut nested = false;
        argument.inputs(&mut |input| nested |= matches!(input, ConditionInput::Each { .. }));
        if nested {
            report
                .fatal("nested-table-function", item.span, "json_each cannot read the rows of another json_each")
                .help("keep the inner list in a column or a claim of its own");
            return None;
        }
        let owner = match self.owner(&argument) {
            Ok(owner) => owner,
            Err(second) => {
                report
                    .fatal_at(
                        "expression-spans-sources",
                        second,
                        "json_each can read one row, or the request, and not both",
                    )
                    .help("call it once for each of them");
                Owner::Request
            }
        };
        let span = report.place(item.span);
        let source = self.add(QuerySource::Each { argument, owner, span });
        let name = item.alias.as_ref().unwrap_or(&call.name).text.clone();
        Some((ResultSet { name, kind: SetKind::Each(source) }, Some(present(source))))
    }

    /// Names a subquery and its columns.
    fn derived(
        &self,
        item: &FromItem,
        name: String,
        (mut columns, condition): Subquery,
        report: &mut SqlReport<'_>,
    ) -> Option<(ResultSet, Option<Condition>)> {
        if !item.columns.is_empty() {
            if item.columns.len() != columns.len() {
                let message = format!("{} names are given to {} columns", item.columns.len(), columns.len());
                report.fatal("column-count-mismatch", item.span, message).help("name every column of the subquery");
                columns = item.columns.iter().map(|given| (given.text.as_str().into(), condition.clone())).collect();
                return Some((ResultSet { name, kind: SetKind::Derived(columns) }, None));
            }
            for ((name, _), given) in columns.iter_mut().zip(&item.columns) {
                *name = given.text.as_str().into();
            }
        }
        Some((ResultSet { name, kind: SetKind::Derived(columns) }, Some(condition)))
    }

    /// A query inside another: its columns and its condition, over sources that are added to those of the whole query.
    fn subquery(
        &mut self,
        select: &Select,
        outer: &Scope<'_>,
        renamed: bool,
        report: &mut SqlReport<'_>,
    ) -> Option<Subquery> {
        if self.depth == DEPTH {
            report.fatal("subquery-position", select.span, "there are too many queries inside each other");
            return None;
        }
        self.depth += 1;
        let mut scope = Scope { sets: Vec::new(), outer: Some(outer) };
        let joined = self.from(select, &mut scope, report);
        let condition = self.condition(select, &scope, joined, report);
        let columns = self.subquery_columns(select, &scope, renamed, report);
        self.depth -= 1;
        Some((columns?, condition?))
    }

    fn subquery_columns(
        &mut self,
        select: &Select,
        scope: &Scope<'_>,
        renamed: bool,
        report: &mut SqlReport<'_>,
    ) -> Option<Vec<(Arc<str>, Condition)>> {
        let mut columns: Vec<(Arc<str>, Condition)> = Vec::new();
        for item in &select.columns {
            if let ExprKind::Star { .. } = item.expr.kind {
                report
                    .fatal(
                        "star-not-allowed",
                        item.expr.span,
                        "the columns of a query inside another are named one by one",
                    )
                    .help("name the columns that are used");
                continue;
            }
            let Some(value) = self.expression(scope, &item.expr, Place::Output, report) else { continue };
            let name = match (&item.alias, &item.expr.kind) {
                (Some(alias), _) => alias.text.clone(),
                (None, ExprKind::Column { name, .. }) => name.text.clone(),
                (None, _) => {
                    let text = item.expr.span.of(report.sql()).to_owned();
                    if !renamed && select.columns.len() > 1 {
                        let message = "this column has no name, and gets its SQL text as one";
                        report.warning("unnamed-column", item.expr.span, message).help("name it with AS");
                    }
                    text
                }
            };
            if columns.iter().any(|(known, _)| **known == *name) {
                let message = format!("there are two columns with the name `{name}`");
                report.fatal("column-name-taken", item.expr.span, message).help("name one of them with AS");
                continue;
            }
            columns.push((name.into(), value));
        }
        Some(columns)
    }

    /// A named query, once more: with sources of its own. What is wrong with it was reported where it stands.
    fn named_query(&mut self, cte: &Cte) -> Option<Subquery> {
        let mut silent = Report::default();
        let ctes = std::mem::take(&mut self.ctes);
        // A named query cannot use another.
        let found = self.subquery(&cte.select, &Scope::default(), false, &mut silent.of(&cte.sql));
        self.ctes = ctes;
        found
    }

    /// The subquery of `x IN (SELECT …)`: its one column, and its condition.
    pub(super) fn subquery_after(
        &mut self,
        scope: &Scope<'_>,
        whole: Span,
        span: Span,
        select: &Select,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<(Condition, Condition)> {
        check_position(whole, place, report)?;
        let star = select.columns.iter().any(|item| matches!(item.expr.kind, ExprKind::Star { .. }));
        if select.columns.len() != 1 || star {
            let message = "a subquery after IN must select exactly one column";
            report.fatal("not-a-single-column", span, message).help("name the column that is compared");
            return None;
        }
        let (columns, condition) = self.subquery(select, scope, true, report)?;
        let (_, value) = columns.into_iter().next()?;
        Some((value, condition))
    }

    /// The named query of `x IN name`.
    pub(super) fn named_query_after(
        &mut self,
        whole: Span,
        name: &Name,
        place: Place,
        report: &mut SqlReport<'_>,
    ) -> Option<(Condition, Condition)> {
        check_position(whole, place, report)?;
        let cte = self.ctes.find(&name.text)?;
        if cte.select.columns.len() != 1 {
            let message = format!("`{}` has {} columns, and one can be compared", name.text, cte.select.columns.len());
            report
                .fatal("not-a-single-column", name.span, message)
                .help(format!("write `IN (SELECT column FROM {})`", name.text));
            return None;
        }
        let (columns, condition) = self.named_query(cte)?;
        let (_, value) = columns.into_iter().next()?;
        Some((value, condition))
    }
}

/// Reports what is wrong with a named query by itself.
pub(super) fn check(cte: &Cte, report: &mut Report) {
    let mut resolver = Resolver { ctes: Default::default(), sources: Vec::new(), depth: 0 };
    resolver.subquery(&cte.select, &Scope::default(), false, &mut report.of(&cte.sql));
}

fn check_position(whole: Span, place: Place, report: &mut SqlReport<'_>) -> Option<()> {
    if place == Place::Condition {
        return Some(());
    }
    report
        .fatal("subquery-position", whole, "`IN (SELECT …)` is a condition, and not a value")
        .help("write it as a condition by itself, or within AND and OR");
    None
}

fn check_join(item: &FromItem, report: &mut SqlReport<'_>) -> bool {
    let Some(join) = &item.join else { return true };
    match join.kind {
        JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::Cross | JoinKind::Natural => {
            let message = "this kind of join is not supported: a joined row either exists or hides the row";
            report.fatal("join-kind-not-supported", join.span, message).help("write JOIN … ON …");
            false
        }
        JoinKind::Inner if join.using.is_some() => {
            let message = "USING is not supported; write ON with an equality";
            report.fatal("join-using-not-supported", join.using.unwrap_or(join.span), message);
            false
        }
        JoinKind::Inner | JoinKind::Comma => true,
    }
}

/// The tables that a name in FROM stands for.
pub(super) fn table_reference(
    schema: Option<&Name>,
    name: &Name,
    report: &mut SqlReport<'_>,
) -> Option<TableReference> {
    let schema = match schema {
        None => None,
        Some(schema) => {
            // `"connection.schema"`: tables of the connection `default` go by their schema alone, and those of another one,
            // which no source has yet, by both.
            let text = match schema.text.split_once('.') {
                Some((_, rest)) if rest.contains('.') => {
                    report
                        .fatal("bad-schema-name", schema.span, "there are too many dots in this schema")
                        .help("write `schema.table`, with each part in double quotes if it has capitals");
                    return None;
                }
                Some(("default", rest)) => rest,
                _ => schema.text.as_str(),
            };
            Some(Arc::from(text))
        }
    };
    let (prefix, text) = match name.text.strip_suffix('%') {
        Some(prefix) => (true, prefix),
        None => (false, name.text.as_str()),
    };
    Some(TableReference { schema, name: text.into(), prefix })
}

/// What rows of a `json_each` depend on, by what its argument depends on: those of a row are part of the row.
pub(super) fn owner_of_argument(argument: Owner, source: SourceId) -> Owner {
    match argument {
        Owner::Table(table) => Owner::Table(table),
        _ => Owner::Each(source),
    }
}

fn present(source: SourceId) -> Condition {
    Expression::Input(ConditionInput::Present(source))
}

/// The first table that rows of a constant `json_each` are compared with: they become part of its rows.
pub(super) fn attach_constants(condition: &Condition, sources: &mut [QuerySource]) {
    if let Expression::Call(operation, arguments) = condition {
        if let (Operation::Equal, [left, right]) = (operation, arguments.as_slice()) {
            attach(left, right, sources);
            attach(right, left, sources);
        }
        arguments.iter().for_each(|argument| attach_constants(argument, sources));
    }
}

fn attach(each: &Condition, other: &Condition, sources: &mut [QuerySource]) {
    let mut found = None;
    each.inputs(&mut |input| {
        if let ConditionInput::Each { source, .. } = input {
            found = Some(*source);
        }
    });
    let mut table = None;
    other.inputs(&mut |input| {
        if let ConditionInput::Column { source, .. } = input {
            table.get_or_insert(*source);
        }
    });
    if let (Some(each), Some(table)) = (found, table)
        && let Some(QuerySource::Each { owner, .. }) = sources.get_mut(each.0)
        && *owner == Owner::Constant
    {
        *owner = Owner::Table(table);
    }
}
