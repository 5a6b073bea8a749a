//! The server that the tests kill: replication, sync streams and a write endpoint, in one process.
//!
//! `kill-test-server DATABASE_URL STORE ADDRESS` prints `listening on ADDRESS` when clients may come, then what changes in
//! the status of replication: `phase …`, `snapshot TABLE ROWS`, `position LSN`, `error …`. It ends with its input.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::{FromRef, State};
use axum::routing::post;
use axum::{Json, Router};
use kill_tests::{AUDIENCE, CONFIG, KEY};
use syncline_core::jwt::KeySet;
use syncline_core::{LocalTransaction, ReplicationStatus, Replicator, StaticKeys, SyncConfig, SyncService, Uploaded};
use syncline_source_postgres::{Lsn, PostgresBackend, PostgresSource, WriteRule};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::{self as http, Authenticated};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, FromRef)]
struct App {
    service: SyncService,
    backend: PostgresBackend,
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
    let [database_url, store, address] = arguments.as_slice() else {
        anyhow::bail!("give DATABASE_URL STORE ADDRESS");
    };
    let store = SqliteBucketStore::open(store).await?;
    let replicator = Replicator::new(PostgresSource::new(database_url)?, SyncConfig::parse(CONFIG)?, store.clone());
    let keys = StaticKeys::new(KeySet::from_secret(KEY.as_bytes(), None)?).audience(AUDIENCE);
    let service = SyncService::new(store, keys);
    let backend = PostgresBackend::new(database_url)?
        .table("entries", WriteRule::owner("owner_id"))
        .table("counters", WriteRule::owner("owner_id"))
        .idempotency_table("uploads.applied");
    let app = Router::new()
        .route("/api/upload", post(upload))
        .merge(http::router(service.clone()))
        .with_state(App { service, backend });
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);
    let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 1]);
    tokio::select! {
        stopped = replicator.run() => stopped.context("replication stopped"),
        closed = axum::serve(listener, app).into_future() => closed.context("the server stopped"),
        reported = report(&replicator) => reported,
        read = stdin.read(&mut nothing) => read.map(drop).context("standard input broke"),
    }
}

async fn upload(
    State(backend): State<PostgresBackend>,
    Authenticated(user): Authenticated,
    Json(transaction): Json<LocalTransaction>,
) -> Result<Json<Uploaded>, http::Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}

/// Prints each change of the status. Standard output is flushed at each line.
async fn report(replicator: &Replicator) -> Result<()> {
    let mut told = ReplicationStatus::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let status = replicator.status();
        if status.phase != told.phase {
            println!("phase {:?}", status.phase);
        }
        if let Some(snapshot) = &status.snapshot
            && status.snapshot != told.snapshot
        {
            println!("snapshot {} {}", snapshot.table, snapshot.rows);
        }
        if let Some(position) = &status.position
            && status.position != told.position
        {
            println!("position {}", Lsn::try_from(position)?);
        }
        if let Some(error) = &status.error
            && status.error != told.error
        {
            println!("error {error}");
        }
        told = status;
    }
}
