//! The log of downloaded operations: numbers for table names, and the entries of a row.

use std::collections::HashMap;

use bytestring::ByteString;
use rusqlite::{Connection, OptionalExtension};

use super::error::Result;

/// Small numbers for the table names that operations mention, for the time of a transaction.
#[derive(Debug, Default)]
pub(crate) struct TableNumbers {
    by_name: HashMap<ByteString, i64>,
}

impl TableNumbers {
    /// The number of a table, given to it if it has none.
    pub(crate) fn number(&mut self, conn: &Connection, name: &ByteString) -> Result<i64> {
        if let Some(number) = self.by_name.get(name) {
            return Ok(*number);
        }
        let number = match find_number(conn, name)? {
            Some(number) => number,
            None => {
                conn.prepare_cached("INSERT INTO syncline_tables (name) VALUES (?1)")?.execute([&**name])?;
                conn.last_insert_rowid()
            }
        };
        self.by_name.insert(name.clone(), number);
        Ok(number)
    }
}

/// The number of a table, if operations ever mentioned it.
pub(crate) fn find_number(conn: &Connection, name: &str) -> Result<Option<i64>> {
    let mut statement = conn.prepare_cached("SELECT id FROM syncline_tables WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// All table names with their numbers.
pub(crate) fn all_numbers(conn: &Connection) -> Result<Vec<(i64, String)>> {
    let mut statement = conn.prepare_cached("SELECT id, name FROM syncline_tables")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
