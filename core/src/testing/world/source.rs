//! The source as replication sees it: snapshots in chunks beside writers, then the log, in batches that end anywhere, over a
//! connection that may break.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::content::values;
use super::database::{Database, LoggedChange, commits_at, position_of};
use super::faults::Faults;
use super::ledger::{Fact, Ledger};
use super::lock;
use super::random::Random;
use super::read_state::ReadState;
use super::virtual_time::VirtualTime;
use crate::error::{Error, Result};
use crate::source::{Reread, SnapshotProgress, Source, SourceEvent, SourcePosition, SourceStart};
use crate::table::{Field, RowKey, SourceRow, SourceTable, TableSelection};
use crate::write_checkpoint::MarkerToken;

/// Rows of a chunk of a snapshot, at most: few, so that small worlds have snapshots of many chunks.
const CHUNK: u64 = 4;
/// Events of a batch, at most.
const BATCH: u64 = 24;

/// A connection of replication to the simulated database. A handle.
#[derive(Clone)]
pub(super) struct SimulatedSource {
    pub(super) database: Database,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    /// What the last stream was asked for.
    selection: Arc<Mutex<TableSelection>>,
    /// What the bucket store has made durable, to be compared with what is confirmed.
    durable: Arc<Mutex<Option<SourcePosition>>>,
}

impl SimulatedSource {
    pub(super) fn new(
        database: Database,
        time: VirtualTime,
        random: Random,
        ledger: Ledger,
        faults: Faults,
        durable: Arc<Mutex<Option<SourcePosition>>>,
    ) -> Self {
        Self { database, time, random, ledger, faults, selection: Arc::default(), durable }
    }

    async fn pause(&self) {
        let delay = self.faults.lock().source_delay;
        self.time.delay(self.random.between(0, delay)).await;
    }

    /// A way to the database, which takes a while and may fail.
    async fn reach(&self) -> Result<()> {
        self.pause().await;
        if self.faults.lock().source_away {
            return Err(Error::unavailable("the database cannot be reached"));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for SimulatedSource {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        self.reach().await?;
        let (confirmed, lost) = {
            let state = self.database.lock();
            (state.confirmed(), state.is_lost())
        };
        self.ledger.record(Fact::StreamAsked { from: start.position.clone(), confirmed, lost });
        lock(&self.selection).clone_from(&start.selection);
        if lost && (start.position.is_some() || start.state.is_some()) {
            let event = SourceEvent::HistoryLost { reason: "the slot was dropped".to_owned() };
            return Ok(stream::iter([Ok(vec![event])]).boxed());
        }
        let state = match &start.state {
            Some(state) => ReadState::decode(&state.0)?,
            None => self.begin(&start.selection),
        };
        let position = start.position.as_ref().map(|position| {
            commits_at(position).ok_or_else(|| Error::invalid("a position that this source has never sent"))
        });
        let next = position.transpose()?.unwrap_or(state.slot_made_at);
        let mut queue = VecDeque::new();
        if start.state.is_none() {
            queue.push_back(SourceEvent::SnapshotProgress { state: state.encode()?, progress: progress_of(&state) });
        }
        let cuts = self.faults.lock().source_cuts;
        let reader = Reader {
            source: self.clone(),
            selection: start.selection,
            state,
            next,
            told: None,
            queue,
            cuts,
            over: false,
        };
        Ok(stream::unfold(reader, |mut reader| async move {
            let batch = reader.next().await?;
            Some((batch, reader))
        })
        .boxed())
    }

    fn acknowledge(&self, position: &SourcePosition) {
        let durable = lock(&self.durable).clone();
        self.ledger.record(Fact::Confirmed { position: position.clone(), durable });
        if let Some(commits) = commits_at(position) {
            self.database.lock().confirm(commits);
        }
    }

    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        self.reach().await?;
        let lost = self.faults.lock().marker_answers_lost;
        if self.random.permille(lost) {
            return Err(Error::unavailable("the connection broke before the marker was sent"));
        }
        self.database.mark(token.clone());
        self.ledger.note(format!("source: commit {}: marker {}", self.database.commits(), token.0));
        if self.random.permille(lost) {
            return Err(Error::unavailable("the connection broke after the marker was sent"));
        }
        Ok(())
    }

    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        self.reach().await?;
        let (content, commits) = {
            let state = self.database.lock();
            (state.newest(), state.commits())
        };
        let selection = lock(&self.selection).clone();
        let rows = keys.iter().map(|key| {
            let of = content.tables.get(&*table.name)?;
            let row = of.rows.get(std::str::from_utf8(&key.key).ok()?)?;
            let row = source_row(&of.description, &selection, row, &BTreeSet::new());
            Some((Arc::clone(&of.description), row))
        });
        let rows = rows.collect();
        self.ledger.record(Fact::Reread { commits });
        Ok(Reread { rows, no_checkpoint_before: position_of(commits) })
    }
}

