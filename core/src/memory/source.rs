//! A source in memory: tables, transactions and a log, with the behaviour of a database that is read through its WAL.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::source::{Reread, SnapshotProgress, Source, SourceEvent, SourcePosition, SourceStart, SourceState};
use crate::table::{Field, RowKey, SourceColumn, SourceRow, SourceTable, TableId, TableSelection};
use crate::value::Value;
use crate::write_checkpoint::MarkerToken;

/// Rows of one snapshot chunk.
const CHUNK: usize = 1_000;

/// Tables and transactions in memory, as a [`Source`]. A handle: all clones are the same database.
///
/// ```
/// use serde_json::json;
/// use syncline_core::memory::MemorySource;
///
/// let source = MemorySource::new().table("lists", ["id", "name", "owner_id"]);
/// source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }))?;
/// assert_eq!(source.rows("lists").len(), 1);
/// # Ok::<(), syncline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MemorySource(Arc<Mutex<Database>>);

#[derive(Default)]
struct Database {
    tables: BTreeMap<Arc<str>, Table>,
    log: Vec<Transaction>,
    acknowledged: u64,
    wakers: Vec<mpsc::Sender<()>>,
}

struct Table {
    description: Arc<SourceTable>,
    rows: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Default)]
struct Transaction {
    changes: Vec<Change>,
    markers: Vec<MarkerToken>,
}

#[derive(Clone)]
enum Change {
    Put { table: Arc<SourceTable>, key: String, values: Vec<Value> },
    Remove { table: Arc<SourceTable>, key: String },
}

impl MemorySource {
    /// A database without tables.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Adds a table with these columns; the first is the key. A table of that name is replaced, without a trace in the
    /// log: declare tables before anything runs.
    #[must_use]
    pub fn table<const N: usize>(self, name: &str, columns: [&str; N]) -> Self {
        {
            let mut database = self.lock();
            let id = TableId(database.tables.len() as u64 + 1);
            let column = |(index, name): (usize, &&str)| SourceColumn {
                name: Arc::from(*name),
                key: index == 0,
                type_name: "any".into(),
            };
            let description = Arc::new(SourceTable {
                id,
                schema: "public".into(),
                name: name.into(),
                columns: columns.iter().enumerate().map(column).collect(),
            });
            database.tables.insert(name.into(), Table { description, rows: BTreeMap::new() });
        }
        self
    }

    /// Inserts or replaces a row, in a transaction of its own.
    ///
    /// # Errors
    /// `Invalid` if the table is not declared, or the row is not an object with a text key.
    pub fn put(&self, table: &str, row: Json) -> Result<()> {
        self.transaction(|tx| tx.put(table, row))
    }

    /// Deletes a row, in a transaction of its own; nothing happens if there is none.
    ///
    /// # Errors
    /// `Invalid` if the table is not declared.
    pub fn delete(&self, table: &str, key: &str) -> Result<()> {
        self.transaction(|tx| tx.delete(table, key))
    }

    /// Commits all of the closure's changes at once, or none if it fails.
    ///
    /// # Errors
    /// Whatever the closure returns.
    pub fn transaction<T>(&self, work: impl FnOnce(&mut MemoryTransaction<'_>) -> Result<T>) -> Result<T> {
        let mut database = self.lock();
        let mut tx = MemoryTransaction { tables: &database.tables, transaction: Transaction::default() };
        let outcome = work(&mut tx)?;
        let transaction = tx.transaction;
        database.commit(transaction);
        Ok(outcome)
    }

    /// All rows of a table as JSON objects, by key; empty if it is not declared.
    pub fn rows(&self, table: &str) -> Vec<Json> {
        let database = self.lock();
        let Some(table) = database.tables.get(table) else { return Vec::new() };
        let object = |values: &Vec<Value>| {
            let columns = table.description.columns.iter().map(|column| column.name.to_string());
            Json::Object(columns.zip(values.iter().map(to_json)).collect())
        };
        table.rows.values().map(object).collect()
    }

    /// How many transactions at the beginning of the log a replicator has acknowledged as durable.
    pub fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemorySource {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.lock();
        f.debug_struct("MemorySource")
            .field("tables", &database.tables.len())
            .field("log", &database.log.len())
            .finish()
    }
}

/// Changes of one transaction of a [`MemorySource`].
pub struct MemoryTransaction<'a> {
    tables: &'a BTreeMap<Arc<str>, Table>,
    transaction: Transaction,
}

