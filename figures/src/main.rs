//! `cargo figures`: what Syncline does on real Postgres, files and sockets, against something comparable.
//!
//! Both sides of a ratio are measured in the same run, in pairs whose order alternates where the second could profit from the
//! first: `pg_recvlogical`, `COPY`, the same bytes from memory, plain SQLite, or a budget. Notes add what the official service
//! (version 1.25, Postgres bucket storage) did on two cores shared by client, service and Postgres. Latencies, `fanout_1000`,
//! `client_sync` and `server_rss_mb` have that constant alone on the other side, so compare the ratio, not the last digit.
//! Postgres runs with `fsync=on`, the bucket store and the client's database with `synchronous=FULL`. Processor time is that of
//! one run of ours in this process, server and client together.
//!
//! A figure that fails does not take the others with it: they are printed, and the program ends with a failure.

mod bench;
mod client;
mod config;
mod connection;
mod database;
mod errand;
mod fanout;
mod figure;
mod history;
mod latency;
mod many_buckets;
mod memory;
mod occurrences;
mod replicate;
mod scaling;
mod serve;
mod stream_buckets;
mod wal;
mod wire;

use anyhow::{Result, bail, ensure};
use clap::Parser;

use bench::Bench;
use figure::{Figure, Name};
use latency::Latencies;

/// Measures, and prints a table.
#[derive(Debug, Parser)]
struct Arguments {
    /// One JSON object a line: name, ours, against, unit, ratio, note.
    #[arg(long)]
    json: bool,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rows of the large bucket.
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// Rows of each replication run.
    #[arg(long, default_value_t = 100_000)]
    changes: u64,
    /// Runs of each figure; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A file to which the figures are added; what they were before is printed beside them.
    #[arg(long)]
    history: Option<std::path::PathBuf>,
    /// Updates whose latency is measured, 20 a second, for each of two sizes of bucket.
    #[arg(long, default_value_t = 400)]
    updates: u32,
    /// Instead of figures: tables of what grows with rows, streams and buckets. They take some minutes and gigabytes.
    #[arg(long)]
    scaling: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    if errand::run().await? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    let chosen: Vec<Name> = if arguments.only.is_empty() {
        Name::ALL.to_vec()
    } else {
        let find = |text: &String| match Name::ALL.iter().find(|name| name.text() == text) {
            Some(name) => Ok(*name),
            None => {
                let known: Vec<_> = Name::ALL.iter().map(|name| name.text()).collect();
                bail!("there is no figure `{text}`; there are {}", known.join(", "))
            }
        };
        arguments.only.iter().map(find).collect::<Result<_>>()?
    };
    let bench = Bench::start(arguments.rows, arguments.changes, arguments.runs, arguments.updates).await?;
    if arguments.scaling {
        println!("{}", scaling::tables(&bench).await?);
        return Ok(());
    }
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    let mut latencies = Measured::NotYet;
    for name in chosen {
        eprintln!("measuring {} …", name.text());
        match measure(name, &bench, &mut latencies).await {
            Ok(figure) => {
                eprintln!("  {}", figure.line());
                figures.push(figure);
            }
            // The others took their time and count all the same.
            Err(error) => {
                eprintln!("  {} FAILED: {error:#}", name.text());
                failed.push(name.text());
            }
        }
    }
    if arguments.json {
        for figure in &figures {
            println!("{}", serde_json::to_string(figure)?);
        }
    } else {
        println!("{}", figure::table(&figures));
    }
    if let Some(path) = &arguments.history {
        eprint!("{}", history::record(path, &figures)?);
    }
    ensure!(failed.is_empty(), "could not be measured: {}", failed.join(", "));
    Ok(())
}

/// Both percentiles are of the same updates, which are measured once.
enum Measured {
    NotYet,
    Failed,
    Latencies(Latencies),
}

async fn measure(name: Name, bench: &Bench, latencies: &mut Measured) -> Result<Figure> {
    match name {
        Name::WalReceive => wal::receive(bench).await,
        Name::ReplicateTxn1 => replicate::stream(bench, name, 1).await,
        Name::ReplicateTxn100 => replicate::stream(bench, name, 100).await,
        Name::ReplicateTxn10000 => replicate::stream(bench, name, 10_000).await,
        Name::Snapshot => replicate::snapshot(bench).await,
        Name::ServeNdjson | Name::ServeBson | Name::ServeHot => serve::bucket(bench, name).await,
        Name::ClientSync => client::first_sync(bench).await,
        Name::ClientPublish => database::publish(bench).await,
        Name::LocalWriteSingle | Name::LocalWriteBulk => database::local_writes(bench, name).await,
        Name::Watch => database::watch(bench).await,
        Name::PublishPause => database::pause(bench).await,
        Name::LatencyP50 | Name::LatencyP99 => {
            if let Measured::NotYet = latencies {
                *latencies = Measured::Failed;
                *latencies = Measured::Latencies(Latencies::measure(bench).await?);
            }
            match latencies {
                Measured::Latencies(measured) => Ok(measured.figure(name)),
                _ => bail!("its updates failed before"),
            }
        }
        Name::Fanout1000 => fanout::one_update(bench, 1_000).await,
        Name::FanoutWebsocket => fanout::idle_websockets(bench).await,
        Name::IdleConnectionBytes | Name::IdleWebsocketBytes => memory::idle_connections(bench, name).await,
        Name::ServerRssMb | Name::CpuPerMillionRows => memory::replication(bench, name).await,
        Name::Evaluate => config::evaluate(bench),
        Name::Resolve => config::resolve(bench),
        Name::BucketBytes => config::buckets(bench).await,
        Name::ManyBucketsStart => many_buckets::start(bench).await,
        Name::ManyBucketsChange => many_buckets::change(bench).await,
        Name::ManyBucketsRight => many_buckets::right(bench).await,
        Name::ManyRowsRight => many_buckets::right_beside_many_rows(bench).await,
        Name::StreamBucketBytes => stream_buckets::bytes(bench).await,
        Name::CompactBytes => wire::bytes(),
        Name::CompactEncode => wire::encode(bench),
        Name::CompactDecode => wire::decode(bench),
        Name::ServeCompact => wire::serve(bench).await,
    }
}
