//! The index of the operation log by row. It is kept by hand, in `syncline_rows`, because a download brings rows in any
//! order: an index that is filled as they come writes all its pages again and again. Staging leaves it alone; a publish
//! completes it first, in sorted runs.
//!
//! Everything up to `sorted_seq` of the state is in it, so that all that was ever published is. A trigger on the log removes
//! what is removed there. A run that was not finished is taken again after a crash: what is in it already stays.

use rusqlite::Connection;

use super::error::Result;
use super::sorted_run::SortedRun;

/// An operation: its table, its row, and its place in the log.
type Entry = (i64, Box<str>, i64);

/// The index on its way to the end of the log.
#[derive(Debug, Default)]
pub(crate) struct Sorting {
    run: SortedRun<Entry>,
    /// Taken into the run up to here.
    upto: i64,
    /// The run is complete, and on its way into the index.
    writing: bool,
}

impl Sorting {
    /// Goes on, and asks `until` after each operation whether to stop. False if it did.
    pub(crate) fn advance(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        let (sorted, end) = bounds(conn)?;
        self.upto = self.upto.max(sorted);
        loop {
            if !self.writing {
                if self.run.is_empty() && self.upto >= end {
                    return Ok(true);
                }
                if !self.gather(conn, &mut until)? {
                    return Ok(false);
                }
                self.run.close();
                self.writing = true;
            }
            if !self.write(conn, &mut until)? {
                return Ok(false);
            }
        }
    }

    /// Takes operations until the run is full or there are no more. False if `until` said stop.
    fn gather(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        let mut statement =
            conn.prepare_cached("SELECT seq, tbl, row_id FROM syncline_log WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([self.upto])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            self.upto = row.get(0)?;
            self.run.push((row.get(1)?, id.into(), self.upto), id.len());
            if self.run.is_full() {
                return Ok(true);
            }
            if until() {
                return Ok(false);
            }
        }
        // The last operations may be gone again; their numbers are not.
        self.upto = bounds(conn)?.1;
        Ok(true)
    }

    /// Writes the run. False if `until` said stop.
    fn write(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        let mut insert =
            conn.prepare_cached("INSERT OR IGNORE INTO syncline_rows (tbl, row_id, seq) VALUES (?1, ?2, ?3)")?;
        while let Some((table, row, seq)) = self.run.pop() {
            insert.execute((table, row, seq))?;
            if until() {
                return Ok(false);
            }
        }
        conn.prepare_cached("UPDATE syncline_state SET sorted_seq = ?1")?.execute([self.upto])?;
        *self = Self { upto: self.upto, ..Self::default() };
        Ok(true)
    }
}

/// Completes the index at once, where little is missing.
pub(crate) fn complete(conn: &Connection) -> Result<()> {
    Sorting::default().advance(conn, || false)?;
    Ok(())
}

/// Up to where the log is in the index, and where it ends.
fn bounds(conn: &Connection) -> Result<(i64, i64)> {
    let mut statement = conn.prepare_cached("SELECT sorted_seq, next_seq - 1 FROM syncline_state WHERE id = 1")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}
