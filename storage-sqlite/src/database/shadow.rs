//! Shadow tables: a table is made anew beside the one that the application sees, slice by slice, and takes its place in one
//! step (C1, C4).
//!
//! They change places by exchanging the root pages that the schema table names for the two tables and their indexes, so
//! that the step costs the same however many rows there are. All SQL text stays as it is: names, triggers, views and what
//! the application added to its table. Both must therefore have been made by the same text.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::capture::OWN_PREFIX;
use super::error::Result;
use super::row_writer::obstacles;
use super::schema::Table;
use super::shadow_index::ShadowIndex;
use super::table_sql::{self, identifier};

/// What the names of shadow tables begin with.
const PREFIX: &str = "syncline_shadow_";
/// A table with at most so many rows is dropped at once.
const DROPPED_AT_ONCE: i64 = 20_000;
/// Otherwise so many rows are deleted first in each transaction.
const DELETED_AT_ONCE: i64 = 1_000;

/// What the schema table holds about a table, its indexes and its triggers.
type Entries = Vec<(String, String, Option<String>)>;

/// A shadow of one table.
#[derive(Debug)]
pub(crate) struct Shadow {
    table: String,
    name: String,
    /// What belongs to the table when the shadow was made: it must be the same when they change places.
    entries: Entries,
    /// The names of the table and its indexes, each with that of its counterpart.
    pairs: Vec<(String, String)>,
    /// Its indexes, of those that are not there yet: the last of these comes first.
    indexes: Vec<ShadowIndex>,
    copy: String,
    last: String,
    /// From which row id on rows are still to be copied.
    next: Option<i64>,
    recopy: String,
}

impl Shadow {
    /// Makes an empty shadow without indexes, or `None` if the table cannot have one: the application has altered it, or has
    /// put triggers on it, which must see every row that changes, or indexes that may refuse a row (C8), which is found out
    /// as rows are written.
    pub(crate) fn create(conn: &Connection, table: &Table) -> Result<Option<Self>> {
        let entries = entries(conn, table.name())?;
        let is_ours = |entry: &(String, String, Option<String>)| match entry.0.as_str() {
            "table" => entry.2.as_deref() == Some(&*table_sql::create_table(table, table.name())),
            "trigger" => entry.1.starts_with(OWN_PREFIX),
            _ => true,
        };
        let Some(rowid) = rowid_of(table) else { return Ok(None) };
        if !entries.iter().all(is_ours)
            || has_temporary_triggers(conn, table.name())?
            || !obstacles(conn, table.name(), "index")?.is_empty()
        {
            return Ok(None);
        }
        conn.execute("UPDATE syncline_state SET epoch = epoch + 1", [])?;
        let epoch: i64 = conn.query_row("SELECT epoch FROM syncline_state", [], |row| row.get(0))?;
        let name = format!("{PREFIX}{epoch}");
        let mut pairs = vec![(table.name().to_owned(), name.clone())];
        let mut indexes = Vec::new();
        for (kind, index, sql) in &entries {
            match (kind.as_str(), sql) {
                ("index", Some(sql)) => {
                    let counterpart = format!("{name}_{}", indexes.len());
                    let Some(sql) = retarget(sql, &counterpart, &name) else { return Ok(None) };
                    let planned = ShadowIndex::plan(conn, index, (counterpart.clone(), &name, sql), rowid)?;
                    let Some(planned) = planned else { return Ok(None) };
                    indexes.push(planned);
                    pairs.push((index.clone(), counterpart));
                }
                ("index", None) => {
                    let number = index.rsplit('_').next().unwrap_or_default();
                    pairs.push((index.clone(), format!("sqlite_autoindex_{name}_{number}")));
                }
                _ => {}
            }
        }
        conn.execute_batch(&table_sql::create_table(table, &name))?;
        let columns: Vec<String> = table.columns().iter().map(|column| identifier(&column.name)).collect();
        let listed: String = columns.iter().map(|column| format!(", {column}")).collect();
        let from = identifier(table.name());
        let copy = format!(
            "INSERT INTO {name} ({rowid}, \"id\"{listed}) SELECT {rowid}, \"id\"{listed} FROM {from} \
             WHERE {rowid} >= ?1 ORDER BY {rowid} LIMIT ?2"
        );
        let last = format!("SELECT max({rowid}) FROM {name}");
        let updates: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let update = match updates.as_slice() {
            [] => "NOTHING".to_owned(),
            updates => format!("UPDATE SET {}", updates.join(", ")),
        };
        let recopy = format!(
            "INSERT INTO {name} (\"id\"{listed}) SELECT \"id\"{listed} FROM {from} WHERE \"id\" = ?1 \
             ON CONFLICT (\"id\") DO {update}"
        );
        let table = table.name().to_owned();
        Ok(Some(Self { table, name, entries, pairs, indexes, copy, last, next: Some(i64::MIN), recopy }))
    }

    /// The name of the table that it stands for.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Its own name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it still lacks an index.
    pub(crate) fn lacks_index(&self) -> bool {
        !self.indexes.is_empty()
    }

