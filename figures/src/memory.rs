//! The memory and the processor time of a server: of one that reads a database for the first time, in a process of its own, and
//! of its idle connections.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use syncline_core::{Replicator, SyncConfig};
use syncline_source_postgres::PostgresSource;
use syncline_storage_sqlite::SqliteBucketStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Bench, DEADLINE, SYNC_CONFIG, memory, processor_seconds, until_operations};
use crate::figure::{Figure, Name, median};
use crate::occurrences::{COMPLETE, Occurrences};

/// Connections that are opened at a time.
const AT_ONCE: usize = 100;
/// What a process is told that only replicates.
const ERRAND: &str = "SYNCLINE_FIGURES_REPLICATE";
/// Connections that are open when memory is looked at first, and how many are opened then; at most one for each row.
const CONNECTIONS: [usize; 2] = [1_000, 9_000];

/// What a process that replicates is told.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    url: String,
    slot: String,
    store: std::path::PathBuf,
    rows: u64,
}

/// What it took.
#[derive(Debug, Serialize, Deserialize)]
struct Took {
    megabytes: f64,
    processor: f64,
}

/// Whether this process is one that only replicates: it does so, and prints what it took.
pub(crate) async fn run_errand() -> Result<bool> {
    let Ok(errand) = std::env::var(ERRAND) else { return Ok(false) };
    let Errand { url, slot, store, rows } = serde_json::from_str(&errand)?;
    let store = SqliteBucketStore::open(store).await?;
    let source = PostgresSource::new(&url)?.publication("syncline").slot(slot);
    let replicator = Replicator::new(source, SyncConfig::parse(SYNC_CONFIG)?, store.clone());
    tokio::select! {
        stopped = replicator.run() => stopped?,
        done = until_operations(&store, rows) => done?,
    }
    let megabytes =
        memory("VmHWM:").context("this system does not tell how much memory a process holds")? / 1_048_576.0;
    println!("{}", serde_json::to_string(&Took { megabytes, processor: processor_seconds() })?);
    Ok(true)
}

/// The initial replication of a table by a process of its own.
async fn replicate(bench: &Bench, rows: u64) -> Result<Took> {
    let source = bench.database(rows).await?;
    let errand = Errand { url: source.url.clone(), slot: source.slot.clone(), store: bench.file("buckets"), rows };
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .env(ERRAND, serde_json::to_string(&errand)?)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.context("the table was not replicated in time")??;
    ensure!(output.status.success(), "a process failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("a process did not say what it took")
}

/// The most memory that it held, and that for five times as many rows; or its processor time for a million rows.
pub(crate) async fn replication(bench: &Bench, name: Name) -> Result<Figure> {
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        few.push(replicate(bench, bench.rows).await?);
        // One says whether it grows.
        if run == 0 {
            many.push(replicate(bench, bench.rows * 5).await?);
        }
    }
    let megabytes = |runs: &[Took]| median(runs.iter().map(|took| took.megabytes).collect());
    let seconds =
        |runs: &[Took], rows: u64| median(runs.iter().map(|took| took.processor).collect()) * 1_000_000.0 / rows as f64;
    let rows = bench.rows;
    if name == Name::ServerRssMb {
        let note = format!("initial replication of {rows} rows; {:.0} MB for {}", megabytes(&many), rows * 5);
        return Ok(Figure::new(name, megabytes(&few), note));
    }
    let note = format!("initial replication, of {} rows; against the same for a fifth of them", rows * 5);
    Ok(Figure::against(name, seconds(&many, rows * 5), seconds(&few, rows), note))
}

/// Memory for each further idle connection, from the first thousand on: server and the sockets of its clients.
pub(crate) async fn idle_connections(bench: &Bench) -> Result<Figure> {
    let source = bench.database(10).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(10).await?;
    let server = bench.serve(running.store.clone()).await?;
    let address = server.endpoint.strip_prefix("http://").context("the endpoint is no address")?;
    let counts = CONNECTIONS.map(|count| count.min(usize::try_from(bench.rows).unwrap_or(usize::MAX)));
    let mut open: Vec<TcpStream> = Vec::new();
    let mut held = [0.0; 2];
    for (count, held) in counts.into_iter().zip(&mut held) {
        let connections = stream::iter(0..count).map(|_| connect(address)).buffer_unordered(AT_ONCE);
        open.append(&mut connections.try_collect().await?);
        // What was needed for the last of them alone is given back by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        *held = memory("VmRSS:").context("this system does not tell how much memory a process holds")?;
    }
    let slope = ((held[1] - held[0]) / counts[1] as f64).max(1.0);
    drop(open);
    server.stop().await;
    running.stop().await;
    let note = format!("each of {} connections beyond {}, gzip asked for; against the budget", counts[1], counts[0]);
    Ok(Figure::against(Name::IdleConnectionBytes, slope, 16_384.0, note))
}

/// Opens a stream as the SDKs do, and reads until its first checkpoint is complete.
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
        let mut received = Vec::new();
        // Compressed or not, something comes after the head, and then nothing more for a while.
        let mut completions = Occurrences::of(COMPLETE);
        loop {
            let read = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut buffer)).await;
            match read {
                Err(_) if received.windows(4).any(|window| window == b"\r\n\r\n") => return Ok(()),
                Err(_) => {}
                Ok(count) => {
                    let bytes = &buffer[..count?];
                    ensure!(!bytes.is_empty(), "the connection was closed");
                    received.extend_from_slice(bytes);
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
