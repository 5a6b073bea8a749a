//! A server that publishes keys, and the keys it has.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value as Json, json};
use syncline_core::{Clock, SystemClock};
use syncline_transport_http::axum;

pub(crate) const SECRET: &str = "a secret of the tests, long enough";
const JWKS: &str = include_str!("../../../core/tests/data/keys/jwks.json");

/// A key of the tests; it is published under its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Rsa,
    P256,
    P384,
    Ed25519,
    Secret,
}

impl Key {
    /// A token signed by it.
    pub(crate) fn token(self, claims: &Json) -> String {
        macro_rules! pem {
            ($name:literal) => {
                include_bytes!(concat!("../../../core/tests/data/keys/", $name, ".pem"))
            };
        }
        let (algorithm, key) = match self {
            Self::Rsa => (Algorithm::RS256, EncodingKey::from_rsa_pem(pem!("rsa"))),
            Self::P256 => (Algorithm::ES256, EncodingKey::from_ec_pem(pem!("p256"))),
            Self::P384 => (Algorithm::ES384, EncodingKey::from_ec_pem(pem!("p384"))),
            Self::Ed25519 => (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem!("ed25519"))),
            Self::Secret => (Algorithm::HS256, Ok(EncodingKey::from_secret(SECRET.as_bytes()))),
        };
        let mut header = Header::new(algorithm);
        header.kid = self.jwk().and_then(|jwk| jwk["kid"].as_str().map(str::to_owned));
        jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
    }

    fn jwk(self) -> Option<Json> {
        let (kty, curve) = match self {
            Self::Rsa => ("RSA", None),
            Self::P256 => ("EC", Some("P-256")),
            Self::P384 => ("EC", Some("P-384")),
            Self::Ed25519 => ("OKP", Some("Ed25519")),
            Self::Secret => return None,
        };
        let set: Json = serde_json::from_str(JWKS).unwrap();
        let fits = |jwk: &&Json| jwk["kty"] == kty && jwk["crv"].as_str() == curve && jwk["kid"].is_string();
        Some(set["keys"].as_array().unwrap().iter().find(fits).unwrap().clone())
    }
}

/// Claims that are in order.
pub(crate) fn claims() -> Json {
    let now = SystemClock.wall().unix_seconds();
    json!({ "sub": "anna", "aud": "app", "iat": now, "exp": now + 300 })
}

/// A running server; it ends with the test's runtime.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    published: Mutex<Vec<Key>>,
    requests: AtomicUsize,
    fails: AtomicBool,
}

impl Issuer {
    pub(crate) async fn start(keys: &[Key]) -> Self {
        let shared = Arc::new(Shared::default());
        shared.published.lock().unwrap().extend(keys);
        let secret = json!({ "keys": [{ "kty": "oct", "k": "YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nIGVub3VnaA" }] });
        let router = Router::new()
            .route("/jwks.json", get(jwks))
            .route("/redirect", get(|| async { Redirect::temporary("/jwks.json") }))
            .route("/not-json", get(|| async { "<html>" }))
            .route("/no-keys", get(|| async { "{}" }))
            .route("/too-large", get(|| async { format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 << 10)) }))
            .route("/secret", get(move || async move { secret.to_string() }))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn publish(&self, keys: &[Key]) {
        *self.shared.published.lock().unwrap() = keys.to_vec();
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.shared.fails.store(fails, Ordering::SeqCst);
    }

    /// Requests for keys so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until there were as many requests.
    pub(crate) async fn requests_reach(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.requests() < count {
            assert!(tokio::time::Instant::now() < deadline, "only {} requests", self.requests());
            tokio::task::yield_now().await;
        }
    }
}

async fn jwks(State(shared): State<Arc<Shared>>) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    if shared.fails.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let keys: Vec<Json> = shared.published.lock().unwrap().iter().filter_map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string().into_response()
}
