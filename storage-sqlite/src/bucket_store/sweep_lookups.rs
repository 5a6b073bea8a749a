//! Compaction of lookups: of each entry only the newest state at the checkpoint is kept, and none if it is empty.

use rusqlite::{Connection, params};
use syncline_core::{OpId, Result};

use super::meta::Meta;
use super::sqlite_error::{failed, signed, unsigned};

/// Entries that are looked at together.
const PAGE: i64 = 500;

/// A walk over all lookups, in the order of their key.
#[derive(Debug, Default)]
pub(super) struct LookupSweep {
    last: Option<Entry>,
    /// Whether `last` stands for the newest state so far of an entry, and not merely for where to go on.
    held: bool,
    seen: u64,
    floor: OpId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    definition: u32,
    values: String,
    table: i64,
    key: Vec<u8>,
    op_id: u64,
    empty: bool,
}

impl Entry {
    fn is_of(&self, other: &Self) -> bool {
        (self.definition, self.table) == (other.definition, other.table)
            && self.key == other.key
            && self.values == other.values
    }
}

impl LookupSweep {
    /// Entries looked at so far.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Below this, lookups are not what they were any more.
    pub(super) fn floor(&self) -> OpId {
        self.floor
    }

    /// Goes on for a while. Returns how many entries were looked at; none if the walk is over.
    pub(super) fn step(&mut self, connection: &Connection, meta: &Meta, horizon: OpId) -> Result<u64> {
        let page = self.page(connection)?;
        for entry in &page {
            let replaced = self.last.take().filter(|_| self.held);
            if let Some(older) = replaced {
                let same = older.is_of(entry) && entry.op_id <= horizon.0;
                if same {
                    self.delete(connection, &older, entry.op_id)?;
                } else if older.empty {
                    self.delete(connection, &older, older.op_id)?;
                }
            }
            self.held = entry.op_id <= horizon.0;
            if self.held && !meta.is_live(entry.definition) {
                self.delete(connection, entry, horizon.0)?;
                self.held = false;
            }
            self.last = Some(entry.clone());
        }
        if page.is_empty()
            && self.held
            && let Some(last) = self.last.take()
            && last.empty
        {
            self.delete(connection, &last, last.op_id)?;
        }
        self.seen += page.len() as u64;
        Ok(page.len() as u64)
    }

    fn page(&self, connection: &Connection) -> Result<Vec<Entry>> {
        let failed = failed("cannot compact lookups");
        let start = self.last.as_ref();
        let (definition, values, table, key, op_id) = match start {
            None => (-1, "", 0, &[][..], 0),
            Some(last) => (i64::from(last.definition), &*last.values, last.table, &last.key[..], last.op_id),
        };
        connection
            .prepare_cached(
                "SELECT definition, key_values, source_table, key, op_id, outputs IS NULL FROM lookups
                 WHERE (definition, key_values, source_table, key, op_id) > (?, ?, ?, ?, ?)
                 ORDER BY definition, key_values, source_table, key, op_id LIMIT ?",
            )
            .and_then(|mut statement| {
                let rows =
                    statement.query_map(params![definition, values, table, key, signed(op_id), PAGE], |row| {
                        Ok(Entry {
                            definition: row.get(0)?,
                            values: row.get(1)?,
                            table: row.get(2)?,
                            key: row.get(3)?,
                            op_id: unsigned(row.get(4)?),
                            empty: row.get(5)?,
                        })
                    })?;
                rows.collect()
            })
            .map_err(failed)
    }

    /// Deletes a state that `by` replaced: checkpoints below it would miss it.
    fn delete(&mut self, connection: &Connection, entry: &Entry, by: u64) -> Result<()> {
        self.floor = self.floor.max(OpId(by));
        connection
            .prepare_cached(
                "DELETE FROM lookups
                 WHERE definition = ? AND key_values = ? AND source_table = ? AND key = ? AND op_id = ?",
            )
            .and_then(|mut statement| {
                statement.execute(params![entry.definition, entry.values, entry.table, entry.key, signed(entry.op_id)])
            })
            .map_err(failed("cannot compact lookups"))?;
        Ok(())
    }
}
