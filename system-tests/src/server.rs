//! A server as an application composes it: one database, one store in a file, HTTP, and a write endpoint.

use std::path::PathBuf;

use syncline_core::memory::TokenIsUser;
use syncline_core::{Error, Replicator, SyncConfig, SyncService, Uploaded};
use syncline_source_postgres::{PostgresBackend, PostgresSource};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::axum::extract::{FromRef, State};
use syncline_transport_http::axum::routing::post;
use syncline_transport_http::axum::{self, Json, Router};
use syncline_transport_http::{self as http, Authenticated, Upload};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// A running server and its database. Its token of a user is the user's name.
#[derive(Debug)]
pub struct Server {
    /// Where clients connect; uploads go to `/api/upload`.
    pub endpoint: String,
    /// The URL of the database.
    pub database_url: String,
    /// A session of the owner of the database.
    pub database: Client,
    /// The replicator, which runs.
    pub replicator: Replicator,
    /// The store.
    pub store: SqliteBucketStore,
    /// The service.
    pub service: SyncService,
    /// Where the store is, as `buckets.db`.
    pub folder: TempDir,
    replication: Option<JoinHandle<Result<(), Error>>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct App {
    service: SyncService,
    backend: PostgresBackend,
}

impl FromRef<App> for SyncService {
    fn from_ref(app: &App) -> Self {
        app.service.clone()
    }
}

impl FromRef<App> for PostgresBackend {
    fn from_ref(app: &App) -> Self {
        app.backend.clone()
    }
}

impl Server {
    /// A server over a fresh database made by `schema`, with a publication for all its tables.
    pub async fn start(schema: &str, config: &str, rules: impl FnOnce(PostgresBackend) -> PostgresBackend) -> Self {
        Self::start_with(schema, config, rules, Router::new()).await
    }

    /// The same with further routes.
    pub async fn start_with(
        schema: &str,
        config: &str,
        rules: impl FnOnce(PostgresBackend) -> PostgresBackend,
        routes: Router,
    ) -> Self {
        let database_url = postgres_fixture::fresh_database().await;
        let database = postgres_fixture::shared().await.connect(&database_url).await.unwrap();
        database.batch_execute(schema).await.unwrap();
        database.batch_execute("CREATE PUBLICATION syncline FOR ALL TABLES").await.unwrap();

        let config = SyncConfig::parse(config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteBucketStore::open(folder.path().join("buckets.db")).await.unwrap();
        let source = PostgresSource::new(&database_url).unwrap();
        let replicator = Replicator::new(source, config, store.clone());
        let service = SyncService::new(store.clone(), TokenIsUser);
        let backend = rules(PostgresBackend::new(&database_url).unwrap());
        let app = Router::new()
            .route("/api/upload", post(upload))
            .merge(http::router(service.clone()))
            .merge(syncline_transport_ws::router(service.clone()))
            .with_state(App { service: service.clone(), backend })
            .merge(routes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let replication = Some(tokio::spawn(replicator.run()));
        Self { endpoint, database_url, database, replicator, store, service, folder, replication, serving }
    }

    /// The file of the store.
    pub fn store_path(&self) -> PathBuf {
        self.folder.path().join("buckets.db")
    }

    /// Executes statements in the database.
    pub async fn execute(&self, sql: &str) {
        self.database.batch_execute(sql).await.unwrap();
    }

    /// The single text that a query of the database answers.
    pub async fn text(&self, sql: &str) -> String {
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Whether replication has come to an end, which it should not.
    pub fn has_stopped(&self) -> bool {
        self.replication.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The error that ended replication.
    pub async fn stopped(&mut self) -> Error {
        let replication = self.replication.take().unwrap();
        tokio::time::timeout(crate::DEADLINE, replication).await.expect("replication goes on").unwrap().unwrap_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(replication) = &self.replication {
            replication.abort();
        }
    }
}

async fn upload(
    State(backend): State<PostgresBackend>,
    Authenticated(user): Authenticated,
    Upload(transaction): Upload,
) -> Result<Json<Uploaded>, http::Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}
