//! Names that a source does not have: warnings, since the source may change while the config stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::diagnostic::{Report, SqlReport};
use super::outline::{EDITION, Outline};
use super::scalar::Scalar;
use super::source_schema::SourceSchema;
use super::sql::ast::{Expr, ExprKind, FromItem, Name, Relation, Select};
use super::sql::{self, SqlDialect};

/// Looks for the tables and columns of all queries. A text that does not parse was reported elsewhere.
pub(super) fn lint(outline: &Outline, schema: &SourceSchema, report: &mut Report) {
    let newest = outline.options.edition.is_none_or(|edition| edition >= EDITION);
    let dialect = if newest { SqlDialect::Streams } else { SqlDialect::Rules };
    let mut lint = Lint { schema, dialect, ctes: names(&outline.with), report };
    lint.named_queries(&outline.with);
    for stream in &outline.streams {
        let outer = lint.ctes.clone();
        lint.ctes.extend(names(&stream.with));
        lint.named_queries(&stream.with);
        stream.queries.iter().for_each(|query| lint.query(query, true));
        lint.ctes = outer;
    }
    for definition in &outline.definitions {
        definition.parameters.iter().flatten().for_each(|query| lint.query(query, false));
        definition.data.iter().for_each(|query| lint.query(query, true));
    }
    for event in &outline.events {
        event.payloads.iter().for_each(|query| lint.query(query, false));
    }
}

/// CTEs are found without regard to case.
fn names(with: &[(Scalar, Scalar)]) -> BTreeSet<String> {
    with.iter().map(|(name, _)| name.text().to_lowercase()).collect()
}

struct Lint<'a, 'r> {
    schema: &'a SourceSchema,
    dialect: SqlDialect,
    ctes: BTreeSet<String>,
    report: &'r mut Report,
}

/// The tables of one FROM, by the name that expressions use.
type Frame = Vec<(String, Columns)>;

/// The columns of an entry of FROM.
enum Columns {
    Known(BTreeSet<Arc<str>>),
    /// A CTE, a function, a subquery, or a table that is not there.
    Unknown,
}

impl Lint<'_, '_> {
    fn named_queries(&mut self, with: &[(Scalar, Scalar)]) {
        for (name, sql) in with {
            if self.schema.columns(None, name.text()).is_some() {
                let message = format!("`{}` hides the table of that name", name.text());
                self.report.warning("cte-shadows-table", name.span(), message).help("give it another name");
            }
            self.query(sql, false);
        }
    }

    /// `is_data`: its rows go to clients, and so need an id.
    fn query(&mut self, scalar: &Scalar, is_data: bool) {
        let Ok(select) = sql::parse(scalar.text(), self.dialect) else { return };
        let mut walk = Walk { schema: self.schema, ctes: &self.ctes, report: self.report.of(scalar) };
        let frame = walk.select(&select, &[]);
        if is_data {
            walk.look_for_id(&select, &frame);
        }
    }
}

/// A walk over one query.
struct Walk<'a, 'r> {
    schema: &'a SourceSchema,
    ctes: &'a BTreeSet<String>,
    report: SqlReport<'r>,
}

impl Walk<'_, '_> {
    /// Looks at a query inside others, whose tables are `outer`; returns its own.
    fn select(&mut self, select: &Select, outer: &[&Frame]) -> Frame {
        let mut frame = Frame::new();
        for item in &select.from {
            // A function may read the tables before it.
            let entry = self.from(item, &frame, outer);
            frame.push(entry);
        }
        let frames: Vec<&Frame> = std::iter::once(&frame).chain(outer.iter().copied()).collect();
        let joined = select.from.iter().filter_map(|item| item.join.as_ref()?.on.as_ref());
        let selected = select.columns.iter().map(|item| &item.expr);
        for expr in joined.chain(selected).chain(&select.condition) {
            self.expression(expr, &frames);
        }
        frame
    }

