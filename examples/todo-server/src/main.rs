//! A server of one's own: replication, sync streams and the write endpoint in one program, on one port.
//!
//! `docs/getting-started.md` explains it part by part. It reads `sync.yaml` in the folder that it runs in, `DATABASE_URL` and
//! `TOKEN_SECRET`, and serves at `LISTEN` (`127.0.0.1:8080`).

// region: imports
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::{FromRef, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;
use syncline_core::{Error, Replicator, SyncConfig, SyncService, Uploaded};
use syncline_source_postgres::{PostgresBackend, PostgresSource, WriteRule};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::{self as http, Authenticated, JwtAuthenticator, Upload};
use syncline_transport_ws::{WebSocketEndpoint, WebSocketLimits};
// endregion: imports

// region: state
#[derive(Clone, FromRef)]
struct App {
    service: SyncService,
    backend: PostgresBackend,
    tokens: EncodingKey,
}
// endregion: state

// region: main
#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let database_url = env::var("DATABASE_URL").context("set DATABASE_URL")?;
    let secret = env::var("TOKEN_SECRET").context("set TOKEN_SECRET: TOKEN_SECRET=$(openssl rand -base64 32)")?;
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".into());

    // Who gets which rows. A bad config lists all its problems, each with line and column.
    let config = SyncConfig::parse(&std::fs::read_to_string("sync.yaml").context("cannot read sync.yaml")?)?;

    // Down: Postgres -> bucket store -> clients. Replicator and service share nothing but the store.
    let store = SqliteBucketStore::open("buckets.db").await?;
    let replicator = Replicator::new(PostgresSource::new(&database_url)?, config, store.clone());
    tokio::spawn(async move {
        // It retries what can pass. What is stored is served all the same.
        if let Err(error) = replicator.run().await {
            tracing::error!(%error, "replication has stopped; a person has to look at it");
        }
    });

    // Who a client is, by its token.
    let keys = JwtAuthenticator::hs256(&secret)?.audience("todo-app");
    let service = SyncService::new(store, keys);

    // Up: what a client may write. A table that is not named here cannot be written.
    let backend = PostgresBackend::new(&database_url)?
        .table("lists", WriteRule::owner("owner_id"))
        .table("todos", WriteRule::owner("owner_id"))
        .idempotency_table("syncline.applied");

    // One port for SDKs that sync over HTTP and for those that do over WebSocket.
    let sockets = WebSocketEndpoint::new(service.clone(), WebSocketLimits::default());
    let tokens = EncodingKey::from_secret(secret.as_bytes());
    let app = Router::new()
        .route("/api/upload", post(upload))
        .route("/api/token", get(development_token))
        .merge(http::router(service.clone()))
        .merge(sockets.router())
        .with_state(App { service: service.clone(), backend, tokens });

    // In place of a plain TCP listener: it cuts off clients that take nothing.
    let listener = http::Listener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    eprintln!("listening on {}", axum::serve::Listener::local_addr(&listener)?);
    let stop = async move {
        // An error means that there are no signals here; then only killing ends the program.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        service.close().await; // ends the streams, which would otherwise keep the server open for ever
    };
    http::serve(listener, app, stop).await;
    sockets.drained().await; // which the HTTP server does not wait for
    Ok(())
}
// endregion: main

// region: upload
/// One local transaction of a client, in the JSON of the official SDKs.
async fn upload(
    State(backend): State<PostgresBackend>,
    Authenticated(user): Authenticated,
    Upload(transaction): Upload,
) -> Result<Json<Uploaded>, http::Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}
// endregion: upload

// region: token
#[derive(Deserialize)]
struct TokenRequest {
    user: String,
}

/// **For development only**: a token for whoever asks. Yours come from your login, or from an identity provider.
async fn development_token(
    State(key): State<EncodingKey>,
    Query(TokenRequest { user }): Query<TokenRequest>,
) -> Result<String, http::Problem> {
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("a token cannot be made: {error}"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| failed(&error))?.as_secs();
    let claims = json!({ "sub": user, "aud": "todo-app", "iat": now, "exp": now + 3_600 });
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &key).map_err(|error| failed(&error))?)
}
// endregion: token
