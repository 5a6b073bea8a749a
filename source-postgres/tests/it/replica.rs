//! What a store would have: events applied as their contract says, with what is durable kept apart.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;
use futures::stream::BoxStream;
use syncline_core::{
    Bytes, Error, Field, MarkerToken, Result, RowKey, Source, SourceEvent, SourcePosition, SourceRow, SourceStart,
    SourceState, SourceTable, TableId, TableSelection, Value,
};
use syncline_source_postgres::PostgresSource;

use crate::bench_database::{Database, LIMIT};

/// A row by the names of its columns.
pub(crate) type Row = BTreeMap<String, Value>;

/// What survives a crash.
#[derive(Debug, Clone, Default)]
struct Durable {
    rows: HashMap<(TableId, Bytes), (String, Row)>,
    position: Option<SourcePosition>,
    state: Option<SourceState>,
    no_checkpoint_before: Option<SourcePosition>,
    in_snapshot: bool,
}

/// A copy of some tables.
pub(crate) struct Replica {
    pub(crate) source: PostgresSource,
    pub(crate) selection: TableSelection,
    events: Option<BoxStream<'static, Result<Vec<SourceEvent>>>>,
    durable: Durable,
    now: Durable,
    in_transaction: bool,
    pub(crate) markers: Vec<MarkerToken>,
    pub(crate) commits: usize,
    pub(crate) resets: usize,
    pub(crate) snapshot_rows: usize,
    pub(crate) rereads: usize,
    pub(crate) lost: Option<String>,
    acknowledge: bool,
}

impl Replica {
    pub(crate) fn new(source: PostgresSource, selection: TableSelection) -> Self {
        Self {
            source,
            selection,
            events: None,
            durable: Durable::default(),
            now: Durable::default(),
            in_transaction: false,
            markers: Vec::new(),
            commits: 0,
            resets: 0,
            snapshot_rows: 0,
            rereads: 0,
            lost: None,
            acknowledge: true,
        }
    }

    /// From now on nothing is acknowledged.
    pub(crate) fn hold_acknowledgements(&mut self) {
        self.acknowledge = false;
    }

    pub(crate) fn may_publish(&self) -> bool {
        !self.in_transaction
            && !self.now.in_snapshot
            && self.now.state.is_some()
            && self.now.no_checkpoint_before <= self.now.position
    }

    pub(crate) fn position(&self) -> Option<&SourcePosition> {
        self.durable.position.as_ref()
    }

    /// Connects, as a replicator does at its start and after each error.
    pub(crate) async fn start(&mut self) -> Result<()> {
        if self.durable.state.is_none() {
            self.open().await?;
            self.step().await?;
            assert!(self.next().await.is_none(), "a slot is made when its name is stored, and not before");
        }
        self.open().await
    }

    /// Opens the stream with what is durable now; the first of a store ends when it has named the slot.
    pub(crate) async fn open(&mut self) -> Result<()> {
        self.events = None;
        let start = SourceStart {
            selection: self.selection.clone(),
            position: self.durable.position.clone(),
            state: self.durable.state.clone(),
        };
        self.events = Some(tokio::time::timeout(LIMIT, self.source.events(start)).await.unwrap()?);
        Ok(())
    }

    /// Everything that is not durable is forgotten, and the connection with it.
    pub(crate) fn crash(&mut self) {
        self.events = None;
        self.now = self.durable.clone();
        self.in_transaction = false;
    }

    /// Takes single events, as small batches would bring them, until one of them fits; what follows it in its batch is lost
    /// in a crash.
    pub(crate) async fn crash_before(&mut self, what: impl Fn(&SourceEvent) -> bool) {
        loop {
            let events = self.events.as_mut().expect("the replica was started");
            let batch = tokio::time::timeout(LIMIT, events.next()).await.expect("an event within the limit");
            for event in batch.expect("the stream goes on").unwrap() {
                if what(&event) {
                    return self.crash();
                }
                self.apply(event).await.unwrap();
            }
        }
    }

    /// Forgets the rows of a table, as if they had been missed.
    pub(crate) fn forget(&mut self, table: &str) {
        self.now.rows.retain(|_, (name, _)| name != table);
    }

    /// As if another version of this program had written the source's state.
    pub(crate) fn age_state(&mut self) {
        let state = self.durable.state.as_mut().expect("there is a state");
        let mut bytes = state.0.to_vec();
        bytes[0] = 0;
        state.0 = bytes.into();
        self.now = self.durable.clone();
    }

