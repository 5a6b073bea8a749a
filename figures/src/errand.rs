//! What is measured in a process of its own, so that nothing else is in its memory and its files are its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use syncline_core::{Replicator, SyncConfig};
use syncline_source_postgres::PostgresSource;
use syncline_storage_sqlite::SqliteBucketStore;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::bench::{DEADLINE, SYNC_CONFIG, memory, processor_seconds, until_operations};
use crate::config;
use crate::occurrences::{COMPLETE, Occurrences};
use crate::stream_buckets;

/// By this a process learns what it is to do.
const ERRAND: &str = "SYNCLINE_FIGURES_ERRAND";
/// Connections that are opened at a time.
const AT_ONCE: usize = 100;
/// Nothing more comes of a stream that has been silent for so long.
const SILENCE: Duration = Duration::from_millis(100);

/// What a process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Errand {
    /// Read a database for the first time, and say what it [`Took`].
    Replicate { url: String, slot: String, store: PathBuf, rows: u64 },
    /// Open so many connections to a server and say so by a line, for each line that comes.
    Connect { address: String },
    /// Say how many bytes each bucket of a request takes.
    Buckets { runs: usize },
    /// Say how many bytes a stream keeps for each bucket.
    StreamBuckets,
}

/// What replication took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Took {
    pub(crate) megabytes: f64,
    pub(crate) processor: f64,
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
            let store = SqliteBucketStore::open(store).await?;
            let source = PostgresSource::new(&url)?.publication("syncline").slot(slot);
            let replicator = Replicator::new(source, SyncConfig::parse(SYNC_CONFIG)?, store.clone());
            tokio::select! {
                stopped = replicator.run() => stopped?,
                done = until_operations(&store, rows) => done?,
            }
            let megabytes = memory("VmHWM:").context("this system does not tell memory")? / 1_048_576.0;
            say(&Took { megabytes, processor: processor_seconds() })?;
        }
        Errand::Connect { address } => {
            let mut asked = BufReader::new(tokio::io::stdin()).lines();
            let mut open: Vec<TcpStream> = Vec::new();
            while let Some(count) = asked.next_line().await? {
                let count: usize = serde_json::from_str(&count)?;
                let connections = stream::iter(0..count).map(|_| connect(&address)).buffer_unordered(AT_ONCE);
                open.append(&mut connections.try_collect().await?);
                say(&open.len())?;
            }
        }
        Errand::StreamBuckets => say(&stream_buckets::measure().await?)?,
        Errand::Buckets { runs } => say(&config::bytes_of_buckets(runs)?)?,
    }
    Ok(true)
}

fn say<T: Serialize>(what: &T) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

/// Opens a stream as the SDKs do, and reads until nothing more comes of its first checkpoint.
async fn connect(address: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    let body =
        r#"{"buckets":[],"include_checksum":true,"raw_data":true,"client_id":"8d0d2b5e-8ea1-4a1c-9e67-2f4c1f6f3c0a"}"#;
    let request = format!(
        "POST /sync/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Token anyone\r\ncontent-type: application/json\r\n\
         accept: application/x-ndjson\r\naccept-encoding: gzip\r\nuser-agent: powersync-js/1.40.0 powersync-core/0.4.6 node/24\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let opened = async {
        socket.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 4_096];
        let mut received = 0;
        let mut completions = Occurrences::of(COMPLETE);
        loop {
            match tokio::time::timeout(SILENCE, socket.read(&mut buffer)).await {
                // What is compressed is not looked into.
                Err(_) if received > 0 => return Ok(()),
                Err(_) => {}
                Ok(count) => {
                    let bytes = &buffer[..count?];
                    ensure!(!bytes.is_empty(), "the connection was closed");
                    ensure!(received > 0 || bytes.starts_with(b"HTTP/1.1 200"), "the stream was refused");
                    received += bytes.len();
                    if completions.count(bytes) > 0 {
                        return Ok(());
                    }
                }
            }
        }
    };
    tokio::time::timeout(DEADLINE, opened).await.context("a stream was not opened in time")??;
    Ok(socket)
}
