//! Everything that a client needs: Postgres with data, a server in a process of its own, tokens.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres_fixture::Cluster;
use sdk_tests::{NodeClient, Wire};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const KEY: &str = "a key of the tests, long enough for HS256";

const TABLES: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, name text NOT NULL, owner_id text NOT NULL);
    CREATE TABLE todos (
        id text PRIMARY KEY, list_id text, title text, done boolean NOT NULL DEFAULT false, weight double precision,
        owner_id text NOT NULL);
    CREATE TABLE checkpoints (
        user_id text, client_id text, checkpoint bigint NOT NULL, PRIMARY KEY (user_id, client_id));
    CREATE PUBLICATION syncline FOR ALL TABLES;";

const CONFIG: &str = "
config: { edition: 3 }
streams:
  my_lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
  todos_of_list:
    query: SELECT * FROM todos WHERE list_id = subscription.parameter('list') AND owner_id = auth.user_id()
event_definitions:
  checkpoint_requests:
    payloads:
      - SELECT user_id, client_id, checkpoint FROM checkpoints
";

/// A Postgres, a server and a directory for files; all of it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Stack {
    server: Option<Server>,
    address: String,
    directory: TempDir,
    sql: tokio_postgres::Client,
    url: String,
    cluster: Cluster,
}

#[derive(Debug)]
struct Server {
    child: Child,
}

impl Stack {
    /// Starts everything; the tables are empty.
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let url = cluster.fresh_database().await.unwrap();
        let sql = cluster.connect(&url).await.unwrap();
        sql.batch_execute(TABLES).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut stack = Self { server: None, address: "127.0.0.1:0".into(), directory, sql, url, cluster };
        stack.start_server().await;
        stack
    }

    /// Starts the server, on the address that it had before.
    pub(crate) async fn start_server(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sdk-test-server"))
            .arg(&self.url)
            .arg(self.directory.path().join("buckets.db"))
            .args([CONFIG, &self.address, KEY])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("the server starts");
        let line = line.unwrap().expect("the server says where it listens");
        self.address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        self.server = Some(Server { child });
    }

    /// Kills the server as `kill -9` does.
    pub(crate) async fn kill_server(&mut self) {
        self.server.take().expect("the server runs").child.kill().await.unwrap();
    }

    /// Executes statements in Postgres.
    pub(crate) async fn sql(&self, statements: &str) {
        self.sql.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// What Postgres holds: the rows of a query, as a client's query would give them.
    pub(crate) async fn rows(&self, query: &str) -> Json {
        let row = self.sql.query_one(&format!("SELECT coalesce(json_agg(r), '[]')::text FROM ({query}) r"), &[]).await;
        serde_json::from_str(row.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)).unwrap()
    }

    /// A client's database, open but not connected.
    pub(crate) async fn client(&self, name: &str, wire: Wire) -> NodeClient {
        let tables = json!({
            "lists": { "name": "text", "owner_id": "text" },
            "todos": { "list_id": "text", "title": "text", "done": "integer", "weight": "real", "owner_id": "text" },
        });
        NodeClient::open(&self.file(name), tables, wire).await.unwrap()
    }

    /// Connects a client as this user.
    pub(crate) async fn connect(&self, client: &mut NodeClient, user: &str) {
        let endpoint = format!("http://{}", self.address);
        client.connect(&endpoint, &token(user), &format!("{endpoint}/api/upload")).await.unwrap();
    }

    /// Connects a client as this user whose uploads go to a backend that applies them later.
    pub(crate) async fn connect_with_later(&self, client: &mut NodeClient, user: &str, upload: &str) {
        client.connect_with_later(&format!("http://{}", self.address), &token(user), upload).await.unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.db"))
    }

    /// Waits until a client has what Postgres has of this user: its lists, and the todos of the lists it subscribed to.
    pub(crate) async fn agree(&self, client: &mut NodeClient, user: &str, subscribed: &[&str]) {
        let lists = format!("SELECT id, name, owner_id FROM lists WHERE owner_id = '{user}' ORDER BY id");
        let rows = self.rows(&lists).await;
        client.until("SELECT id, name, owner_id FROM lists ORDER BY id", rows).await.unwrap();
        let wanted = subscribed.iter().map(|list| format!("'{list}'")).collect::<Vec<_>>().join(", ");
        let wanted = if wanted.is_empty() { "NULL".to_owned() } else { wanted };
        let columns = "id, list_id, title, weight, owner_id";
        let todos = format!(
            "SELECT {columns}, done::int AS done FROM todos WHERE owner_id = '{user}' AND list_id IN ({wanted}) ORDER BY id"
        );
        let rows = self.rows(&todos).await;
        client.until(&format!("SELECT {columns}, done FROM todos ORDER BY id"), rows).await.unwrap();
    }

    /// Crashes Postgres and starts it again.
    pub(crate) async fn crash_postgres(&mut self) {
        self.cluster.crash().unwrap();
        self.cluster.start_again().await.unwrap();
        self.sql = self.cluster.connect(&self.url).await.unwrap();
    }
}

/// A token of this user, valid for an hour.
fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": user, "aud": "sdk-tests", "iat": now, "exp": now + 3600 });
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}
