//! A publish that is too large for one short transaction is prepared in many: rows go into shadow tables, which the last
//! transaction puts in the place of the real ones (C1, C4).
//!
//! What is prepared is kept in memory by the writer, and the shadows in the file. It is worth keeping while buckets stand as
//! they stood: it then only goes on with what has come since. Everything else (a crash, a bucket dropped or discarded,
//! another publish, a changed table, `clear`) makes it worthless, and it begins again. Rows with local writes are shown
//! again in the last transaction, because the application may have changed them after they were copied.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use syncline_core::BucketPriority;

use super::error::Result;
use super::layout::State;
use super::operation_log;
use super::replay::PendingWrites;
use super::resolve::{Resolver, Standing, Superseded};
use super::row_index::Sorting;
use super::schema::Schema;
use super::shadow::Shadow;
use super::show::{Numbered, Show};
use super::slice::Slice;
use super::survey::{Affected, Retired, Survey, still_stand};
use super::{superseded, upload_queue};

/// Operations that are removed between two looks at the clock.
const PURGED: usize = 256;
/// A pass goes over so many operations at least: their data should fit into the memory for pages.
const PASS: i64 = 50_000;
/// And there are so many passes at most, because each reads the index of a table from end to end.
const PASSES: i64 = 8;

/// Where a preparation stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to do.
    More,
    /// Shadows hold all rows that there were, and lack indexes.
    Filled,
    /// Nothing is left but the last transaction.
    Ready,
    /// It came to nothing: begin again.
    Worthless,
}

/// A publish in preparation.
#[derive(Debug)]
pub(crate) struct Preparation {
    partial: Option<BucketPriority>,
    standings: HashMap<i64, Standing>,
    /// Entries of the queue up to here are carried by the checkpoint.
    released: i64,
    pending: PendingWrites,
    names: HashMap<i64, String>,
    begun: bool,
    sorting: Sorting,
    survey: Survey,
    planned: bool,
    shadows: Vec<Shadow>,
    /// Tables with many affected rows that are shown in shadows, or, not being declared, nowhere.
    prepared: HashSet<String>,
    /// Tables with many affected rows that no shadow was made for: the application has a hand in them.
    forced: HashSet<String>,
    /// Operations after `published` and up to `upto` are shown table by table and range by range, each in the order of its
    /// rows: the last of these comes first.
    passes: Vec<(i64, String, (i64, i64))>,
    row: Option<String>,
    published: i64,
    upto: i64,
    /// The cursors of what was shown in shadows after that: of the log, of retired buckets, of the upload queue.
    log: i64,
    retired: Vec<Retired>,
    queue: i64,
}

impl Preparation {
    /// Begins one. Nothing is written before its first step. So many rows are named one by one, for the last transaction.
    pub(crate) fn new(
        conn: &Connection,
        partial: Option<BucketPriority>,
        standings: HashMap<i64, Standing>,
        released: i64,
        rows: usize,
    ) -> Result<Self> {
        let published = State::load(conn)?.published_seq;
        let retired = if partial.is_none() { Retired::all(conn)? } else { Vec::new() };
        Ok(Self {
            partial,
            standings,
            released,
            pending: PendingWrites::after(released),
            names: HashMap::new(),
            begun: false,
            sorting: Sorting::default(),
            survey: Survey::new(conn, rows, published, partial.is_some())?,
            planned: false,
            shadows: Vec::new(),
            prepared: HashSet::new(),
            forced: HashSet::new(),
            passes: Vec::new(),
            row: None,
            published,
            upto: published,
            log: published,
            retired,
            // A copy of a table has the local writes that were made before; a full publish replaces them.
            queue: if partial.is_some() { upload_queue::last_entry(conn)? } else { 0 },
        })
    }

    /// Whether it can be gone on with for this publish.
    pub(crate) fn serves(
        &self,
        partial: Option<BucketPriority>,
        standings: &HashMap<i64, Standing>,
        released: i64,
    ) -> bool {
        // In a full publish the gate is open, so that everything is released; `pending` plays no part.
        let released = partial.is_none() || self.released == released;
        self.partial == partial && released && still_stand(&self.standings, standings)
    }

