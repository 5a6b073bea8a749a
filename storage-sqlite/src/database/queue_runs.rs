//! The runs of queue entries that one local transaction made, numbered without a gap, so that they are counted without
//! being read.
//!
//! Entries of other processes come without a run. They get theirs, one for each statement, when this process writes next or
//! when there are many of them.

use rusqlite::{Connection, OptionalExtension};

use super::error::Result;
use super::layout::State;
use super::upload_queue;

/// So many entries without a run are left for the next local write.
const TAIL: i64 = 256;

/// The newest run: its last entry and its number.
fn newest(conn: &Connection) -> Result<Option<(i64, i64)>> {
    let mut statement =
        conn.prepare_cached("SELECT last, number FROM syncline_transactions ORDER BY last DESC LIMIT 1")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn insert(conn: &Connection, first: i64, last: i64, number: i64) -> Result<()> {
    conn.prepare_cached("INSERT INTO syncline_transactions (last, first, number) VALUES (?1, ?2, ?3)")?
        .execute((last, first, number))?;
    Ok(())
}

/// Records what a local transaction queued, `first` being the first entry that was seen. Entries that a savepoint took back
/// are no more: the highest one tells.
pub(crate) fn record(conn: &Connection, first: i64, sent: i64) -> Result<()> {
    let last = upload_queue::last_entry(conn)?;
    if last >= first {
        let number = adopt(conn, first - 1, sent)?;
        insert(conn, first, last, number + 1)?;
    }
    Ok(())
}

/// Records a run that a file of an earlier format held, after all that precede it.
pub(crate) fn renumber(conn: &Connection, first: i64, last: i64) -> Result<()> {
    let sent = State::load(conn)?.sent_upto;
    let number = adopt(conn, first - 1, sent)?;
    insert(conn, first, last, number + 1)
}

/// Gives entries of other processes up to `upto` their runs. Returns the number of the newest run.
fn adopt(conn: &Connection, upto: i64, sent: i64) -> Result<i64> {
    let (known, mut number) = newest(conn)?.unwrap_or((0, 0));
    for (first, last) in statements(conn, known.max(sent), upto)? {
        number += 1;
        insert(conn, first, last, number)?;
    }
    Ok(number)
}

/// The entries after `after`, by the statement that made them: those of one share its time.
fn statements(conn: &Connection, after: i64, upto: i64) -> Result<Vec<(i64, i64)>> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    if upto <= after {
        return Ok(runs);
    }
    let mut entries =
        conn.prepare_cached("SELECT id, written_at FROM syncline_queue WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
    let mut rows = entries.query((after, upto))?;
    let mut time: Option<rusqlite::types::Value> = None;
    while let Some(row) = rows.next()? {
        let (id, written_at): (i64, rusqlite::types::Value) = (row.get(0)?, row.get(1)?);
        match runs.last_mut() {
            Some(run) if time.as_ref() == Some(&written_at) => run.1 = id,
            _ => {
                runs.push((id, id));
                time = Some(written_at);
            }
        }
    }
    Ok(runs)
}

/// How many runs come after `sent`.
pub(crate) fn count(conn: &Connection, sent: i64) -> Result<u64> {
    let newest = newest(conn)?.filter(|(last, _)| *last > sent);
    let recorded = match newest {
        None => 0,
        Some((_, number)) => {
            let mut oldest =
                conn.prepare_cached("SELECT number FROM syncline_transactions WHERE last > ?1 ORDER BY last LIMIT 1")?;
            let oldest: i64 = oldest.query_row([sent], |row| row.get(0))?;
            number - oldest + 1
        }
    };
    let tail = statements(conn, newest.map_or(sent, |(last, _)| last), i64::MAX)?.len();
    Ok(u64::try_from(recorded).unwrap_or(0) + tail as u64)
}

/// Whether so many entries have no run that they are better given one now.
pub(crate) fn has_long_tail(conn: &Connection) -> Result<bool> {
    let sent = State::load(conn)?.sent_upto;
    let known = newest(conn)?.map_or(sent, |(last, _)| last.max(sent));
    Ok(upload_queue::last_entry(conn)? - known > TAIL)
}

/// Gives all entries their runs.
pub(crate) fn adopt_all(conn: &Connection) -> Result<()> {
    let sent = State::load(conn)?.sent_upto;
    adopt(conn, i64::MAX, sent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt;
    use futures::executor::block_on;
    use syncline_core::{ClientStore, Uploaded};

    use super::super::writer::ask;
    use super::super::{Database, Schema, Table, connection};
    use super::*;

    /// By so many steps one write may differ from another, for example where the deepest page of a table is full.
    const MARGIN: u64 = 50;

    /// Counts the steps of SQLite's machine that the writer takes, and those of a reader.
    struct Steps {
        db: Database,
        reader: Connection,
        count: Arc<AtomicU64>,
    }

    impl Steps {
        fn of(db: &Database) -> Self {
            let count = Arc::new(AtomicU64::new(0));
            let counter = |count: &Arc<AtomicU64>| {
                let count = Arc::clone(count);
                Some(move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    false
                })
            };
            let handler = counter(&count);
            block_on(ask(db.writer(), move |writer| Ok(writer.conn.progress_handler(1, handler).map_err(Into::into))))
                .expect("counts");
            let mut reader = connection::open_reader(db.path()).expect("opens");
            reader.progress_handler(1, counter(&count)).expect("counts");
            Self { db: db.clone(), reader, count }
        }

        /// A local write, and all that a sync client reads when it is told of it.
        fn of_a_write(&self) -> u64 {
            let before = self.count.load(Ordering::SeqCst);
            write(&self.db);
            upload_queue::unsent(&self.reader, 1).expect("reads");
            upload_queue::state(&self.reader).expect("reads");
            self.count.load(Ordering::SeqCst) - before
        }

        /// Sending the oldest transaction.
        fn of_an_upload(&self) -> u64 {
            let transaction = block_on(self.db.next_upload()).expect("reads").expect("it is queued");
            let before = self.count.load(Ordering::SeqCst);
            block_on(self.db.finish_upload(&transaction, &Uploaded::Applied)).expect("writes");
            self.count.load(Ordering::SeqCst) - before
        }
    }

    fn write(db: &Database) {
        block_on(db.write(|tx| Ok(tx.execute("INSERT INTO lists (id) VALUES (uuid())", [])?))).expect("writes");
    }

    fn queued(db: &Database) -> u64 {
        block_on(db.upload_state()).expect("reads").queued
    }

    fn open() -> Database {
        let schema = Schema::new().table(Table::new("lists").text("name"));
        let db = block_on(Database::open_in_memory(schema).into_future()).expect("opens");
        (0..10).for_each(|_| write(&db));
        db
    }

    #[test]
    fn a_local_write_costs_the_same_however_long_the_queue_is() {
        let db = open();
        let steps = Steps::of(&db);
        // Statements are prepared by the first of each kind.
        steps.of_a_write();
        steps.of_an_upload();
        let (few, sent) = (steps.of_a_write(), steps.of_an_upload());
        assert!(few > 0 && sent > 0);
        (0..5_000).for_each(|_| write(&db));
        assert_eq!(queued(&db), 5_010);
        let (many, later) = (steps.of_a_write(), steps.of_an_upload());
        assert!(many <= few + MARGIN && later <= sent + MARGIN, "{few} and {sent} steps became {many} and {later}");
    }

    #[test]
    fn nor_does_it_matter_how_much_another_process_wrote() {
        let db = open();
        let steps = Steps::of(&db);
        steps.of_a_write();
        let few = steps.of_a_write();
        let mut changes = db.upload_changes();
        let other = Connection::open(db.path()).expect("opens");
        let foreign = "INSERT INTO syncline_queue (written_at, op, tbl, row_id, data) \
                       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                       SELECT i, 'PUT', 'lists', 'n' || i, '{}' FROM n";
        other.execute_batch(foreign).expect("writes");
        assert_eq!(queued(&db), 5_012);
        // When the writer tells of it, it has sorted what it found.
        block_on(changes.next()).expect("told");
        assert_eq!(queued(&db), 5_012);
        let many = steps.of_a_write();
        assert!(many <= few + MARGIN, "{few} steps became {many}");
        assert_eq!(queued(&db), 5_013);
    }
}
