//! A Syncline server for an application, in this process.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json, json};
use syncline_core::jwt::KeySet;
use syncline_core::{Replicator, StaticKeys, SyncConfig, SyncService};
use syncline_source_postgres::PostgresSource;
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::axum::{self, Router};
use syncline_transport_http::{self as http};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::app::App;
use crate::content::Content;

const KEY: &str = "a key of the tests, long enough for HS256";
const AUDIENCE: &str = "recorded-apps";

/// It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) folder: TempDir,
    database: Client,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) async fn start(app: &App, content: &Content) -> Self {
        let url = postgres_fixture::fresh_database().await;
        let database = postgres_fixture::shared().await.connect(&url).await.unwrap();
        database.batch_execute(&content.sql()).await.unwrap();
        database.batch_execute("CREATE PUBLICATION syncline FOR ALL TABLES").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteBucketStore::open(folder.path().join("buckets.db")).await.unwrap();
        let config = SyncConfig::parse(&app.config).unwrap();
        let replicator = Replicator::new(PostgresSource::new(&url).unwrap(), config, store.clone());
        let keys = StaticKeys::new(KeySet::from_secret(KEY.as_bytes(), None).unwrap()).audience(AUDIENCE);
        let service = SyncService::new(store, keys);
        let router = Router::new().merge(http::router(service.clone())).with_state(service);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let tasks = vec![
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
            tokio::spawn(async move { replicator.run().await.unwrap() }),
        ];
        Self { endpoint, folder, database, tasks }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A token with these claims, valid for an hour.
pub(crate) fn token(claims: &Map<String, Json>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = claims.clone();
    claims.extend([("aud".into(), json!(AUDIENCE)), ("iat".into(), json!(now)), ("exp".into(), json!(now + 3_600))]);
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}
