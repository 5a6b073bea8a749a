//! What `docs/getting-started.md` tells people to run is run here, as it is printed, and what it says is printed must be.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fs, thread};

use xtask::workspace;

const LIMIT: Duration = Duration::from_secs(60);

/// What every command may use: the programs as they were built with the workspace, in place of `cargo run`, which would build
/// them again with other features.
const PRELUDE: &str = r#"set -euo pipefail
cargo() { [ "$1 $2" = "run -p" ] || { echo "unexpected: cargo $*"; exit 1; }; local name="$3"; shift 3
    if [ $# -gt 0 ]; then [ "$1" = "--" ]; shift; fi; "$PROGRAMS/$name" "$@"; }
command -v openssl > /dev/null || openssl() { head -c 32 /dev/urandom | base64; }
"#;

/// A marked block: what to do with it, and its lines.
#[derive(Debug)]
struct Step<'a> {
    kind: &'a str,
    text: &'a str,
}

/// The blocks after `<!-- run -->`, `<!-- start -->` and `<!-- prints -->` lines, in their order.
fn steps(markdown: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for (at, _) in markdown.match_indices("<!-- ") {
        let rest = &markdown[at + 5..];
        let Some((kind, rest)) = rest.split_once(" -->\n```") else { continue };
        if ["run", "start", "prints"].contains(&kind) {
            let (_, rest) = rest.split_once('\n').unwrap();
            steps.push(Step { kind, text: rest.split("```").next().unwrap() });
        }
    }
    steps
}

/// A terminal in which something runs; it ends with the test.
struct Terminal {
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The shell and what it has started.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.process.id())]).status();
        let _ = self.process.wait();
    }
}

/// A person at a few terminals, in a clone.
struct Person {
    folder: tempfile::TempDir,
    database_url: String,
    programs: PathBuf,
    ports: [u16; 2],
    /// The newest is the one that is looked at.
    terminals: Vec<Terminal>,
}

impl Person {
    fn new(database_url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(workspace::root().join("examples"), folder.path().join("examples")).unwrap();
        fs::write(folder.path().join("variables"), "").unwrap();
        let programs = workspace::programs_directory().unwrap();
        let names = ["syncline-server", "syncline-backend", "todo-server", "todo-client"];
        if names.iter().any(|name| !programs.join(name).is_file()) {
            // They come along with the tests of the workspace; a run of these tests alone makes them, in several minutes.
            let built =
                workspace::cargo().args(["build", "--locked"]).args(names.map(|name| format!("-p{name}"))).status();
            assert!(built.unwrap().success(), "the programs cannot be built");
        }
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = [free(), free()].map(|listener| listener.local_addr().unwrap().port());
        Self { folder, database_url, programs, ports, terminals: Vec::new() }
    }

    /// The commands in a shell that knows the variables of those before; ports and database are this test's.
    fn shell(&self, commands: &str) -> Command {
        let [server, backend] = self.ports;
        let mut commands = commands
            .replace("localhost:8080", &format!("127.0.0.1:{server}"))
            .replace("localhost:8081", &format!("127.0.0.1:{backend}"));
        if let Some((before, rest)) = commands.split_once("export DATABASE_URL=") {
            let rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            commands = format!("{before}export DATABASE_URL='{}'\n{rest}", self.database_url);
        }
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(format!("{PRELUDE}. ./variables\n{commands}\nexport -p > variables\n"))
            .current_dir(self.folder.path())
            .env_remove("DATABASE_URL")
            .env("PROGRAMS", &self.programs)
            .env("SYNCLINE_LISTEN", format!("127.0.0.1:{server}"))
            .env("BACKEND_LISTEN", format!("127.0.0.1:{backend}"))
            .env("LISTEN", format!("127.0.0.1:{server}"))
            .env("SYNC_URL", format!("http://127.0.0.1:{server}"))
            .process_group(0)
            .stdin(Stdio::null());
        shell
    }

