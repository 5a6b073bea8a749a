//! FROM as nested loops: every combination of a row of each entry, and what names mean in it.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::sql::ast::{Expr, ExprKind, FromItem, Name, Relation, Select};
use super::interpreter::{self, Environment, Place, Stop};
use super::truth::{self, Truth};
use super::{Language, World};
use crate::table::SourceTable;
use crate::value::Value;

/// The name of the request among the sources of an expression.
pub(super) const REQUEST: &str = "request";

/// One row of each entry of FROM, and those of the queries around it.
#[derive(Debug, Clone)]
pub(super) struct Scope<'a> {
    /// Where it stands, to tell apart tables of the same name.
    path: String,
    pub(super) sets: Vec<Set<'a>>,
    outer: Option<Rc<Self>>,
}

/// A row under the name of its entry of FROM.
#[derive(Debug, Clone)]
pub(super) struct Set<'a> {
    pub(super) name: String,
    source: String,
    pub(super) row: Row<'a>,
}

/// A row of an entry of FROM.
#[derive(Debug, Clone)]
pub(super) enum Row<'a> {
    Table {
        table: &'a SourceTable,
        values: &'a [Value],
        /// Index of the table, and of the row in it.
        place: (usize, usize),
        /// What the client calls its table.
        object_type: String,
        /// What `%` stands for.
        suffix: Option<String>,
    },
    /// Of `json_each`; what its argument looks at.
    Each { key: Value, value: Value, of: BTreeSet<String> },
    /// Of a subquery: its columns, and the rows that they are made of.
    Derived { columns: Vec<(String, &'a Expr)>, scope: Rc<Scope<'a>>, world: World<'a> },
}

/// A combination of rows, and whether the conditions on it hold.
pub(super) type Combination<'a> = (Rc<Scope<'a>>, Truth);

impl<'a> Scope<'a> {
    pub(super) fn empty() -> Self {
        Self { path: String::new(), sets: Vec::new(), outer: None }
    }

    /// The entry that a column is of: of this name, or the only one, from the inside out.
    pub(super) fn set(&self, table: Option<&str>) -> Option<&Set<'a>> {
        let own = match table {
            Some(table) => self.sets.iter().find(|set| set.name.to_lowercase() == table.to_lowercase()),
            None => self.sets.first(),
        };
        own.or_else(|| self.outer.as_ref()?.set(table))
    }

    /// The value of a column; `None` if the row does not have it.
    pub(super) fn column(&self, table: Option<&Name>, name: &str, world: &World<'a>) -> Result<Option<Value>, Stop> {
        let Some(set) = self.set(table.map(|table| &*table.text)) else {
            return Err(Stop::Unknown(format!("the column {name} without a table")));
        };
        Ok(match &set.row {
            Row::Table { suffix: Some(suffix), .. } if world.language.is_old() && name == "_table_suffix" => {
                Some(Value::text(suffix.as_str()))
            }
            Row::Table { table, values, .. } => {
                let index = table.columns.iter().position(|column| &*column.name == name);
                index.and_then(|index| values.get(index)).cloned()
            }
            Row::Each { key, .. } if name == "key" => Some(key.clone()),
            Row::Each { value, .. } if name == "value" => match world.language {
                Language::Rules { fixed_json: false } if *value == Value::Null => Some(Value::text("null")),
                _ => Some(value.clone()),
            },
            Row::Each { .. } => return Err(Stop::Unknown(format!("the column {name} of json_each"))),
            Row::Derived { columns, scope, world } => {
                let Some((_, expr)) = columns.iter().find(|(known, _)| known == name) else {
                    return Err(Stop::Unknown(format!("the column {name} of a subquery")));
                };
                return match &expr.kind {
                    ExprKind::Column { table, name, .. } => scope.column(table.as_ref(), &name.text, world),
                    _ => interpreter::value(expr, &Environment { world, scope, place: Place::Output }).map(Some),
                };
            }
        })
    }

    /// `t.schema()`, `t.table_name()` and `t.table_suffix()`.
    pub(super) fn metadata(&self, table: &str, part: &str) -> Option<Value> {
        let Row::Table { table, suffix, .. } = &self.set(Some(table))?.row else { return None };
        Some(match part {
            "schema" => Value::text(&*table.schema),
            "table_name" => Value::text(&*table.name),
            "table_suffix" => Value::text(suffix.as_deref().unwrap_or_default()),
            _ => return None,
        })
    }

    /// The tables that a column is made of.
    pub(super) fn sources(&self, table: Option<&Name>, name: &str, world: &World<'a>) -> BTreeSet<String> {
        let old = ["bucket", "token_parameters", "user_parameters"];
        if let Some(table) = table
            && world.language.is_old()
            && old.contains(&&*table.text)
        {
            return BTreeSet::from([REQUEST.to_owned()]);
        }
        match self.set(table.map(|table| &*table.text)) {
            None => BTreeSet::new(),
            Some(Set { row: Row::Each { of, .. }, .. }) if !of.is_empty() => of.clone(),
            Some(Set { row: Row::Derived { columns, scope, world }, .. }) => {
                let found = columns.iter().filter(|(known, _)| known == name);
                found.flat_map(|(_, expr)| sources_of(expr, scope, world)).collect()
            }
            Some(set) => BTreeSet::from([set.source.clone()]),
        }
    }
}

