//! A server on a port of its own: source, replicator and store in memory, behind the router.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::FromRef;
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use syncline_core::memory::{MemoryBucketStore, MemorySource};
use syncline_core::{Clock, Replicator, SyncConfig, SyncService, SystemClock};
use syncline_transport_http::{self as http, Authenticated, HttpLimits, JwtAuthenticator, Problem, axum};

pub(crate) const SECRET: &[u8] = b"a secret of the tests, long enough";
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = "
config: { edition: 3 }
streams:
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists
";

/// The state of an application of which the router is a part.
#[derive(Clone)]
struct App {
    service: SyncService,
    greeting: &'static str,
}

impl FromRef<App> for SyncService {
    fn from_ref(app: &App) -> Self {
        app.service.clone()
    }
}

pub(crate) struct Bench {
    pub(crate) source: MemorySource,
    pub(crate) service: SyncService,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(HttpLimits::default(), syncline_core::ServiceLimits::default()).await
    }

    pub(crate) async fn with(http_limits: HttpLimits, limits: syncline_core::ServiceLimits) -> Self {
        let source = MemorySource::new().table("lists", ["id", "name"]);
        source.put("lists", json!({ "id": "l1", "name": "Groceries" })).unwrap();
        let store = MemoryBucketStore::new();
        let config = SyncConfig::parse(CONFIG).unwrap();
        tokio::spawn(Replicator::new(source.clone(), config, store.clone()).run());
        let keys = json!({ "kty": "oct", "kid": "sample-kid", "alg": "HS256", "k": base64(SECRET) }).to_string();
        let keys = JwtAuthenticator::keys(&keys).unwrap().audience("app");
        let service = SyncService::with_limits(store, keys, limits);
        let app = Router::new()
            .route(
                "/api/hello",
                get(|axum::extract::State(app): axum::extract::State<App>| async move { app.greeting }),
            )
            .route("/api/me", get(me))
            .merge(http::router_with_limits(service.clone(), http_limits))
            .with_state(App { service: service.clone(), greeting: "hello" });
        let listener = http::Listener::bind("127.0.0.1:0").await.unwrap().patience(http_limits.patience);
        let address = axum::serve::Listener::local_addr(&listener).unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        // The library names its own TLS; a program that uses reqwest itself has to choose one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_gzip().no_zstd().timeout(LIMIT).build().unwrap();
        Self { source, service, address, client }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request for a stream, as SDKs send it.
    pub(crate) fn stream(&self) -> RequestBuilder {
        let token = token("HS256", Some("sample-kid"), SECRET, &claims());
        self.client
            .post(self.url("/sync/stream"))
            .header("authorization", format!("Token {token}"))
            .json(&json!({ "raw_data": true, "buckets": [], "client_id": "c" }))
    }

    /// Waits until so many streams are open.
    pub(crate) async fn streams_are(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while self.service.readiness().streams != count {
            assert!(tokio::time::Instant::now() < deadline, "{} streams are open", self.service.readiness().streams);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn me(Authenticated(user): Authenticated) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "user": user.user_id() })))
}

/// The lines of an NDJSON stream up to one with this key.
pub(crate) async fn lines_until(response: Response, key: &str) -> Vec<Value> {
    let mut text: Vec<u8> = Vec::new();
    let mut lines: Vec<Value> = Vec::new();
    let mut pieces = response.bytes_stream();
    loop {
        let piece = tokio::time::timeout(LIMIT, pieces.next()).await.unwrap();
        text.extend_from_slice(&piece.unwrap_or_else(|| panic!("the stream ended without {key}: {lines:?}")).unwrap());
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let begun = lines.len();
        lines.extend(serde_json::Deserializer::from_slice(&text[..complete]).into_iter::<Value>().map(Result::unwrap));
        text.drain(..complete);
        if lines[begun..].iter().any(|line| line.get(key).is_some()) {
            return lines;
        }
    }
}

pub(crate) fn claims() -> Value {
    let now = SystemClock.wall().unix_seconds();
    json!({ "sub": "user-1", "aud": "app", "iat": now, "exp": now + 300 })
}

/// A token whose header names this algorithm and key.
pub(crate) fn token(algorithm: &str, key_id: Option<&str>, secret: &[u8], claims: &Value) -> String {
    let mut header = Header::new(algorithm.parse::<Algorithm>().unwrap());
    header.kid = key_id.map(Into::into);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
