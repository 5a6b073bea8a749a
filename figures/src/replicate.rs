//! From WAL or tables through the sync config into the durable bucket store.

use anyhow::Result;
use futures::StreamExt;

use crate::bench::{Begun, Bench, Source, Times};
use crate::figure::{Figure, Name};
use crate::wal::discarded;

/// Streaming, against `pg_recvlogical` on the same WAL: it is there before the clock starts, so that the writer costs nothing.
pub(crate) async fn stream(bench: &Bench, name: Name, per_transaction: u64) -> Result<Figure> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for pair in 0..bench.runs {
        let source = bench.database(1).await?;
        let running = bench.replicate(&source).await?;
        running.until_operations(1).await?;
        let mut store = Some(running.stop().await);
        let other = format!("{}_other", source.slot);
        source.sql.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&other]).await?;
        source.insert(bench.changes, per_transaction).await?;
        let end: String = source.sql.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
        // Who goes first alternates: the second finds the WAL in memory.
        for turn in 0..2 {
            let begun = Begun::now();
            match store.take_if(|_| turn == pair % 2) {
                Some(store) => {
                    let running = bench.replicate_into(&source, store)?;
                    running.until_operations(bench.changes + 1).await?;
                    ours.push(&begun);
                    running.stop().await;
                }
                None => {
                    discarded(bench, &source, &other, &end).await?;
                    theirs.push(&begun);
                }
            }
        }
    }
    let note = format!("{} inserts, start-up included; against pg_recvlogical to /dev/null", bench.changes);
    let (ours, theirs, processor) = (ours.rate(bench.changes), theirs.rate(bench.changes), ours.processor());
    Ok(Figure::against(name, ours, theirs, note).took(processor))
}

/// Initial replication of a table, against `COPY … TO STDOUT` of it.
pub(crate) async fn snapshot(bench: &Bench) -> Result<Figure> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for pair in 0..bench.runs {
        let source = bench.database(bench.rows).await?;
        for turn in 0..2 {
            let begun = Begun::now();
            if turn == pair % 2 {
                let running = bench.replicate(&source).await?;
                running.until_operations(bench.rows).await?;
                ours.push(&begun);
                running.stop().await;
            } else {
                copy(&source).await?;
                theirs.push(&begun);
            }
        }
    }
    let note = format!("{} rows; against COPY TO STDOUT", bench.rows);
    let (ours, theirs, processor) = (ours.rate(bench.rows), theirs.rate(bench.rows), ours.processor());
    Ok(Figure::against(Name::Snapshot, ours, theirs, note).took(processor))
}

async fn copy(source: &Source) -> Result<()> {
    let mut rows = std::pin::pin!(source.sql.copy_out("COPY todos TO STDOUT").await?);
    while let Some(bytes) = rows.next().await {
        bytes?;
    }
    Ok(())
}
