//! An application's backend that owns the write endpoint: clients upload what they wrote, it decides what of it counts.
//!
//! It is an ordinary axum application beside a sync server (`syncline-server`, or an official PowerSync Service) and the
//! only one that writes to the database. `schema.sql` beside it makes the tables.
//!
//! ```text
//! DATABASE_URL=postgres://app@localhost/app BACKEND_SECRET=$(openssl rand -base64 32) syncline-backend
//! ```
//!
//! | Route | What |
//! |---|---|
//! | `POST /api/upload` | one local transaction (JSON of the CRUD entries of PowerSync SDKs): applied as a whole, or rejected with a reason |
//! | `GET /api/token?user=anna` | **development only**, with `--development`: a token for whoever asks |
//!
//! A rejection is an answer with status 200, because a client that gets an error tries again: statuses other than 2xx are for
//! trouble that passes. While the database is away that is 503. SIGTERM and Ctrl-C let uploads that have begun be finished.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::extract::{FromRef, FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use serde::{Deserialize, Serialize};
use syncline_core::{Authenticator, Error, ErrorKind, Identity, Uploaded};
use syncline_source_postgres::{PostgresBackend, WriteRule};
use syncline_transport_http::{JwtAuthenticator, Listener, Problem, Upload, bearer_token, cors};
use tokio::signal::unix::{SignalKind, signal};

/// How long a token of development is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// Applies uploads of clients to Postgres.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The secret that signs tokens (HS256): 32 random bytes or more, the same as the sync server's.
    #[arg(long, env = "BACKEND_SECRET", hide_env_values = true)]
    secret: String,
    /// The audience of tokens.
    #[arg(long, env = "BACKEND_AUDIENCE", default_value = "todo-app")]
    audience: String,
    /// Where to listen.
    #[arg(long, env = "BACKEND_LISTEN", default_value = "127.0.0.1:8081")]
    listen: String,
    /// Gives a token for any user to anyone who asks. Never where others can reach it.
    #[arg(long)]
    development: bool,
}

#[derive(Clone, FromRef)]
struct App {
    backend: PostgresBackend,
    keys: JwtAuthenticator,
    tokens: Tokens,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    // A table that is not named cannot be written, and nobody writes a row of somebody else.
    let backend = PostgresBackend::new(&arguments.database_url)?
        .table("lists", WriteRule::owner("owner_id"))
        .table("todos", WriteRule::owner("owner_id"))
        .columns("todos", ["list_id", "title", "done", "owner_id"])
        .idempotency_table("syncline.applied");
    match backend.check().await {
        Ok(()) => {}
        // What a person has to mend is found at the start.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            return Err(error).context("the database does not fit; see schema.sql");
        }
        // A database that is away comes back: until then uploads are answered with 503, and clients try again.
        Err(error) => tracing::warn!(%error, "the database cannot be looked at now; uploads wait for it"),
    }

    let keys = JwtAuthenticator::hs256(&arguments.secret)?.audience(&arguments.audience);
    let tokens = Tokens { secret: arguments.secret, audience: arguments.audience };
    let mut app = Router::new().route("/api/upload", post(upload));
    if arguments.development {
        eprintln!("development: everyone gets a token for every user at /api/token");
        app = app.route("/api/token", get(development_token));
    }
    // A web app is on another origin than its backend, more often than not.
    let app = app.layer(cors()).with_state(App { backend, keys, tokens });
    let listener =
        Listener::bind(&arguments.listen).await.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let stop = stop_signal()?;
    eprintln!("listening on {}", axum::serve::Listener::local_addr(&listener)?);
    // Uploads that have begun are finished: the client would repeat them otherwise.
    axum::serve(listener, app.into_make_service()).with_graceful_shutdown(stop).await.context("the server stopped")
}

/// Ctrl-C or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// One local transaction of a client. Committed when this returns: the row must be there when the client looks for it.
async fn upload(
    State(backend): State<PostgresBackend>,
    User(user): User,
    Upload(transaction): Upload,
) -> Result<Json<Uploaded>, Problem> {
    Ok(Json(backend.apply(&user, &transaction).await?))
}

/// The verified user of a request.
struct User(Identity);

impl FromRequestParts<App> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(app.keys.authenticate(bearer_token(&parts.headers)?).await?))
    }
}

/// Signs tokens. A real application's tokens come from its identity provider after a login.
#[derive(Clone)]
struct Tokens {
    secret: String,
    audience: String,
}

#[derive(Deserialize)]
struct TokenRequest {
    user: String,
}

/// **Development only**: a token for whoever asks, without a password.
async fn development_token(
    State(tokens): State<Tokens>,
    Query(request): Query<TokenRequest>,
) -> Result<String, Problem> {
    Ok(tokens.sign(&request.user)?)
}

impl Tokens {
    fn sign(&self, user: &str) -> syncline_core::Result<String> {
        #[derive(Serialize)]
        struct Claims<'a> {
            sub: &'a str,
            aud: &'a str,
            iat: u64,
            exp: u64,
        }
        let failed = |error: &dyn std::fmt::Display| Error::internal(format!("a token cannot be made: {error}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| failed(&error))?.as_secs();
        let claims = Claims { sub: user, aud: &self.audience, iat: now, exp: now + TOKEN_LIFETIME.as_secs() };
        let key = jsonwebtoken::EncodingKey::from_secret(self.secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).map_err(|error| failed(&error))
    }
}
