//! Brings a file that an earlier version wrote up to date.

use rusqlite::Connection;

use super::error::Result;
use super::queue_runs;

/// Format 1 did not number the runs of the upload queue, and prepared no publish before it was shown.
pub(crate) fn from_format_1(conn: &Connection) -> Result<()> {
    conn.execute_batch(
        "ALTER TABLE syncline_transactions RENAME TO syncline_unnumbered;
         CREATE TABLE syncline_transactions (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, number INTEGER NOT NULL);
         CREATE TABLE syncline_superseded (seq INTEGER PRIMARY KEY);
         ALTER TABLE syncline_state ADD COLUMN superseded INTEGER NOT NULL DEFAULT 0;",
    )?;
    let mut statement = conn.prepare("SELECT first, last FROM syncline_unnumbered ORDER BY last")?;
    let runs: Vec<(i64, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    for (first, last) in runs {
        queue_runs::renumber(conn, first, last)?;
    }
    conn.execute_batch("DROP TABLE syncline_unnumbered")?;
    conn.execute("UPDATE syncline_state SET format = 2", [])?;
    Ok(())
}

/// Format 2 let SQLite keep the index of the log by row, and forgot the names of retired buckets.
pub(crate) fn from_format_2(conn: &Connection) -> Result<()> {
    conn.execute_batch(
        "CREATE TABLE syncline_rows (
             tbl INTEGER NOT NULL,
             row_id TEXT NOT NULL,
             seq INTEGER NOT NULL,
             PRIMARY KEY (tbl, row_id, seq)
         ) WITHOUT ROWID;
         INSERT INTO syncline_rows (tbl, row_id, seq)
             SELECT tbl, row_id, seq FROM syncline_log INDEXED BY syncline_log_by_row ORDER BY tbl, row_id, seq;
         DROP INDEX syncline_log_by_row;
         CREATE TRIGGER syncline_log_deleted AFTER DELETE ON syncline_log BEGIN
             DELETE FROM syncline_rows WHERE tbl = OLD.tbl AND row_id = OLD.row_id AND seq = OLD.seq;
         END;
         ALTER TABLE syncline_buckets ADD COLUMN former_name TEXT;
         ALTER TABLE syncline_state ADD COLUMN sorted_seq INTEGER NOT NULL DEFAULT 0;
         UPDATE syncline_state SET sorted_seq = next_seq - 1, format = 3;",
    )?;
    Ok(())
}
