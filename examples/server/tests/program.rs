//! The program itself: its check, a client's stream, and an orderly end.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use serde_json::{Value, json};
use syncline_core::protocol::{ClientLine, LineDecoder, SyncRequest};
use syncline_core::{Credentials, LineStream, Transport};
use syncline_transport_http::HttpTransport;
use syncline_transport_ws::WebSocketTransport;

const SECRET: &str = "a secret of the tests, long enough for all";
const LIMIT: Duration = Duration::from_secs(30);
const SYNC: &str = include_str!("../sync.yaml");
const TABLES: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, name text, owner_id text);
    CREATE TABLE todos (id text PRIMARY KEY, title text, owner_id text);
    INSERT INTO lists VALUES ('l1', 'Groceries', 'anna'), ('l2', 'Secret', 'ben');";

async fn database() -> String {
    let url = postgres_fixture::fresh_database().await;
    let client = postgres_fixture::shared().await.connect(&url).await.unwrap();
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute("CREATE PUBLICATION syncline FOR TABLE lists, todos").await.unwrap();
    url
}

fn program(folder: &Path, url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-server"));
    command.arg("--config").arg(folder.join("syncline.toml")).env_remove("DATABASE_URL").env("RUST_LOG", "info");
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    command
}

fn write_settings(folder: &Path, extra: &str) {
    let settings =
        format!("listen = \"127.0.0.1:0\"\n{extra}\n[auth]\naudiences = [\"app\"]\nhs256_secret = \"{SECRET}\"\n");
    fs::write(folder.join("syncline.toml"), settings).unwrap();
    fs::write(folder.join("sync.yaml"), SYNC).unwrap();
}

fn check(folder: &Path, url: Option<&str>) -> (bool, String) {
    let Output { status, stdout, stderr } = program(folder, url).arg("check").output().unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": user, "aud": "app", "iat": now, "exp": now + 300 });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[test]
fn the_settings_that_are_shown_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("syncline.toml"), include_str!("../syncline.toml")).unwrap();
    fs::write(folder.path().join("sync.yaml"), SYNC).unwrap();
    let output = program(folder.path(), Some("postgres://nobody@127.0.0.1:1/none"))
        .arg("check")
        .env("SYNCLINE_HS256_SECRET", SECRET)
        .env("SYNCLINE_LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for part in ["keys", "sync config", "store", "address"] {
        assert!(said.contains(&format!("ok       {part}")), "{part}: {said}");
    }
    assert!(said.contains("problem  database: cannot connect to Postgres at 127.0.0.1:1: "), "{said}");
    assert_eq!(said.matches("refused").count(), 1, "each cause is told once: {said}");
}

#[tokio::test]
async fn check_names_everything_that_is_wrong_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = database().await;
    write_settings(folder, "");
    let (right, said) = check(folder, Some(&url));
    assert!(right, "{said}");
    assert_eq!(said.matches("ok ").count(), 5, "{said}");
    let made: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made.len(), 2, "it changes nothing: {made:?}");

    fs::write(folder.join("sync.yaml"), "config: { edition: 3 }\nstreams:\n  a:\n    query: SELEC x\n").unwrap();
    let settings = "listen = \"nowhere\"\nstore = \"missing/buckets.db\"\n[postgres]\npublication = \"none\"\n\
                    [auth]\naudiences = []\n";
    fs::write(folder.join("syncline.toml"), settings).unwrap();
    let (right, said) = check(folder, Some(&url));
    assert!(!right && said.contains("5 problems"), "{said}");
    for part in [
        "names no keys",
        "sync.yaml is refused",
        "no publication `none`",
        "missing/buckets.db cannot be opened",
        "cannot listen on nowhere",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::write(folder.join("syncline.toml"), "listn = 1\n[auth]\naudiences = []\n").unwrap();
    let (right, said) = check(folder, None);
    assert!(!right && said.contains("listn") && said.contains("line 1"), "{said}");
    write_settings(folder, "[limits]\nstreams_per_user = 0");
    let (right, said) = check(folder, None);
    assert!(!right && said.contains("limits.streams_per_user is 0"), "{said}");
    write_settings(folder, "");
    let short = fs::read_to_string(folder.join("syncline.toml")).unwrap().replace(SECRET, "short");
    fs::write(folder.join("syncline.toml"), short).unwrap();
    let (right, said) = check(folder, None);
    assert!(!right && said.contains("auth.hs256_secret") && said.contains("openssl rand"), "{said}");
}

