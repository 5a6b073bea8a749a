//! What is measured in a process of its own, so that nothing else is in its memory and its files are its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use syncline_core::{Replicator, SyncConfig};
use syncline_source_postgres::PostgresSource;
use syncline_storage_sqlite::SqliteBucketStore;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bench::{DEADLINE, SYNC_CONFIG, Server, memory, processor_seconds, until_operations};
use crate::config;
use crate::connection::{Connection, Protocol};
use crate::stream_buckets;

/// By this a process learns what it is to do.
const ERRAND: &str = "SYNCLINE_FIGURES_ERRAND";
/// Connections that are opened at a time.
const AT_ONCE: usize = 100;

/// What a process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Errand {
    /// Read a database for the first time, and say what it [`Took`].
    Replicate { url: String, slot: String, store: PathBuf, rows: u64 },
    /// Replicate a database of so many rows and serve it, say where, and say how much memory that holds for each line that
    /// comes.
    Serve { url: String, slot: String, store: PathBuf, rows: u64 },
    /// Do what is [`Asked`] of connections to a server, and say by a line how many there are then.
    Connect { address: String, protocol: Protocol },
    /// Say how many bytes each bucket of a request takes.
    Buckets { runs: usize },
    /// Say how many bytes a stream keeps for each bucket.
    StreamBuckets,
}

/// What a process is to do with its connections.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Asked {
    /// Open so many more.
    Open(usize),
    /// Wait until each has had another checkpoint.
    AwaitCheckpoint,
}

/// What replication took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Took {
    pub(crate) megabytes: f64,
    pub(crate) processor: f64,
    pub(crate) seconds: f64,
}

/// A process on an errand; it ends with this.
#[derive(Debug)]
pub(crate) struct Process {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(errand: &Errand) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ERRAND, serde_json::to_string(errand)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("a process has no input")?;
        let output = BufReader::new(child.stdout.take().context("a process has no output")?).lines();
        Ok(Self { _child: child, input, output })
    }

    /// Tells it something.
    pub(crate) async fn tell<T: Serialize>(&mut self, what: T) -> Result<()> {
        Ok(self.input.write_all(format!("{}\n", serde_json::to_string(&what)?).as_bytes()).await?)
    }

    /// The next thing that it says.
    pub(crate) async fn says<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line =
            tokio::time::timeout(DEADLINE, self.output.next_line()).await.context("a process took too long")??;
        Ok(serde_json::from_str(&line.context("a process ended, see above")?)?)
    }
}

/// Whether this process is on an errand: it is carried out then.
pub(crate) async fn run() -> Result<bool> {
    let Ok(errand) = std::env::var(ERRAND) else { return Ok(false) };
    match serde_json::from_str(&errand)? {
        Errand::Replicate { url, slot, store, rows } => {
            let began = Instant::now();
            let store = SqliteBucketStore::open(store).await?;
            let replicator = replicator(&url, slot, &store)?;
            tokio::select! {
                stopped = replicator.run() => stopped?,
                done = until_operations(&store, rows) => done?,
            }
            let megabytes = memory("VmHWM:").context("this system does not tell memory")? / 1_048_576.0;
            let seconds = began.elapsed().as_secs_f64();
            say(&Took { megabytes, processor: processor_seconds(), seconds })?;
        }
        Errand::Serve { url, slot, store, rows } => {
            let store = SqliteBucketStore::open(store).await?;
            let replicator = replicator(&url, slot, &store)?;
            let serve = async {
                until_operations(&store, rows).await?;
                let server = Server::start(store.clone()).await?;
                say(&server.address()?)?;
                let mut asked = BufReader::new(tokio::io::stdin()).lines();
                while asked.next_line().await?.is_some() {
                    say(&memory("VmRSS:").context("this system does not tell memory")?)?;
                }
                Ok(())
            };
            tokio::select! {
                stopped = replicator.run() => stopped?,
                done = serve => return done.map(|()| true),
            }
        }
        Errand::Connect { address, protocol } => {
            let mut asked = BufReader::new(tokio::io::stdin()).lines();
            let mut open: Vec<Connection> = Vec::new();
            while let Some(line) = asked.next_line().await? {
                match serde_json::from_str(&line)? {
                    Asked::Open(count) => {
                        let connect = |_| Connection::open(&address, protocol);
                        let connections = stream::iter(0..count).map(connect).buffer_unordered(AT_ONCE);
                        open.append(&mut connections.try_collect().await?);
                    }
                    Asked::AwaitCheckpoint => {
                        let waiting = stream::iter(&mut open).map(|connection| Ok(connection.checkpoint()));
                        waiting.try_buffer_unordered(usize::MAX).try_collect::<()>().await?;
                    }
                }
                say(&open.len())?;
            }
        }
        Errand::StreamBuckets => say(&stream_buckets::measure().await?)?,
        Errand::Buckets { runs } => say(&config::bytes_of_buckets(runs)?)?,
    }
    Ok(true)
}

fn replicator(url: &str, slot: String, store: &SqliteBucketStore) -> Result<Replicator> {
    let source = PostgresSource::new(url)?.publication("syncline").slot(slot);
    Ok(Replicator::new(source, SyncConfig::parse(SYNC_CONFIG)?, store.clone()))
}

fn say<T: Serialize>(what: &T) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}
