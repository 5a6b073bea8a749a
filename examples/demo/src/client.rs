//! A device of the demo: a database in a file, and its connection to the server.

use std::path::Path;

use anyhow::{Result, bail};
use futures::TryStreamExt;
use serde::Deserialize;
use syncline_core::{BoxError, Connector, Credentials, LocalTransaction, SyncClient, Uploaded, async_trait};
use syncline_storage_sqlite::{Database, Schema, Table};
use syncline_transport_http::HttpTransport;
use tokio::task::JoinHandle;

use crate::DEADLINE;
use crate::server::Server;

/// One user's device.
pub(crate) struct Client {
    pub(crate) user: &'static str,
    pub(crate) db: Database,
    sync: SyncClient,
    running: Option<JoinHandle<()>>,
}

/// The application's side: its tokens, and where its writes go.
#[derive(Debug)]
struct Api {
    http: reqwest::Client,
    endpoint: String,
    token: String,
}

#[async_trait]
impl Connector for Api {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new(self.token.clone()))
    }

    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        let url = format!("{}/api/upload", self.endpoint);
        Ok(syncline_transport_http::upload(&self.http, &url, writes, credentials).await?)
    }
}

#[derive(Deserialize)]
struct Count {
    n: i64,
}

impl Client {
    pub(crate) async fn open(folder: &Path, user: &'static str, server: &Server) -> Result<Self> {
        let schema = Schema::new()
            .table(Table::new("demo_lists").text("owner_id").text("name"))
            .table(
                Table::new("demo_todos")
                    .text("list_id")
                    .text("owner_id")
                    .text("title")
                    .integer("done")
                    .index("by_list", ["list_id"]),
            )
            .table(Table::new("demo_notes").text("title").text("body"));
        let db = Database::open(folder.join(format!("{user}.db")), schema).await?;
        let api = Api {
            http: syncline_transport_http::http_client()?,
            endpoint: server.endpoint.clone(),
            token: server.token(user)?,
        };
        let sync = SyncClient::new(db.clone(), HttpTransport::new(&server.endpoint)?, api);
        Ok(Self { user, db, sync, running: None })
    }

    pub(crate) fn connect(&mut self) {
        let running = self.sync.run();
        self.running = Some(tokio::spawn(async move {
            if let Err(error) = running.await {
                eprintln!("sync stopped: {error}");
            }
        }));
    }

    pub(crate) async fn disconnect(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Only when the task is gone may the next begin; that it was cancelled is no news.
            let _ = running.await;
        }
    }

    pub(crate) async fn write(&self, sql: &'static str) -> Result<()> {
        self.db.write(move |tx| Ok(tx.execute(sql, [])?)).await?;
        Ok(())
    }

    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        let rows: Vec<Count> = self.db.query(sql).all().await?;
        Ok(rows.first().map_or(0, |row| row.n))
    }

    /// Watches a query until its count is as expected.
    pub(crate) async fn until_count(&self, sql: &str, expected: i64) -> Result<()> {
        let mut results = self.db.query::<Count>(sql).watch();
        let mut last = None;
        let wait = async {
            while let Some(rows) = results.try_next().await? {
                last = rows.first().map(|row| row.n);
                if last == Some(expected) {
                    return Ok(());
                }
            }
            bail!("the query ended")
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(outcome) => outcome,
            Err(_) => {
                bail!("{}: expected {expected}, found {last:?}: {sql}; {:?}", self.user, self.sync.current_status())
            }
        }
    }

    pub(crate) async fn caught_up(&self) -> Result<()> {
        match tokio::time::timeout(DEADLINE, self.sync.caught_up()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => bail!("{} did not catch up: {:?}", self.user, self.sync.current_status()),
        }
    }

    /// How many local transactions were refused.
    pub(crate) async fn rejected(&self) -> Result<usize> {
        Ok(self.db.rejected().await?.len())
    }
}
