//! The SQL of a write. Values are text parameters, cast to the column's type by Postgres; `$1` is the id.

use std::fmt::Write as _;

use syncline_core::WriteKind;

use crate::backend::catalog::{Column, TableShape};
use crate::backend::plan::Plan;
use crate::backend::table_name::{Literal, Quoted};
use crate::backend::write_rule::Sight;

/// Stands for the row in statements; a column of a user is hardly called so.
const ROW: &str = "syncline_row";

/// Reads the row under its lock: one column with its JSON.
pub(crate) fn lock(plan: &Plan<'_>) -> String {
    format!("{} FOR UPDATE", read(plan))
}

/// Locks rows of a table in the order of their ids, so that transactions that meet in several rows wait for each other
/// instead of running into a deadlock. `$1` is an array of ids.
pub(crate) fn lock_in_order(shape: &TableShape) -> String {
    let id = Quoted(&shape.id.name);
    format!(
        "SELECT FROM {} AS {ROW} WHERE {ROW}.{id} = ANY (ARRAY(SELECT u::{} FROM unnest($1::text[]) AS u)) \
         ORDER BY {ROW}.{id} FOR UPDATE",
        shape.table, shape.id.type_name
    )
}

/// Reads the row without a lock.
pub(crate) fn read(plan: &Plan<'_>) -> String {
    let shape = &plan.shape;
    format!("SELECT {} FROM {} AS {ROW} WHERE {}", row(plan), shape.table, is_row(shape))
}

/// Executes the write. If rules or resolvers look at rows, it answers with one row: for a PUT the rows before and after
/// (see [`put`]), for a PATCH the row after, for a DELETE some row; nothing if nothing was written.
pub(crate) fn write(plan: &Plan<'_>) -> String {
    match plan.kind {
        WriteKind::Put => put(plan),
        WriteKind::Patch => patch(plan),
        WriteKind::Delete => {
            let shape = &plan.shape;
            let returning = if plan.table.sight() == Sight::Nothing { "" } else { " RETURNING ''::text" };
            format!("DELETE FROM {} AS {ROW} WHERE {}{returning}", shape.table, is_row(shape))
        }
    }
}

/// Where the row before counts, it is locked by the statement that overwrites it: a row that appears in between, which
/// nobody has judged, is neither written nor returned.
fn put(plan: &Plan<'_>) -> String {
    let shape = &plan.shape;
    let mut columns = Quoted(&shape.id.name).to_string();
    let mut values = parameter(1, &shape.id);
    let mut updates = String::new();
    for (index, (column, _)) in plan.values.iter().enumerate() {
        let name = Quoted(&column.name);
        push(&mut columns, ", ", format_args!("{name}"));
        push(&mut values, ", ", format_args!("{}", parameter(index + 2, column)));
        push(&mut updates, if index > 0 { ", " } else { "" }, format_args!("{name} = excluded.{name}"));
    }
    let id = Quoted(&shape.id.name);
    let insert = format!("INSERT INTO {} AS {ROW} ({columns}) VALUES ({values}) ON CONFLICT ({id})", shape.table);
    if plan.table.sight() == Sight::Nothing {
        let action = if updates.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {updates}") };
        return format!("{insert} DO {action}");
    }
    if updates.is_empty() {
        updates = format!("{id} = excluded.{id}"); // so that the row that is there is returned
    }
    format!(
        "WITH syncline_before AS MATERIALIZED ({}), \
         syncline_after AS ({insert} DO UPDATE SET {updates} WHERE EXISTS (SELECT FROM syncline_before) \
         RETURNING {}) \
         SELECT (SELECT r FROM syncline_before), (SELECT r FROM syncline_after)",
        lock(plan),
        row(plan),
    )
}

fn patch(plan: &Plan<'_>) -> String {
    let mut updates = String::new();
    for (index, (column, _)) in plan.values.iter().enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        let name = Quoted(&column.name);
        push(&mut updates, separator, format_args!("{name} = {}", parameter(index + 2, column)));
    }
    let returning = match plan.table.sight() {
        Sight::Nothing => String::new(),
        _ => format!(" RETURNING {}", row(plan)),
    };
    format!("UPDATE {} AS {ROW} SET {updates} WHERE {}{returning}", plan.shape.table, is_row(&plan.shape))
}

/// Which of these privileges the role lacks on a table. `$1` is the table, `$2` are privileges, `$3` are their columns; a
/// privilege without a column is one on the table.
pub(crate) const LACKING: &str = "
    SELECT w.privilege || coalesce(' (' || quote_ident(w.name) || ')', '')
    FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (privilege, name, position)
    WHERE NOT CASE WHEN w.name IS NULL THEN has_table_privilege($1::text::regclass, w.privilege)
              ELSE has_column_privilege($1::text::regclass, w.name, w.privilege) END
    ORDER BY w.position";

/// Turns values of a client into the JSON of Postgres: one column. Its parameters begin at `$1`.
pub(crate) fn normalize(columns: &[&Column]) -> String {
    let mut list = String::new();
    for (index, column) in columns.iter().enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        push(&mut list, separator, format_args!("{} AS {}", parameter(index + 1, column), Quoted(&column.name)));
    }
    format!("SELECT to_jsonb({ROW}.*)::text FROM (SELECT {list}) AS {ROW}")
}

/// The JSON of what is looked at of a row.
fn row(plan: &Plan<'_>) -> String {
    match plan.table.sight() {
        Sight::Row => format!("to_jsonb({ROW}.*)::text AS r"),
        Sight::Nothing => "'{}'::text AS r".to_owned(),
        Sight::Columns(columns) => {
            let mut list = String::new();
            for (index, name) in columns.iter().enumerate() {
                let separator = if index > 0 { ", " } else { "" };
                push(&mut list, separator, format_args!("{}, {ROW}.{}", Literal(name), Quoted(name)));
            }
            format!("jsonb_build_object({list})::text AS r")
        }
    }
}

fn is_row(shape: &TableShape) -> String {
    format!("{ROW}.{} = {}", Quoted(&shape.id.name), parameter(1, &shape.id))
}

fn parameter(number: usize, column: &Column) -> String {
    format!("${number}::text::{}", column.type_name)
}

fn push(out: &mut String, separator: &str, text: std::fmt::Arguments<'_>) {
    out.push_str(separator);
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}
