//! What a user gets of a row: its id and its data.

use super::super::sql::ast::{Expr, ExprKind, Select};
use super::from::{Row, Scope, Set};
use super::interpreter::{self, Environment, Place, Stop};
use super::{World, scalar, text};
use crate::table::SourceTable;
use crate::value::Value;

/// A row as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// The source row: index of the table, and index of the row in it.
    pub(super) source: (usize, usize),
    pub(super) object_type: String,
    pub(super) object_id: String,
    pub(super) data: String,
}

/// A table's row among those of a combination.
struct Primary<'s, 'a> {
    table: &'a SourceTable,
    values: &'a [Value],
    place: (usize, usize),
    object_type: &'s str,
}

/// What a member of a row is made of.
enum Content<'a> {
    Value(&'a Value),
    /// Of `*` in the older languages: it does not replace what is there.
    Underneath(&'a Value),
    Expression(&'a Expr),
    /// A column of a subquery.
    Derived(Value),
    Missing,
    /// The first that is not NULL.
    First(Box<[Self; 2]>),
}

/// The value of a member; `None` if the row does not have it.
fn read<'a>(content: &Content<'a>, environment: &Environment<'_, 'a>) -> Result<Option<Value>, Stop> {
    Ok(match content {
        Content::Value(value) | Content::Underneath(value) => Some((*value).clone()),
        Content::Derived(value) => Some(value.clone()),
        Content::Missing => None,
        Content::Expression(expr) => match &expr.kind {
            // A column that the table does not have is left out, rather than NULL.
            ExprKind::Column { table, name, .. } => {
                environment.scope.column(table.as_ref(), &name.text, environment.world)?
            }
            _ => Some(interpreter::value(expr, environment)?),
        },
        Content::First(both) => match read(&both[0], environment)? {
            None | Some(Value::Null) => read(&both[1], environment)?,
            found => found,
        },
    })
}

/// The row that a combination sends; `None` if it sends none, which the engine refuses.
pub(super) fn of<'a>(select: &'a Select, scope: &Scope<'a>, world: &World<'a>) -> Result<Option<Sent>, Stop> {
    let environment = Environment { world, scope, place: Place::Output };
    let old = world.language.is_old();
    // A name keeps the place where it first stood, and only its last value is asked for.
    let mut members: Vec<(String, Content<'_>)> = Vec::new();
    let mut primary: Option<Primary<'_, 'a>> = None;
    let mut set = |name: &str, content: Content<'a>| match members.iter_mut().find(|(known, _)| known == name) {
        // A blob of `*` is not sent, and does not hide what is.
        Some(_) if matches!(content, Content::Value(Value::Blob(_))) => {}
        Some((_, before)) if matches!(content, Content::Underneath(_)) => {
            let earlier = std::mem::replace(before, Content::Missing);
            *before = Content::First(Box::new([earlier, content]));
        }
        Some((_, before)) => *before = content,
        None => members.push((name.to_owned(), content)),
    };
    for item in &select.columns {
        match &item.expr.kind {
            ExprKind::Star { table } => {
                let meant = |set: &&Set<'_>| {
                    table.as_ref().is_none_or(|table| set.name.to_lowercase() == table.text.to_lowercase())
                };
                for found in scope.sets.iter().filter(meant) {
                    match &found.row {
                        Row::Each { .. } => return Err(Stop::Unknown("`*` of json_each".into())),
                        Row::Table { table, values, .. } => {
                            primary = primary.or(primary_of(&found.row));
                            for (column, value) in table.columns.iter().zip(*values) {
                                if !old {
                                    set(&column.name, Content::Value(value));
                                } else if !column.name.starts_with('_') {
                                    set(&column.name, Content::Underneath(value));
                                }
                            }
                        }
                        Row::Derived { columns, scope, world } => {
                            for (name, expr) in columns {
                                primary = primary.or(table_of(expr, scope));
                                let content = match &expr.kind {
                                    ExprKind::Column { table, name, .. } => {
                                        let found = scope.column(table.as_ref(), &name.text, world)?;
                                        found.map_or(Content::Missing, Content::Derived)
                                    }
                                    _ => {
                                        let inner = Environment { world, scope, place: Place::Output };
                                        Content::Derived(interpreter::value(expr, &inner)?)
                                    }
                                };
                                set(name, content);
                            }
                        }
                    }
                }
            }
            kind => {
                let name = match (&item.alias, kind) {
                    (Some(alias), _) => &alias.text,
                    (None, ExprKind::Column { name, .. }) => &name.text,
                    (None, _) => return Err(Stop::Unknown("columns without a name".into())),
                };
                primary = primary.or(table_of(&item.expr, scope));
                set(name, Content::Expression(&item.expr));
            }
        }
    }
    let mut written: Vec<(&str, Value)> = Vec::new();
    for (name, content) in &members {
        let Some(value) = read(content, &environment)? else { continue };
        if !matches!(value, Value::Blob(_)) {
            written.push((name, value));
        }
    }
    let Some(primary) = primary else { return Ok(None) };
    let id = written.iter().find(|(name, _)| *name == "id").and_then(|(_, value)| scalar::text(value));
    let member = |(name, value): &(&str, Value)| format!("{}:{}", text::json_string(name), text::json_value(value));
    let data = written.iter().map(member).collect::<Vec<_>>().join(",");
    let object_id = id.unwrap_or_default();
    let (source, object_type) = (primary.place, primary.object_type.to_owned());
    debug_assert_eq!(primary.table.columns.len(), primary.values.len(), "a value per column");
    Ok(Some(Sent { source, object_type, object_id, data: format!("{{{data}}}") }))
}

fn primary_of<'s, 'a>(row: &'s Row<'a>) -> Option<Primary<'s, 'a>> {
    match row {
        Row::Table { table, values, place, object_type, .. } => {
            Some(Primary { table, values, place: *place, object_type })
        }
        _ => None,
    }
}

/// The table that an output column is of.
fn table_of<'s, 'a>(expr: &Expr, scope: &'s Scope<'a>) -> Option<Primary<'s, 'a>> {
    let mut found = None;
    let mut columns = Vec::new();
    interpreter::visit(expr, &mut |expr| {
        if let ExprKind::Column { table, name, .. } = &expr.kind {
            columns.push((table.as_ref().map(|table| table.text.clone()), name.text.clone()));
        }
    });
    for (table, name) in columns {
        let set = scope.set(table.as_deref());
        found = found.or(match set.map(|set| &set.row) {
            Some(Row::Derived { columns, scope, .. }) => {
                let inner = columns.iter().find(|(known, _)| *known == name);
                inner.and_then(|(_, expr)| table_of(expr, scope))
            }
            Some(row) => primary_of(row),
            None => None,
        });
    }
    found
}