impl MemoryTransaction<'_> {
    /// Inserts or replaces a row. Columns that it lacks are NULL.
    ///
    /// # Errors
    /// `Invalid` if the table is not declared, or the row is not an object with a text key and known columns.
    pub fn put(&mut self, table: &str, row: Json) -> Result<()> {
        let description = self.find(table)?;
        let Json::Object(object) = row else {
            return Err(Error::invalid(format!("a row of `{table}` must be a JSON object")));
        };
        if let Some(unknown) = object.keys().find(|key| description.columns.iter().all(|column| *column.name != ***key))
        {
            return Err(Error::invalid(format!("table `{table}` has no column `{unknown}`")));
        }
        let values: Vec<Value> = description
            .columns
            .iter()
            .map(|column| object.get(&*column.name).map_or(Value::Null, Value::from_json))
            .collect();
        let key = values.first().and_then(Value::as_text).map(str::to_owned);
        let key = key.ok_or_else(|| Error::invalid(format!("the key of a row of `{table}` must be text")))?;
        self.transaction.changes.push(Change::Put { table: description, key, values });
        Ok(())
    }

    /// Deletes a row; nothing happens if there is none.
    ///
    /// # Errors
    /// `Invalid` if the table is not declared.
    pub fn delete(&mut self, table: &str, key: &str) -> Result<()> {
        let table = self.find(table)?;
        self.transaction.changes.push(Change::Remove { table, key: key.to_owned() });
        Ok(())
    }

    fn find(&self, table: &str) -> Result<Arc<SourceTable>> {
        let found = self.tables.get(table).map(|table| Arc::clone(&table.description));
        found.ok_or_else(|| Error::invalid(format!("there is no table `{table}`")))
    }
}

impl fmt::Debug for MemoryTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransaction").field("changes", &self.transaction.changes.len()).finish()
    }
}

impl Database {
    fn commit(&mut self, transaction: Transaction) {
        for change in &transaction.changes {
            match change {
                Change::Put { table, key, values } => {
                    if let Some(table) = self.tables.get_mut(&table.name) {
                        table.rows.insert(key.clone(), values.clone());
                    }
                }
                Change::Remove { table, key } => {
                    if let Some(table) = self.tables.get_mut(&table.name) {
                        table.rows.remove(key);
                    }
                }
            }
        }
        self.log.push(transaction);
        // A full channel has a wake-up in it already.
        self.wakers.retain_mut(|waker| waker.try_send(()).map_or_else(|error| error.is_full(), |()| true));
    }

    /// All rows as they are now, `end` transactions old, and that the stream goes on after `begun` of them.
    fn snapshot(&self, selection: &TableSelection, begun: u64, end: u64) -> Vec<SourceEvent> {
        let state = SourceState(at(begun).0);
        let chosen: Vec<&Table> = self
            .tables
            .values()
            .filter(|table| selection.matches("public", "public", &table.description.name))
            .collect();
        let mut events = Vec::new();
        for (done, table) in chosen.iter().enumerate() {
            let rows: Vec<SourceRow> =
                table.rows.iter().map(|(key, values)| row(&table.description, selection, key, values)).collect();
            for (index, chunk) in rows.chunks(CHUNK).enumerate() {
                let read = (index * CHUNK + chunk.len()) as u64;
                events.push(SourceEvent::SnapshotRows { table: Arc::clone(&table.description), rows: chunk.to_vec() });
                events.push(SourceEvent::SnapshotProgress {
                    state: state.clone(),
                    progress: SnapshotProgress {
                        table: table.description.name.to_string(),
                        rows: read,
                        estimated: Some(rows.len() as u64),
                        tables_done: u32::try_from(done).unwrap_or(u32::MAX),
                        tables: u32::try_from(chosen.len()).unwrap_or(u32::MAX),
                    },
                });
            }
        }
        events.push(SourceEvent::SnapshotDone { no_checkpoint_before: at(end), state });
        events.push(SourceEvent::Progress { position: at(begun), awaited: false });
        events
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        let (wake, woken) = mpsc::channel(1);
        let position = start.position.as_ref().map(number).transpose()?;
        let (snapshot, next) = {
            let mut database = self.lock();
            let end = database.log.len() as u64;
            let next = match (position, &start.state) {
                (Some(position), _) => position,
                // Rows of a snapshot may be stored that are as old as its first beginning: the log is needed from there on.
                (None, Some(begun)) => number(&SourcePosition(begun.0.clone()))?,
                (None, None) => end,
            };
            if next > end {
                let reason = format!(
                    "the store has read {next} transactions, but the database has {end}: it is another one than before"
                );
                return Ok(stream::iter([Ok(vec![SourceEvent::HistoryLost { reason }])]).boxed());
            }
            database.wakers.push(wake);
            let snapshot = match position {
                Some(_) => Vec::new(),
                None => database.snapshot(&start.selection, next, end),
            };
            (snapshot, next)
        };
        let follow = Follow { source: self.clone(), selection: start.selection, next, woken };
        let changes = stream::unfold(follow, |mut follow| async move {
            loop {
                let events = follow.events();
                if !events.is_empty() {
                    return Some((Ok(events), follow));
                }
                follow.woken.next().await?;
            }
        });
        let snapshot = (!snapshot.is_empty()).then_some(Ok(snapshot));
        Ok(stream::iter(snapshot).chain(changes).boxed())
    }

