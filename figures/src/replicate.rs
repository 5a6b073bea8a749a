//! From WAL or tables through the sync config into the durable bucket store.

use std::time::Instant;

use anyhow::Result;

use crate::bench::{Bench, peak_memory_mb, rate};
use crate::figure::{Figure, Name, median};

/// Streaming: the WAL is there before the clock starts, so that the writer costs nothing.
pub(crate) async fn stream(bench: &Bench, name: Name, per_transaction: u64) -> Result<Figure> {
    let mut rates = Vec::new();
    for _ in 0..bench.runs {
        let source = bench.database(1).await?;
        let running = bench.replicate(&source).await?;
        running.until_operations(1).await?;
        let store = running.stop().await;
        source.insert(bench.changes, per_transaction).await?;
        let begun = Instant::now();
        let running = bench.replicate_into(&source, store)?;
        running.until_operations(bench.changes + 1).await?;
        rates.push(rate(bench.changes, begun));
        running.stop().await;
    }
    Ok(Figure::new(name, median(rates), format!("{} inserts, start-up included", bench.changes)))
}

/// Initial replication of a table.
pub(crate) async fn snapshot(bench: &Bench) -> Result<Figure> {
    let mut rates = Vec::new();
    for _ in 0..bench.runs {
        let source = bench.database(bench.rows).await?;
        let begun = Instant::now();
        let running = bench.replicate(&source).await?;
        running.until_operations(bench.rows).await?;
        rates.push(rate(bench.rows, begun));
        running.stop().await;
    }
    let memory = peak_memory_mb().map_or_else(String::new, |mb| format!(", peak {mb:.0} MB for all that ran so far"));
    Ok(Figure::new(Name::Snapshot, median(rates), format!("{} rows{memory} (theirs 433 MB)", bench.rows)))
}