    async fn run(&self, commands: &str) {
        // Not every provision of Postgres has psql: what it would do is done here.
        let (psql, others): (Vec<&str>, Vec<&str>) = commands.lines().partition(|line| line.starts_with("psql "));
        let output = self.shell(&others.join("\n")).output().unwrap();
        assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stdout));
        for line in psql {
            let (option, what) = line.strip_prefix("psql \"$DATABASE_URL\" ").unwrap().split_once(' ').unwrap();
            let sql = match option {
                "-f" => fs::read_to_string(workspace::root().join(what)).unwrap(),
                "-c" => what.trim_matches('"').to_owned(),
                _ => panic!("{line}"),
            };
            let client = postgres_fixture::shared().await.connect(&self.database_url).await.unwrap();
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{line}: {error:?}"));
        }
    }

    fn start(&mut self, commands: &str) {
        let mut process =
            self.shell(&format!("{{ {commands} }} 2>&1")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        self.terminals.push(Terminal { process, lines });
    }

    /// Waits for a line in the newest terminal.
    fn reads(&self, wanted: &str) {
        let terminal = self.terminals.last().unwrap();
        let deadline = Instant::now() + LIMIT;
        let mut said = String::new();
        loop {
            let Ok(line) = terminal.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                panic!("{wanted:?} is not printed: {said}");
            };
            if line == wanted.trim_end() {
                return;
            }
            said.extend([&line, "\n"]);
        }
    }
}

#[tokio::test]
async fn what_is_printed_can_be_run_as_it_is_printed() {
    let text = fs::read_to_string(workspace::root().join("docs/getting-started.md")).unwrap();
    let (no_code, own) = text.split_once("\n## A server of your own\n").unwrap();
    let mut schema = None;
    for section in [no_code, own] {
        let mut person = Person::new(postgres_fixture::fresh_database().await);
        if let Some(schema) = schema {
            // "With the variable and the tables of above".
            person.run(schema).await;
        }
        let steps = steps(section);
        assert!(steps.len() >= 5, "{steps:?}");
        schema = schema.or(Some(steps[0].text));
        for step in &steps {
            match step.kind {
                "run" => person.run(step.text).await,
                "start" => person.start(step.text),
                _ => person.reads(step.text),
            }
        }
    }
}

/// The manifests that are shown name what the examples name, with the same features.
#[test]
fn the_manifests_that_are_shown_are_those_of_the_examples() {
    let root = workspace::root();
    let text = fs::read_to_string(root.join("docs/getting-started.md")).unwrap();
    let read = |path: &Path| -> toml::Table { fs::read_to_string(root.join(path)).unwrap().parse().unwrap() };
    let workspace = read(Path::new("Cargo.toml"));
    let known = workspace["workspace"]["dependencies"].as_table().unwrap();
    let mut shown = 0;
    for rest in text.split("<!-- dependencies: ").skip(1) {
        let (example, rest) = rest.split_once(" -->\n```toml\n").unwrap();
        let ours: toml::Table = rest.split("```").next().unwrap().parse().unwrap();
        let ours = ours["dependencies"].as_table().unwrap();
        let manifest = read(&Path::new(example).join("Cargo.toml"));
        let theirs = manifest["dependencies"].as_table().unwrap();
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{example}");
        for (name, dependency) in ours {
            // What we make ourselves is taken with exactly the features that the example has.
            if name.starts_with("syncline-") {
                assert_eq!(dependency.get("features"), theirs[name].get("features"), "{example}: {name}");
                let path = dependency["path"].as_str().unwrap().strip_prefix("../syncline/").unwrap();
                assert_eq!(known[name]["path"].as_str(), Some(path), "{example}: {name}");
                assert_eq!(dependency.get("default-features"), known[name].get("default-features"), "{name}");
            } else {
                let version = |value: &toml::Value| value.get("version").unwrap_or(value).as_str().unwrap().to_owned();
                let (ours, theirs) = (version(dependency), version(&known[name]));
                assert!(theirs.starts_with(&ours), "{example}: {name} {ours}, and {theirs} in the workspace");
            }
        }
        shown += 1;
    }
    assert_eq!(shown, 2);
}
