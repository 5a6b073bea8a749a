//! Reading the tables as they are: in chunks by key where that can be resumed, else in one go.

use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use syncline_core::{Error, SourceEvent, SourceRow};
use tokio::time::Instant;

use crate::connection::{Connection, Session as Kind};
use crate::error::PgError;
use crate::layout::{Layout, split_key};
use crate::output::Stop;
use crate::preflight::{self, Occasion};
use crate::session::Session;
use crate::state::{PartRecord, Progress, TableRecord};

/// Rows of the first chunk of a table; later ones follow the size of the rows.
const FIRST_CHUNK: usize = 10_000;
const SMALLEST_CHUNK: usize = 500;
const LARGEST_CHUNK: usize = 50_000;
/// A chunk should have about this many bytes.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Rows that are handed on together.
const EVENT_ROWS: usize = 1_000;
/// One resumable unit: after this many rows, bytes or seconds it is closed.
const UNIT_ROWS: usize = 10_000;
const UNIT_BYTES: usize = 8 * 1024 * 1024;
const UNIT_TIME: Duration = Duration::from_secs(2);

/// How often the slot is looked at, since a long reading may outlast what the server keeps.
const SLOT_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// What has been read since progress was last told.
#[derive(Debug)]
struct Unit {
    rows: usize,
    bytes: usize,
    since: Instant,
}

impl Unit {
    fn new() -> Self {
        Self { rows: 0, bytes: 0, since: Instant::now() }
    }

    fn is_due(&self) -> bool {
        self.rows >= UNIT_ROWS || self.bytes >= UNIT_BYTES || self.since.elapsed() >= UNIT_TIME
    }
}

/// How one chunk ended.
struct Chunk {
    rows: usize,
    bytes: usize,
    last: Option<SourceRow>,
}

impl Session {
    /// Reads all that is not complete.
    pub(crate) async fn snapshot(&mut self) -> Result<(), Stop> {
        if self.state.is_complete() {
            return Ok(());
        }
        let types: Vec<u32> =
            self.state.tables.iter().flat_map(|table| table.columns.iter().map(|column| column.type_oid)).collect();
        self.types.load(self.sql.connection().await?, types).await?;
        let mut reader =
            Connection::open(&self.settings.config, Kind::Sql, "syncline snapshot", Occasion::Again).await?;
        let mut unit = Unit::new();
        for table in 0..self.state.tables.len() {
            for part in 0..self.state.tables[table].parts.len() {
                if self.state.tables[table].parts[part].progress != Progress::Done {
                    self.read_part(&mut reader, table, part, &mut unit).await?;
                }
            }
        }
        Ok(())
    }

    async fn read_part(
        &mut self,
        reader: &mut Connection,
        table: usize,
        part: usize,
        unit: &mut Unit,
    ) -> Result<(), Stop> {
        let record = self.state.tables[table].clone();
        let source = record.parts[part].clone();
        let columns = record.columns.iter().map(|column| (column.name.as_str(), column.type_oid));
        let layout = Layout::new(&record, columns, &self.types, |name| self.reads(&record, name))
            .ok_or_else(|| Error::internal(format!("table {} has no key", record.label())))?;
        if !self.ordered.contains(&record.oid) {
            return self.read_unordered(reader, table, part, &record, &source, &layout, unit).await;
        }
        let mut limit = FIRST_CHUNK;
        let (mut after, mut rows) = match source.progress {
            Progress::After { ref key, rows } => (Some(key.clone()), rows),
            _ => (None, 0),
        };
        loop {
            let sql = chunk_sql(&record, &source, after.as_deref(), Some(limit));
            let chunk = self.read_rows(reader, &sql, &layout, &record, unit, None).await?;
            rows += chunk.rows as u64;
            let complete = chunk.rows < limit;
            let progress = match (&chunk.last, complete) {
                (_, true) | (None, _) => Progress::Done,
                (Some(last), false) => {
                    let key = key_texts(last, record.key.len())?;
                    after = Some(key.clone());
                    Progress::After { key, rows }
                }
            };
            self.state.tables[table].parts[part].progress = progress;
            self.state_changed = true;
            if unit.is_due() {
                self.tell_progress(&record, rows, unit).await?;
            }
            if complete {
                return Ok(());
            }
            limit = next_limit(limit, chunk.bytes);
        }
    }

    /// Reads a table whose key has no order that we can rely on. The statement sees one moment, and the server waits while
    /// we do not take its rows.
    #[allow(clippy::too_many_arguments, reason = "what is read, how, and where it stands")]
    async fn read_unordered(
        &mut self,
        reader: &mut Connection,
        table: usize,
        part: usize,
        record: &TableRecord,
        source: &PartRecord,
        layout: &Layout,
        unit: &mut Unit,
    ) -> Result<(), Stop> {
        self.state.tables[table].parts[part].progress = Progress::Unordered { rows: 0 };
        let sql = chunk_sql(record, source, None, None);
        self.read_rows(reader, &sql, layout, record, unit, Some((table, part))).await?;
        self.state.tables[table].parts[part].progress = Progress::Done;
        self.state_changed = true;
        if unit.is_due() {
            self.tell_progress(record, 0, unit).await?;
        }
        Ok(())
    }

