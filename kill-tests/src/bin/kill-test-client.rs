//! The client that the tests kill: a database in a file that syncs.
//!
//! `kill-test-client FILE ENDPOINT USER` reads numbers from its input and makes so many local transactions. `wrote N` is
//! printed when the Nth transaction of this file is acknowledged; other lines tell what changes in its status. It ends
//! with its input.

use std::env;

use anyhow::{Context, Result};
use futures::StreamExt;
use kill_tests::{schema, token};
use syncline_core::{
    BoxError, Connector, Credentials, LocalTransaction, SyncClient, SyncStatus, Uploaded, async_trait,
};
use syncline_storage_sqlite::Database;
use syncline_transport_http::{HttpTransport, http_client};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Debug)]
struct Api {
    http: reqwest::Client,
    endpoint: String,
    user: String,
}

#[async_trait]
impl Connector for Api {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new(token(&self.user)?))
    }

    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        let request = self.http.post(format!("{}/api/upload", self.endpoint)).json(writes);
        let reply = request.bearer_auth(&credentials.token).send().await?;
        Ok(reply.error_for_status()?.json().await?)
    }
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("error: {error:#}");
        // Not by a return, which would wait for the thread that reads the input.
        std::process::exit(1);
    }
}

async fn run() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, endpoint, user] = arguments.as_slice() else {
        anyhow::bail!("give FILE ENDPOINT USER");
    };
    let db = Database::open(file, schema()).await?;
    let api = Api { http: http_client()?, endpoint: endpoint.clone(), user: user.clone() };
    let sync = SyncClient::new(db.clone(), HttpTransport::new(endpoint)?, api);
    println!("open");
    tokio::select! {
        stopped = sync.run() => stopped.context("sync stopped"),
        () = report(&sync) => Ok(()),
        written = write(&db, user) => written,
    }
}

/// Makes local transactions as told, until the input ends.
async fn write(db: &Database, user: &str) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        for _ in 0..line.trim().parse::<u64>()? {
            println!("wrote {}", write_one(db, user.to_owned()).await?);
        }
    }
    Ok(())
}

/// Counts on, adds an entry of that number and looks back at the one before: all in one transaction.
async fn write_one(db: &Database, user: String) -> Result<i64> {
    let count = db
        .write(move |tx| {
            tx.execute("UPDATE counters SET n = n + 1 WHERE id = ?1", [&user])?;
            let n: i64 = tx.query_row("SELECT n FROM counters WHERE id = ?1", [&user], |row| row.get(0))?;
            tx.execute(
                "INSERT INTO entries (id, owner_id, n, note) VALUES (?1 || '-' || ?2, ?1, ?2, 'new')",
                (&user, n),
            )?;
            tx.execute("UPDATE entries SET note = 'followed' WHERE id = ?1 || '-' || ?2", (&user, n - 1))?;
            Ok(n)
        })
        .await?;
    Ok(count)
}

/// Prints each change of the status that a test may wait for. Standard output is flushed at each line.
async fn report(sync: &SyncClient) {
    let mut told = SyncStatus::default();
    let mut updates = sync.status();
    while let Some(status) = updates.next().await {
        let link = |status: &SyncStatus| match (status.connected, status.connecting) {
            (true, _) => "connected",
            (false, true) => "connecting",
            (false, false) => "waiting",
        };
        if link(&status) != link(&told) {
            println!("{}", link(&status));
        }
        if told.last_synced_at.is_none() && status.last_synced_at.is_some() {
            println!("synced");
        }
        for (what, now, before) in [
            ("download", &status.download_error, &told.download_error),
            ("upload", &status.upload_error, &told.upload_error),
        ] {
            if let Some(problem) = now
                && now != before
            {
                println!("{what} problem {:?}: {}", problem.kind, problem.message);
            }
        }
        told = status;
    }
}
