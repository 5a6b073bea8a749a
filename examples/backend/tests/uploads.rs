//! The program itself, over a real database.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::{Client, Response};
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../schema.sql");

/// The running program; it ends with the test.
struct Backend {
    process: Child,
    endpoint: String,
    client: Client,
}

impl Backend {
    fn start(database_url: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_syncline-backend"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("DATABASE_URL", database_url)
            .env("BACKEND_SECRET", "a secret of the tests, long enough for all")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.find_map(|line| {
            said.push(line.clone());
            line.strip_prefix("listening on ").map(str::to_owned)
        });
        let Some(address) = address else {
            panic!("it does not listen: {said:?}, {:?}", process.wait());
        };
        // What else it says must find somebody who reads it.
        std::thread::spawn(move || lines.for_each(drop));
        let client = syncline_transport_http::http_client().unwrap();
        Self { process, endpoint: format!("http://{address}"), client }
    }

    async fn token(&self, user: &str) -> Response {
        self.client.get(format!("{}/api/token?user={user}", self.endpoint)).send().await.unwrap()
    }

    async fn upload(&self, token: &str, crud: Value) -> (u16, Value) {
        let body = json!({ "transaction_id": 1, "client_id": "device", "crud": crud });
        let request = self.client.post(format!("{}/api/upload", self.endpoint)).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(number: i64, kind: &str, table: &str, id: &str, data: Value) -> Value {
    json!({ "op_id": number, "op": kind, "type": table, "id": id, "data": data })
}

#[tokio::test]
async fn uploads_are_applied_or_rejected_with_a_reason() {
    let url = postgres_fixture::fresh_database().await;
    let database = postgres_fixture::shared().await.connect(&url).await.unwrap();
    database.batch_execute(SCHEMA).await.unwrap();
    let backend = Backend::start(&url, &["--development"]);
    let anna = backend.token("anna").await.error_for_status().unwrap().text().await.unwrap();

    let list = write(1, "PUT", "lists", "l1", json!({ "name": "Groceries", "owner_id": "anna" }));
    let todo = |number, id: &str, owner: &str| {
        write(number, "PUT", "todos", id, json!({ "list_id": "l1", "title": "milk", "done": 0, "owner_id": owner }))
    };
    let (status, answer) = backend.upload(&anna, json!([list, todo(2, "t1", "anna")])).await;
    assert_eq!((status, answer), (200, json!({ "status": "applied" })));

    let (status, answer) = backend.upload(&anna, json!([todo(3, "t2", "anna"), todo(4, "t3", "ben")])).await;
    assert_eq!(status, 200, "a rejection is an answer, not an error");
    assert_eq!(answer["status"], "rejected");
    assert!(answer["reason"].as_str().unwrap().contains("not allowed"), "{answer}");

    // The answer to the first upload was lost, and somebody else has changed the row since.
    database.batch_execute("UPDATE todos SET title = 'oat milk'").await.unwrap();
    backend.upload(&anna, json!([write(2, "PATCH", "todos", "t1", json!({ "title": "milk" }))])).await;
    let rows = database.query("SELECT id, title, done FROM todos", &[]).await.unwrap();
    let rows: Vec<(String, String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(rows, [("t1".into(), "oat milk".into(), false)]);

    let large = "x".repeat(3 << 20); // more than what axum takes unless told otherwise
    let patch = write(5, "PATCH", "todos", "t1", json!({ "title": large }));
    assert_eq!(backend.upload(&anna, json!([patch])).await, (200, json!({ "status": "applied" })));

    // A browser asks before it posts from another origin.
    let ask = backend.client.request(reqwest::Method::OPTIONS, format!("{}/api/upload", backend.endpoint));
    let ask = ask.header("origin", "https://app.example.com").header("access-control-request-method", "POST");
    let answer = ask.header("access-control-request-headers", "authorization,content-type").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (200, &"*".parse().unwrap())
    );
    assert!(answer.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));

    let (status, answer) = backend.upload("garbage", json!([])).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("PSYNC_S2101")));
}

#[tokio::test]
async fn tokens_for_everyone_are_for_development_only() {
    let url = postgres_fixture::fresh_database().await;
    let database = postgres_fixture::shared().await.connect(&url).await.unwrap();
    database.batch_execute(SCHEMA).await.unwrap();
    let backend = Backend::start(&url, &[]);
    assert_eq!(backend.token("anna").await.status(), 404);
}

#[tokio::test]
async fn a_database_that_does_not_fit_is_named_at_the_start() {
    let url = postgres_fixture::fresh_database().await;
    let program = Command::new(env!("CARGO_BIN_EXE_syncline-backend"))
        .env("DATABASE_URL", url)
        .env("BACKEND_SECRET", "a secret of the tests, long enough for all")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&program.stderr);
    assert!(!program.status.success() && said.contains("there is no table"), "{said}");
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for() {
    let cluster = postgres_fixture::shared().await;
    let url = cluster.create_database("later").await.unwrap();
    let admin = cluster.connect(&cluster.url()).await.unwrap();
    // The server refuses all connections to it: the role is no superuser.
    let database = cluster.connect(&url).await.unwrap();
    database.batch_execute(SCHEMA).await.unwrap();
    let role = "CREATE ROLE backend LOGIN; GRANT ALL ON SCHEMA syncline TO backend;
        GRANT ALL ON ALL TABLES IN SCHEMA public, syncline TO backend";
    database.batch_execute(role).await.unwrap();
    admin.batch_execute("ALTER DATABASE later CONNECTION LIMIT 0").await.unwrap();

    let url = url.replace("postgres://postgres@", "postgres://backend@");
    let mut backend = Backend::start(&url, &["--development"]);
    let anna = backend.token("anna").await.error_for_status().unwrap().text().await.unwrap();
    let list = json!([write(1, "PUT", "lists", "l1", json!({ "name": "Groceries", "owner_id": "anna" }))]);
    let (status, _) = backend.upload(&anna, list.clone()).await;
    assert_eq!(status, 503);
    admin.batch_execute("ALTER DATABASE later CONNECTION LIMIT -1").await.unwrap();
    assert_eq!(backend.upload(&anna, list).await, (200, json!({ "status": "applied" })));

    // It ends in an orderly way, with status 0.
    let kill = Command::new("kill").args(["-TERM", &backend.process.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert!(backend.process.wait().unwrap().success());
}

/// A sync config may take every table of `public`: what is the backend's own must not be among them.
#[tokio::test]
async fn what_clients_may_not_see_is_not_in_public() {
    let url = postgres_fixture::fresh_database().await;
    let database = postgres_fixture::shared().await.connect(&url).await.unwrap();
    database.batch_execute(SCHEMA).await.unwrap();
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.query_one(tables, &[]).await.unwrap().get::<_, String>(0), "lists todos");
}