    /// Drops everything, as after lost history.
    pub(crate) fn start_over(&mut self) {
        self.crash();
        self.durable = Durable::default();
        self.now = Durable::default();
        self.lost = None;
    }

    /// Gives up the stream without closing it, as a process that hangs does.
    pub(crate) fn hang(&mut self) {
        std::mem::forget(self.events.take());
        self.crash();
    }

    /// Takes batches until an error ends the stream.
    pub(crate) async fn until_error(&mut self) -> Error {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "no error came");
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    /// Goes on as a replicator does after errors that may pass, until everything has come.
    pub(crate) async fn recover(&mut self) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            self.crash();
            match self.start().await {
                Ok(()) => break,
                Err(error) => assert!(error.is_transient() && tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.catch_up().await;
    }

    /// Takes batches until a table's copy is equal, while nothing is written.
    pub(crate) async fn until_equal(&mut self, database: &Database, table: &str) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let difference = self.difference(database, table).await;
            let Some(difference) = difference else { return };
            assert!(tokio::time::Instant::now() < deadline, "{difference}");
            let step = tokio::time::timeout(std::time::Duration::from_millis(200), self.step());
            match step.await {
                // A table that changed while it was read.
                Ok(Err(error)) if error.is_transient() => {
                    self.crash();
                    self.start().await.unwrap();
                }
                Ok(outcome) => outcome.unwrap(),
                Err(_) => {}
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Vec<SourceEvent>>> {
        let events = self.events.as_mut().expect("the replica was started");
        tokio::time::timeout(LIMIT, events.next()).await.expect("an event within the limit")
    }

    /// Takes one batch and applies it.
    pub(crate) async fn step(&mut self) -> Result<()> {
        let batch = self.next().await;
        let batch = batch.unwrap_or_else(|| Err(Error::unavailable("the stream ended")))?;
        assert!(!batch.is_empty(), "an empty batch");
        for event in batch {
            self.apply(event).await?;
        }
        Ok(())
    }

    /// Takes batches until a condition holds.
    pub(crate) async fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            self.step().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    /// The same, going on after errors that may pass: a table that changes its name while it is read.
    pub(crate) async fn eventually(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while !condition(self) {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            match self.step().await {
                Err(error) if error.is_transient() => self.recover().await,
                outcome => outcome.unwrap_or_else(|error| panic!("{what}: {error}")),
            }
        }
    }

    /// Takes batches until everything that is committed now has come, and may be shown.
    pub(crate) async fn catch_up(&mut self) {
        let token = MarkerToken(format!("token {}", self.markers.len() + self.commits).into());
        self.source.emit_marker(&token).await.unwrap();
        self.until("the marker comes by", |replica| replica.markers.contains(&token) && replica.may_publish()).await;
    }

    /// Starts and catches up.
    pub(crate) async fn run(&mut self) {
        self.start().await.unwrap();
        self.catch_up().await;
    }

    async fn apply(&mut self, event: SourceEvent) -> Result<()> {
        match event {
            SourceEvent::HistoryLost { reason } => self.lost = Some(reason),
            SourceEvent::TableReset { table } => {
                assert!(!self.in_transaction, "a reset inside a transaction");
                self.resets += 1;
                self.now.in_snapshot = true;
                self.now.rows.retain(|(id, _), _| *id != table);
            }
            SourceEvent::SnapshotRows { table, rows } => {
                assert!(!self.in_transaction, "a snapshot inside a transaction");
                self.now.in_snapshot = true;
                self.snapshot_rows += rows.len();
                for row in rows {
                    let key = (row.key.table, row.key.key.clone());
                    let fresh = named(&table, &row, None);
                    self.now.rows.entry(key).or_insert_with(|| (table.name.to_string(), fresh));
                }
            }
            SourceEvent::SnapshotProgress { state, progress } => {
                assert!(progress.tables_done <= progress.tables);
                self.now.in_snapshot = true;
                self.now.state = Some(state);
                self.commit();
            }
            SourceEvent::SnapshotDone { no_checkpoint_before, state } => {
                self.now.in_snapshot = false;
                self.now.state = Some(state);
                self.now.no_checkpoint_before = Some(no_checkpoint_before).max(self.now.no_checkpoint_before.take());
                self.commit();
            }
            SourceEvent::Put { table, row, old_key } => {
                self.in_transaction = true;
                self.put(table, row, old_key).await?;
            }
            SourceEvent::Remove { key, .. } => {
                self.in_transaction = true;
                self.now.rows.remove(&(key.table, key.key));
            }
            SourceEvent::Truncate { tables } => {
                self.in_transaction = true;
                self.now.rows.retain(|(id, _), _| !tables.contains(id));
            }
            SourceEvent::Marker(token) => {
                self.in_transaction = true;
                self.markers.push(token);
            }
            SourceEvent::Commit { position, state, .. } => {
                self.in_transaction = false;
                self.commits += 1;
                if state.is_some() {
                    self.now.state = state;
                }
                self.advance(position);
            }
            SourceEvent::Progress { position, .. } => {
                assert!(!self.in_transaction, "progress inside a transaction");
                self.advance(position);
            }
        }
        Ok(())
    }

    fn advance(&mut self, position: SourcePosition) {
        let known = self.now.position.replace(position);
        assert!(known <= self.now.position, "a position went back");
        self.commit();
    }

    fn commit(&mut self) {
        self.durable = self.now.clone();
        if let (Some(position), true) = (&self.durable.position, self.acknowledge) {
            self.source.acknowledge(position);
        }
    }

    async fn put(&mut self, table: std::sync::Arc<SourceTable>, row: SourceRow, old: Option<RowKey>) -> Result<()> {
        let key = (row.key.table, row.key.key.clone());
        let before_key = old.map_or(key.clone(), |old| (old.table, old.key));
        let before = self.now.rows.remove(&before_key).map(|(_, row)| row);
        let partial = row.fields.contains(&Field::Unchanged);
        if partial && before.is_none() {
            self.rereads += 1;
            let mut answer = self.source.reread(&table, std::slice::from_ref(&row.key)).await?;
            let held = Some(answer.no_checkpoint_before);
            self.now.no_checkpoint_before = held.max(self.now.no_checkpoint_before.take());
            if let Some((table, row)) = answer.rows.pop().flatten() {
                self.now.rows.insert(key, (table.name.to_string(), named(&table, &row, None)));
            }
            return Ok(());
        }
        let fresh = named(&table, &row, before.as_ref());
        self.now.rows.insert(key, (table.name.to_string(), fresh));
        Ok(())
    }

    /// The rows of a table, in no order.
    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        self.now.rows.values().filter(|(name, _)| name == table).map(|(_, row)| row.clone()).collect()
    }

    /// The copy of a table has the rows that a SELECT returns; its columns must be of types that stay text or integer.
    pub(crate) async fn assert_equal(&self, database: &Database, table: &str) {
        if let Some(difference) = self.difference(database, table).await {
            panic!("{difference}");
        }
    }

    async fn difference(&self, database: &Database, table: &str) -> Option<String> {
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let json = database.value(&format!("SELECT coalesce(json_agg(t), '[]') FROM {quoted} t")).await.unwrap();
        let expected: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&json).unwrap();
        let expected: Vec<Row> = expected
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|(name, value)| {
                        let value = match value {
                            serde_json::Value::Null => Value::Null,
                            serde_json::Value::String(text) => text.into(),
                            serde_json::Value::Bool(value) => Value::Integer(value.into()),
                            other => other.as_i64().map_or_else(|| other.to_string().into(), Value::Integer),
                        };
                        (name, value)
                    })
                    .collect()
            })
            .collect();
        let found = self.rows(table);
        let texts = |rows: &[Row]| rows.iter().map(|row| format!("{row:?}")).collect::<HashSet<_>>();
        let (expected_texts, found_texts) = (texts(&expected), texts(&found));
        let missing: Vec<_> = expected_texts.difference(&found_texts).take(5).collect();
        let extra: Vec<_> = found_texts.difference(&expected_texts).take(5).collect();
        let equal = missing.is_empty() && extra.is_empty() && found.len() == expected.len();
        (!equal).then(|| {
            format!(
                "table {table}: {} rows instead of {}; missing {missing:?}; too many {extra:?}",
                found.len(),
                expected.len()
            )
        })
    }
}

fn named(table: &SourceTable, row: &SourceRow, before: Option<&Row>) -> Row {
    assert_eq!(table.columns.len(), row.fields.len());
    let mut out = Row::new();
    for (column, field) in table.columns.iter().zip(&row.fields) {
        let name = column.name.to_string();
        match field {
            Field::Value(value) => {
                out.insert(name, value.clone());
            }
            Field::Unchanged => {
                let kept = before.and_then(|row| row.get(&name)).expect("an unchanged column was stored");
                out.insert(name, kept.clone());
            }
            Field::Unused => {}
        }
    }
    out
}