    /// Takes note of how buckets stand now, where that [serves](Self::serves).
    pub(crate) fn go_on(&mut self, standings: HashMap<i64, Standing>) {
        self.standings = standings;
    }

    /// The shadows, for the last transaction.
    pub(crate) fn shadows(&self) -> &[Shadow] {
        &self.shadows
    }

    /// Whether the tables are as they were when their shadows were made.
    pub(crate) fn fits(&self, conn: &Connection) -> Result<bool> {
        for shadow in &self.shadows {
            if !shadow.fits(conn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does as much as fits into a slice.
    pub(crate) fn advance(&mut self, conn: &Connection, schema: &Schema, slice: &mut Slice<'_>) -> Result<Progress> {
        if !self.begun {
            self.begun = superseded::begin(conn)?;
            while !self.begun && superseded::purge(conn, PURGED)? && !slice.look() {}
            return Ok(Progress::More);
        }
        if !self.sorting.advance(conn, || slice.is_over_after_row())? {
            return Ok(Progress::More);
        }
        self.names = operation_log::all_numbers(conn)?.into_iter().collect();
        let resolver = self.resolver(conn, Superseded::Noted);
        if !self.survey.advance(conn, &self.names, &resolver, slice)? {
            return Ok(Progress::More);
        }
        if self.planned && !self.is_as_planned() {
            return Ok(Progress::Worthless);
        }
        if !self.planned {
            self.plan(conn, schema, slice)?;
            return Ok(Progress::More);
        }
        for shadow in &mut self.shadows {
            while shadow.copy(conn, slice.stride())? {
                if slice.is_over_after_stride() {
                    return Ok(Progress::More);
                }
            }
        }
        match self.fill(conn, schema, slice)? {
            Progress::Filled => {
                for shadow in &mut self.shadows {
                    if !shadow.make_indexes(conn, || slice.is_over_after_row())? {
                        break;
                    }
                }
                Ok(Progress::More)
            }
            progress => Ok(progress),
        }
    }

    /// Operations have left the log that may be on their way into its index.
    pub(crate) fn sort_again(&mut self) {
        self.sorting = Sorting::default();
    }

    fn resolver<'c>(&self, conn: &'c Connection, superseded: Superseded) -> Resolver<'c> {
        Resolver::new(conn, self.standings.clone(), self.partial.is_some(), superseded)
    }

    fn tables_with_many_rows(&self) -> impl Iterator<Item = &String> {
        self.survey.tables().iter().filter(|(_, rows)| matches!(rows, Affected::Many)).map(|(name, _)| name)
    }

    /// Makes the shadows, if the slice suffices.
    fn plan(&mut self, conn: &Connection, schema: &Schema, slice: &mut Slice<'_>) -> Result<()> {
        self.survey.limit_named();
        let left: Vec<String> = self
            .tables_with_many_rows()
            .filter(|name| !self.prepared.contains(*name) && !self.forced.contains(*name))
            .cloned()
            .collect();
        for name in left {
            match schema.synced(&name) {
                None => {
                    self.prepared.insert(name);
                }
                Some(table) => match Shadow::create(conn, table)? {
                    Some(shadow) => {
                        self.shadows.push(shadow);
                        self.prepared.insert(name);
                    }
                    None => {
                        tracing::debug!(table = name, "the application has a hand in this table: it gets no shadow");
                        self.forced.insert(name);
                    }
                },
            }
            if slice.look() {
                return Ok(());
            }
        }
        self.upto = self.survey.log();
        for (number, name) in self.names.iter().filter(|(_, name)| self.prepared.contains(*name)) {
            let ranges = ranges(self.published, self.upto).into_iter().rev();
            self.passes.extend(ranges.map(|range| (*number, name.clone(), range)));
        }
        self.planned = true;
        Ok(())
    }

    /// Whether what has come since fits what was planned.
    fn is_as_planned(&self) -> bool {
        self.survey.is_within_limit()
            && self.tables_with_many_rows().all(|name| self.prepared.contains(name) || self.forced.contains(name))
    }

    /// Shows rows in the shadows.
    fn fill(&mut self, conn: &Connection, schema: &Schema, slice: &mut Slice<'_>) -> Result<Progress> {
        if self.partial.is_some() {
            self.pending.extend(conn)?;
        }
        let mut show = Show::new(conn, self.resolver(conn, Superseded::Noted), &self.pending, self.partial.is_some());
        for shadow in &self.shadows {
            show.write_to(schema, shadow.table(), shadow.name())?;
        }
        let only = Some(&self.prepared);
        while let Some((number, name, range)) = self.passes.last() {
            if !show.rows_in_order((*number, name), *range, &mut self.row, || slice.is_over_after_row())? {
                return Ok(Progress::More);
            }
            self.passes.pop();
            self.row = None;
            self.log = self.upto;
        }
        if self.shadows.iter().any(Shadow::lacks_index) {
            return Ok(Progress::Filled);
        }
        let stopped = show.new_operations(self.log, &self.names, only, || slice.is_over_after_row())?;
        self.log = stopped.unwrap_or(self.survey.log());
        if stopped.is_some() {
            return Ok(Progress::More);
        }
        for bucket in &mut self.retired {
            if !show.retired_bucket(bucket, &self.names, only, || slice.is_over_after_row())? {
                return Ok(Progress::More);
            }
        }
        let numbers: HashMap<&str, i64> = self.names.iter().map(|(number, name)| (name.as_str(), *number)).collect();
        let mut statement =
            conn.prepare_cached("SELECT id, tbl, row_id FROM syncline_queue WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([self.queue])?;
        while let Some(row) = rows.next()? {
            let name = upload_queue::text(row, 1)?.unwrap_or_default();
            if let Some(shadow) = self.shadows.iter().find(|shadow| shadow.table() == name) {
                let id = upload_queue::text(row, 2)?.unwrap_or_default();
                let table = Numbered { number: numbers.get(name.as_str()).copied(), name: &name };
                if self.partial.is_none() {
                    show.row(table, &id)?;
                } else {
                    shadow.copy_row(conn, &id)?;
                    show.row_if_new(table, &id)?;
                }
            }
            self.queue = row.get(0)?;
            if slice.is_over_after_row() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Ready)
    }

    /// Shows in their tables the rows that were named, and those of tables without a shadow. Returns how many, or `None` if
    /// `until` said stop.
    pub(crate) fn show_rest(
        &self,
        conn: &Connection,
        schema: &Schema,
        mut until: impl FnMut() -> bool,
    ) -> Result<Option<usize>> {
        let resolver = self.resolver(conn, Superseded::Removed);
        let mut show = Show::new(conn, resolver, &self.pending, self.partial.is_some());
        let numbers: HashMap<&str, i64> = self.names.iter().map(|(number, name)| (name.as_str(), *number)).collect();
        for (name, rows) in self.survey.tables() {
            let Affected::Few(rows) = rows else { continue };
            show.write_to(schema, name, name)?;
            for id in rows {
                show.row(Numbered { number: numbers.get(name.as_str()).copied(), name }, id)?;
                if until() {
                    return Ok(None);
                }
            }
        }
        if !self.forced.is_empty() {
            for name in &self.forced {
                show.write_to(schema, name, name)?;
            }
            let published = State::load(conn)?.published_seq;
            if !show.everything(published, &self.names, Some(&self.forced), until)? {
                return Ok(None);
            }
        }
        Ok(Some(show.shown()))
    }
}

/// What comes after `after`, up to `upto`, in parts.
fn ranges(after: i64, upto: i64) -> Vec<(i64, i64)> {
    let size = PASS.max((upto - after) / PASSES + 1);
    let mut ranges = Vec::new();
    let mut from = after;
    while from < upto {
        let to = upto.min(from.saturating_add(size));
        ranges.push((from, to));
        from = to;
    }
    ranges
}
