//! Serving a large bucket to one client, over a socket.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;

use crate::bench::{Bench, DEADLINE, rate};
use crate::figure::{Figure, Name, median};
use crate::occurrences::{COMPLETE, Occurrences};

pub(crate) async fn cold(bench: &Bench, name: Name) -> Result<Figure> {
    let accept = match name {
        Name::ServeBson => "application/vnd.powersync.bson-stream",
        _ => "application/x-ndjson",
    };
    let source = bench.database(bench.rows).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(bench.rows).await?;
    let server = bench.serve(running.store.clone()).await?;
    let http = syncline_transport_http::http_client()?;
    let mut rates = Vec::new();
    let mut size = 0;
    for _ in 0..bench.runs {
        let begun = Instant::now();
        let read = async {
            let request = http
                .post(format!("{}/sync/stream", server.endpoint))
                .header("authorization", "Token anyone")
                .header("accept", accept)
                .header("accept-encoding", "identity")
                .json(&serde_json::json!({ "raw_data": true, "buckets": [] }));
            let mut body = request.send().await?.error_for_status()?.bytes_stream();
            let mut completions = Occurrences::of(COMPLETE);
            size = 0;
            while let Some(bytes) = body.next().await {
                let bytes = bytes?;
                size += bytes.len();
                if completions.count(&bytes) > 0 {
                    return Ok(());
                }
            }
            anyhow::bail!("the stream ended before it was complete")
        };
        tokio::time::timeout(DEADLINE, read).await.context("the bucket was not served in time")??;
        rates.push(rate(bench.rows, begun));
    }
    ensure!(size as u64 > bench.rows * 100, "the stream was too short to hold every row");
    server.stop().await;
    running.stop().await;
    Ok(Figure::new(name, median(rates), format!("{} rows, {} MB", bench.rows, size / 1_000_000)))
}
