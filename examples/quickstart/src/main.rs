//! Server and client in one process, in memory: no database, no network.

use anyhow::Result;
use futures::TryStreamExt;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::{
    BoxError, Connector, Credentials, LocalTransaction, LocalWrite, Replicator, SyncClient, SyncConfig, SyncService,
    Uploaded, WriteKind, async_trait,
};
use syncline_storage_sqlite::{Database, Schema, Table};

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
";

/// The application's backend: here it writes straight to the source.
#[derive(Debug)]
struct Backend(MemorySource);

#[async_trait]
impl Connector for Backend {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new("anna")) // a real one is a signed token
    }

    async fn upload(&self, writes: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        for LocalWrite { op, table, id, data, .. } in &writes.crud {
            let before = self.0.rows(table).into_iter().find(|row| row["id"] == *id);
            match (op, before) {
                (WriteKind::Delete, _) => self.0.delete(table, id)?,
                (WriteKind::Patch, None) => {} // the row is gone
                (_, before) => {
                    let mut row = before.unwrap_or_else(|| json!({ "id": id }));
                    data.iter().flatten().for_each(|(column, value)| row[column] = value.clone());
                    self.0.put(table, row)?;
                }
            }
        }
        Ok(Uploaded::Applied)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // region: main
    // The server: a source, who gets which rows, a store, and the service.
    let source = MemorySource::new().table("lists", ["id", "name", "owner_id"]);
    source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }))?;
    source.put("lists", json!({ "id": "l2", "name": "not for anna", "owner_id": "ben" }))?;
    let store = MemoryBucketStore::new();
    tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(SYNC_CONFIG)?, store.clone()).run());
    let service = SyncService::new(store, TokenIsUser);

    // The client: a standard SQLite database that syncs.
    let schema = Schema::new().table(Table::new("lists").text("name").text("owner_id"));
    let db = Database::open_in_memory(schema).await?;
    let sync = SyncClient::new(db.clone(), MemoryTransport::new(service), Backend(source.clone()));
    tokio::spawn(sync.run());
    db.write(|tx| Ok(tx.execute("INSERT INTO lists (id, name, owner_id) VALUES ('l3', 'Books', 'anna')", [])?)).await?;

    let mut lists = db.query::<String>("SELECT name FROM lists ORDER BY name").watch();
    while let Some(now) = lists.try_next().await? {
        println!("anna sees {now:?}");
        if now.len() == 2 {
            break;
        }
    }
    sync.caught_up().await?; // what she wrote has reached the source and come back
    println!("the source has {} lists", source.rows("lists").len());
    // endregion: main
    Ok(())
}