    /// Goes on with its indexes, and asks `until` after each row whether to stop. False if it did. Only when it has all of
    /// its rows: none may change before they are done.
    pub(crate) fn make_indexes(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        while let Some(index) = self.indexes.last_mut() {
            if !index.advance(conn, &mut until)? {
                return Ok(false);
            }
            self.indexes.pop();
        }
        Ok(true)
    }

    /// Whether a table of the file is this shadow, or one that its indexes are made in.
    pub(crate) fn uses(&self, table: &str) -> bool {
        table.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    }

    /// Copies up to `limit` more rows of the table, with their row ids. False when all are copied.
    pub(crate) fn copy(&mut self, conn: &Connection, limit: usize) -> Result<bool> {
        let Some(next) = self.next else { return Ok(false) };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let copied = conn.prepare_cached(&self.copy)?.execute((next, limit))?;
        self.next = if (copied as i64) < limit {
            None
        } else {
            let last: i64 = conn.prepare_cached(&self.last)?.query_row([], |row| row.get(0))?;
            last.checked_add(1)
        };
        Ok(self.next.is_some())
    }

    /// Copies one row again, which has changed since.
    pub(crate) fn copy_row(&self, conn: &Connection, id: &str) -> Result<()> {
        // Nothing was written if there is no such row, or if it has no columns and is there already.
        if conn.prepare_cached(&self.recopy)?.execute([id])? == 0 && !self.is_in_table(conn, id)? {
            conn.prepare_cached(&table_sql::delete(&self.name))?.execute([id])?;
        }
        Ok(())
    }

    fn is_in_table(&self, conn: &Connection, id: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE \"id\" = ?1", identifier(&self.table));
        Ok(conn.prepare_cached(&sql)?.exists([id])?)
    }

    /// Whether everything that belongs to the table is as it was when the shadow was made.
    pub(crate) fn fits(&self, conn: &Connection) -> Result<bool> {
        Ok(entries(conn, &self.table)? == self.entries && !has_temporary_triggers(conn, &self.table)?)
    }
}

/// Lets shadows and their tables change places. No statement may be running.
pub(crate) fn exchange(conn: &Connection, shadows: &[Shadow]) -> Result<()> {
    if shadows.is_empty() {
        return Ok(());
    }
    let moves = moves(conn, shadows)?;
    rewrite_schema(conn, || {
        let mut update = conn.prepare("UPDATE sqlite_master SET rootpage = ?2 WHERE rowid = ?1")?;
        for (entry, page) in moves {
            update.execute((entry, page))?;
        }
        Ok(())
    })
}

/// Lets `work` change the schema table. No statement may be running.
pub(crate) fn rewrite_schema(conn: &Connection, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let version: i64 = conn.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    conn.pragma_update(None, "writable_schema", true)?;
    let written = work().and_then(|()| {
        // Every connection reads the schema again, this one too. Until then nothing may touch the tables.
        Ok(conn.pragma_update(None, "schema_version", version.wrapping_add(1))?)
    });
    conn.pragma_update(None, "writable_schema", "RESET")?;
    written
}

/// The places in the schema table of all tables and indexes, with their root pages.
pub(crate) fn roots(conn: &Connection) -> Result<HashMap<String, (i64, i64)>> {
    let mut statement = conn.prepare_cached("SELECT name, rowid, rootpage FROM sqlite_master WHERE rootpage > 0")?;
    let places = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(places.collect::<rusqlite::Result<_>>()?)
}

/// Which entry of the schema table gets which root page.
fn moves(conn: &Connection, shadows: &[Shadow]) -> Result<Vec<(i64, i64)>> {
    let places = roots(conn)?;
    let mut moves = Vec::new();
    for (name, counterpart) in shadows.iter().flat_map(|shadow| &shadow.pairs) {
        let (Some(place), Some(other)) = (places.get(name), places.get(counterpart)) else {
            let message = format!("a shadow table is not whole: {name} has no counterpart {counterpart}");
            return Err(syncline_core::Error::internal(message).into());
        };
        moves.extend([(place.0, other.1), (other.0, place.1)]);
    }
    Ok(moves)
}

/// Whether there are shadow tables.
pub(crate) fn is_there(conn: &Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1";
    Ok(conn.prepare_cached(sql)?.exists([PREFIX])?)
}

/// Removes a bit of the shadow tables that are not in use. True while there is more.
pub(crate) fn sweep(conn: &Connection, in_use: &[Shadow]) -> Result<bool> {
    let mut statement = conn.prepare_cached("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    let unused = |name: &&String| name.starts_with(PREFIX) && !in_use.iter().any(|shadow| shadow.uses(name));
    let Some(name) = names.iter().find(unused) else { return Ok(false) };
    let mut statement = conn.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL ORDER BY name LIMIT 1",
    )?;
    if let Some(index) = statement.query_row([name], |row| row.get::<_, String>(0)).optional()? {
        drop(statement);
        conn.execute_batch(&format!("DROP INDEX {}", identifier(&index)))?;
        return Ok(true);
    }
    drop(statement);
    let sql = format!("SELECT 1 FROM {name} LIMIT 1 OFFSET {DROPPED_AT_ONCE}");
    if conn.prepare(&sql)?.exists([])? {
        let key = key(conn, name)?;
        let sql = format!("DELETE FROM {name} WHERE ({key}) IN (SELECT {key} FROM {name} LIMIT {DELETED_AT_ONCE})");
        conn.execute_batch(&sql)?;
    } else {
        conn.execute_batch(&format!("DROP TABLE {name}"))?;
    }
    Ok(true)
}

