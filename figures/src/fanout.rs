//! One update to many open streams: until the last one has it.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::bench::{Bench, DEADLINE};
use crate::connection::Protocol;
use crate::errand::{Asked, Errand, Process};
use crate::figure::{Figure, Name, median};
use crate::occurrences::{COMPLETE, Occurrences};

pub(crate) async fn one_update(bench: &Bench, streams: usize) -> Result<Figure> {
    let source = bench.database(10).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(10).await?;
    let server = bench.serve(running.store.clone()).await?;
    let http = syncline_transport_http::http_client()?;

    // Each reader reports when it has seen a completion; the first is that of its first checkpoint.
    let (report, mut reports) = mpsc::channel::<()>(streams);
    let (stop, stopped) = watch::channel(());
    for _ in 0..streams {
        let request = http
            .post(format!("{}/sync/stream", server.endpoint))
            .header("authorization", "Token anyone")
            .header("accept", "application/x-ndjson")
            .header("accept-encoding", "identity")
            .json(&serde_json::json!({ "raw_data": true, "buckets": [] }));
        let (report, mut stopped) = (report.clone(), stopped.clone());
        tokio::spawn(async move {
            let read = async {
                let mut body = request.send().await?.error_for_status()?.bytes_stream();
                let mut completions = Occurrences::of(COMPLETE);
                while let Some(bytes) = body.next().await {
                    for _ in 0..completions.count(&bytes?) {
                        report.send(()).await?;
                    }
                }
                Ok::<_, anyhow::Error>(())
            };
            tokio::select! {
                outcome = read => if let Err(error) = outcome { eprintln!("a stream failed: {error}") },
                _ = stopped.changed() => {}
            }
        });
    }
    wait_for(&mut reports, streams).await?;
    let mut times = Vec::new();
    for number in 0..bench.runs.max(5) {
        let title = format!("update {number}");
        source.sql.execute("UPDATE todos SET title = $1 WHERE id = (SELECT id FROM todos LIMIT 1)", &[&title]).await?;
        let committed = Instant::now();
        wait_for(&mut reports, streams).await?;
        times.push(committed.elapsed().as_secs_f64() * 1_000.0);
    }
    drop(stop);
    server.stop().await;
    running.stop().await;
    Ok(Figure::new(Name::Fanout1000, median(times), format!("last of {streams} readers, all in this process")))
}

/// Streams that are open over WebSocket; at most one for each row.
const WEBSOCKETS: usize = 10_000;
/// The last of them should have an update by then, in milliseconds.
const BUDGET: f64 = 1_000.0;

/// The same over WebSocket, with many more streams, and readers that are in a process of their own.
pub(crate) async fn idle_websockets(bench: &Bench) -> Result<Figure> {
    let streams = WEBSOCKETS.min(usize::try_from(bench.rows).unwrap_or(usize::MAX));
    let source = bench.database(10).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(10).await?;
    let server = bench.serve(running.store.clone()).await?;
    let errand = Errand::Connect { address: server.address()?, protocol: Protocol::WebSocket };
    let mut readers = Process::start(&errand)?;
    readers.tell(Asked::Open(streams)).await?;
    readers.says::<usize>().await?;
    let mut times = Vec::new();
    for number in 0..bench.runs.max(5) {
        readers.tell(Asked::AwaitCheckpoint).await?;
        let title = format!("update {number}");
        source.sql.execute("UPDATE todos SET title = $1 WHERE id = (SELECT id FROM todos LIMIT 1)", &[&title]).await?;
        let committed = Instant::now();
        readers.says::<usize>().await?;
        times.push(committed.elapsed().as_secs_f64() * 1_000.0);
    }
    drop(readers);
    server.stop().await;
    running.stop().await;
    let note = format!("last of {streams} readers over WebSocket, in a process of their own; constant: the budget");
    Ok(Figure::against(Name::FanoutWebsocket, median(times), BUDGET, note))
}

async fn wait_for(reports: &mut mpsc::Receiver<()>, count: usize) -> Result<()> {
    let wait = async {
        for _ in 0..count {
            if reports.recv().await.is_none() {
                bail!("all streams ended")
            }
        }
        Ok(())
    };
    tokio::time::timeout(DEADLINE, wait).await.context("not every stream got the update in time")?
}