#[tokio::test]
async fn check_warns_of_what_the_database_does_not_have_and_says_it_to_editors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = database().await;
    write_settings(folder, "");
    let hiding = "config: { edition: 3 }
with:
  todos: SELECT id FROM lists WHERE owner_id = auth.user_id()
streams:
  mine: { auto_subscribe: true, query: SELECT * FROM lists WHERE id IN todos }
";
    fs::write(folder.join("sync.yaml"), hiding).unwrap();
    let (right, said) = check(folder, Some(&url));
    assert!(right, "a warning is no problem: {said}");
    assert!(said.contains("at 3:3, `todos`: `todos` hides the table of that name (give it another name)"), "{said}");

    fs::write(folder.join("sync.yaml"), SYNC.replace("FROM lists", "FROM lits")).unwrap();
    let output = program(folder, Some(&url)).args(["check", "--json"]).output().unwrap();
    assert!(!output.status.success());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let warning = &said["diagnostics"][0];
    assert_eq!((&warning["code"], &warning["replacement"]), (&json!("table-not-found"), &json!("lists")), "{said}");
    assert_eq!(warning["severity"], 2);
    let line = warning["range"]["start"]["line"].as_u64().unwrap() as usize;
    assert!(fs::read_to_string(folder.join("sync.yaml")).unwrap().lines().nth(line).unwrap().contains("lits"));
    let problem = |part: &str| {
        let parts = said["parts"].as_array().unwrap().iter();
        parts.filter(|one| one["part"] == part).map(|one| one["problem"].as_str()).collect::<Vec<_>>()
    };
    assert_eq!(problem("sync config"), [None]);
    assert!(problem("database")[0].unwrap().contains("lits"), "{said}");
}

#[tokio::test]
async fn check_finds_what_would_end_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = database().await;
    write_settings(folder, "");
    let client = syncline_transport_http::http_client().unwrap();
    let server = Server::start(folder, &url);
    let _ = rows_of_anna(&client, &server).await;
    // Beside a server that runs.
    let taken = server.endpoint.trim_start_matches("http://");
    let output = program(folder, Some(&url)).arg("check").env("SYNCLINE_LISTEN", taken).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("problem  store") && said.contains("is open already"), "{said}");
    assert!(said.contains(&format!("cannot listen on {taken}")), "{said}");
    drop(server);

    let (right, said) = check(folder, Some(&url));
    assert!(right, "a store that a killed server has left: {said}");
    fs::write(folder.join("sync.yaml"), SYNC.replace("my_lists", "renamed")).unwrap();
    let (right, said) = check(folder, Some(&url));
    assert!(right, "what is the same by another name is no change: {said}");
    fs::write(folder.join("sync.yaml"), SYNC.replace("SELECT * FROM lists", "SELECT id, name FROM lists")).unwrap();
    let (right, said) = check(folder, Some(&url));
    assert!(!right && said.contains("buckets.db was filled by another sync config"), "{said}");
}

/// A running server. It is killed if the test fails.
struct Server {
    process: Child,
    endpoint: String,
    said: mpsc::Receiver<String>,
}

impl Server {
    fn start(folder: &Path, url: &str) -> Self {
        let mut process = program(folder, Some(url)).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.find_map(|line| {
            said.push(line.clone());
            let plain: String = line.replace("\u{1b}[0m", "").replace("\u{1b}[3m", "").replace("\u{1b}[2m", "");
            plain.split_once("address=").map(|(_, address)| address.trim().to_owned())
        });
        let Some(address) = address else { panic!("it does not serve: {said:?}, {:?}", process.wait()) };
        // What else it says must not fill the pipe.
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        Self { process, endpoint: format!("http://{address}"), said }
    }

    /// The next line of its log that says this, with those before it.
    fn until(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut said = String::new();
        while !said.contains(wanted) {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => said.extend([&line, "\n"]),
                Err(_) => panic!("it does not say {wanted:?}: {said}"),
            }
        }
        said
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens Anna's stream; returns it with the rows of its first checkpoint.
async fn rows_of_anna(client: &reqwest::Client, server: &Server) -> (reqwest::Response, Vec<Value>) {
    let request = client
        .post(format!("{}/sync/stream", server.endpoint))
        .header("authorization", format!("Token {}", token("anna")))
        .json(&json!({ "raw_data": true }));
    let mut answer = request.send().await.unwrap().error_for_status().unwrap();
    let mut text = String::new();
    while !text.contains("\"checkpoint_complete\"") {
        let piece = tokio::time::timeout(LIMIT, answer.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap_or_else(|| panic!("it ended: {text}"))).unwrap());
    }
    let rows = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get("data").cloned())
        .flat_map(|data| data["data"].as_array().cloned().unwrap_or_default())
        .collect();
    (answer, rows)
}

