//! A user's device: a database in a file, and its connection to a server.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use syncline_core::{BoxError, Connector, Credentials, LocalTransaction, SyncClient, Transport, Uploaded};
use syncline_storage_sqlite::{Database, Schema};
use syncline_transport_http::HttpTransport;
use tokio::task::JoinHandle;

use crate::{Server, until};

/// One user's device.
#[derive(Debug)]
pub struct Device {
    /// Its database.
    pub db: Database,
    /// Its synchronisation.
    pub sync: SyncClient,
    upload_url: Arc<Mutex<String>>,
    running: Option<JoinHandle<syncline_core::Result<()>>>,
}

#[derive(Debug)]
struct Api {
    http: reqwest::Client,
    upload_url: Arc<Mutex<String>>,
    user: String,
}

#[async_trait]
impl Connector for Api {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new(self.user.clone()))
    }

    async fn upload(&self, writes: &LocalTransaction, credentials: &Credentials) -> Result<Uploaded, BoxError> {
        let url = self.upload_url.lock().unwrap().clone();
        Ok(syncline_transport_http::upload(&self.http, &url, writes, credentials).await?)
    }
}

impl Device {
    /// A device that has never synced and is offline.
    pub async fn offline(server: &Server, user: &str, schema: Schema) -> Self {
        Self::over(HttpTransport::new(&server.endpoint).unwrap(), server, user, schema).await
    }

    /// The same, which downloads over another transport.
    pub async fn over(transport: impl Transport + 'static, server: &Server, user: &str, schema: Schema) -> Self {
        let db = Database::open_in_memory(schema).await.unwrap();
        let upload_url = Arc::new(Mutex::new(format!("{}/api/upload", server.endpoint)));
        let http = syncline_transport_http::http_client().unwrap();
        let api = Api { http, upload_url: Arc::clone(&upload_url), user: user.to_owned() };
        let sync = SyncClient::new(db.clone(), transport, api);
        Self { db, sync, upload_url, running: None }
    }

    /// A device that syncs.
    pub async fn online(server: &Server, user: &str, schema: Schema) -> Self {
        let mut device = Self::offline(server, user, schema).await;
        device.connect();
        device
    }

    /// Goes online.
    pub fn connect(&mut self) {
        self.running = Some(tokio::spawn(self.sync.run()));
    }

    /// Goes offline, whatever is under way.
    pub async fn disconnect(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Only when the task is gone may the next begin; that it was cancelled is no news.
            let _ = running.await;
        }
    }

    /// Sends its uploads to another route of the server from now on.
    pub fn upload_to(&self, url: String) {
        *self.upload_url.lock().unwrap() = url;
    }

    /// Executes a statement as one local transaction.
    pub async fn write(&self, sql: &'static str) {
        self.db.write(move |tx| Ok(tx.execute(sql, [])?)).await.unwrap();
    }

    /// The single text that a query answers; `NULL` if it is that.
    pub async fn text(&self, sql: &str) -> String {
        let sql = sql.to_owned();
        let text = self.db.read(move |conn| Ok(conn.query_row(&sql, [], |row| row.get::<_, Option<String>>(0))?)).await;
        text.unwrap().unwrap_or_else(|| "NULL".into())
    }

    /// Waits until a query answers with this text.
    ///
    /// # Panics
    /// With the status of the client, if it does not in time.
    pub async fn until(&self, sql: &str, expected: &str) {
        let last = &Mutex::new(String::new());
        let what = || format!("{sql}: {expected}; it is {}; {:?}", last.lock().unwrap(), self.sync.current_status());
        until(what, || async move {
            let found = self.text(sql).await;
            assert!(self.running.as_ref().is_none_or(|running| !running.is_finished()), "sync has stopped");
            last.lock().unwrap().clone_from(&found);
            (found == expected).then_some(())
        })
        .await;
    }

    /// Waits until the backend has refused a transaction, and returns its reason.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    pub async fn until_rejected(&self) -> String {
        let what = || format!("a rejection; {:?}", self.sync.current_status());
        until(what, || async {
            self.db.rejected().await.unwrap().first().map(|transaction| transaction.reason.clone())
        })
        .await
    }

    /// Waits until uploads fail, and returns what the status says.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    pub async fn until_upload_error(&self) -> String {
        let what = || format!("an upload error; {:?}", self.sync.current_status());
        until(what, || async { self.sync.current_status().upload_error.map(|problem| problem.message) }).await
    }

    /// Waits until all that was written here has been uploaded and has come back.
    pub async fn caught_up(&self) {
        let caught_up = tokio::time::timeout(crate::DEADLINE, self.sync.caught_up()).await;
        caught_up.unwrap_or_else(|_| panic!("not caught up: {:?}", self.sync.current_status())).unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
