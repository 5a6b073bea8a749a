//! The server that the tests start and kill: a whole Syncline server and an application's write endpoint, in one process.
//!
//! `sdk-test-server DATABASE_URL STORE CONFIG ADDRESS KEY` prints `listening on ADDRESS` when clients may come.

use std::env;
use std::io::Write;

use anyhow::{Context, Result};
use syncline_core::jwt::KeySet;
use syncline_core::{Replicator, StaticKeys, SyncConfig, SyncService, Uploaded};
use syncline_source_postgres::{PostgresBackend, PostgresSource, WriteRule};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::axum::extract::{FromRef, State};
use syncline_transport_http::axum::routing::post;
use syncline_transport_http::axum::{self, Json, Router};
use syncline_transport_http::{self as http, Authenticated, Upload};
use syncline_transport_ws as ws;

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

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [database_url, store, config, address, key] = arguments.as_slice() else {
        anyhow::bail!("give DATABASE_URL STORE CONFIG ADDRESS KEY");
    };

    // Who gets which rows. A bad config lists all its problems, each with line and column.
    let config = SyncConfig::parse(config)?;

    // Down: Postgres -> bucket store -> clients. Replicator and service share nothing but the store.
    let store = SqliteBucketStore::open(store).await?;
    let replicator = Replicator::new(PostgresSource::new(database_url)?, config, store.clone());

    // Who a client is, by its token.
    let keys = StaticKeys::new(KeySet::from_secret(key.as_bytes(), None)?).audience("sdk-tests");
    let service = SyncService::new(store, keys);

    // Up: what a client may write. A table that is not named here cannot be written.
    let backend = PostgresBackend::new(database_url)?
        .table("lists", WriteRule::owner("owner_id"))
        .table("todos", WriteRule::owner("owner_id"));

    // region: router
    let app = Router::new()
        .route("/api/upload", post(upload))
        .merge(http::router(service.clone()))
        .merge(ws::router(service.clone()))
        .with_state(App { service, backend });
    // endregion: router
    let listener = http::Listener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", axum::serve::Listener::local_addr(&listener)?);
    std::io::stdout().flush()?;
    tokio::select! {
        stopped = replicator.run() => stopped.context("replication stopped"),
        () = http::serve(listener, app, std::future::pending()) => anyhow::bail!("the server stopped"),
    }
}

/// The body is what the SDK calls a CRUD transaction.
async fn upload(
    State(backend): State<PostgresBackend>,
    Authenticated(user): Authenticated,
    Upload(transaction): Upload,
) -> Result<Json<Uploaded>, http::Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}