/// The same over WebSocket: the ids of the rows.
async fn rows_over_websocket(server: &Server) -> (LineStream, Vec<String>) {
    let http = HttpTransport::new(&server.endpoint).unwrap();
    let transport = WebSocketTransport::new(&server.endpoint, http).unwrap();
    let request = SyncRequest { raw_data: true, ..SyncRequest::default() };
    let mut stream = transport.open(&request, &Credentials::new(token("anna"))).await.unwrap();
    let mut lines = LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT);
    let mut rows = Vec::new();
    loop {
        match lines.next().unwrap() {
            Some(ClientLine::CheckpointComplete { .. }) => return (stream, rows),
            Some(ClientLine::Data(line)) => rows.extend(line.operations.iter().map(|row| row.object_id.to_string())),
            Some(_) => {}
            None => lines.push(tokio::time::timeout(LIMIT, stream.bytes.next()).await.unwrap().unwrap().unwrap()),
        }
    }
}

#[tokio::test]
async fn a_client_gets_its_rows_and_a_signal_ends_the_streams() {
    let folder = tempfile::tempdir().unwrap();
    let url = database().await;
    write_settings(folder.path(), "");
    let client = syncline_transport_http::http_client().unwrap();
    for _ in 0..2 {
        let mut server = Server::start(folder.path(), &url);
        let (mut answer, rows) = rows_of_anna(&client, &server).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["object_id"], "l1");
        let (mut stream, rows) = rows_over_websocket(&server).await;
        assert_eq!(rows, ["l1"]);

        let kill = Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status().unwrap();
        assert!(kill.success());
        // The open streams end in an orderly way, and the program with them.
        while let Some(piece) = tokio::time::timeout(LIMIT, stream.bytes.next()).await.unwrap() {
            piece.unwrap();
        }
        while tokio::time::timeout(LIMIT, answer.chunk()).await.unwrap().unwrap().is_some() {}
        assert!(server.wait().success());
    }
}

/// What the program says before it ends by itself, with a failure.
fn last_words(folder: &Path, url: &str) -> String {
    let process = program(folder, Some(url)).stderr(Stdio::piped()).spawn().unwrap();
    let mut ending = Server { process, endpoint: String::new(), said: mpsc::channel().1 };
    let mut stderr = ending.process.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        said
    });
    assert!(!ending.wait().success());
    said.join().unwrap()
}

#[tokio::test]
async fn what_needs_a_person_ends_the_program_if_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let url = postgres_fixture::fresh_database().await;
    write_settings(folder.path(), "");
    let said = last_words(folder.path(), &url);
    assert!(said.contains("there is no publication `syncline`: run `CREATE PUBLICATION"), "{said}");
    assert!(said.contains("stopping: open streams end"), "{said}");
}

#[tokio::test]
async fn a_changed_config_refuses_to_start_and_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = database().await;
    write_settings(folder, "");
    let client = syncline_transport_http::http_client().unwrap();
    let server = Server::start(folder, &url);
    let (_, rows) = rows_of_anna(&client, &server).await;
    drop(server);

    // Nobody is served by the config before: the change may be what closes a leak.
    fs::write(folder.join("sync.yaml"), SYNC.replace("SELECT * FROM lists", "SELECT id, name FROM lists")).unwrap();
    let said = last_words(folder, &url);
    for part in ["sync config has changed", "my_lists", "new store file", "config before"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("serving"), "{said}");
    // Nothing is lost by the attempt; and what is the same by another name is no change.
    fs::write(folder.join("sync.yaml"), SYNC.replace("my_lists", "renamed")).unwrap();
    let server = Server::start(folder, &url);
    assert_eq!(rows_of_anna(&client, &server).await.1, rows);
}