impl SimulatedSource {
    /// Makes a slot, and plans the snapshot before it.
    fn begin(&self, selection: &TableSelection) -> ReadState {
        let mut state = self.database.lock();
        state.make_slot();
        let content = state.newest();
        let chosen = content.tables.keys().filter(|name| selection.matches("public", "public", name));
        let pending: Vec<_> = chosen.cloned().collect();
        let commits = state.commits();
        ReadState { slot_made_at: commits, pending, after: None, read_at: commits, reading: true }
    }
}

/// One stream of events.
struct Reader {
    source: SimulatedSource,
    selection: TableSelection,
    state: ReadState,
    /// Commits of the log that were queued.
    next: u64,
    /// The last position that was queued.
    told: Option<u64>,
    queue: VecDeque<SourceEvent>,
    /// The connection's number: it breaks when the world counts on.
    cuts: u64,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Vec<SourceEvent>>> {
        if self.over {
            return None;
        }
        let batch = self.batch().await;
        self.over = batch.is_err();
        Some(batch)
    }

    async fn batch(&mut self) -> Result<Vec<SourceEvent>> {
        self.source.pause().await;
        loop {
            self.check()?;
            if self.queue.is_empty() {
                if self.state.reading {
                    self.read_chunk()?;
                } else if !self.reset_tables()? {
                    self.read_log();
                }
            }
            if !self.queue.is_empty() {
                let length = self.source.random.between(1, BATCH).min(self.queue.len() as u64);
                return Ok(self.queue.drain(..usize::try_from(length).unwrap_or(1)).collect());
            }
            self.wait().await;
        }
    }

    fn check(&self) -> Result<()> {
        let faults = self.source.faults.lock();
        if faults.source_away || faults.source_cuts != self.cuts {
            return Err(Error::unavailable("the connection to the database broke"));
        }
        drop(faults);
        if self.source.database.lock().is_lost() {
            return Err(Error::unavailable("the slot was dropped"));
        }
        Ok(())
    }

    /// Waits for a commit, or for the connection to break.
    async fn wait(&self) {
        let mut waited = false;
        futures::future::poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.source.database.lock().wake_later(cx.waker().clone());
            self.source.faults.lock().wake_later(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Reads a few rows of the first table that is to be read, as they are now.
    fn read_chunk(&mut self) -> Result<()> {
        let (content, commits) = {
            let database = self.source.database.lock();
            (database.newest(), database.commits())
        };
        self.state.read_at = self.state.read_at.max(commits);
        let Some(name) = self.state.pending.first().cloned() else {
            self.state.reading = false;
            let done =
                SourceEvent::SnapshotDone { no_checkpoint_before: position_of(commits), state: self.state.encode()? };
            self.queue.push_back(done);
            return Ok(());
        };
        let size = usize::try_from(self.source.random.between(1, CHUNK)).unwrap_or(1);
        let after = self.state.after.take();
        let mut last = None;
        if let Some(table) = content.tables.get(&name) {
            let beyond = table.rows.iter().filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after));
            let mut rows = Vec::new();
            for (id, row) in beyond.take(size) {
                rows.push(source_row(&table.description, &self.selection, row, &BTreeSet::new()));
                last = Some(id.clone());
            }
            if !rows.is_empty() {
                self.queue.push_back(SourceEvent::SnapshotRows { table: Arc::clone(&table.description), rows });
            }
        }
        match last {
            Some(last) => self.state.after = Some(last),
            None => drop(self.state.pending.remove(0)),
        }
        let progress =
            SourceEvent::SnapshotProgress { state: self.state.encode()?, progress: progress_of(&self.state) };
        self.queue.push_back(progress);
        Ok(())
    }