/// The tables that an expression looks at, and the request.
pub(super) fn sources_of<'a>(expr: &Expr, scope: &Scope<'a>, world: &World<'a>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    interpreter::visit(expr, &mut |expr| match &expr.kind {
        ExprKind::Column { table, name, .. } => found.append(&mut scope.sources(table.as_ref(), &name.text, world)),
        ExprKind::Call(call) if call.schema.is_some() => {
            found.insert(REQUEST.to_owned());
        }
        _ => {}
    });
    found
}

/// Every combination of rows for which the conditions of a query may hold.
pub(super) fn combinations<'a>(
    select: &'a Select,
    start: Scope<'a>,
    world: &World<'a>,
) -> Result<Vec<Combination<'a>>, String> {
    let mut found = vec![(start, Truth::YES)];
    for item in &select.from {
        let mut longer = Vec::new();
        for (scope, truth) in found {
            for (set, own) in rows(item, &scope, world)? {
                let mut scope = scope.clone();
                scope.sets.push(set);
                let mut truth = truth.and(own);
                if let Some(on) = item.join.as_ref().and_then(|join| join.on.as_ref()) {
                    truth = truth.and(truth::of(on, &Environment { world, scope: &scope, place: Place::Condition })?);
                }
                if truth.may_hold() {
                    longer.push((scope, truth));
                }
            }
        }
        found = longer;
    }
    let mut all = Vec::new();
    for (scope, mut truth) in found {
        if let Some(condition) = &select.condition {
            let environment = Environment { world, scope: &scope, place: Place::Condition };
            truth = truth.and(truth::of(condition, &environment)?);
        }
        if truth.may_hold() {
            all.push((Rc::new(scope), truth));
        }
    }
    Ok(all)
}

/// The combinations of a query inside a condition; a named one does not see what is around it, nor other named ones.
pub(super) fn inner<'a>(
    select: &'a Select,
    named: bool,
    environment: &Environment<'_, 'a>,
) -> Result<Vec<(Rc<Scope<'a>>, World<'a>, Truth)>, String> {
    let world = if named { environment.world.without_named() } else { *environment.world };
    let path = format!("{}({})", environment.scope.path, select.span.start);
    let outer = (!named).then(|| Rc::new(environment.scope.clone()));
    let found = combinations(select, Scope { path, sets: Vec::new(), outer }, &world)?;
    Ok(found.into_iter().map(|(scope, truth)| (scope, world, truth)).collect())
}

