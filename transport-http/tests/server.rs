//! The router over real sockets, with everything behind it in memory.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(all(feature = "server", feature = "client"))]

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use syncline_core::memory::{MemoryBucketStore, MemorySource, TokenIsUser};
use syncline_core::{Error, Identity, Replicator, ServiceLimits, SyncConfig, SyncService, async_trait};
use syncline_transport_http::{Authenticated, HttpLimits, Problem, router_with_limits};
use tokio::io::AsyncWriteExt;

const DEADLINE: Duration = Duration::from_secs(20);

const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT id, name FROM lists WHERE owner_id = auth.user_id()
";

struct Server {
    endpoint: String,
    source: MemorySource,
    service: SyncService,
    http: reqwest::Client,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(ServiceLimits::default(), HttpLimits::default()).await
    }

    async fn start_with(limits: ServiceLimits, http_limits: HttpLimits) -> Self {
        let source = MemorySource::new().table("lists", ["id", "name", "owner_id"]);
        let store = MemoryBucketStore::new();
        tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(CONFIG).unwrap(), store.clone()).run());
        let service = SyncService::with_limits(store, TokenIsUser, limits);
        let whoami = |Authenticated(user): Authenticated| async move { user.user_id() };
        let app = axum::Router::new()
            .route("/whoami", axum::routing::get(whoami))
            .merge(router_with_limits(service.clone(), http_limits))
            .with_state(service.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, source, service, http: syncline_transport_http::http_client().unwrap() }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.endpoint)).header("authorization", "Token anna")
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.endpoint)).header("authorization", "Token anna")
    }
}

