//! One process with one database of the official SDK.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client asks of the server instead of what the SDK prefers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    /// The media type, in `Accept`.
    pub accept: Option<&'static str>,
    /// The content coding, in `Accept-Encoding`.
    pub encoding: Option<&'static str>,
    /// RSocket over WebSocket instead of HTTP; then there is neither of the two above.
    pub websocket: bool,
}

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Json, String>>>>>;

/// A client: its process ends when this is dropped.
#[derive(Debug)]
pub struct NodeClient {
    stdin: ChildStdin,
    child: Child,
    answers: Answers,
    next: u64,
}

impl NodeClient {
    /// Starts Node and opens a database with these tables: `{"lists": {"name": "text"}}`.
    ///
    /// # Errors
    /// If Node or the SDK cannot be had, or the database cannot be opened.
    pub async fn open(path: &Path, tables: Json, wire: Wire) -> Result<Self> {
        let node = tokio::task::spawn_blocking(xtask::node::ensure).await??;
        let mut child = Command::new(node.program())
            .arg(node.directory().join("client.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", node.program().display()))?;
        let stdin = child.stdin.take().context("Node has no standard input")?;
        let stdout = child.stdout.take().context("Node has no standard output")?;
        let answers = Answers::default();
        tokio::spawn(read_answers(stdout, answers.clone()));
        let mut client = Self { stdin, child, answers, next: 0 };
        let Wire { accept, encoding, websocket } = wire;
        let options = json!({
            "path": path, "tables": tables, "accept": accept, "encoding": encoding, "websocket": websocket,
        });
        client.command("open", options).await?;
        Ok(client)
    }

    /// Connects to a server as the user of this token; returns before anything has arrived.
    ///
    /// # Errors
    /// If the SDK refuses.
    pub async fn connect(&mut self, endpoint: &str, token: &str, upload: &str) -> Result<()> {
        self.connect_with(endpoint, token, upload, json!({})).await
    }

    /// The same with parameters of the connection.
    ///
    /// # Errors
    /// If the SDK refuses.
    pub async fn connect_with(&mut self, endpoint: &str, token: &str, upload: &str, parameters: Json) -> Result<()> {
        let options = json!({ "endpoint": endpoint, "token": token, "upload": upload, "params": parameters });
        self.command("connect", options).await.map(drop)
    }

    /// The same with a backend that applies uploads later: the SDK asks it for write checkpoints, at `/checkpoint`, instead of the
    /// service.
    ///
    /// # Errors
    /// If the SDK refuses.
    pub async fn connect_with_later(&mut self, endpoint: &str, token: &str, upload: &str) -> Result<()> {
        let options = json!({ "endpoint": endpoint, "token": token, "upload": upload, "later": true, "params": {} });
        self.command("connect", options).await.map(drop)
    }

    /// Disconnects; the database stays open.
    ///
    /// # Errors
    /// If the SDK refuses.
    pub async fn disconnect(&mut self) -> Result<()> {
        self.command("disconnect", json!({})).await.map(drop)
    }

    /// Waits until the SDK says that it is connected, or that it is not.
    ///
    /// # Errors
    /// If it does not within 30 seconds.
    pub async fn connected(&mut self, wanted: bool) -> Result<()> {
        self.patient("connected", json!({ "wanted": wanted })).await
    }

    /// Waits for the first complete sync.
    ///
    /// # Errors
    /// If it does not come within 30 seconds.
    pub async fn first_sync(&mut self) -> Result<()> {
        self.patient("firstSync", json!({})).await
    }

    /// Executes one statement, in a transaction of its own.
    ///
    /// # Errors
    /// If SQLite refuses it.
    pub async fn execute(&mut self, sql: &str, params: Json) -> Result<()> {
        self.command("execute", json!({ "sql": sql, "params": params })).await.map(drop)
    }

    /// Executes several statements in one transaction.
    ///
    /// # Errors
    /// If SQLite refuses one.
    pub async fn transaction(&mut self, statements: &[(&str, Json)]) -> Result<()> {
        let statements: Vec<Json> =
            statements.iter().map(|(sql, params)| json!({ "sql": sql, "params": params })).collect();
        self.command("transaction", json!({ "statements": statements })).await.map(drop)
    }