/// The rows of an entry of FROM next to those before it.
fn rows<'a>(item: &'a FromItem, scope: &Scope<'a>, world: &World<'a>) -> Result<Vec<(Set<'a>, Truth)>, String> {
    let named = |fallback: &str| item.alias.as_ref().map_or(fallback, |alias| &alias.text).to_owned();
    let set = |name: String, row| Set { source: format!("{}/{name}", scope.path), name, row };
    match &item.relation {
        Relation::Table { schema: None, name } if world.named(&name.text).is_some() => {
            let Some(select) = world.named(&name.text) else { return Ok(Vec::new()) };
            derived(item, select, named(&name.text), scope, world.without_named())
        }
        Relation::Subquery(select) => derived(item, select, named(""), scope, *world),
        Relation::Table { schema, name } => {
            let schema = schema.as_ref().map_or(world.schema, |schema| &schema.text);
            let schema = schema.strip_prefix("default.").unwrap_or(schema);
            let mut found = Vec::new();
            for (table_number, given) in world.tables.iter().enumerate() {
                let suffix = match name.text.strip_suffix('%') {
                    Some(prefix) => given.table.name.strip_prefix(prefix).map(str::to_owned),
                    None => None,
                };
                let is_meant = if name.text.ends_with('%') { suffix.is_some() } else { name.text == *given.table.name };
                let same_schema = match schema.strip_suffix('%') {
                    Some(prefix) => given.table.schema.starts_with(prefix),
                    None => schema == &*given.table.schema,
                };
                if !same_schema || !is_meant {
                    continue;
                }
                for (row_number, values) in given.rows.iter().enumerate() {
                    let object_type = named(&given.table.name);
                    let place = (table_number, row_number);
                    let suffix = suffix.clone();
                    let row = Row::Table { table: given.table, values, place, object_type, suffix };
                    found.push((set(named(&name.text), row), Truth::YES));
                }
            }
            Ok(found)
        }
        Relation::Function(call) => {
            let (None, "json_each", [argument]) =
                (&call.schema, &*call.name.text.to_lowercase(), call.arguments.as_slice())
            else {
                return Err(format!("the function {} in FROM", call.full_name()));
            };
            let environment = Environment { world, scope, place: Place::Output };
            let found = interpreter::value(argument, &environment).and_then(|json| interpreter::each(&json));
            match found {
                Err(Stop::Unknown(what)) => Err(what),
                // A list that cannot be read has no rows.
                Err(Stop::Error) => Ok(Vec::new()),
                Ok(rows) => {
                    let of = sources_of(argument, scope, world);
                    let row = |(key, value)| Row::Each { key, value, of: of.clone() };
                    Ok(rows.into_iter().map(|each| (set(named(&call.name.text), row(each)), Truth::YES)).collect())
                }
            }
        }
    }
}

/// A scope for each row of the first entry of FROM, whatever the conditions say.
pub(super) fn rows_before<'a>(
    item: &'a FromItem,
    start: &Scope<'a>,
    world: &World<'a>,
) -> Result<Vec<Scope<'a>>, String> {
    let scope = |(set, _)| Scope { sets: vec![set], ..start.clone() };
    Ok(rows(item, start, world)?.into_iter().map(scope).collect())
}

/// The rows of a subquery in FROM, which does not see what is around it.
fn derived<'a>(
    item: &'a FromItem,
    select: &'a Select,
    name: String,
    scope: &Scope<'a>,
    world: World<'a>,
) -> Result<Vec<(Set<'a>, Truth)>, String> {
    let mut columns = Vec::new();
    for (number, column) in select.columns.iter().enumerate() {
        let name = match (item.columns.get(number), &column.alias, &column.expr.kind) {
            (Some(given), ..) => given.text.clone(),
            (None, Some(alias), _) => alias.text.clone(),
            (None, None, ExprKind::Column { name, .. }) => name.text.clone(),
            (None, None, _) => format!("({number})"),
        };
        columns.push((name, &column.expr));
    }
    let source = format!("{}/{name}", scope.path);
    let start = Scope { path: source.clone(), sets: Vec::new(), outer: None };
    let found = combinations(select, start, &world)?.into_iter();
    Ok(found
        .map(|(scope, truth)| {
            let row = Row::Derived { columns: columns.clone(), scope, world };
            (Set { name: name.clone(), source: source.clone(), row }, truth)
        })
        .collect())
}
