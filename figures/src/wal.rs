//! Receiving and parsing WAL, against `pg_recvlogical` on the same WAL.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use syncline_core::{Source as _, SourceEvent, SourceStart, SyncConfig};
use syncline_source_postgres::PostgresSource;

use crate::bench::{Bench, DEADLINE, SYNC_CONFIG, Source, rate};
use crate::figure::{Figure, Name, median};

pub(crate) async fn receive(bench: &Bench) -> Result<Figure> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..bench.runs {
        let source = bench.database(0).await?;
        let wal = source.wal()?;
        let config = SyncConfig::parse(SYNC_CONFIG)?;
        let mut start = SourceStart { selection: config.selection().clone(), ..SourceStart::default() };

        // The snapshot of an empty table, to have a slot.
        let mut events = wal.events(start.clone()).await?;
        while start.position.is_none() {
            let Some(batch) = events.next().await else {
                // It wanted its state to be known first.
                events = wal.events(start.clone()).await?;
                continue;
            };
            for event in batch? {
                match event {
                    SourceEvent::SnapshotProgress { state, .. } | SourceEvent::SnapshotDone { state, .. } => {
                        start.state = Some(state);
                    }
                    SourceEvent::Commit { position, state, .. } => {
                        start.position = Some(position);
                        start.state = state.or(start.state.take());
                    }
                    SourceEvent::Progress { position, .. } => start.position = Some(position),
                    _ => {}
                }
            }
        }
        drop(events);
        let other = format!("{}_other", source.slot);
        source.sql.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&other]).await?;
        source.insert(bench.rows, 100).await?;
        let end: String = source.sql.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);

        // Who goes first alternates: the second finds the WAL in memory.
        if pair % 2 == 0 {
            ours.push(parsed(&wal, start, bench.rows).await?);
            theirs.push(discarded(bench, &source, &other, &end).await?);
        } else {
            theirs.push(discarded(bench, &source, &other, &end).await?);
            ours.push(parsed(&wal, start, bench.rows).await?);
        }
    }
    let note = "transactions of 100, parsed to values, against pg_recvlogical to /dev/null";
    Ok(Figure::against(Name::WalReceive, median(ours), median(theirs), note))
}

/// Rows a second, received and parsed by this library.
async fn parsed(wal: &PostgresSource, start: SourceStart, wanted: u64) -> Result<f64> {
    let begun = Instant::now();
    let received = async {
        let mut events = wal.events(start).await?;
        let mut rows = 0;
        while rows < wanted {
            for event in events.next().await.context("the source ended")?? {
                rows += u64::from(matches!(event, SourceEvent::Put { .. }));
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(DEADLINE, received).await.context("the WAL did not arrive in time")??;
    Ok(rate(wanted, begun))
}

/// Rows a second, received by `pg_recvlogical` and written to `/dev/null`.
async fn discarded(bench: &Bench, source: &Source, slot: &str, end: &str) -> Result<f64> {
    let begun = Instant::now();
    let status = tokio::process::Command::new(bench.cluster.binaries().program("pg_recvlogical"))
        .args(["--dbname", &source.url, "--slot", slot, "--start", "--endpos", end, "--no-loop"])
        .args(["--option", "proto_version=1", "--option", "publication_names=syncline"])
        .args(["--file", "/dev/null", "--fsync-interval", "0"])
        .status()
        .await
        .context("cannot run pg_recvlogical")?;
    ensure!(status.success(), "pg_recvlogical failed");
    Ok(rate(bench.rows, begun))
}