async fn body(reply: reqwest::Response) -> (u16, Value) {
    let status = reply.status().as_u16();
    (status, serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn until_complete(reply: reqwest::Response) -> Vec<Value> {
    let mut bytes = reply.bytes_stream();
    let mut text = String::new();
    let read = async {
        while !text.contains("\"checkpoint_complete\"") {
            text.push_str(std::str::from_utf8(&bytes.next().await.expect("the stream goes on").unwrap()).unwrap());
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("a complete checkpoint");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_has_the_users_rows_and_goes_on_live() {
    let server = Server::start().await;
    server.source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" })).unwrap();
    for encoding in ["identity", "gzip", "zstd"] {
        let request =
            server.post("/sync/stream").header("accept-encoding", encoding).json(&json!({ "raw_data": true }));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "application/x-ndjson");
        assert_eq!(reply.headers()["x-accel-buffering"], "no");
        assert_eq!(reply.headers()["access-control-allow-origin"], "*");
        let lines = until_complete(reply).await;
        assert_eq!(lines[0]["checkpoint"]["buckets"].as_array().unwrap().len(), 1);
        assert_eq!(lines[1]["data"]["data"][0]["data"], r#"{"id":"l1","name":"Groceries"}"#);
    }
}

#[tokio::test]
async fn nested_data_and_bson_are_negotiated() {
    let server = Server::start().await;
    server.source.put("lists", json!({ "id": "l1", "name": "Groceries", "owner_id": "anna" })).unwrap();
    let lines = until_complete(server.post("/sync/stream").send().await.unwrap()).await;
    assert_eq!(lines[1]["data"]["data"][0]["data"]["name"], "Groceries");
    let accept = "application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8";
    let reply = server.post("/sync/stream").header("accept", accept).send().await.unwrap();
    assert_eq!(reply.headers()["content-type"], "application/vnd.powersync.bson-stream");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_status_and_code() {
    let server = Server::start().await;
    let code = |value: &Value| value["error"]["code"].as_str().unwrap().to_owned();

    let (status, error) =
        body(server.http.post(format!("{}/sync/stream", server.endpoint)).send().await.unwrap()).await;
    assert_eq!((status, code(&error).as_str()), (401, "PSYNC_S2106"));
    let (status, error) =
        body(server.post("/sync/stream").header("content-type", "application/json").body("{").send().await.unwrap())
            .await;
    assert_eq!((status, code(&error).as_str()), (400, "FST_ERR_CTP_INVALID_JSON_BODY"));
    let wrong = json!({ "buckets": [{ "name": "b", "after": 1 }] });
    let (status, error) = body(server.post("/sync/stream").json(&wrong).send().await.unwrap()).await;
    assert_eq!((status, code(&error).as_str()), (400, "PSYNC_S2001"));
    // Validation comes before authentication.
    let nobody = server.http.post(format!("{}/sync/stream", server.endpoint)).json(&wrong);
    assert_eq!(body(nobody.send().await.unwrap()).await.0, 400);
    let (status, error) = body(server.get("/sync/stream").send().await.unwrap()).await;
    assert_eq!((status, code(&error).as_str()), (404, "PSYNC_S2002"));
    let large = "x".repeat((1 << 20) + 1);
    let request = server.post("/sync/stream").header("content-type", "application/json").body(large);
    assert_eq!(body(request.send().await.unwrap()).await.0, 413);
    let request = server.post("/sync/stream").header("content-type", "text/plain").body("{}");
    assert_eq!(body(request.send().await.unwrap()).await.0, 415);
    server.service.close().await;
    assert_eq!(body(server.post("/sync/stream").send().await.unwrap()).await.0, 503);
    assert_eq!(server.get("/probes/readiness").send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn write_checkpoints_rise_and_requests_keep_the_larger_number() {
    let server = Server::start().await;
    let ask = || async {
        let (status, answer) = body(server.get("/write-checkpoint2.json?client_id=c1").send().await.unwrap()).await;
        assert_eq!(status, 200);
        answer["data"]["write_checkpoint"].as_str().unwrap().parse::<i64>().unwrap()
    };
    assert!(ask().await < ask().await);
    let request = |id: Value| {
        server.post("/sync/checkpoint-request").json(&json!({ "client_id": "c2", "checkpoint_request_id": id }))
    };
    assert_eq!(body(request(json!("5")).send().await.unwrap()).await.1["data"]["checkpoint_request_id"], "5");
    assert_eq!(body(request(json!(3)).send().await.unwrap()).await.1["data"]["checkpoint_request_id"], "5");
    let too_large = ((1_i64 << 62) + 1).to_string();
    for wrong in [json!("0"), json!("-1"), json!("x"), json!(1.5), json!(null), json!(too_large)] {
        assert_eq!(body(request(wrong.clone()).send().await.unwrap()).await.0, 400, "{wrong}");
    }
    let long = "x".repeat(129);
    let named = json!({ "client_id": long, "checkpoint_request_id": "1" });
    for request in [
        server.get(&format!("/write-checkpoint2.json?client_id={long}")),
        server.post("/sync/checkpoint-request").json(&named),
        server.post("/sync/stream").json(&json!({ "client_id": long })),
    ] {
        assert_eq!(body(request.send().await.unwrap()).await.0, 400);
    }
}

#[tokio::test]
async fn browsers_may_call_and_an_applications_own_route_knows_the_user() {
    let server = Server::start().await;
    let preflight = server
        .http
        .request(reqwest::Method::OPTIONS, format!("{}/sync/stream", server.endpoint))
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-user-agent");
    let reply = preflight.send().await.unwrap();
    assert!(reply.status().is_success());
    let allowed = reply.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    assert!(allowed.contains("x-user-agent"), "{allowed}");
    assert_eq!(server.get("/whoami").send().await.unwrap().text().await.unwrap(), "anna");
    assert_eq!(server.get("/probes/liveness").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_stream_too_many_is_told_to_come_back_and_a_closed_one_makes_room() {
    let limits = ServiceLimits { streams: 1, ..ServiceLimits::default() };
    let server = Server::start_with(limits, HttpLimits::default()).await;
    let first = server.post("/sync/stream").send().await.unwrap();
    let second = server.post("/sync/stream").send().await.unwrap();
    assert_eq!(second.status(), 429);
    assert_eq!(second.headers()["retry-after"], "5");
    assert!(second.bytes().await.unwrap().is_empty());
    drop(first);
    let again = async {
        while server.post("/sync/stream").send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("the place of a client that has gone is given to another");
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_stream_and_holds_up_nobody() {
    let http_limits = HttpLimits { patience: Duration::from_millis(300), ..HttpLimits::default() };
    let server = Server::start_with(ServiceLimits::default(), http_limits).await;
    let name = "x".repeat(20_000);
    server
        .source
        .transaction(|tx| {
            for number in 0..2_000 {
                tx.put("lists", json!({ "id": format!("l{number}"), "name": name, "owner_id": "anna" }))?;
            }
            Ok(())
        })
        .unwrap();
    let address = server.endpoint.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /sync/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Token anna\r\ncontent-length: 0\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let gone = async {
        while server.service.readiness().streams != 1 {
            tokio::task::yield_now().await;
        }
        while server.service.readiness().streams != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("the session ends");
    server.source.put("lists", json!({ "id": "b", "name": "Garden", "owner_id": "ben" })).unwrap();
    let request = server.http.post(format!("{}/sync/stream", server.endpoint)).header("authorization", "Token ben");
    until_complete(request.send().await.unwrap()).await;
}

/// An authenticator whose keys are away.
#[derive(Debug)]
struct Away(fn(&'static str) -> Error);

#[async_trait]
impl syncline_core::Authenticator for Away {
    async fn authenticate(&self, _: &str) -> syncline_core::Result<Identity> {
        Err((self.0)("the secret path of the keys"))
    }
}

#[tokio::test]
async fn what_is_internal_stays_in_the_log() {
    let internal: fn(&'static str) -> Error = |secret| Error::internal(secret);
    let away: fn(&'static str) -> Error = |secret| Error::unavailable("the keys are away").caused_by(secret);
    for (error, status) in [(internal, 500), (away, 503)] {
        let service = SyncService::new(MemoryBucketStore::new(), Away(error));
        let error = service.authenticate("x").await.unwrap_err();
        let problem = Problem::from(error);
        assert_eq!(problem.status(), status);
        let reply = axum::response::IntoResponse::into_response(problem);
        let bytes = axum::body::to_bytes(reply.into_body(), 10_000).await.unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret path"));
    }
}
