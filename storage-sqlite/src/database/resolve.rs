//! What a row is: of all operations of all buckets, the one with the highest id.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::error::Result;

/// How a bucket stands in the publish that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its staged operations become published: everything up to `published` already is.
    Shown { published: i64 },
    /// It keeps what is published up to here.
    Kept { published: i64 },
    /// It was dropped, cleared or discarded.
    Retired,
}

/// What becomes of operations that a publish supersedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Superseded {
    /// They are removed at once, in the transaction that shows.
    Removed,
    /// They are noted, because the publish is only being prepared.
    Noted,
}

/// What else the log has of the row of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nothing.
    Alone,
    /// A later operation that this publish shows too.
    Later,
    /// Other operations.
    Others,
}

/// An operation of the log.
struct Entry {
    seq: i64,
    bucket: i64,
    subkey: Option<String>,
    data: Option<String>,
}

/// Reduces the entries of a row to what is shown, removing what has been superseded.
///
/// Its statements say `tbl = +?1`: to a bare parameter that is 0 or 1, SQLite would fit a plan of its own, and parse the
/// statement again for every row.
pub(crate) struct Resolver<'c> {
    conn: &'c Connection,
    standings: HashMap<i64, Standing>,
    /// In a partial publish: published operations that a REMOVE ends go to this bucket, so that they stay in sight.
    leftovers: Option<i64>,
    partial: bool,
    superseded: Superseded,
}

impl<'c> Resolver<'c> {
    pub(crate) fn new(
        conn: &'c Connection,
        standings: HashMap<i64, Standing>,
        partial: bool,
        superseded: Superseded,
    ) -> Self {
        Self { conn, standings, leftovers: None, partial, superseded }
    }

    pub(crate) fn standing(&self, bucket: i64) -> Standing {
        self.standings.get(&bucket).copied().unwrap_or(Standing::Retired)
    }

    /// Whether an operation becomes published by this publish.
    pub(crate) fn is_new(&self, seq: i64, bucket: i64) -> bool {
        matches!(self.standing(bucket), Standing::Shown { published } if seq > published)
    }

    /// What else there is of the row of an operation that becomes published.
    pub(crate) fn company(&self, seq: i64, table: i64, row: &str) -> Result<Company> {
        let mut statement = self.conn.prepare_cached(
            "SELECT l.seq, l.bucket FROM syncline_rows AS r CROSS JOIN syncline_log AS l ON l.seq = r.seq \
             WHERE r.tbl = +?1 AND r.row_id = ?2 AND r.seq <> ?3 ORDER BY r.seq DESC",
        )?;
        let mut rows = statement.query((table, row, seq))?;
        let mut company = Company::Alone;
        while let Some(row) = rows.next()? {
            let other: i64 = row.get(0)?;
            if other > seq && self.is_new(other, row.get(1)?) {
                return Ok(Company::Later);
            }
            company = Company::Others;
            if other < seq {
                break;
            }
        }
        Ok(company)
    }

    /// Whether the row has an operation that becomes published.
    pub(crate) fn has_new(&self, table: i64, row: &str) -> Result<bool> {
        let mut statement = self.conn.prepare_cached(
            "SELECT l.seq, l.bucket FROM syncline_rows AS r CROSS JOIN syncline_log AS l ON l.seq = r.seq \
             WHERE r.tbl = +?1 AND r.row_id = ?2 ORDER BY r.seq DESC",
        )?;
        let mut rows = statement.query((table, row))?;
        while let Some(row) = rows.next()? {
            if self.is_new(row.get(0)?, row.get(1)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes an entry, now or when the publish has happened.
    pub(crate) fn remove(&self, seq: i64) -> Result<()> {
        let sql = match self.superseded {
            Superseded::Removed => "DELETE FROM syncline_log WHERE seq = ?1",
            Superseded::Noted => "INSERT OR IGNORE INTO syncline_superseded (seq) VALUES (?1)",
        };
        self.conn.prepare_cached(sql)?.execute([seq])?;
        Ok(())
    }

    /// The data of the row, or `None` if no operation shows it. A second new operation of the same row answers the same.
    ///
    /// A partial publish takes nothing out of sight. What it ends, and what others have ended since the last whole one, still
    /// goes before anything older: then the row stays as it is, which `None` says.
    pub(crate) fn row(&mut self, table: i64, row: &str) -> Result<Option<String>> {
        let mut winner = None;
        // Whether that is shown already, perhaps with local writes on top.
        let mut in_sight = false;
        // Newest first: of each key only the first counts.
        let mut seen: HashSet<(i64, Option<String>)> = HashSet::new();
        let mut ended: HashSet<(i64, Option<String>)> = HashSet::new();
        for entry in self.entries(table, row)? {
            match self.standing(entry.bucket) {
                Standing::Retired => {
                    if self.partial && winner.is_none() && self.is_in_sight(&entry)? {
                        winner = entry.data;
                        in_sight = true;
                    }
                }
                Standing::Kept { published } => {
                    if entry.seq <= published && seen.insert((entry.bucket, entry.subkey)) && winner.is_none() {
                        winner = entry.data;
                        in_sight = true;
                    }
                }
                Standing::Shown { published } => {
                    let key = (entry.bucket, entry.subkey);
                    if !seen.contains(&key) {
                        if entry.data.is_none() {
                            self.remove(entry.seq)?;
                            ended.insert(key.clone());
                        } else if winner.is_none() {
                            winner = entry.data;
                            in_sight = entry.seq <= published;
                        }
                        seen.insert(key);
                    } else if self.partial && entry.seq <= published && ended.contains(&key) {
                        self.keep_in_sight(entry.seq)?;
                        if winner.is_none() {
                            winner = entry.data;
                            in_sight = true;
                        }
                    } else {
                        self.remove(entry.seq)?;
                    }
                }
            }
        }
        Ok(winner.filter(|_| !(self.partial && in_sight)))
    }

    fn entries(&self, table: i64, row: &str) -> Result<Vec<Entry>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT l.seq, l.bucket, l.subkey, l.data FROM syncline_rows AS r CROSS JOIN syncline_log AS l ON l.seq = r.seq \
             WHERE r.tbl = +?1 AND r.row_id = ?2 ORDER BY l.op_id DESC, l.seq DESC",
        )?;
        let rows = statement.query_map((table, row), |row| {
            Ok(Entry { seq: row.get(0)?, bucket: row.get(1)?, subkey: row.get(2)?, data: row.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether an operation of a retired bucket was published.
    fn is_in_sight(&self, entry: &Entry) -> Result<bool> {
        let mut statement =
            self.conn.prepare_cached("SELECT 1 FROM syncline_buckets WHERE id = ?1 AND published_seq >= ?2")?;
        Ok(statement.exists((entry.bucket, entry.seq))?)
    }

    fn keep_in_sight(&mut self, seq: i64) -> Result<()> {
        let bucket = match self.leftovers {
            Some(bucket) => bucket,
            None => {
                let bucket = super::bucket_table::create_retired(self.conn)?;
                self.leftovers = Some(bucket);
                bucket
            }
        };
        self.conn.prepare_cached("UPDATE syncline_log SET bucket = ?2 WHERE seq = ?1")?.execute((seq, bucket))?;
        Ok(())
    }
}
