//! From a commit in Postgres to the row in a client's query, 20 updates a second, with a small and a large bucket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use serde::Deserialize;

use crate::bench::{Bench, DEADLINE, Source};
use crate::client::Client;
use crate::figure::{Figure, Name, percentile};

/// Rows of the small bucket.
const SMALL: u64 = 1_000;

#[derive(Debug, Deserialize)]
struct Title {
    title: String,
}

/// Milliseconds from commit to client, sorted, with a small and a large bucket.
pub(crate) struct Latencies {
    small: Vec<f64>,
    large: Vec<f64>,
    rows: u64,
}

impl Latencies {
    pub(crate) async fn measure(bench: &Bench) -> Result<Self> {
        let (small, large) = (measure(bench, SMALL).await?, measure(bench, bench.rows).await?);
        Ok(Self { small, large, rows: bench.rows })
    }

    /// The figure is that of the large bucket; the note has both.
    pub(crate) fn figure(&self, name: Name) -> Figure {
        let (percent, theirs) = if name == Name::LatencyP99 { (99, "32 / 274") } else { (50, "18 / 185") };
        let (small, large) = (percentile(&self.small, percent), percentile(&self.large, percent));
        let note = format!("{small:.2} with {SMALL} rows, {large:.2} with {} (theirs {theirs})", self.rows);
        Figure::new(name, large, note)
    }
}

async fn measure(bench: &Bench, rows: u64) -> Result<Vec<f64>> {
    let source = bench.database(rows).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(rows).await?;
    let server = bench.serve(running.store.clone()).await?;
    let client = Client::start(bench, &server).await?;
    client.until_rows(rows).await?;
    let latencies = updates(bench, &source, &client, 0).await?;
    client.stop();
    server.stop().await;
    running.stop().await;
    Ok(latencies)
}

/// Milliseconds from the commit of an update to a client's query, sorted; `round` tells these updates apart from others.
pub(crate) async fn updates(bench: &Bench, source: &Source, client: &Client, round: usize) -> Result<Vec<f64>> {
    let id: String = source.sql.query_one("SELECT id::text FROM todos ORDER BY id LIMIT 1", &[]).await?.get(0);
    let mut watch = client.db.query::<Title>("SELECT title FROM todos WHERE id = ?1").bind(id.as_str()).watch();
    let update = source.sql.prepare("UPDATE todos SET title = $1 WHERE id = $2::text::uuid").await?;
    let mut latencies = Vec::new();
    let mut next = tokio::time::interval(Duration::from_millis(50));
    for number in 0..bench.updates {
        next.tick().await;
        let wanted = format!("update {round}.{number}");
        source.sql.execute(&update, &[&wanted, &id]).await?;
        let committed = Instant::now();
        let seen = async {
            while let Some(rows) = watch.try_next().await? {
                if rows.first().is_some_and(|row| row.title == wanted) {
                    return Ok(());
                }
            }
            bail!("the query ended")
        };
        tokio::time::timeout(DEADLINE, seen).await.context("an update did not arrive in time")??;
        latencies.push(committed.elapsed().as_secs_f64() * 1_000.0);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}