    /// Runs one statement and hands its rows on. Progress is told on the way for a part that is read in one go.
    async fn read_rows(
        &mut self,
        reader: &mut Connection,
        sql: &str,
        layout: &Layout,
        record: &TableRecord,
        unit: &mut Unit,
        tell: Option<(usize, usize)>,
    ) -> Result<Chunk, Stop> {
        let context = |error: Error| error.context(format!("reading table {}", record.label()));
        let occasion = if self.fresh { Occasion::First } else { Occasion::Again };
        let role = self.server.role.clone();
        let failed = |error: PgError| context(reading_failed(error, record, &role, occasion));
        let mut chunk = Chunk { rows: 0, bytes: 0, last: None };
        let mut waiting: Vec<SourceRow> = Vec::new();
        let mut waiting_bytes = 0;
        reader.begin(sql).await.map_err(failed)?;
        while let Some(rows) = reader.rows().await.map_err(failed)? {
            for row in rows {
                let size: usize = row.0.iter().map(|value| value.as_ref().map_or(0, bytes::Bytes::len) + 8).sum();
                let row = layout.snapshot_row(row).map_err(|error| context(Error::data(error.to_string())))?;
                chunk.rows += 1;
                chunk.bytes += size;
                waiting_bytes += size;
                waiting.push(row);
            }
            if waiting.len() >= EVENT_ROWS || waiting_bytes >= CHUNK_BYTES / 8 {
                chunk.last = waiting.last().cloned();
                self.hand_on(layout, &mut waiting, &mut waiting_bytes, unit).await?;
                if let (Some((table, part)), true) = (tell, unit.is_due()) {
                    let rows = chunk.rows as u64;
                    self.state.tables[table].parts[part].progress = Progress::Unordered { rows };
                    self.tell_progress(record, rows, unit).await?;
                }
            }
        }
        if let Some(last) = waiting.last() {
            chunk.last = Some(last.clone());
            self.hand_on(layout, &mut waiting, &mut waiting_bytes, unit).await?;
        }
        Ok(chunk)
    }

    async fn hand_on(
        &mut self,
        layout: &Layout,
        waiting: &mut Vec<SourceRow>,
        bytes: &mut usize,
        unit: &mut Unit,
    ) -> Result<(), Stop> {
        let rows = std::mem::take(waiting);
        let size = std::mem::take(bytes);
        unit.rows += rows.len();
        unit.bytes += size;
        self.output.push(SourceEvent::SnapshotRows { table: layout.table.clone(), rows }, size);
        if self.output.is_full() {
            self.output.flush().await?;
        }
        Ok(())
    }

    /// Closes a unit: what was sent before can be resumed after.
    async fn tell_progress(&mut self, record: &TableRecord, rows: u64, unit: &mut Unit) -> Result<(), Stop> {
        *unit = Unit::new();
        if self.slot_checked_at.elapsed() >= SLOT_CHECK_INTERVAL {
            self.check_slot().await?;
        }
        self.push_progress(record.label(), rows, self.estimates.get(&record.oid).copied())?;
        self.output.flush().await
    }

    /// Adds the state to what is sent, to be stored together with what was sent before.
    pub(crate) fn push_progress(&mut self, table: String, rows: u64, estimated: Option<u64>) -> Result<(), Error> {
        self.output.push(self.state.progress(table, rows, estimated)?, 0);
        self.state_changed = false;
        Ok(())
    }
}

/// An error while a table is read, such as that row security has been turned on for it meanwhile. If the table or a column
/// is not there, it was changed a moment after the catalog was asked, so another attempt finds out what it is now. A right
/// that is missing is for a person to grant; `occasion` says whether that is waited for.
pub(crate) fn reading_failed(error: PgError, record: &TableRecord, role: &str, occasion: Occasion) -> Error {
    match error.code() {
        Some("42P01" | "42703" | "42704" | "3F000") => {
            Error::unavailable("the table changed while it was being read").caused_by(Error::from(error))
        }
        Some("42501") => {
            let text = error.to_string();
            let what = if text.contains("row-level security") {
                format!("row security hides rows from this role: {}", preflight::bypass(role))
            } else {
                format!("this role may not read the table: {}", preflight::grant(record, role))
            };
            Error::new(occasion.kind(), what).caused_by(text)
        }
        _ => error.into(),
    }
}

fn key_texts(row: &SourceRow, columns: usize) -> Result<Vec<String>, Error> {
    let wrong = || Error::internal("the key of a row that was just read cannot be split");
    split_key(&row.key.key, columns)
        .map_err(|_| wrong())?
        .into_iter()
        .map(|value| String::from_utf8(value.ok_or_else(wrong)?.to_vec()).map_err(|_| wrong()))
        .collect()
}

/// A smaller chunk after large rows, a larger one after small rows.
fn next_limit(limit: usize, bytes: usize) -> usize {
    if bytes > CHUNK_BYTES {
        (limit / 2).max(SMALLEST_CHUNK)
    } else if bytes < CHUNK_BYTES / 4 {
        (limit * 2).min(LARGEST_CHUNK)
    } else {
        limit
    }
}

/// The query for the rows after a key, in order; without a limit, for all of them. Literals have no type of their own, so
/// they are read as values of the key's columns, under the collation of its index.
fn chunk_sql(table: &TableRecord, part: &PartRecord, after: Option<&[String]>, limit: Option<usize>) -> String {
    let names = |names: Vec<&str>| names.into_iter().map(escape_identifier).collect::<Vec<_>>().join(", ");
    let columns = names(table.columns.iter().map(|column| column.name.as_str()).collect());
    let key = names(table.key.iter().map(String::as_str).collect());
    let mut conditions: Vec<String> = part.filter.iter().map(|filter| format!("({filter})")).collect();
    if let Some(after) = after {
        let values = after.iter().map(|value| escape_literal(value)).collect::<Vec<_>>().join(", ");
        conditions.push(format!("({key}) > ({values})"));
    }
    let mut sql =
        format!("SELECT {columns} FROM ONLY {}.{}", escape_identifier(&part.schema), escape_identifier(&part.name));
    if !conditions.is_empty() {
        sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
    }
    if let Some(limit) = limit {
        sql.push_str(&format!(" ORDER BY {key} LIMIT {limit}"));
    }
    sql
}