    fn acknowledge(&self, position: &SourcePosition) {
        if let Ok(position) = number(position) {
            let mut database = self.lock();
            database.acknowledged = database.acknowledged.max(position);
        }
    }

    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        self.lock().commit(Transaction { changes: Vec::new(), markers: vec![token.clone()] });
        Ok(())
    }

    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        let database = self.lock();
        let found = |key: &RowKey| {
            let table = database.tables.get(&table.name)?;
            let text = std::str::from_utf8(&key.key).ok()?;
            let values = table.rows.get(text)?;
            let fields = values.iter().cloned().map(Field::Value).collect();
            Some((Arc::clone(&table.description), SourceRow { key: key.clone(), fields }))
        };
        Ok(Reread { rows: keys.iter().map(found).collect(), no_checkpoint_before: at(database.log.len() as u64) })
    }
}

/// A reader of the log.
struct Follow {
    source: MemorySource,
    selection: TableSelection,
    next: u64,
    woken: mpsc::Receiver<()>,
}

impl Follow {
    fn events(&mut self) -> Vec<SourceEvent> {
        let database = self.source.lock();
        let from = usize::try_from(self.next).unwrap_or(usize::MAX).min(database.log.len());
        let mut events = Vec::new();
        for transaction in &database.log[from..] {
            for change in &transaction.changes {
                match change {
                    Change::Put { table, key, values } => {
                        if self.selection.matches("public", "public", &table.name) {
                            let row = row(table, &self.selection, key, values);
                            events.push(SourceEvent::Put { table: Arc::clone(table), row, old_key: None });
                        }
                    }
                    Change::Remove { table, key } => {
                        if self.selection.matches("public", "public", &table.name) {
                            let key = row_key(table, key);
                            events.push(SourceEvent::Remove { table: Arc::clone(table), key });
                        }
                    }
                }
            }
            events.extend(transaction.markers.iter().cloned().map(SourceEvent::Marker));
            self.next += 1;
            events.push(SourceEvent::Commit { position: at(self.next), committed_at: None, state: None });
        }
        events
    }
}

fn row(table: &SourceTable, selection: &TableSelection, key: &str, values: &[Value]) -> SourceRow {
    let field = |(column, value): (&SourceColumn, &Value)| {
        if selection.reads("public", "public", &table.name, &column.name) {
            Field::Value(value.clone())
        } else {
            Field::Unused
        }
    };
    SourceRow { key: row_key(table, key), fields: table.columns.iter().zip(values).map(field).collect() }
}

fn row_key(table: &SourceTable, key: &str) -> RowKey {
    RowKey { table: table.id, key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn at(position: u64) -> SourcePosition {
    SourcePosition(Bytes::copy_from_slice(&position.to_be_bytes()))
}

fn number(position: &SourcePosition) -> Result<u64> {
    let bytes: [u8; 8] = position.0.as_ref().try_into().map_err(|_| {
        Error::invalid("a position of a memory source has eight bytes: this store belongs to another source")
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null | Value::Blob(_) => Json::Null,
        Value::Integer(integer) => Json::from(*integer),
        Value::Real(real) => Json::from(*real),
        Value::Text(text) => Json::from(&**text),
    }
}