    fn from(&mut self, item: &FromItem, before: &Frame, outer: &[&Frame]) -> (String, Columns) {
        let alias = item.alias.as_ref().map(|alias| alias.text.clone());
        let frames: Vec<&Frame> = std::iter::once(before).chain(outer.iter().copied()).collect();
        match &item.relation {
            Relation::Table { schema: None, name } if self.ctes.contains(&name.text.to_lowercase()) => {
                (alias.unwrap_or_else(|| name.text.clone()), Columns::Unknown)
            }
            Relation::Table { schema, name } => {
                let columns = self.table(schema.as_ref(), name);
                // Columns that are renamed are not followed.
                let columns = columns.filter(|_| item.columns.is_empty()).map_or(Columns::Unknown, Columns::Known);
                (alias.unwrap_or_else(|| name.text.clone()), columns)
            }
            Relation::Function(call) => {
                call.arguments.iter().for_each(|argument| self.expression(argument, &frames));
                (alias.unwrap_or_else(|| call.name.text.clone()), Columns::Unknown)
            }
            Relation::Subquery(select) => {
                self.select(select, &frames);
                (alias.unwrap_or_default(), Columns::Unknown)
            }
        }
    }

    fn table(&mut self, schema: Option<&Name>, name: &Name) -> Option<BTreeSet<Arc<str>>> {
        // `tag.schema` names a connection as well.
        let of = schema.map(|schema| schema.text.rsplit('.').next().unwrap_or(&schema.text).to_owned());
        let found = self.schema.columns(of.as_deref(), &name.text);
        if found.is_none() {
            let shown = schema.map_or_else(|| name.text.clone(), |schema| format!("{}.{}", schema.text, name.text));
            let near = self.schema.names(of.as_deref());
            let message = format!("the source has no table `{shown}`");
            self.report.warning("table-not-found", name.span, message).near(&name.text, &near);
        }
        found
    }

    fn expression(&mut self, expr: &Expr, frames: &[&Frame]) {
        match &expr.kind {
            ExprKind::Column { table, name, .. } => self.column(table.as_ref(), name, frames),
            ExprKind::Subquery(select) => {
                self.select(select, frames);
            }
            // `x IN cte`.
            ExprKind::In { operand, list, .. } if self.is_cte(list) => self.expression(operand, frames),
            _ => expr.operands().for_each(|operand| self.expression(operand, frames)),
        }
    }

    fn is_cte(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Column { schema: None, table: None, name } => self.ctes.contains(&name.text.to_lowercase()),
            _ => false,
        }
    }

    fn column(&mut self, table: Option<&Name>, name: &Name, frames: &[&Frame]) {
        let mut entries = frames.iter().flat_map(|frame| frame.iter());
        let candidates: Vec<&Columns> = match table {
            // What is no table of the query (`bucket.x`) is looked at elsewhere.
            Some(table) => entries.find(|(of, _)| *of == table.text).map(|(_, columns)| columns).into_iter().collect(),
            None => entries.map(|(_, columns)| columns).collect(),
        };
        let mut known: Vec<&str> = Vec::new();
        for columns in &candidates {
            match columns {
                Columns::Unknown => return,
                Columns::Known(columns) => known.extend(columns.iter().map(|column| &**column)),
            }
        }
        if candidates.is_empty() || known.contains(&name.text.as_str()) {
            return;
        }
        let message = match table {
            Some(table) => format!("the source has no column `{}` in `{}`", name.text, table.text),
            None => format!("the source has no column `{}` here", name.text),
        };
        self.report.warning("column-not-found", name.span, message).near(&name.text, &known);
    }

    /// Rows without an id all have the same one, the empty text.
    fn look_for_id(&mut self, select: &Select, frame: &Frame) {
        let is_id = |item: &super::sql::ast::SelectItem| match (&item.alias, &item.expr.kind) {
            (Some(alias), _) => alias.text == "id",
            (None, ExprKind::Column { name, .. }) => name.text == "id",
            _ => false,
        };
        if select.columns.iter().any(is_id) {
            return;
        }
        let stars = select.columns.iter().filter_map(|item| match &item.expr.kind {
            ExprKind::Star { table } => Some((item.expr.span, table.as_ref())),
            _ => None,
        });
        for (span, table) in stars {
            let of = frame.iter().filter(|(name, _)| table.is_none_or(|table| *name == table.text));
            let lacks_id = |(_, columns): &(String, Columns)| match columns {
                Columns::Known(columns) => !columns.contains("id"),
                Columns::Unknown => false,
            };
            if frame.is_empty() || !of.clone().all(lacks_id) {
                continue;
            }
            let help = "select what tells its rows apart as id, for example `uuid AS id`";
            self.report.warning("no-id-column", span, "the rows of this table have no column `id`").help(help);
        }
    }
}
