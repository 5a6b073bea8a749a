//! The database of a client in its file, with the application on it, as the world wants it: each call is one step, and the
//! device may lose its power.

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::executor::block_on;
use futures::stream::BoxStream;
use serde_json::{Map, Value as Json};
use syncline_core::protocol::DataLine;
use syncline_core::testing::{Mortal, WorldClientStore};
use syncline_core::{
    BucketPriority, ClientState, ClientStore, LocalTransaction, LocalWrite, PublishOutcome, PublishRequest, Result,
    StoreLease, TargetCheckpoint, UploadSequence, UploadState, Uploaded, WallTime, WriteCheckpoint, WriteKind,
};
use syncline_storage_sqlite::rusqlite::types::{Value, ValueRef};
use syncline_storage_sqlite::rusqlite::{self, Connection, Row};
use syncline_storage_sqlite::{Database, Schema, WriteTransaction};
use tempfile::TempDir;

use crate::bell::Bell;
use crate::disk_file::DiskFile;
use crate::screen::Screen;

/// A client's database, through all the runs of its application.
pub(crate) struct Device {
    client_id: String,
    schema: Schema,
    process: Mutex<Process>,
    bell: Bell,
}

/// The application that runs, and its disk.
struct Process {
    /// None only between two runs.
    database: Option<Database>,
    screen: Option<Screen>,
    file: DiskFile,
    /// How far the call comes amid which the power is lost.
    braced: Option<u64>,
    _directory: TempDir,
}

impl Process {
    fn open(&mut self, schema: &Schema) {
        let opening = Database::open(self.file.path(), schema.clone()).readers(1);
        let database = block_on(opening.into_future()).unwrap();
        self.screen = Some(Screen::new(&database, schema));
        self.database = Some(database);
        self.file.opened();
    }
}

impl Device {
    pub(crate) fn new(directory: TempDir, schema: Schema, client_id: &str) -> Self {
        let file = DiskFile::new(directory.path().join("client.db"));
        let mut process = Process { database: None, screen: None, file, braced: None, _directory: directory };
        process.open(&schema);
        let device =
            Self { client_id: client_id.to_owned(), schema, process: Mutex::new(process), bell: Bell::default() };
        let id = client_id.to_owned();
        let database = device.database();
        let named = database.write(move |tx| Ok(tx.execute("UPDATE syncline_state SET client_id = ?1", [id])?));
        assert_eq!(block_on(named).unwrap(), 1);
        device
    }

    fn database(&self) -> Database {
        self.process.lock().unwrap().database.clone().unwrap()
    }

    /// Drives a call to its end, and lets those look who wait for changes.
    fn now<T>(&self, call: impl Future<Output = T>) -> T {
        let answer = block_on(call);
        self.bell.ring();
        answer
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static) -> T {
        block_on(self.database().read(move |conn| Ok(read(conn)?))).unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Before the directory goes.
        if let Some(database) = self.process.get_mut().unwrap().database.take() {
            block_on(database.close());
        }
    }
}

impl Mortal for Device {
    fn brace(&self, chance: u64) -> bool {
        let mut process = self.process.lock().unwrap();
        process.braced = Some(chance);
        process.file.brace();
        true
    }

    fn crash(&self, chance: u64) {
        let process = &mut *self.process.lock().unwrap();
        process.screen = None;
        if let Some(database) = process.database.take() {
            block_on(database.close());
        }
        let loses = process.braced.take().is_some_and(|chance| chance.is_multiple_of(2));
        process.file.crash(loses, chance);
        process.open(&self.schema);
    }
}

