//! The store at work: server and client in one process, and a server that starts again from the journal.

use anyhow::Result;
use custom_store::JournalStore;
use serde_json::json;
use syncline_core::memory::{MemoryClientStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::{
    BoxError, BucketStore, Connector, Credentials, LocalTransaction, Replicator, SyncClient, SyncConfig, SyncService,
    Uploaded, async_trait,
};

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
        for write in &writes.crud {
            let mut row = json!({ "id": write.id });
            write.data.iter().flatten().for_each(|(column, value)| row[column] = value.clone());
            self.0.put(&write.table, row)?; // this client only inserts
        }
        Ok(Uploaded::Applied)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "buckets.journal".to_owned());
    // region: main
    let source = MemorySource::new().table("lists", ["id", "name", "owner_id"]);
    source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }))?;
    let store = std::sync::Arc::new(JournalStore::open(&path)?);
    if let Some(checkpoint) = store.resume().await?.checkpoint {
        println!("the journal holds a checkpoint: {}", checkpoint.op_id);
    }
    tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(SYNC_CONFIG)?, store.clone()).run());
    let service = SyncService::new(store, TokenIsUser);

    let db = MemoryClientStore::new("device");
    let sync = SyncClient::new(db.clone(), MemoryTransport::new(service), Backend(source));
    tokio::spawn(sync.run());
    let mine = json!({ "name": "Books", "owner_id": "anna" });
    db.put("lists", "l2", mine.as_object().cloned().unwrap_or_default());
    sync.caught_up().await?; // what she wrote has reached the source and come back
    println!("anna sees {} lists", db.rows("lists").len());
    // endregion: main
    Ok(())
}
