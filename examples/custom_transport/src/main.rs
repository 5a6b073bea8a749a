//! One program over each transport that there is: server and client in one process, and between them what `--transport` says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use clap::{Parser, ValueEnum};
use custom_transport::UnixTransport;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemoryClientStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::{
    BoxError, Connector, Credentials, LocalTransaction, Replicator, SyncClient, SyncConfig, SyncService, Transport,
    Uploaded, async_trait,
};
use syncline_transport_http::{self as http, HttpTransport};
use syncline_transport_ws::{self as ws, WebSocketTransport};
use tokio::net::UnixListener;

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
";

/// Syncs one list down and one up.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is between server and client.
    #[arg(long, value_enum)]
    transport: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Memory,
    Http,
    #[value(name = "websocket")]
    WebSocket,
    /// The one of this example.
    Unix,
}

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

/// Serves this on every transport that has a server: the endpoint for HTTP and WebSocket, which share a port.
async fn serve(service: &SyncService, socket: &Path) -> Result<String> {
    let listener = http::Listener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let endpoint = format!("http://{}", axum::serve::Listener::local_addr(&listener)?);
    let app: Router = Router::new().merge(http::router(service.clone())).merge(ws::router(service.clone()));
    tokio::spawn(http::serve(listener, app, std::future::pending()));
    tokio::spawn(custom_transport::serve(UnixListener::bind(socket)?, service.clone()));
    Ok(endpoint)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let source = MemorySource::new().table("lists", ["id", "name", "owner_id"]);
    source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" }))?;
    let store = MemoryBucketStore::new();
    tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(SYNC_CONFIG)?, store.clone()).run());
    let service = SyncService::new(store, TokenIsUser);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sync.socket");
    let endpoint = serve(&service, &socket).await?;

    // region: transport
    let transport: Arc<dyn Transport> = match arguments.transport {
        Kind::Memory => Arc::new(MemoryTransport::new(service)),
        Kind::Http => Arc::new(HttpTransport::new(&endpoint)?),
        Kind::WebSocket => Arc::new(WebSocketTransport::new(&endpoint, HttpTransport::new(&endpoint)?)?),
        Kind::Unix => Arc::new(UnixTransport(socket, Duration::from_secs(60))),
    };
    // endregion: transport
    let db = MemoryClientStore::new("device");
    let sync = SyncClient::new(db.clone(), transport, Backend(source.clone()));
    tokio::spawn(sync.run());
    let mine = json!({ "name": "Books", "owner_id": "anna" });
    db.put("lists", "l2", mine.as_object().cloned().unwrap_or_default());
    sync.caught_up().await?; // what she wrote has reached the source and come back
    println!(
        "{:?}: anna sees {} lists, the source has {}",
        arguments.transport,
        db.rows("lists").len(),
        source.rows("lists").len()
    );
    Ok(())
}
