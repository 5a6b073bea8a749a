//! A replicator in small: applies events as their contract says, keeps apart what is durable, and compares what it could
//! show with what the tables held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};

use super::bench::mark;
use super::model::{Content, Model, STEP_COLUMN, STEP_ID, STEPS, difference, selected};
use super::stored_row::{StoredRow, columns};
use super::transcript::Transcript;
use crate::error::Result;
use crate::source::{Source, SourceEvent, SourcePosition, SourceStart, SourceState};
use crate::table::{Field, RowKey, SourceRow, SourceTable, TableId, TableSelection};
use crate::testing::deadline::{Deadline, pause};
use crate::write_checkpoint::MarkerToken;

type Events = BoxStream<'static, Result<Vec<SourceEvent>>>;

/// What a commit stores beside the rows.
#[derive(Debug, Clone, Default)]
struct Standing {
    position: Option<SourcePosition>,
    state: Option<SourceState>,
    no_checkpoint_before: Option<SourcePosition>,
    snapshot_done: bool,
    in_snapshot: bool,
}

/// A copy of the selected tables.
pub(super) struct Reader {
    pub(super) source: Arc<dyn Source>,
    selection: TableSelection,
    model: Model,
    patience: Duration,
    events: Option<Events>,
    /// Events of the last batch that are still to be applied.
    queue: VecDeque<SourceEvent>,
    rows: BTreeMap<RowKey, StoredRow>,
    /// What the rows were that changed since the last commit, newest last.
    undo: Vec<(RowKey, Option<StoredRow>)>,
    durable: Standing,
    now: Standing,
    /// Rows became durable that were not compared yet.
    unseen: bool,
    /// Something became durable since the stream was opened.
    stored_since_open: bool,
    /// What the stream that is open now has said.
    pub(super) transcript: Transcript,
    /// Commits that could be shown, in order, each once.
    pub(super) shown: Vec<usize>,
    pub(super) tables: BTreeMap<Arc<str>, Arc<SourceTable>>,
    pub(super) snapshot_events: usize,
    pub(super) lost: bool,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn Source>, selection: TableSelection, model: Model, patience: Duration) -> Self {
        Self {
            source,
            selection,
            model,
            patience,
            events: None,
            queue: VecDeque::new(),
            rows: BTreeMap::new(),
            undo: Vec::new(),
            durable: Standing::default(),
            now: Standing::default(),
            unseen: false,
            stored_since_open: false,
            transcript: Transcript::default(),
            shown: Vec::new(),
            tables: BTreeMap::new(),
            snapshot_events: 0,
            lost: false,
        }
    }

    pub(super) fn start(&self) -> SourceStart {
        SourceStart {
            selection: self.selection.clone(),
            position: self.durable.position.clone(),
            state: self.durable.state.clone(),
        }
    }

    /// Where the stream is.
    pub(super) fn position(&self) -> Option<&SourcePosition> {
        self.now.position.as_ref()
    }

    pub(super) fn snapshot_is_durable(&self) -> bool {
        self.durable.snapshot_done
    }

    /// Whether what is stored may be shown (S2).
    pub(super) fn may_show(&self) -> bool {
        self.now.snapshot_done
            && !self.now.in_snapshot
            && !self.transcript.in_transaction()
            && self.now.position.is_some()
            && self.now.no_checkpoint_before <= self.now.position
    }

    /// The process dies: what is not durable is gone, and the stream is dropped.
    pub(super) fn crash(&mut self) {
        self.events = None;
        self.queue.clear();
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
        self.now = self.durable.clone();
    }

    /// The same, and another process takes over.
    pub(super) fn restart(&mut self, source: Arc<dyn Source>) {
        self.crash();
        self.source = source;
    }

    /// Drops everything, as after lost history.
    pub(super) fn start_over(&mut self) {
        self.crash();
        self.rows.clear();
        (self.durable, self.now) = (Standing::default(), Standing::default());
        self.lost = false;
    }

    /// Opens the stream with what is durable, as a replicator does: errors that may pass are tried again.
    ///
    /// # Errors
    /// Those that do not pass.
    pub(super) async fn try_open(&mut self) -> Result<()> {
        let deadline = Deadline::after(self.patience);
        self.crash();
        loop {
            self.transcript = Transcript::after(self.durable.position.clone(), self.durable.state.clone());
            self.stored_since_open = false;
            let source = Arc::clone(&self.source);
            match deadline.wait("the source's stream opens", source.events(self.start())).await {
                Ok(events) => {
                    self.events = Some(events);
                    return Ok(());
                }
                Err(error) if error.is_transient() && !deadline.has_passed() => pause().await,
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn open(&mut self) {
        self.try_open().await.unwrap_or_else(|error| panic!("the source's stream does not open: {error:?}"));
    }

    /// The next event, whatever comes; the stream is opened again when that may help. `None` after lost history.
    pub(super) async fn next_event(&mut self, what: &str, deadline: Deadline) -> Option<SourceEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let Some(events) = &mut self.events else {
                self.open().await;
                continue;
            };
            match deadline.wait(what, events.next()).await {
                Some(Ok(batch)) => self.queue.extend(batch),
                None if self.lost => return None,
                Some(Err(error)) if !error.is_transient() => panic!("the source's stream failed: {error:?}"),
                // It asked to be opened again, with what is stored now.
                None if self.stored_since_open => self.open().await,
                None | Some(Err(_)) => {
                    assert!(!deadline.has_passed(), "the source's stream ends again and again");
                    pause().await;
                    self.open().await;
                }
            }
        }
    }

    /// Takes one event and applies it.
    async fn step(&mut self, what: &str, deadline: Deadline) {
        let event = self.next_event(what, deadline).await;
        self.apply(event.unwrap_or_else(|| panic!("the source says that its history is lost"))).await;
    }

    /// Takes so many events.
    pub(super) async fn take(&mut self, events: usize) {
        let deadline = Deadline::after(self.patience);
        for _ in 0..events {
            self.step("the source sends an event", deadline).await;
        }
    }

    /// Takes events until a condition holds.
    pub(super) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Deadline::after(self.patience);
        while !condition(self) {
            assert!(!deadline.has_passed(), "this did not happen in time: {what}");
            self.step(what, deadline).await;
        }
    }

    /// Takes events until everything that is committed now has come and may be shown.
    pub(super) async fn catch_up(&mut self) {
        let last = self.model.commits() - 1;
        self.until(&format!("commit {last} is there to be shown"), |reader| reader.shown.last() == Some(&last)).await;
    }

    /// Sends a marker, as a replicator does.
    pub(super) async fn mark(&self, token: &MarkerToken) {
        mark(&*self.source, token, self.patience).await;
    }

    /// Forgets the rows of a table, as if they had been missed.
    pub(super) fn forget(&mut self, table: &str) {
        self.rows.retain(|_, (name, _)| **name != *table);
    }

    /// The key of a row, as the source gave it.
    pub(super) fn key(&self, table: &str, id: &str) -> RowKey {
        let is = |(name, row): &StoredRow| {
            **name == *table && row.get("id").is_some_and(|value| value.as_deref() == Some(id))
        };
        let found = self.rows.iter().find(|(_, stored)| is(stored));
        found.map(|(key, _)| key.clone()).unwrap_or_else(|| panic!("row {table}/{id} has not come"))
    }

    async fn apply(&mut self, event: SourceEvent) {
        self.transcript.note(&event);
        match event {
            SourceEvent::HistoryLost { .. } => self.lost = true,
            SourceEvent::TableReset { table } => {
                self.now.in_snapshot = true;
                self.clear(&[table]);
            }
            SourceEvent::SnapshotRows { table, rows } => {
                self.snapshot_events += 1;
                self.now.in_snapshot = true;
                self.know(&table);
                for row in rows {
                    // The stream has told of it already.
                    if !self.rows.contains_key(&row.key) {
                        let fresh = columns(&table, &row, None);
                        self.set(row.key, Some((Arc::clone(&table.name), fresh)));
                    }
                }
            }
            SourceEvent::SnapshotProgress { state, .. } => {
                self.snapshot_events += 1;
                self.now.in_snapshot = true;
                self.now.state = Some(state);
                self.commit();
            }
            SourceEvent::SnapshotDone { no_checkpoint_before, state } => {
                self.snapshot_events += 1;
                self.now.in_snapshot = false;
                self.now.snapshot_done = true;
                self.now.state = Some(state);
                self.hold_until(no_checkpoint_before);
                self.commit();
            }
            SourceEvent::Put { table, row, old_key } => self.put(table, row, old_key).await,
            SourceEvent::Remove { table, key } => {
                self.know(&table);
                self.set(key, None);
            }
            SourceEvent::Truncate { tables } => self.clear(&tables),
            SourceEvent::Marker(_) => {}
            SourceEvent::Commit { position, state, .. } => {
                if state.is_some() {
                    self.now.state = state;
                }
                self.now.position = Some(position);
                self.commit();
            }
            SourceEvent::Progress { position, .. } => {
                self.now.position = Some(position);
                self.commit();
            }
        }
    }

    async fn put(&mut self, table: Arc<SourceTable>, row: SourceRow, old_key: Option<RowKey>) {
        self.know(&table);
        let before_key = old_key.unwrap_or_else(|| row.key.clone());
        let before = self.rows.get(&before_key).map(|(_, row)| row.clone());
        if before_key != row.key {
            self.set(before_key, None);
        }
        if before.is_some() || !row.fields.contains(&Field::Unchanged) {
            let fresh = columns(&table, &row, before.as_ref());
            return self.set(row.key, Some((Arc::clone(&table.name), fresh)));
        }
        let source = Arc::clone(&self.source);
        let keys = std::slice::from_ref(&row.key);
        let answer = Deadline::after(self.patience).wait("a row is read again", source.reread(&table, keys)).await;
        let mut answer = answer.unwrap_or_else(|error| panic!("a row cannot be read again: {error:?}"));
        self.hold_until(answer.no_checkpoint_before);
        assert_eq!(answer.rows.len(), 1, "one answer per key");
        // None: its removal is still ahead.
        let read = answer.rows.pop().flatten();
        let fresh = read.map(|(table, row)| (Arc::clone(&table.name), columns(&table, &row, None)));
        self.set(row.key, fresh);
    }

    fn know(&mut self, table: &Arc<SourceTable>) {
        // They are all in the default schema, whatever its name is.
        let selected = self.selection.matches(&table.schema, &table.schema, &table.name);
        assert!(selected, "table {} is not among those that are wanted", table.name);
        self.tables.insert(Arc::clone(&table.name), Arc::clone(table));
    }

    fn hold_until(&mut self, position: SourcePosition) {
        self.now.no_checkpoint_before = self.now.no_checkpoint_before.take().max(Some(position));
    }

    fn set(&mut self, key: RowKey, row: Option<StoredRow>) {
        let before = match row {
            Some(row) => self.rows.insert(key.clone(), row),
            None => self.rows.remove(&key),
        };
        self.undo.push((key, before));
    }

    fn clear(&mut self, tables: &[TableId]) {
        let gone: Vec<RowKey> = self.rows.keys().filter(|key| tables.contains(&key.table)).cloned().collect();
        gone.into_iter().for_each(|key| self.set(key, None));
    }

    /// Everything so far becomes durable, and is confirmed only if a case does it.
    fn commit(&mut self) {
        self.unseen |= !self.undo.is_empty();
        self.undo.clear();
        self.durable = self.now.clone();
        self.stored_since_open = true;
        if self.may_show() && std::mem::take(&mut self.unseen) {
            self.compare();
        }
    }

    /// Compares what could be shown with what the tables held after the commit whose number it has.
    fn compare(&mut self) {
        let step = self.rows.values().find(|(table, _)| **table == *STEPS);
        let number = step.and_then(|(_, row)| row.get(STEP_COLUMN)?.as_deref()?.parse::<usize>().ok());
        let number =
            number.unwrap_or_else(|| panic!("row {STEPS}/{STEP_ID} should be there when something may be shown"));
        if self.shown.last() != Some(&number) {
            self.shown.push(number);
        }
        let differs = self.model.at(number, |held| match self.is(held) {
            true => None,
            false => difference(&selected(held, &self.selection), &self.content()),
        });
        if let Some(difference) = differs {
            panic!("what may be shown is not what the tables held after commit {number}: {difference}");
        }
    }

    /// Whether the rows are these; only a `false` is worth a closer look.
    fn is(&self, held: &Content) -> bool {
        let tables = held.iter().filter(|(table, _)| self.selection.matches("public", "public", table));
        let count: usize = tables.map(|(_, rows)| rows.len()).sum();
        let equal = |(table, row): &StoredRow| {
            let held = row.get("id").and_then(|id| held.get(&**table)?.get(id.as_deref()?));
            held.is_some_and(|held| {
                let read = |name: &str| self.selection.reads("public", "public", table, name);
                held.iter().all(|(name, value)| !read(name) || row.get(&**name) == Some(value))
            })
        };
        // Two rows with one id would have another count.
        count == self.rows.len() && self.rows.values().all(equal)
    }

    fn content(&self) -> Content {
        let mut content = Content::new();
        for (table, row) in self.rows.values() {
            let Some(Some(id)) = row.get("id") else { panic!("a row of {table} has no `id`") };
            let read = row
                .iter()
                .filter(|(name, _)| &***name != "id" && self.selection.reads("public", "public", table, name));
            let columns = read.map(|(name, value)| (name.to_string(), value.clone())).collect();
            let before = content.entry(table.to_string()).or_default().insert(id.clone(), Arc::new(columns));
            assert!(before.is_none(), "row {table}/{id} has two keys");
        }
        content
    }
}
