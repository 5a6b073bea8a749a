//! Serving a large bucket to one client over a socket, against the same bytes from memory over the same kind of socket.

use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::bench::{Begun, Bench, DEADLINE, Task, Times};
use crate::figure::{Figure, Name};
use crate::occurrences::{COMPLETE, Occurrences};

/// Of a hundred rows, so many are updated.
const UPDATED: u64 = 30;
/// What is sent from memory goes in pieces of this size, as a server sends it.
const PIECE: usize = 32 << 10;

/// Operations a second of a bucket of which half came as a snapshot and half as transactions of one row, and of which some rows
/// were updated: the first time that a service sends it, or (hot) once it has it in memory.
pub(crate) async fn bucket(bench: &Bench, name: Name) -> Result<Figure> {
    let accept = match name {
        Name::ServeBson => "application/vnd.powersync.bson-stream",
        _ => "application/x-ndjson",
    };
    let half = bench.rows / 2;
    let source = bench.database(half).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(half).await?;
    source.insert(bench.rows - half, 1).await?;
    let updated = bench.rows * UPDATED / 100;
    let update = "UPDATE todos SET done = true WHERE id IN (SELECT id FROM todos ORDER BY id LIMIT $1::bigint)";
    source.sql.execute(update, &[&i64::try_from(updated)?]).await?;
    let operations = bench.rows + updated;
    running.until_operations(operations).await?;

    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let mut size = 0;
    for _ in 0..bench.runs {
        let server = bench.serve(running.store.clone()).await?;
        let http = syncline_transport_http::http_client()?;
        let url = format!("{}/sync/stream", server.endpoint);
        if name == Name::ServeHot {
            read(&http, &url, accept, |_| {}).await?;
        }
        // Its pieces are kept outside of the time that counts.
        let mut kept = Vec::new();
        let begun = Begun::now();
        read(&http, &url, accept, |bytes| kept.push(bytes)).await?;
        ours.push(&begun);
        server.stop().await;

        size = kept.iter().map(Bytes::len).sum();
        let (url, memory) = from_memory(kept.concat().into()).await?;
        let begun = Begun::now();
        read(&http, &url, accept, |_| {}).await?;
        theirs.push(&begun);
        memory.stop().await;
    }
    ensure!(size as u64 > operations * 100, "the stream was too short to hold every operation");
    running.stop().await;
    let note = format!("{operations} operations, {} MB; against the same bytes from memory", size / 1_000_000);
    let (ours, theirs, processor) = (ours.rate(operations), theirs.rate(operations), ours.processor());
    Ok(Figure::against(name, ours, theirs, note).took(processor))
}

/// Reads until the checkpoint is complete.
async fn read(http: &reqwest::Client, url: &str, accept: &str, mut piece: impl FnMut(Bytes)) -> Result<()> {
    let read = async {
        let request = http
            .post(url)
            .header("authorization", "Token anyone")
            .header("accept", accept)
            .header("accept-encoding", "identity")
            .json(&serde_json::json!({ "raw_data": true, "buckets": [] }));
        let mut body = request.send().await?.error_for_status()?.bytes_stream();
        let mut completions = Occurrences::of(COMPLETE);
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            let complete = completions.count(&bytes) > 0;
            piece(bytes);
            if complete {
                return Ok(());
            }
        }
        anyhow::bail!("the stream ended before it was complete")
    };
    tokio::time::timeout(DEADLINE, read).await.context("the bucket was not served in time")?
}

/// A server that sends these bytes to everyone.
async fn from_memory(bytes: Bytes) -> Result<(String, Task)> {
    let answer = async |State(bytes): State<Bytes>| {
        let pieces = (0..bytes.len().div_ceil(PIECE))
            .map(move |piece| Ok::<_, Infallible>(bytes.slice(piece * PIECE..bytes.len().min((piece + 1) * PIECE))));
        Body::from_stream(stream::iter(pieces))
    };
    let app = axum::Router::new().route("/", post(answer)).with_state(bytes);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let task = Task::spawn(async move {
        if let Err(error) = axum::serve(listener, app.into_make_service()).await {
            eprintln!("the server of memory stopped: {error}");
        }
    });
    Ok((url, task))
}