/// What tells the rows of a shadow apart, or of a table that an index was being made in.
fn key(conn: &Connection, table: &str) -> Result<String> {
    if !table.ends_with("_sorted") {
        return Ok("_rowid_".to_owned());
    }
    let mut statement = conn.prepare_cached("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let columns = statement.query_map([table], |row| row.get(0))?;
    Ok(columns.collect::<rusqlite::Result<Vec<String>>>()?.join(", "))
}

fn entries(conn: &Connection, table: &str) -> Result<Entries> {
    let mut statement = conn
        .prepare_cached("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE ORDER BY name")?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn has_temporary_triggers(conn: &Connection, table: &str) -> Result<bool> {
    let mut statement = conn
        .prepare_cached("SELECT 1 FROM sqlite_temp_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE")?;
    Ok(statement.exists([table])?)
}

/// A name for the row id that no column has taken.
fn rowid_of(table: &Table) -> Option<&'static str> {
    ["_rowid_", "rowid", "oid"]
        .into_iter()
        .find(|name| !table.columns().iter().any(|column| column.name.eq_ignore_ascii_case(name)))
}

/// The statement that makes an index, as the schema table holds it, for another name and another table.
fn retarget(sql: &str, name: &str, table: &str) -> Option<String> {
    let (head, rest) = match sql.strip_prefix("CREATE UNIQUE INDEX ") {
        Some(rest) => ("CREATE UNIQUE INDEX", rest),
        None => ("CREATE INDEX", sql.strip_prefix("CREATE INDEX ")?),
    };
    let rest = after_name(rest.trim_start())?.trim_start();
    let (keyword, rest) = rest.split_at_checked(2)?;
    if !keyword.eq_ignore_ascii_case("ON") || !rest.starts_with(char::is_whitespace) {
        return None;
    }
    let rest = after_name(rest.trim_start())?;
    rest.trim_start().starts_with('(').then(|| format!("{head} {} ON {} {rest}", identifier(name), identifier(table)))
}

/// What follows a name, quoted or not.
fn after_name(sql: &str) -> Option<&str> {
    let quote = match sql.chars().next()? {
        '[' => ']',
        quote @ ('"' | '`' | '\'') => quote,
        _ => {
            let end = sql.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))?;
            return (end > 0).then(|| &sql[end..]);
        }
    };
    let mut rest = &sql[1..];
    loop {
        rest = &rest[rest.find(quote)? + 1..];
        match rest.strip_prefix(quote).filter(|_| quote != ']') {
            Some(more) => rest = more,
            None => return Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_made_again_for_another_table() {
        let retargeted = |sql| retarget(sql, "i2", "t2").unwrap_or_default();
        assert_eq!(retargeted(r#"CREATE INDEX "i" ON "t" ("a" DESC)"#), r#"CREATE INDEX "i2" ON "t2"  ("a" DESC)"#);
        assert_eq!(retargeted("CREATE INDEX i on t(a) WHERE a > 1"), r#"CREATE INDEX "i2" ON "t2" (a) WHERE a > 1"#);
        assert_eq!(retargeted("CREATE UNIQUE INDEX [i]\nON `t``s` (a)"), r#"CREATE UNIQUE INDEX "i2" ON "t2"  (a)"#);
        assert_eq!(retargeted(r#"CREATE INDEX "a""b" ON 'x' (a)"#), r#"CREATE INDEX "i2" ON "t2"  (a)"#);
        for strange in ["CREATE INDEX i /* ON x */ ON t(a)", "CREATE INDEX i ONt(a)", "CREATE INDEX \"i ON t(a)", ""] {
            assert_eq!(retarget(strange, "i2", "t2"), None, "{strange}");
        }
    }

    #[test]
    fn what_an_index_was_made_in_is_removed_in_pieces() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch(
            "CREATE TABLE syncline_shadow_1_0_sorted (c0, c1, r, PRIMARY KEY (c0 COLLATE NOCASE DESC, c1, r)) WITHOUT ROWID;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 23000)
             INSERT INTO syncline_shadow_1_0_sorted SELECT i % 7, 'x', i FROM n;",
        )?;
        let left = || conn.query_row("SELECT count(*) FROM syncline_shadow_1_0_sorted", [], |row| row.get::<_, i64>(0));
        for step in 1..=3 {
            assert!(sweep(&conn, &[])?);
            assert_eq!(left()?, 23_000 - step * DELETED_AT_ONCE);
        }
        assert!(sweep(&conn, &[])?);
        assert!(!is_there(&conn)?);
        assert!(!sweep(&conn, &[])?);
        Ok(())
    }
}