    /// Begins to read tables anew, between two transactions.
    fn reset_tables(&mut self) -> Result<bool> {
        let (names, content) = {
            let mut database = self.source.database.lock();
            (database.take_rereads(), database.newest())
        };
        let names: Vec<_> = names.into_iter().filter(|name| self.selection.matches("public", "public", name)).collect();
        if names.is_empty() {
            return Ok(false);
        }
        for name in &names {
            if let Some(table) = content.tables.get(name) {
                self.queue.push_back(SourceEvent::TableReset { table: table.description.id });
            }
        }
        self.state.pending = names;
        self.state.after = None;
        self.state.reading = true;
        let progress =
            SourceEvent::SnapshotProgress { state: self.state.encode()?, progress: progress_of(&self.state) };
        self.queue.push_back(progress);
        Ok(true)
    }

    /// Queues the commits that the log has, and where it ends.
    fn read_log(&mut self) {
        let database = self.source.database.lock();
        let from = usize::try_from(self.next).unwrap_or(usize::MAX).min(database.log().len());
        for commit in &database.log()[from..] {
            self.next += 1;
            let before = self.queue.len();
            for change in &commit.changes {
                self.queue.extend(event(change, &self.selection));
            }
            self.queue.extend(commit.markers.iter().cloned().map(SourceEvent::Marker));
            // A transaction of which nothing is wanted is not sent.
            if self.queue.len() > before {
                let position = position_of(self.next);
                self.queue.push_back(SourceEvent::Commit { position, committed_at: None, state: None });
                self.told = Some(self.next);
            }
        }
        if self.told != Some(self.next) {
            self.told = Some(self.next);
            let awaited = self.source.random.permille(300);
            self.queue.push_back(SourceEvent::Progress { position: position_of(self.next), awaited });
        }
    }
}

fn progress_of(state: &ReadState) -> SnapshotProgress {
    let table = state.pending.first().map(|name| name.to_string()).unwrap_or_default();
    SnapshotProgress { table, ..SnapshotProgress::default() }
}

fn event(change: &LoggedChange, selection: &TableSelection) -> Option<SourceEvent> {
    let wanted = |table: &SourceTable| selection.matches("public", "public", &table.name);
    match change {
        LoggedChange::Put { table, row, old_id, left_out } if wanted(table) => Some(SourceEvent::Put {
            table: Arc::clone(table),
            row: source_row(table, selection, row, left_out),
            old_key: old_id.as_ref().map(|id| key(table, id)),
        }),
        LoggedChange::Remove { table, id } if wanted(table) => {
            Some(SourceEvent::Remove { table: Arc::clone(table), key: key(table, id) })
        }
        LoggedChange::Truncate { table } if wanted(table) => Some(SourceEvent::Truncate { tables: vec![table.id] }),
        _ => None,
    }
}

fn source_row(
    table: &SourceTable,
    selection: &TableSelection,
    row: &super::content::Row,
    left_out: &BTreeSet<String>,
) -> SourceRow {
    let id = row.get("id").and_then(|id| id.as_str()).unwrap_or_default();
    let fields = table.columns.iter().zip(values(table, row)).map(|(column, value)| {
        if !selection.reads("public", "public", &table.name, &column.name) {
            Field::Unused
        } else if left_out.contains(&*column.name) {
            Field::Unchanged
        } else {
            Field::Value(value)
        }
    });
    SourceRow { key: key(table, id), fields: fields.collect() }
}

fn key(table: &SourceTable, id: &str) -> RowKey {
    RowKey { table: table.id, key: Bytes::copy_from_slice(id.as_bytes()) }
}

impl fmt::Debug for SimulatedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedSource").field("database", &self.database).finish_non_exhaustive()
    }
}
