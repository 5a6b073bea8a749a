//! The triggers that record local writes in the upload queue.
//!
//! They are plain SQL, so that writes of any process are captured (C2), and silent while a row stands in
//! `syncline_publishing`, which a publish sets and clears inside its own transaction (C7).

use super::schema::{Column, ColumnType, PreviousValues, Table};
use super::table_sql::{balanced, identifier, literal};

/// True unless this connection is publishing.
const LOCAL: &str = "NOT EXISTS (SELECT 1 FROM syncline_publishing)";
/// Milliseconds since the Unix epoch, the same for a whole statement: what groups the writes of other processes.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)";
/// The largest finite double; JSON has no infinities.
const MAX_REAL: &str = "1.7976931348623157e308";

/// `CREATE TRIGGER` for everything that a table needs.
pub(crate) fn create_triggers(table: &Table) -> Vec<String> {
    let mut triggers = required_triggers(table);
    if table.is_local_only() {
        // Without any trigger SQLite empties the table in one stroke and tells nobody which table it was.
        triggers.push(trigger(table, "observe", "AFTER DELETE", "0", "SELECT 1"));
        return triggers;
    }
    let note = if table.tracks_metadata() { "(SELECT note FROM syncline_note)" } else { "NULL" };
    let name = literal(table.name());
    let record = |kind: &str, row: &str, data: &str, old: &str| {
        format!(
            "INSERT INTO syncline_queue (written_at, op, tbl, row_id, data, old, note) \
             VALUES ({NOW}, '{kind}', {name}, {row}.\"id\", {data}, {old}, {note})"
        )
    };
    let put = object(table.columns().iter().map(present_member));
    triggers.push(trigger(table, "put", "AFTER INSERT", LOCAL, &record("PUT", "NEW", &put, "NULL")));

    let old = match table.previous() {
        PreviousValues::Untracked => "NULL".to_owned(),
        PreviousValues::All => object(table.columns().iter().map(old_member)),
        PreviousValues::Of(names) => {
            object(table.columns().iter().filter(|column| names.contains(&column.name)).map(old_member))
        }
    };
    let changes: Vec<String> = table.columns().iter().map(changed).collect();
    if !changes.is_empty() {
        let condition = format!("{LOCAL} AND {}", balanced(&changes, " OR ", "0"));
        let patch = object(
            table
                .columns()
                .iter()
                .map(|column| format!("iif({}, {}, '')", changed(column), member(column, "NEW", "'null'"))),
        );
        triggers.push(trigger(table, "patch", "AFTER UPDATE", &condition, &record("PATCH", "NEW", &patch, &old)));
    }
    triggers.push(trigger(table, "delete", "AFTER DELETE", LOCAL, &record("DELETE", "OLD", "NULL", &old)));
    let refuse = "SELECT RAISE(ABORT, 'the id of a synced row cannot be changed: delete the row and insert another')";
    triggers.push(trigger(table, "id", "BEFORE UPDATE OF \"id\"", "NEW.\"id\" IS NOT OLD.\"id\"", refuse));
    triggers
}

/// The prefix of the names of all triggers and indexes that this library makes.
pub(crate) const OWN_PREFIX: &str = "syncline_";

fn trigger(table: &Table, what: &str, event: &str, condition: &str, body: &str) -> String {
    format!(
        "CREATE TRIGGER {} {event} ON {} WHEN {condition} BEGIN {body}; END",
        identifier(&format!("{OWN_PREFIX}{}_{what}", table.name())),
        identifier(table.name()),
    )
}

/// BEFORE triggers hold local writes to what the application declared; synced rows always fit.
fn required_triggers(table: &Table) -> Vec<String> {
    let mut triggers = Vec::new();
    for column in table.required_columns() {
        let condition = format!("{LOCAL} AND NEW.{} IS NULL", identifier(column));
        let message = literal(&format!("{}.{column} is required", table.name()));
        let refuse = format!("SELECT RAISE(ABORT, {message})");
        let update = format!("BEFORE UPDATE OF {}", identifier(column));
        triggers.push(trigger(table, &format!("required_insert_{column}"), "BEFORE INSERT", &condition, &refuse));
        triggers.push(trigger(table, &format!("required_update_{column}"), &update, &condition, &refuse));
    }
    triggers
}

fn changed(column: &Column) -> String {
    let name = identifier(&column.name);
    format!("NEW.{name} IS NOT OLD.{name}")
}

/// A member if the new value is not null, for PUT.
fn present_member(column: &Column) -> String {
    member(column, "NEW", "''")
}

/// A member with the old value, nulls included.
fn old_member(column: &Column) -> String {
    member(column, "OLD", "'null'")
}

/// `,"name":value` as JSON text. `null` is what stands for SQL NULL: `'null'`, or `''` to leave the member out.
///
/// Text goes through `|| ''`, which removes the mark that JSON functions put on their results: a text column holds text,
/// never nested JSON.
///
/// A double is written with 17 digits, which no other double has: `json_quote` writes 15 in older versions of SQLite, and
/// other processes may bring one.
fn member(column: &Column, row: &str, null: &str) -> String {
    let value = format!("{row}.{}", identifier(&column.name));
    // The name as a JSON string inside an SQL literal; names hold no quotes, backslashes are escaped.
    let key = literal(&format!(",\"{}\":", column.name.replace('\\', "\\\\")));
    let null = if null == "''" { null.to_owned() } else { format!("{key} || {null}") };
    let text = format!("WHEN 'text' THEN {key} || json_quote({value} || '')");
    let integer = format!("WHEN 'integer' THEN {key} || {value}");
    let real = format!("WHEN 'real' THEN {key} || iif(abs({value}) <= {MAX_REAL}, printf('%!.17g', {value}), 'null')");
    let order = match column.kind {
        ColumnType::Text => format!("{text} {integer} {real}"),
        ColumnType::Integer => format!("{integer} {text} {real}"),
        ColumnType::Real => format!("{real} {integer} {text}"),
    };
    format!(
        "CASE typeof({value}) {order} WHEN 'null' THEN {null} \
         ELSE RAISE(ABORT, 'a synced column cannot hold a blob: store it as text, for example base64') END"
    )
}

fn object(members: impl Iterator<Item = String>) -> String {
    let members: Vec<String> = members.collect();
    format!("'{{' || substr({}, 2) || '}}'", balanced(&members, " || ", "''"))
}
