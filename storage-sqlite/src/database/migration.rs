//! Brings the application's tables in line with its schema, without losing anything.
//!
//! A synced table is rebuilt from its published operations with the local writes of the upload queue on top, so no row
//! needs a migration; what is staged stays invisible. Rows of tables that the schema lacks stay in the log. The rows of a
//! local-only table have no other copy: they are copied, and set aside if the table becomes a synced one.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, TransactionBehavior};

use super::capture::{self, OWN_PREFIX};
use super::error::Result;
use super::layout::State;
use super::operation_log;
use super::replay::PendingWrites;
use super::row_writer::RowWriter;
use super::schema::{Schema, Table};
use super::table_sql::{self, identifier};

/// Grows when the SQL of tables changes, so that they are made anew.
const GENERATION: u32 = 1;
/// Grows when the SQL of triggers or indexes changes, so that they are made anew.
const TRIGGERS: u32 = 2;
/// What a table is called while it is rebuilt.
const REBUILT: &str = "syncline_rebuilt";

/// A table as it was made.
struct Made {
    shape: String,
    definition: String,
    local_only: bool,
}

/// Applies the schema in one transaction.
pub(crate) fn apply(conn: &mut Connection, schema: &Schema) -> Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let changed = Migration { conn: &transaction }.run(schema)?;
    if changed {
        transaction.commit()?;
    } else {
        transaction.rollback()?;
    }
    Ok(())
}

struct Migration<'c> {
    conn: &'c Connection,
}

/// What decides whether the rows must be written again.
fn shape(table: &Table) -> Result<String> {
    Ok(serde_json::to_string(&(GENERATION, table.is_local_only(), table.columns()))?)
}

fn definition(table: &Table) -> Result<String> {
    Ok(serde_json::to_string(&(GENERATION, TRIGGERS, table))?)
}

