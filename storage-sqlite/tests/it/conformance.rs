//! The conformance suite of client stores, on a database in a file.

use std::sync::Arc;

use futures::executor::block_on;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value as Json};
use syncline_core::testing::client_store_suite::Subject;
use syncline_core::{ClientStore, LocalTransaction, LocalWrite, WriteKind, async_trait};
use syncline_storage_sqlite::{Database, Schema, Table};
use tempfile::TempDir;

/// A database, and the folder of its file.
struct InAFile {
    db: Database,
    folder: TempDir,
}

impl InAFile {
    async fn in_folder(folder: TempDir) -> Self {
        let schema = Schema::new()
            .table(Table::new("lists").text("name").integer("rank"))
            .table(Table::new("todos").text("list_id").text("title"));
        Self { db: Database::open(folder.path().join("app.db"), schema).await.unwrap(), folder }
    }

    async fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap()).await
    }
}

/// The statement of a local write, and its values.
fn statement(write: &LocalWrite) -> (String, Vec<Value>) {
    let data = write.data.clone().unwrap_or_default();
    let columns: Vec<&str> = data.keys().map(String::as_str).collect();
    let values = data.values().map(|value| match value {
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => Value::Integer(number.as_i64().unwrap()),
        Json::Null => Value::Null,
        other => panic!("no column holds {other}"),
    });
    let values = [Value::Text(write.id.clone())].into_iter().chain(values).collect();
    let table = &write.table;
    let sql = match write.op {
        WriteKind::Put => {
            let marks = ", ?".repeat(columns.len());
            format!("INSERT INTO {table} ({}) VALUES (?{marks})", [&["id"], &*columns].concat().join(", "))
        }
        WriteKind::Patch => {
            let changes = columns.iter().zip(2..).map(|(column, number)| format!("{column} = ?{number}"));
            format!("UPDATE {table} SET {} WHERE id = ?1", changes.collect::<Vec<_>>().join(", "))
        }
        WriteKind::Delete => format!("DELETE FROM {table} WHERE id = ?"),
    };
    (sql, values)
}

#[async_trait]
impl Subject for InAFile {
    fn store(&self) -> Arc<dyn ClientStore> {
        Arc::new(self.db.clone())
    }

    async fn write(&self, writes: Vec<LocalWrite>) {
        let write = self.db.write(move |tx| {
            for write in &writes {
                let (sql, values) = statement(write);
                tx.execute(&sql, rusqlite::params_from_iter(values))?;
            }
            Ok(())
        });
        write.await.unwrap();
    }

    async fn rows(&self, table: &str) -> Vec<Map<String, Json>> {
        self.db.query::<Map<String, Json>>(format!("SELECT * FROM {table}")).all().await.unwrap()
    }

    async fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        let rejected = self.db.rejected().await.unwrap();
        rejected.into_iter().map(|one| (one.transaction, one.reason)).collect()
    }

    /// A copy of everything that is committed: what a killed process leaves behind.
    async fn reopen(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let from = Connection::open_with_flags(self.db.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        from.backup("main", folder.path().join("app.db"), None::<fn(rusqlite::backup::Progress)>).unwrap();
        *self = Self::in_folder(folder).await;
    }
}

// region: suite
syncline_core::client_store_tests!(async { InAFile::new().await });
// endregion: suite

#[test]
fn a_reopened_database_is_another_file() {
    let mut subject = block_on(InAFile::new());
    let before = subject.folder.path().to_owned();
    block_on(subject.reopen());
    assert_ne!(subject.folder.path(), before);
}
