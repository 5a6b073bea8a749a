//! A process that is to be killed, with all that it prints.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::patience::{DEADLINE, until};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// Lines that a failed test shows of each of its processes.
const SHOWN: usize = 60;

/// The moment at which a process is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kill {
    /// At a failpoint, `name` or `name:N`: the process aborts.
    At(&'static str),
    /// By SIGKILL, once it has printed so many lines that begin so.
    After(usize, &'static str),
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A running process; it is killed when this is dropped, and its last lines are shown if the test fails.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines,
    readers: Vec<JoinHandle<()>>,
    kill: Option<Kill>,
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a program that will be [killed](Self::killed) at this moment, if at any.
    pub(crate) fn start(name: &str, program: &str, arguments: &[&str], kill: Option<Kill>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(Kill::At(failpoint)) = kill {
            command.env("SYNCLINE_FAILPOINT", failpoint);
        }
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let lines = Lines::default();
        let stdout = collect(child.stdout.take().unwrap(), lines.clone());
        let stderr = collect(child.stderr.take().unwrap(), lines.clone());
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, lines, readers: vec![stdout, stderr], kill, started }
    }

    /// What it has printed so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The rest of each line that begins so.
    pub(crate) fn told(&self, prefix: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    /// Waits for so many lines that begin so; gives the rest of the last of them.
    pub(crate) async fn tells(&self, count: usize, prefix: &str) -> String {
        let what = format!("{} prints {count} times {prefix:?}", self.name);
        until(&what, async || {
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            let told = self.told(prefix).get(count - 1).cloned();
            assert!(told.is_some() || !ended, "{} has ended before: {what}", self.name);
            told
        })
        .await
    }

    /// Waits for a line with this somewhere in it.
    pub(crate) async fn mentions(&self, text: &str) {
        let what = format!("{} mentions {text}", self.name);
        until(&what, async || self.lines().iter().any(|line| line.contains(text)).then_some(())).await;
    }

    /// Gives it a line to read.
    pub(crate) async fn give(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Waits for the moment, and for the end.
    pub(crate) async fn killed(mut self) -> Vec<String> {
        let kill = self.kill;
        let signal = match kill {
            None => {
                self.child.start_kill().unwrap();
                SIGKILL
            }
            Some(Kill::At(_)) => SIGABRT,
            Some(Kill::After(count, prefix)) => {
                self.tells(count, prefix).await;
                self.child.start_kill().unwrap();
                SIGKILL
            }
        };
        let end = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status: ExitStatus = end.unwrap_or_else(|_| panic!("{} does not die: {kill:?}", self.name)).unwrap();
        assert_eq!(status.signal(), Some(signal), "{} ended by itself ({status}) instead of {kill:?}", self.name);
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        self.lines()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines();
            eprintln!("---- {} ({:?}), the last of {} lines:", self.name, self.kill, lines.len());
            lines.iter().skip(lines.len().saturating_sub(SHOWN)).for_each(|line| eprintln!("    {line}"));
        }
    }
}

fn collect(output: impl AsyncRead + Unpin + Send + 'static, into: Lines) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().unwrap().push(line);
        }
    })
}
