//! How a client reaches a server over HTTP.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use rustls::ClientConfig;
use serde::Deserialize;
use syncline_core::protocol::SyncRequest;
use syncline_core::{Credentials, Error, LineStream, Result, Transport, WriteCheckpoint};

use super::answer;

const BSON_FIRST: &str = "application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8";
const NDJSON_FIRST: &str = "application/x-ndjson;q=0.9,application/vnd.powersync.bson-stream;q=0.8";

/// A server that is reached over HTTP, at the paths that the official PowerSync service has. Needs a tokio runtime.
///
/// Streams may be compressed (gzip, zstd), and come as BSON if the server has it. Redirects are not followed, so that the
/// token goes nowhere else. Proxies are taken from the environment, as is usual. Cloning is cheap; clones share their
/// connections.
#[derive(Clone)]
pub struct HttpTransport {
    endpoint: Url,
    client: Client,
    accept: &'static str,
    idle_timeout: Duration,
    answer_timeout: Duration,
}

impl HttpTransport {
    /// A server at this URL, for example `https://sync.example.com`. It trusts the certificate authorities of Mozilla.
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// `Invalid` if it is no `http` or `https` URL, or has a user, a query or a fragment.
    pub fn new(endpoint: &str) -> Result<Self> {
        let endpoint = parse_endpoint(endpoint)?;
        let client = build_client(crate::tls::public_authorities()?)?;
        Ok(Self {
            endpoint,
            client,
            accept: BSON_FIRST,
            idle_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(15),
        })
    }

    /// Connects by this TLS configuration: other certificate authorities, or a certificate of the client. To allow HTTP/2
    /// it must offer it (`alpn_protocols`).
    ///
    /// # Errors
    /// `Invalid` if it cannot be used.
    pub fn tls(mut self, config: ClientConfig) -> Result<Self> {
        self.client = build_client(config)?;
        Ok(self)
    }

    /// Makes requests by this client, whose settings all stay as they are: proxies, certificates, user agent.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    /// Asks for JSON lines where the server has both: easier to read in a recording, larger and slower.
    #[must_use]
    pub fn prefer_ndjson(mut self) -> Self {
        self.accept = NDJSON_FIRST;
        self
    }

    /// How long a stream may be silent, also before its first byte, until it fails; 60 s unless changed. Servers send a
    /// sign of life about every 20 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long any other request may take altogether; 15 s unless changed.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{path}", self.endpoint.path().trim_end_matches('/')));
        url
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        let body = serde_json::to_vec(request)
            .map_err(|error| Error::internal("the request cannot be written as JSON").caused_by(error))?;
        let request = self
            .client
            .post(self.url("/sync/stream"))
            .header(AUTHORIZATION, authorization(credentials)?)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, self.accept)
            .body(body);
        // A server may hold back the header until it has a line, so it gets as long as for any line.
        let response = within(self.idle_timeout, send(request)).await?;
        let framing = answer::framing(&response)?;
        Ok(LineStream { framing, bytes: answer::pieces(response, self.idle_timeout) })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        let mut url = self.url("/write-checkpoint2.json");
        url.query_pairs_mut().append_pair("client_id", client_id);
        let request = self
            .client
            .get(url)
            .header(AUTHORIZATION, authorization(credentials)?)
            .header(CONTENT_TYPE, "application/json");
        let body = within(self.answer_timeout, async { answer::body(send(request).await?).await }).await?;
        let unreadable = || Error::protocol("the server answered a request for a write checkpoint with something else");
        let answer: WriteCheckpointAnswer =
            serde_json::from_slice(&body).map_err(|error| unreadable().caused_by(error))?;
        let number = answer.data.write_checkpoint.parse().map_err(|error| unreadable().caused_by(error))?;
        Ok(WriteCheckpoint(number))
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct WriteCheckpointAnswer {
    data: WriteCheckpointBody,
}

#[derive(Deserialize)]
struct WriteCheckpointBody {
    write_checkpoint: String,
}

async fn send(request: RequestBuilder) -> Result<Response> {
    answer::accepted(request.send().await.map_err(answer::failed)?).await
}

async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        Err(Error::unavailable(format!("the server did not answer within {} s", timeout.as_secs_f64())))
    })
}

fn authorization(credentials: &Credentials) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Token {}", credentials.token))
        .map_err(|error| Error::unauthorized("the token holds characters that no token has").caused_by(error))?;
    value.set_sensitive(true);
    Ok(value)
}

fn parse_endpoint(endpoint: &str) -> Result<Url> {
    let url =
        Url::parse(endpoint).map_err(|error| Error::invalid(format!("{endpoint:?} is no URL")).caused_by(error))?;
    let wrong = match url.scheme() {
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => "it may not hold a user",
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => "it may not hold a query or fragment",
        "http" | "https" => return Ok(url),
        _ => "it must begin with http:// or https://",
    };
    Err(Error::invalid(format!("{endpoint:?} cannot be an endpoint: {wrong}")))
}

/// An HTTP client set up like that of [`HttpTransport`], for a connector's own requests: it names its TLS provider, which
/// a plain `reqwest::Client` of this build lacks.
///
/// # Errors
/// `Invalid` if TLS cannot be set up.
pub fn http_client() -> Result<Client> {
    build_client(crate::tls::public_authorities()?)
}

fn build_client(tls: ClientConfig) -> Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("syncline/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(Duration::from_secs(10))
        // Requests share one HTTP/2 connection: if it is half-open, it must be found out and replaced.
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .http2_keep_alive_while_idle(true)
        .build()
        .map_err(|error| Error::invalid("the HTTP client cannot be set up").caused_by(error))
}
