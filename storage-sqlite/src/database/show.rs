//! Shows rows: each is computed from the log, and written into its table or into that table's shadow.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::error::Result;
use super::replay::PendingWrites;
use super::resolve::{Company, Resolver};
use super::row_writer::RowWriter;
use super::schema::Schema;
use super::survey::Retired;
use super::upload_queue;

/// Shows rows, for the time of a transaction.
pub(crate) struct Show<'c> {
    conn: &'c Connection,
    resolver: Resolver<'c>,
    /// The tables that rows are written to. Rows of others stay in the log (C8).
    writers: HashMap<String, RowWriter<'c>>,
    /// Local writes that stay on top, in a partial publish.
    pending: &'c PendingWrites,
    partial: bool,
    shown: usize,
}

/// A table among all that operations mention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered<'n> {
    pub(crate) number: Option<i64>,
    pub(crate) name: &'n str,
}

impl<'c> Show<'c> {
    /// Nothing can be shown before [`Show::write_to`] says where.
    pub(crate) fn new(conn: &'c Connection, resolver: Resolver<'c>, pending: &'c PendingWrites, partial: bool) -> Self {
        Self { conn, resolver, writers: HashMap::new(), pending, partial, shown: 0 }
    }

    /// Rows of a declared table are written to the table of the file that is called `into`.
    pub(crate) fn write_to(&mut self, schema: &Schema, table: &str, into: &str) -> Result<()> {
        if let Some(table) = schema.synced(table) {
            self.writers.insert(table.name().to_owned(), RowWriter::new(self.conn, table, into)?);
        }
        Ok(())
    }

    /// Rows that were written or deleted.
    pub(crate) fn shown(&self) -> usize {
        self.shown
    }