/// A role that loses its right is a person's to mend; until then, and after, the same stream goes on.
#[tokio::test]
async fn streams_stay_open_while_a_right_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let url = database().await;
    let admin = postgres_fixture::shared().await.connect(&url).await.unwrap();
    admin
        .batch_execute(
            "CREATE ROLE replicates LOGIN REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA public TO replicates",
        )
        .await
        .unwrap();
    write_settings(folder.path(), "[limits]\nretry_seconds = 1");
    let mut server = Server::start(folder.path(), &url.replace("postgres://postgres@", "postgres://replicates@"));
    let client = syncline_transport_http::http_client().unwrap();
    let (mut answer, _) = rows_of_anna(&client, &server).await;
    server.until("replication follows the stream");

    let walsenders = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'replicates'";
    admin.batch_execute("ALTER ROLE replicates NOREPLICATION").await.unwrap();
    admin.batch_execute(walsenders).await.unwrap();
    server.until("role replicates may not replicate: run `ALTER ROLE \"replicates\" REPLICATION;`");
    // Who comes now is served what is stored.
    assert_eq!(rows_of_anna(&client, &server).await.1.len(), 1);

    admin
        .batch_execute("ALTER ROLE replicates REPLICATION; INSERT INTO lists VALUES ('l3', 'New', 'anna')")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("\"l3\"") {
        let piece = tokio::time::timeout(LIMIT, answer.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece.unwrap_or_else(|| panic!("it was cut: {text}"))).unwrap());
    }
}

#[test]
fn explain_says_what_decides_for_each_row() {
    let folder = tempfile::tempdir().unwrap();
    write_settings(folder.path(), "");
    let config = "
config: { edition: 3 }
streams:
  lists: { auto_subscribe: true, query: SELECT * FROM lists WHERE team IN (SELECT team FROM members WHERE user_id = auth.user_id()) }
";
    fs::write(folder.path().join("sync.yaml"), config).unwrap();
    let rows = json!({
        "lists": [{ "id": "l1", "team": "red" }, { "id": "l2", "team": "blue" }],
        "members": [{ "id": "m1", "user_id": "anna", "team": "red" }],
    });
    fs::write(folder.path().join("rows.json"), rows.to_string()).unwrap();
    let explain = |user: &str| {
        let rows = folder.path().join("rows.json");
        let output = program(folder.path(), None).args(["explain", "--user", user]).arg(rows).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let anna = explain("anna");
    assert!(anna.contains("lists \"l1\": the row is sent"), "{anna}");
    assert!(anna.contains("lists \"l2\": the row is not sent"), "{anna}");
    assert!(
        anna.contains("the row is in bucket [\"blue\"]") && anna.contains("the request has bucket [\"red\"]"),
        "{anna}"
    );
    let ben = explain("ben");
    assert!(ben.contains("the request has no bucket: lookup 0 finds nothing for [\"ben\"]"), "{ben}");
}

#[tokio::test]
async fn check_explains_rows_beside_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = database().await;
    write_settings(folder, "");
    let rows = json!({ "lists": [{ "id": "l1", "owner_id": "anna" }, { "id": "l2", "owner_id": "ben" }] });
    fs::write(folder.join("rows.json"), rows.to_string()).unwrap();
    let run = |options: &[&str]| {
        let rows = folder.join("rows.json");
        let options = options.iter().map(|option| if *option == "ROWS" { rows.as_os_str() } else { option.as_ref() });
        let Output { status, stdout, stderr } =
            program(folder, Some(&url)).arg("check").args(options).output().unwrap();
        (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let (right, said, _) = run(&["--explain", "ROWS", "--user", "anna"]);
    assert!(right && said.contains("ok       database") && said.contains("ok       rows to explain"), "{said}");
    assert!(
        said.contains("lists \"l1\": the row is sent") && said.contains("lists \"l2\": the row is not sent"),
        "{said}"
    );
    let (right, said, _) = run(&["--json", "--explain", "ROWS", "--user", "ben"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let explained: Vec<_> = said["explained"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(right && explained.len() == 2 && explained[1].starts_with("lists \"l2\": the row is sent"), "{said}");

    // What is wrong with the question is one more problem.
    fs::write(folder.join("rows.json"), "[]").unwrap();
    let (right, said, _) = run(&["--explain", "ROWS", "--user", "anna"]);
    assert!(!right && said.contains("problem  rows to explain: ") && said.contains("ok       database"), "{said}");
    let (right, _, why) = run(&["--explain", "ROWS"]);
    assert!(!right && why.contains("--user"), "{why}");
    let (right, _, why) = run(&["--user", "anna"]);
    assert!(!right && why.contains("--explain"), "{why}");
    let (right, _, why) = run(&["--claims", "{}"]);
    assert!(!right && why.contains("--user"), "{why}");
}
