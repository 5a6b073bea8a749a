//! A client: a standard SQLite database that syncs, with queries that are answered again whenever something changes.
//!
//! `todo-client USER [NAME]` opens `USER.db` in the folder that it runs in, adds a list of this name if one is given, and prints
//! the user's lists until Ctrl-C. `SYNC_URL` is the sync server (`http://localhost:8080`), `API_URL` the application's
//! backend (the same address unless told otherwise).

// region: client
use std::env;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use syncline_core::{BoxError, Connector, Credentials, LocalTransaction, SyncClient, Uploaded, async_trait};
use syncline_storage_sqlite::{Database, Schema, Table, params};
use syncline_transport_http::{self as http, HttpTransport, reqwest};

/// The application's side: its tokens, and where its writes go.
#[derive(Debug)]
struct Api {
    http: reqwest::Client,
    url: String,
    user: String,
}

#[async_trait]
impl Connector for Api {
    /// Asked when it connects, and again before the token expires.
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        let url = format!("{}/api/token?user={}", self.url, self.user);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        Ok(Credentials::new(answer.text().await?))
    }

    /// One local transaction, the oldest first. An error means: try again later.
    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        Ok(http::upload(&self.http, &format!("{}/api/upload", self.url), writes, credentials).await?)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = env::args().skip(1);
    let user = arguments.next().context("give the name of a user, and perhaps that of a new list")?;
    let sync_url = env::var("SYNC_URL").unwrap_or_else(|_| "http://localhost:8080".into());
    let url = env::var("API_URL").unwrap_or_else(|_| sync_url.clone());

    // A standard SQLite file. Reads and writes work from here on, with or without a network.
    let schema = Schema::new().table(Table::new("lists").text("name").text("owner_id")).table(
        Table::new("todos")
            .text("list_id")
            .text("title")
            .integer("done")
            .text("owner_id")
            .index("by_list", ["list_id"]),
    );
    let db = Database::open(format!("{user}.db"), schema).await?;

    // Runs until it is dropped, and reconnects by itself: being offline is a status, not an error.
    let api = Api { http: http::http_client()?, url, user: user.clone() };
    let sync = SyncClient::new(db.clone(), HttpTransport::new(&sync_url)?, api);
    tokio::spawn(sync.run());

    if let Some(name) = arguments.next() {
        let owner = user.clone();
        // One local transaction. It returns when the file has it, and is uploaded in the background.
        db.write(move |tx| {
            tx.execute("INSERT INTO lists (id, name, owner_id) VALUES (uuid(), ?1, ?2)", params![name, owner])?;
            Ok(())
        })
        .await?;
    }

    // The result now, and again after each change, whoever made it.
    let mut lists = db.query::<String>("SELECT name FROM lists ORDER BY name").watch();
    while let Some(now) = lists.try_next().await? {
        println!("{user} has {now:?}");
    }
    Ok(())
}
// endregion: client