    /// Every row with an operation after `after` that becomes published, of the tables in `only`. `until` is asked after
    /// each row whether to stop; the answer is where it stopped, if it did.
    pub(crate) fn new_operations(
        &mut self,
        after: i64,
        names: &HashMap<i64, String>,
        only: Option<&HashSet<String>>,
        mut until: impl FnMut() -> bool,
    ) -> Result<Option<i64>> {
        let conn = self.conn;
        let mut statement =
            conn.prepare_cached("SELECT seq, bucket, tbl, row_id, data FROM syncline_log WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let number: i64 = row.get(2)?;
            if self.resolver.is_new(seq, row.get(1)?)
                && let Some(name) = names.get(&number)
                && only.is_none_or(|only| only.contains(name))
            {
                let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
                match self.resolver.company(seq, number, id)? {
                    // That one shows the row.
                    Company::Later => {}
                    Company::Others => self.row(Numbered { number: Some(number), name }, id)?,
                    Company::Alone => match row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)? {
                        Some(data) => self.show(name, id, Some(data))?,
                        None => {
                            self.resolver.remove(seq)?;
                            self.show(name, id, None)?;
                        }
                    },
                }
            }
            if until() {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// Every row of a table with an operation after `after` and up to `upto` that becomes published, in the order of their
    /// ids, so that neighbours are written together. `done` is the last row that was shown. False if `until` said stop.
    pub(crate) fn rows_in_order(
        &mut self,
        table: (i64, &str),
        (after, upto): (i64, i64),
        done: &mut Option<String>,
        mut until: impl FnMut() -> bool,
    ) -> Result<bool> {
        let (conn, (number, name)) = (self.conn, table);
        let mut statement = conn.prepare_cached(
            "SELECT r.row_id, l.seq, l.bucket, l.data, EXISTS (SELECT 1 FROM syncline_rows AS o \
             WHERE o.tbl = r.tbl AND o.row_id = r.row_id AND o.seq <> r.seq) \
             FROM syncline_rows AS r CROSS JOIN syncline_log AS l ON l.seq = r.seq \
             WHERE r.tbl = +?1 AND r.row_id >= ?2 AND r.seq > ?3 AND r.seq <= ?4 ORDER BY r.row_id",
        )?;
        let mut rows = statement.query((number, done.as_deref().unwrap_or_default(), after, upto))?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            let seq = row.get(1)?;
            if done.as_deref() == Some(id) || !self.resolver.is_new(seq, row.get(2)?) {
                continue;
            }
            match row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)? {
                // It is alone.
                Some(data) if !row.get::<_, bool>(4)? => self.show(name, id, Some(data))?,
                _ => self.row(Numbered { number: Some(number), name }, id)?,
            }
            *done = Some(id.to_owned());
            if until() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every row that the publish affects, of the tables in `only`. False if `until` said stop.
    pub(crate) fn everything(
        &mut self,
        published: i64,
        names: &HashMap<i64, String>,
        only: Option<&HashSet<String>>,
        mut until: impl FnMut() -> bool,
    ) -> Result<bool> {
        if self.new_operations(published, names, only, &mut until)?.is_some() {
            return Ok(false);
        }
        if self.partial {
            return Ok(true);
        }
        for bucket in &mut Retired::all(self.conn)? {
            if !self.retired_bucket(bucket, names, only, &mut until)? {
                return Ok(false);
            }
        }
        self.written_rows(names, only, until)
    }

    /// Every row that a retired bucket published: another bucket may show it, or nothing does. False if `until` said stop.
    pub(crate) fn retired_bucket(
        &mut self,
        bucket: &mut Retired,
        names: &HashMap<i64, String>,
        only: Option<&HashSet<String>>,
        until: impl FnMut() -> bool,
    ) -> Result<bool> {
        let conn = self.conn;
        bucket.rows(conn, until, |number, id| match names.get(&number) {
            Some(name) if only.is_none_or(|only| only.contains(name)) => {
                self.row(Numbered { number: Some(number), name }, id)
            }
            _ => Ok(()),
        })
    }

    /// Every row that was written locally: what the server made of it takes its place. So a rejected write is undone.
    fn written_rows(
        &mut self,
        names: &HashMap<i64, String>,
        only: Option<&HashSet<String>>,
        mut until: impl FnMut() -> bool,
    ) -> Result<bool> {
        let conn = self.conn;
        let numbers: HashMap<&str, i64> = names.iter().map(|(number, name)| (name.as_str(), *number)).collect();
        let mut written = conn.prepare_cached("SELECT DISTINCT tbl, row_id FROM syncline_queue")?;
        let mut rows = written.query([])?;
        while let Some(row) = rows.next()? {
            let name = upload_queue::text(row, 0)?.unwrap_or_default();
            if only.is_none_or(|only| only.contains(&name)) {
                let id = upload_queue::text(row, 1)?.unwrap_or_default();
                self.row(Numbered { number: numbers.get(name.as_str()).copied(), name: &name }, &id)?;
            }
            if until() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A row as all its operations make it.
    pub(crate) fn row(&mut self, table: Numbered<'_>, id: &str) -> Result<()> {
        // The server may never have mentioned the table.
        let data = match table.number {
            Some(number) => self.resolver.row(number, id)?,
            None => None,
        };
        self.show(table.name, id, data.as_deref())
    }

    /// The same, if it has an operation that becomes published.
    pub(crate) fn row_if_new(&mut self, table: Numbered<'_>, id: &str) -> Result<()> {
        match table.number {
            Some(number) if self.resolver.has_new(number, id)? => self.row(table, id),
            _ => Ok(()),
        }
    }

    fn show(&mut self, table: &str, id: &str, data: Option<&str>) -> Result<()> {
        let Some(writer) = self.writers.get_mut(table) else { return Ok(()) };
        self.shown += 1;
        match data {
            None if self.partial => Ok(()),
            None => writer.delete(id),
            Some(data) if self.partial && self.pending.touch(table, id) => {
                self.pending.show(writer, table, id, Some(data))
            }
            Some(data) => writer.put(id, data),
        }
    }
}