impl Migration<'_> {
    fn run(&self, schema: &Schema) -> Result<bool> {
        let mut made = self.made()?;
        let mut changed = false;
        for table in schema.tables() {
            self.adopt_other_case(&mut made, table.name())?;
            let before = made.get(table.name());
            match before {
                Some(before) if self.is_there(table.name())? => {
                    if before.definition == definition(table)? {
                        continue;
                    }
                    if before.shape == shape(table)? {
                        self.replace_indexes_and_triggers(table)?;
                    } else {
                        self.rebuild(table, before.local_only)?;
                    }
                }
                _ if self.is_there(table.name())? => {
                    let message = format!(
                        "the file has a table {:?} that is not this library's: rename one of them",
                        table.name()
                    );
                    return Err(syncline_core::Error::invalid(message).into());
                }
                _ => self.create(table)?,
            }
            changed = true;
        }
        for (name, before) in &made {
            // A local-only table that the schema lacks keeps its rows: there is no other copy.
            if !before.local_only && !schema.tables().iter().any(|table| table.name() == name) {
                self.conn.execute_batch(&format!("DROP TABLE IF EXISTS {}", identifier(name)))?;
                self.conn.execute("DELETE FROM syncline_schema WHERE name = ?1", [name])?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn made(&self) -> Result<HashMap<String, Made>> {
        let mut statement = self.conn.prepare("SELECT name, shape, definition FROM syncline_schema")?;
        let mut rows = statement.query([])?;
        let mut made = HashMap::new();
        while let Some(row) = rows.next()? {
            let shape: String = row.get(1)?;
            let (_, local_only, _): (u32, bool, serde_json::Value) = serde_json::from_str(&shape)?;
            made.insert(row.get(0)?, Made { shape, definition: row.get(2)?, local_only });
        }
        Ok(made)
    }

    /// To SQLite, names that differ only in case are one table, so it can only be renamed. Its rows stay if it is
    /// local-only; a synced one is filled anew, because servers and backends tell such names apart.
    fn adopt_other_case(&self, made: &mut HashMap<String, Made>, name: &str) -> Result<()> {
        if made.contains_key(name) {
            return Ok(());
        }
        let Some(old) = made.keys().find(|old| old.eq_ignore_ascii_case(name)).cloned() else { return Ok(()) };
        let Some(before) = made.remove(&old) else { return Ok(()) };
        self.conn.execute("DELETE FROM syncline_schema WHERE name = ?1", [&old])?;
        if self.is_there(&old)? {
            self.rename(&old, REBUILT)?;
            self.rename(REBUILT, name)?;
            let renamed = Made { shape: String::new(), definition: String::new(), ..before };
            made.insert(name.to_owned(), renamed);
        }
        Ok(())
    }

    fn rename(&self, old: &str, new: &str) -> Result<()> {
        // Without this a view of the application that names the table would be in the way.
        let legacy = rusqlite::config::DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE;
        self.conn.set_db_config(legacy, true)?;
        let sql = format!("ALTER TABLE {} RENAME TO {}", identifier(old), identifier(new));
        let renamed = self.conn.execute_batch(&sql);
        self.conn.set_db_config(legacy, false)?;
        Ok(renamed?)
    }

    fn is_there(&self, name: &str) -> Result<bool> {
        let mut statement = self.conn.prepare_cached(
            "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        )?;
        Ok(statement.exists([name])?)
    }

    fn create(&self, table: &Table) -> Result<()> {
        self.conn.execute_batch(&table_sql::create_table(table, table.name()))?;
        if !table.is_local_only() {
            self.fill(table, table.name())?;
        }
        self.finish(table)
    }

    /// Makes the table anew beside the old one, fills it and takes the place of the old one. Triggers and indexes that the
    /// application made are made again.
    fn rebuild(&self, table: &Table, was_local_only: bool) -> Result<()> {
        let kept = self.own_of_application(table.name())?;
        self.conn.execute_batch(&table_sql::create_table(table, REBUILT))?;
        match (was_local_only, table.is_local_only()) {
            (true, true) => self.copy(table)?,
            (_, false) => self.fill(table, REBUILT)?,
            (false, true) => {}
        }
        if was_local_only && !table.is_local_only() {
            self.set_aside(table.name())?;
        }
        self.conn.execute_batch(&format!("DROP TABLE IF EXISTS {}", identifier(table.name())))?;
        self.rename(REBUILT, table.name())?;
        self.finish(table)?;
        for sql in kept {
            if let Err(error) = self.conn.execute_batch(&sql) {
                tracing::warn!(%error, %sql, "an index or trigger of the application does not fit its table any more");
            }
        }
        Ok(())
    }

    /// Keeps the rows of a local-only table that becomes a synced one: there is no other copy of them, and whether they
    /// are to be uploaded is for the application to say. They go to a table of the application's own, called
    /// `<name>_local`.
    fn set_aside(&self, name: &str) -> Result<()> {
        let has_rows: bool =
            self.conn
                .query_row(&format!("SELECT EXISTS (SELECT 1 FROM {})", identifier(name)), [], |row| row.get(0))?;
        if !has_rows {
            return Ok(());
        }
        let mut aside = format!("{name}_local");
        let mut number = 1;
        while self.is_there(&aside)? {
            number += 1;
            aside = format!("{name}_local_{number}");
        }
        let sql = format!("CREATE TABLE {} AS SELECT * FROM {}", identifier(&aside), identifier(name));
        self.conn.execute_batch(&sql)?;
        tracing::warn!(table = name, kept_as = %aside, "a local-only table became a synced one; its rows were set aside");
        Ok(())
    }

    fn own_of_application(&self, name: &str) -> Result<Vec<String>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT sql FROM sqlite_master WHERE type IN ('trigger', 'index') AND tbl_name = ?1 COLLATE NOCASE \
             AND sql IS NOT NULL AND substr(name, 1, length(?2)) <> ?2",
        )?;
        let sql = statement.query_map((name, OWN_PREFIX), |row| row.get(0))?;
        Ok(sql.collect::<rusqlite::Result<_>>()?)
    }

    /// Copies the columns that both shapes have.
    fn copy(&self, table: &Table) -> Result<()> {
        let mut statement = self.conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let old: Vec<String> =
            statement.query_map([table.name()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let columns: Vec<String> = std::iter::once("id")
            .chain(table.columns().iter().map(|column| column.name.as_str()))
            .filter(|name| old.iter().any(|old| old.eq_ignore_ascii_case(name)))
            .map(identifier)
            .collect();
        let columns = columns.join(", ");
        let name = identifier(table.name());
        self.conn.execute_batch(&format!("INSERT INTO {REBUILT} ({columns}) SELECT {columns} FROM {name}"))?;
        Ok(())
    }

    fn replace_indexes_and_triggers(&self, table: &Table) -> Result<()> {
        let mut statement = self.conn.prepare_cached(
            "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index') AND tbl_name = ?1 COLLATE NOCASE \
             AND substr(name, 1, length(?2)) = ?2",
        )?;
        let old: Vec<(String, String)> = statement
            .query_map((table.name(), OWN_PREFIX), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (kind, name) in old {
            self.conn.execute_batch(&format!("DROP {kind} {}", identifier(&name)))?;
        }
        self.finish(table)
    }

    /// Indexes, triggers and the record of what was made.
    fn finish(&self, table: &Table) -> Result<()> {
        self.conn.execute("UPDATE syncline_state SET epoch = epoch + 1", [])?;
        let epoch: i64 = self.conn.query_row("SELECT epoch FROM syncline_state", [], |row| row.get(0))?;
        for sql in table_sql::create_indexes(table, table.name(), epoch) {
            self.conn.execute_batch(&sql)?;
        }
        for sql in capture::create_triggers(table) {
            self.conn.execute_batch(&sql)?;
        }
        self.conn.execute(
            "INSERT INTO syncline_schema (name, shape, definition, epoch) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) \
             DO UPDATE SET shape = excluded.shape, definition = excluded.definition, epoch = excluded.epoch",
            (table.name(), shape(table)?, definition(table)?, epoch),
        )?;
        Ok(())
    }

    /// Fills a new table with what is published, and with the local writes on top.
    fn fill(&self, table: &Table, into: &str) -> Result<()> {
        let pending = PendingWrites::load(self.conn, 0)?;
        let mut writer = RowWriter::new(self.conn, table, into)?;
        let mut rest: HashSet<&str> = pending.rows(table.name()).collect();
        if let Some(number) = operation_log::find_number(self.conn, table.name())? {
            let published = State::load(self.conn)?.published_seq;
            // Newest first, so that of each key only the first counts: what a large publish superseded may still be there.
            let mut statement = self.conn.prepare(
                "SELECT l.row_id, b.name IS NULL, l.op_id, l.data, l.bucket, l.subkey \
                 FROM syncline_rows AS r CROSS JOIN syncline_log AS l ON l.seq = r.seq JOIN syncline_buckets AS b ON b.id = l.bucket \
                 WHERE r.tbl = ?1 AND l.seq <= iif(b.name IS NULL, b.published_seq, max(b.published_seq, ?2)) \
                 ORDER BY r.row_id, l.op_id DESC, l.seq DESC",
            )?;
            let mut rows = statement.query((number, published))?;
            let mut current: Option<Current> = None;
            while let Some(row) = rows.next()? {
                let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
                if current.as_ref().is_none_or(|current| current.id != id)
                    && let Some(done) = current.replace(Current::new(id))
                {
                    done.show(&pending, &mut writer, table.name(), &mut rest)?;
                }
                if let Some(current) = &mut current {
                    let rank: (bool, i64) = (!row.get::<_, bool>(1)?, row.get(2)?);
                    let is_newest = current.seen.insert((row.get(4)?, row.get(5)?));
                    if is_newest && current.best.as_ref().is_none_or(|(ranked, _)| rank > *ranked) {
                        current.best =
                            row.get::<_, Option<String>>(3)?.map(|data| (rank, data)).or(current.best.take());
                    }
                }
            }
            if let Some(done) = current {
                done.show(&pending, &mut writer, table.name(), &mut rest)?;
            }
        }
        for id in rest {
            pending.show(&mut writer, table.name(), id, None)?;
        }
        Ok(())
    }
}

/// A row on its way into a new table: its best operation so far, and how that ranks. What a retired bucket left comes last.
struct Current {
    id: String,
    seen: HashSet<(i64, Option<String>)>,
    best: Option<((bool, i64), String)>,
}

impl Current {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), seen: HashSet::new(), best: None }
    }

    fn show(
        self,
        pending: &PendingWrites,
        writer: &mut RowWriter<'_>,
        table: &str,
        rest: &mut HashSet<&str>,
    ) -> Result<()> {
        rest.remove(self.id.as_str());
        match self.best {
            Some((_, data)) => pending.show(writer, table, &self.id, Some(&data)),
            // Everything of it has been removed; only its local writes may show it.
            None => pending.show(writer, table, &self.id, None),
        }
    }
}
