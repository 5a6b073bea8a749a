//! What grows with the rows, the streams and the buckets, and what does not: three small tables.

use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::client::Client;
use crate::connection::Protocol;
use crate::errand::{Asked, Errand, Process};
use crate::figure::percentile;
use crate::{latency, many_buckets, memory};

/// How many times as many rows as the large bucket has.
const ROWS: [u64; 3] = [1, 5, 25];
/// Streams that are open, that of the client included.
const STREAMS: [usize; 4] = [1, 100, 1_000, 5_000];
const BUCKETS: [usize; 3] = [10, 1_000, 10_000];
/// Rows of the client whose latency is measured.
const CLIENT_ROWS: u64 = 1_000;

/// Each user has the rows of one list; its id is their name.
const BY_LIST: &str = "
config: { edition: 3 }
streams:
  todos:
    auto_subscribe: true
    query: SELECT * FROM todos WHERE list_id = auth.user_id()
";
const LIST: &str = "00000000-0000-0000-0000-000000000001";

pub(crate) async fn tables(bench: &Bench) -> Result<String> {
    let mut out = String::new();
    replication(bench, &mut out).await?;
    sessions(bench, &mut out).await?;
    resolution(&mut out).await?;
    Ok(out)
}

/// Initial replication into a store on the disk, in a process of its own.
async fn replication(bench: &Bench, out: &mut String) -> Result<()> {
    out.push_str("| Rows | rows/s | Memory at most, MB | Processor, s per million rows |\n|---:|---:|---:|---:|\n");
    for factor in ROWS {
        let rows = bench.rows * factor;
        let began = Instant::now();
        let took = memory::replicate(bench, rows).await?;
        eprintln!("  {rows} rows, their insertion included: {:.0} s", began.elapsed().as_secs_f64());
        let rate = rows as f64 / took.seconds;
        let processor = took.processor * 1_000_000.0 / rows as f64;
        writeln!(out, "| {rows} | {rate:.0} | {:.0} | {processor:.2} |", took.megabytes)?;
    }
    Ok(())
}

/// From a commit to a client's query, beside streams that it does not concern.
async fn sessions(bench: &Bench, out: &mut String) -> Result<()> {
    out.push_str("\n| Streams | p50, ms | p99, ms |\n|---:|---:|---:|\n");
    let source = bench.database(CLIENT_ROWS).await?;
    source.sql.execute(&format!("UPDATE todos SET list_id = '{LIST}'"), &[]).await?;
    let running = bench.replicate_by(&source, BY_LIST).await?;
    let server = bench.serve(running.store.clone()).await?;
    let client = Client::start_as(bench, &server, LIST).await?;
    client.until_rows(CLIENT_ROWS).await?;
    let mut others = Process::start(&Errand::Connect { address: server.address()?, protocol: Protocol::Http })?;
    let mut open = 1;
    for (round, streams) in STREAMS.into_iter().enumerate() {
        others.tell(Asked::Open(streams - open)).await?;
        open = others.says::<usize>().await? + 1;
        let latencies = latency::updates(bench, &source, &client, round).await?;
        eprintln!("  {open} streams: {:.2} ms", percentile(&latencies, 50));
        writeln!(out, "| {open} | {:.2} | {:.2} |", percentile(&latencies, 50), percentile(&latencies, 99))?;
    }
    drop(others);
    client.stop();
    server.stop().await;
    running.stop().await;
    Ok(())
}

/// The first sync of a user, in memory, and what a change of content and of rights takes.
async fn resolution(out: &mut String) -> Result<()> {
    out.push_str(
        "\n| Buckets | all found and sent, ms | a changed row, ms | one bucket more, ms |\n|---:|---:|---:|---:|\n",
    );
    for buckets in BUCKETS {
        let took = many_buckets::of(buckets).await.with_context(|| format!("a user of {buckets} buckets"))?;
        writeln!(out, "| {buckets} | {:.2} | {:.3} | {:.3} |", took.first, took.change, took.right)?;
    }
    Ok(())
}
