//! The first sync of a client: download, verify, publish, over a socket into a file.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use futures::TryStreamExt;
use serde::Deserialize;
use syncline_core::{BoxError, Connector, Credentials, LocalTransaction, SyncClient, Uploaded};
use syncline_storage_sqlite::{Database, Schema, Table};
use syncline_transport_http::HttpTransport;

use crate::bench::{Begun, Bench, DEADLINE, Server, Task, Times};
use crate::figure::{Figure, Name};

/// A client that only reads, by this token.
#[derive(Debug)]
struct Reader(String);

#[async_trait]
impl Connector for Reader {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new(self.0.as_str()))
    }

    async fn upload(&self, _: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        Err("this client never writes".into())
    }
}

#[derive(Debug, Deserialize)]
struct Count {
    n: u64,
}

/// A running client.
pub(crate) struct Client {
    pub(crate) db: Database,
    _task: Task,
}

impl Client {
    pub(crate) async fn start(bench: &Bench, server: &Server) -> Result<Self> {
        Self::start_as(bench, server, "anyone").await
    }

    /// The same with this token.
    pub(crate) async fn start_as(bench: &Bench, server: &Server, token: &str) -> Result<Self> {
        let columns = Table::new("todos").text("list_id").text("title").integer("done").text("created_at");
        let db = Database::open(bench.file("client"), Schema::new().table(columns)).await?;
        let sync = SyncClient::new(db.clone(), HttpTransport::new(&server.endpoint)?, Reader(token.to_owned()));
        let running = sync.run();
        let task = Task::spawn(async move {
            if let Err(error) = running.await {
                eprintln!("sync stopped: {error}");
            }
            drop(sync);
        });
        Ok(Self { db, _task: task })
    }

    /// Waits until the table has so many rows.
    pub(crate) async fn until_rows(&self, rows: u64) -> Result<()> {
        let mut counts =
            self.db.query::<Count>("SELECT count(*) AS n FROM todos").watch().throttle(Duration::from_millis(5));
        let wait = async {
            while let Some(count) = counts.try_next().await? {
                if count.first().is_some_and(|count| count.n >= rows) {
                    return Ok(());
                }
            }
            bail!("the query ended")
        };
        tokio::time::timeout(DEADLINE, wait).await.context("the client did not sync in time")?
    }

    /// Its task ends with it.
    pub(crate) fn stop(self) {}
}

pub(crate) async fn first_sync(bench: &Bench) -> Result<Figure> {
    let source = bench.database(bench.rows).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(bench.rows).await?;
    let server = bench.serve(running.store.clone()).await?;
    let mut times = Times::default();
    for _ in 0..bench.runs {
        let begun = Begun::now();
        let client = Client::start(bench, &server).await?;
        client.until_rows(bench.rows).await?;
        times.push(&begun);
        client.stop();
    }
    server.stop().await;
    running.stop().await;
    let note =
        format!("{} rows, server in the same process; against the official service and its Node SDK", bench.rows);
    Ok(Figure::new(Name::ClientSync, times.rate(bench.rows), note).took(times.processor()))
}
