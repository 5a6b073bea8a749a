//! The server of the demo: replication, sync streams and the write endpoint, on one port.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::{FromRef, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use syncline_core::jwt::KeySet;
use syncline_core::{Replicator, StaticKeys, SyncConfig, SyncService, Uploaded};
use syncline_source_postgres::{PostgresBackend, PostgresSource, WriteRule};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http::{self as http, Authenticated, Upload};
use syncline_transport_ws as ws;
use tokio::task::JoinHandle;

use crate::postgres::Postgres;

const SECRET: &[u8] = b"the secret of a demo, known to everyone";
const AUDIENCE: &str = "demo";

/// Who gets which rows.
const SYNC_CONFIG: &str = "
config:
  edition: 3
streams:
  mine:
    auto_subscribe: true
    queries:
      - SELECT * FROM demo_lists WHERE owner_id = auth.user_id()
      - SELECT * FROM demo_todos WHERE owner_id = auth.user_id()
  notes:
    auto_subscribe: true
    query: SELECT * FROM demo_notes
";

/// A running server.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    service: SyncService,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone, FromRef)]
struct App {
    service: SyncService,
    backend: PostgresBackend,
}

impl Server {
    pub(crate) async fn start(postgres: &Postgres, folder: &Path) -> Result<Self> {
        let config = SyncConfig::parse(SYNC_CONFIG)?;
        let store = SqliteBucketStore::open(folder.join("buckets.db")).await?;
        let source = PostgresSource::new(&postgres.url)?.publication("syncline_demo").slot("syncline_demo");
        let replicator = Replicator::new(source, config, store.clone());
        let service = SyncService::new(store, StaticKeys::new(KeySet::from_secret(SECRET, None)?).audience(AUDIENCE));
        let backend = PostgresBackend::new(&postgres.url)?
            .table("demo_lists", WriteRule::owner("owner_id"))
            .table("demo_todos", WriteRule::owner("owner_id"))
            .table("demo_notes", WriteRule::everyone())
            // A client that goes offline before it is answered uploads again, and others may have written meanwhile.
            .idempotency_table("demo_applied");
        let app = Router::new()
            .route("/api/upload", post(upload))
            .merge(http::router(service.clone()))
            .merge(ws::router(service.clone()))
            .with_state(App { service: service.clone(), backend });
        let listener = http::Listener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let endpoint = format!("http://{}", axum::serve::Listener::local_addr(&listener)?);
        let replication = tokio::spawn(async move {
            if let Err(error) = replicator.run().await {
                eprintln!("replication stopped: {error}");
            }
        });
        let serving = tokio::spawn(http::serve(listener, app, std::future::pending()));
        Ok(Self { endpoint, service, tasks: vec![replication, serving] })
    }

    /// A token for this user, as an identity provider would make it.
    pub(crate) fn token(&self, user: &str) -> Result<String> {
        #[derive(Serialize)]
        struct Claims<'a> {
            sub: &'a str,
            aud: &'a str,
            iat: u64,
            exp: u64,
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = Claims { sub: user, aud: AUDIENCE, iat: now, exp: now + 3_600 };
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?)
    }

    pub(crate) async fn stop(&self) {
        self.service.close().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Replication lets go of its slot.
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The write endpoint; a Flutter or web app posts the same body.
async fn upload(
    State(backend): State<PostgresBackend>,
    Authenticated(user): Authenticated,
    Upload(transaction): Upload,
) -> Result<Json<Uploaded>, http::Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}
