//! Which rows a publish affects: named one by one where a table has few of them, otherwise only the table.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use super::error::Result;
use super::resolve::{Resolver, Standing};
use super::slice::Slice;

/// The affected rows of a table.
#[derive(Debug)]
pub(crate) enum Affected {
    /// These.
    Few(BTreeSet<String>),
    /// More than were counted.
    Many,
}

/// What was found so far. It goes on where it was when more has come.
#[derive(Debug)]
pub(crate) struct Survey {
    limit: usize,
    /// Seen up to here: of the log, of each retired bucket, and of the upload queue.
    log: i64,
    retired: Vec<Retired>,
    queue: i64,
    tables: HashMap<String, Affected>,
}

/// A bucket whose rows leave, with the cursor that goes over them.
#[derive(Debug, Clone)]
pub(crate) struct Retired {
    bucket: i64,
    published: i64,
    after: i64,
}

impl Retired {
    /// All retired buckets, none of them looked at.
    pub(crate) fn all(conn: &Connection) -> Result<Vec<Self>> {
        let mut statement =
            conn.prepare_cached("SELECT id, published_seq FROM syncline_buckets WHERE name IS NULL ORDER BY id")?;
        let rows = statement.query_map([], |row| Ok(Self { bucket: row.get(0)?, published: row.get(1)?, after: 0 }))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Calls `each` for its published rows, and after each asks `until` whether to stop. False if it did.
    pub(crate) fn rows(
        &mut self,
        conn: &Connection,
        mut until: impl FnMut() -> bool,
        mut each: impl FnMut(i64, &str) -> Result<()>,
    ) -> Result<bool> {
        let mut statement = conn.prepare_cached(
            "SELECT seq, tbl, row_id FROM syncline_log WHERE bucket = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq",
        )?;
        let mut rows = statement.query((self.bucket, self.after, self.published))?;
        while let Some(row) = rows.next()? {
            each(row.get(1)?, row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?)?;
            self.after = row.get(0)?;
            if until() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Survey {
    /// Begins after the last full publish. A partial one affects only the rows that operations name.
    pub(crate) fn new(conn: &Connection, limit: usize, published: i64, partial: bool) -> Result<Self> {
        let (retired, queue) = if partial { (Vec::new(), i64::MAX) } else { (Retired::all(conn)?, 0) };
        Ok(Self { limit, log: published, retired, queue, tables: HashMap::new() })
    }

    /// The log up to here was looked at.
    pub(crate) fn log(&self) -> i64 {
        self.log
    }

    /// The affected rows by table.
    pub(crate) fn tables(&self) -> &HashMap<String, Affected> {
        &self.tables
    }

    /// Rows that are named one by one.
    pub(crate) fn named(&self) -> usize {
        self.tables.values().map(|rows| if let Affected::Few(rows) = rows { rows.len() } else { 0 }).sum()
    }

    /// Counts the table with the most named rows as one with many, until no more than the limit are named.
    pub(crate) fn limit_named(&mut self) {
        while self.named() > self.limit {
            let size = |rows: &Affected| if let Affected::Few(rows) = rows { rows.len() } else { 0 };
            let Some(most) = self.tables.values_mut().max_by_key(|rows| size(rows)) else { break };
            *most = Affected::Many;
        }
    }

    /// Whether no more rows are named than one transaction shows.
    pub(crate) fn is_within_limit(&self) -> bool {
        self.named() <= self.limit
    }

    /// Looks further. False if the slice is over before the end is reached.
    pub(crate) fn advance(
        &mut self,
        conn: &Connection,
        names: &HashMap<i64, String>,
        resolver: &Resolver<'_>,
        slice: &mut Slice<'_>,
    ) -> Result<bool> {
        let Self { limit, log, retired, queue, tables } = self;
        let mut count = |name: &str, row: &str| {
            match tables.get_mut(name) {
                None => {
                    tables.insert(name.to_owned(), Affected::Few([row.to_owned()].into()));
                }
                Some(Affected::Many) => {}
                Some(rows) => {
                    if let Affected::Few(few) = rows {
                        if few.len() >= *limit && !few.contains(row) {
                            *rows = Affected::Many;
                        } else if !few.contains(row) {
                            few.insert(row.to_owned());
                        }
                    }
                }
            };
        };
        let mut statement =
            conn.prepare_cached("SELECT seq, bucket, tbl, row_id FROM syncline_log WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([*log])?;
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            if resolver.is_new(seq, row.get(1)?)
                && let Some(name) = names.get(&row.get(2)?)
            {
                count(name, row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?);
            }
            *log = seq;
            if slice.is_over_after_row() {
                return Ok(false);
            }
        }
        for bucket in retired {
            let done = bucket.rows(
                conn,
                || slice.is_over_after_row(),
                |table, row| {
                    if let Some(name) = names.get(&table) {
                        count(name, row);
                    }
                    Ok(())
                },
            )?;
            if !done {
                return Ok(false);
            }
        }
        let mut statement =
            conn.prepare_cached("SELECT id, tbl, row_id FROM syncline_queue WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([*queue])?;
        while let Some(row) = rows.next()? {
            count(
                &super::upload_queue::text(row, 1)?.unwrap_or_default(),
                &super::upload_queue::text(row, 2)?.unwrap_or_default(),
            );
            *queue = row.get(0)?;
            if slice.is_over_after_row() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How many rows a publish affects, as far as that is known without looking at each: up to `limit`, where it stops.
pub(crate) fn rough_count(conn: &Connection, published: i64, partial: bool, limit: usize) -> Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sum: i64 = conn
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM syncline_log WHERE seq > ?1 LIMIT ?2)")?
        .query_row((published, limit), |row| row.get(0))?;
    if !partial {
        sum += conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM syncline_buckets AS b JOIN syncline_log AS l ON l.bucket = b.id \
                 WHERE b.name IS NULL AND l.seq <= b.published_seq LIMIT ?1)",
            )?
            .query_row::<i64, _, _>([limit], |row| row.get(0))?;
        sum += conn
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM syncline_queue LIMIT ?1)")?
            .query_row::<i64, _, _>([limit], |row| row.get(0))?;
    }
    Ok(usize::try_from(sum).unwrap_or(usize::MAX))
}

/// How buckets stand is what a survey, and everything made after it, depends on. It still holds if the buckets that were
/// there stand as they stood; buckets made since have nothing but operations that were not looked at yet.
pub(crate) fn still_stand(before: &HashMap<i64, Standing>, now: &HashMap<i64, Standing>) -> bool {
    let newest = before.keys().max().copied().unwrap_or(0);
    before.iter().all(|(bucket, standing)| now.get(bucket) == Some(standing))
        && now.keys().all(|bucket| before.contains_key(bucket) || *bucket > newest)
}