impl WorldClientStore for Device {
    fn write(&self, writes: Vec<LocalWrite>) -> Option<LocalTransaction> {
        let client_id = self.client_id.clone();
        let database = self.database();
        let write = database.write(move |tx| {
            const LAST: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'syncline_queue'), 0)";
            let last: i64 = tx.query_row(LAST, [], |row| row.get(0))?;
            writes.iter().try_for_each(|write| execute(tx, write))?;
            let mut queued =
                tx.prepare_cached("SELECT id, op, tbl, row_id, data FROM syncline_queue WHERE id > ?1 ORDER BY id")?;
            let crud =
                queued.query_map([last], |row| queued_write(row, last + 1))?.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((!crud.is_empty()).then(|| LocalTransaction {
                transaction_id: Some(last + 1),
                client_id: Some(client_id),
                crud,
            }))
        });
        self.now(write).unwrap()
    }

    fn visible_rows(&self) -> BTreeMap<(String, String), Map<String, Json>> {
        {
            let process = &mut *self.process.lock().unwrap();
            if let (Some(screen), Some(database)) = (&mut process.screen, &process.database) {
                screen.follow(database);
            }
        }
        let tables: Vec<String> = self.schema.tables().iter().map(|table| table.name().to_owned()).collect();
        self.read(move |conn| {
            let mut visible = BTreeMap::new();
            for table in tables {
                let mut statement = conn.prepare_cached(&format!("SELECT * FROM \"{table}\""))?;
                let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let mut values = Map::new();
                    for (index, column) in columns.iter().enumerate() {
                        let value = json(row.get_ref(index)?);
                        if !value.is_null() {
                            values.insert(column.clone(), value);
                        }
                    }
                    let Some(Json::String(id)) = values.remove("id") else { panic!("a row without a text id") };
                    visible.insert((table.clone(), id), values);
                }
            }
            Ok(visible)
        })
    }

    fn is_queued(&self, transaction_id: Option<i64>) -> bool {
        self.read(move |conn| {
            let sql = "SELECT EXISTS (SELECT 1 FROM syncline_queue WHERE id = ?1)";
            conn.prepare_cached(sql)?.query_row([transaction_id], |row| row.get(0))
        })
    }

    fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        let rejected = block_on(self.database().rejected()).unwrap();
        rejected.into_iter().map(|one| (one.transaction, one.reason)).collect()
    }
}

/// A write as an application would make it.
fn execute(tx: &WriteTransaction<'_>, write: &LocalWrite) -> rusqlite::Result<()> {
    let columns = write.data.clone().unwrap_or_default();
    let values: Vec<Value> =
        std::iter::once(Value::Text(write.id.clone())).chain(columns.values().map(value)).collect();
    let names = columns.keys().map(|name| format!("\"{name}\""));
    let sql = match write.op {
        WriteKind::Put => {
            let names: Vec<String> = std::iter::once("id".to_owned()).chain(names).collect();
            let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
            format!("INSERT OR REPLACE INTO \"{}\" ({}) VALUES ({})", write.table, names.join(", "), places.join(", "))
        }
        WriteKind::Patch if columns.is_empty() => return Ok(()),
        WriteKind::Patch => {
            let set: Vec<String> = names.zip(2..).map(|(name, place)| format!("{name} = ?{place}")).collect();
            format!("UPDATE \"{}\" SET {} WHERE id = ?1", write.table, set.join(", "))
        }
        WriteKind::Delete => format!("DELETE FROM \"{}\" WHERE id = ?1", write.table),
    };
    tx.execute(&sql, rusqlite::params_from_iter(values))?;
    Ok(())
}

/// An entry of the upload queue.
fn queued_write(row: &Row<'_>, transaction: i64) -> rusqlite::Result<LocalWrite> {
    let op = match row.get::<_, String>(1)?.as_str() {
        "PUT" => WriteKind::Put,
        "PATCH" => WriteKind::Patch,
        _ => WriteKind::Delete,
    };
    let data: Option<String> = row.get(4)?;
    Ok(LocalWrite {
        op_id: row.get(0)?,
        op,
        table: row.get::<_, String>(2)?.into(),
        id: row.get(3)?,
        tx_id: Some(transaction),
        data: data.map(|data| serde_json::from_str(&data).unwrap()),
        old: None,
        metadata: None,
    })
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Real(number.as_f64().unwrap()), Value::Integer),
        other => Value::Text(other.to_string()),
    }
}

fn json(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => std::str::from_utf8(text).unwrap().into(),
        ValueRef::Blob(_) => panic!("no column holds a blob"),
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientStore for Device {
    async fn lease(&self) -> Result<StoreLease> {
        self.now(self.database().lease())
    }

    async fn resume(&self, now: WallTime) -> Result<ClientState> {
        self.now(self.database().resume(now))
    }

    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()> {
        self.now(self.database().subscribe(stream, parameters, priority, expires_at))
    }

    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()> {
        self.now(self.database().begin_checkpoint(target))
    }

    async fn stage(&self, lines: &[DataLine]) -> Result<()> {
        self.now(self.database().stage(lines))
    }

    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        self.now(self.database().publish(request))
    }

    async fn upload_state(&self) -> Result<UploadState> {
        block_on(self.database().upload_state())
    }

    async fn next_upload(&self) -> Result<Option<LocalTransaction>> {
        block_on(self.database().next_upload())
    }

    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
        self.now(self.database().finish_upload(transaction, outcome))
    }

    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
        self.now(self.database().cover(upto, checkpoint))
    }

    fn upload_changes(&self) -> BoxStream<'static, ()> {
        self.bell.guard(self.database().upload_changes())
    }
}