    /// The rows of a query, each an object.
    ///
    /// # Errors
    /// If SQLite refuses it.
    pub async fn query(&mut self, sql: &str) -> Result<Json> {
        self.command("query", json!({ "sql": sql })).await
    }

    /// Waits until a query yields these rows: an array of objects, columns in the order of the query.
    ///
    /// # Errors
    /// If it does not within 30 seconds; the message says what it yields instead.
    pub async fn until(&mut self, sql: &str, rows: Json) -> Result<()> {
        self.patient("until", json!({ "sql": sql, "rows": rows })).await
    }

    /// Waits until every local write has been uploaded. The SDK shows nothing new of the server until it has come back.
    ///
    /// # Errors
    /// If it has not within 30 seconds.
    pub async fn uploaded(&mut self) -> Result<()> {
        self.patient("uploaded", json!({})).await
    }

    /// Subscribes to a stream and waits until its rows are here.
    ///
    /// # Errors
    /// If they are not within 30 seconds.
    pub async fn subscribe(&mut self, stream: &str, params: Json) -> Result<()> {
        self.patient("subscribe", json!({ "stream": stream, "params": params })).await
    }

    /// Ends a subscription; its rows leave with the next stream.
    ///
    /// # Errors
    /// If there is none.
    pub async fn unsubscribe(&mut self, stream: &str, params: Json) -> Result<()> {
        self.command("unsubscribe", json!({ "stream": stream, "params": params })).await.map(drop)
    }

    /// The SDK's status as JSON.
    ///
    /// # Errors
    /// If the process has ended.
    pub async fn status(&mut self) -> Result<Json> {
        self.command("status", json!({})).await
    }

    /// The responses that have arrived since this was last asked: `method`, `path`, `status`, `type`, `encoding`.
    ///
    /// # Errors
    /// If the process has ended.
    pub async fn responses(&mut self) -> Result<Vec<Json>> {
        match self.command("responses", json!({})).await? {
            Json::Array(responses) => Ok(responses),
            other => bail!("unexpected answer: {other}"),
        }
    }

    /// Closes the database and waits for the process to end.
    ///
    /// # Errors
    /// If it does not end within 30 seconds, or not well.
    pub async fn close(mut self) -> Result<()> {
        self.command("close", json!({})).await?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("Node does not end")??;
        anyhow::ensure!(status.success(), "Node ended with {status}");
        Ok(())
    }

    async fn patient(&mut self, command: &str, mut options: Json) -> Result<()> {
        options["seconds"] = json!(PATIENCE.as_secs());
        self.command(command, options).await.map(drop)
    }

    async fn command(&mut self, command: &str, mut options: Json) -> Result<Json> {
        self.next += 1;
        let id = self.next;
        options["id"] = json!(id);
        options["command"] = json!(command);
        let (sender, answer) = oneshot::channel();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.stdin.write_all(format!("{options}\n").as_bytes()).await.context("Node has ended")?;
        // The program bounds its own waits and says what it saw; this bound is for a program that hangs.
        let answer = tokio::time::timeout(2 * PATIENCE, answer).await;
        match answer.with_context(|| format!("no answer to `{command}`"))? {
            Ok(answer) => answer.map_err(|error| anyhow!("{command}: {error}")),
            Err(oneshot::error::RecvError { .. }) => bail!("Node ended while `{command}` ran"),
        }
    }
}

/// Hands each answer to whoever waits for it, until the process ends.
async fn read_answers(stdout: ChildStdout, answers: Answers) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(mut answer) = serde_json::from_str::<Json>(&line) else {
            eprintln!("[node] {line}");
            continue;
        };
        let waiting =
            answer["id"].as_u64().and_then(|id| answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        let result = match answer["error"].take() {
            Json::Null => Ok(answer["value"].take()),
            Json::String(error) => Err(error),
            error => Err(error.to_string()),
        };
        if let Some(waiting) = waiting
            && waiting.send(result).is_err()
        {
            eprintln!("[node] an answer that nobody waits for: {line}");
        }
    }
    // Whoever still waits is told so by the end of the channel.
    answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
