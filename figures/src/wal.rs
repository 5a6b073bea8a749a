//! Receiving and parsing WAL, against `pg_recvlogical` on the same WAL.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use syncline_core::{Source as _, SourceEvent, SourceStart, SyncConfig};
use syncline_source_postgres::PostgresSource;

use crate::bench::{Begun, Bench, DEADLINE, SYNC_CONFIG, Source, Times};
use crate::figure::{Figure, Name};

pub(crate) async fn receive(bench: &Bench) -> Result<Figure> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
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
        for turn in 0..2 {
            let begun = Begun::now();
            if turn == pair % 2 {
                parsed(&wal, start.clone(), bench.rows).await?;
                ours.push(&begun);
            } else {
                discarded(bench, &source, &other, &end).await?;
                theirs.push(&begun);
            }
        }
    }
    let note = "transactions of 100, parsed to values; against pg_recvlogical to /dev/null";
    let (ours, theirs, processor) = (ours.rate(bench.rows), theirs.rate(bench.rows), ours.processor());
    Ok(Figure::against(Name::WalReceive, ours, theirs, note).took(processor))
}

/// So many rows are received and parsed by this library.
async fn parsed(wal: &PostgresSource, start: SourceStart, wanted: u64) -> Result<()> {
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
    tokio::time::timeout(DEADLINE, received).await.context("the WAL did not arrive in time")?
}

/// What is up to `end` is received by `pg_recvlogical` and written to `/dev/null`.
pub(crate) async fn discarded(bench: &Bench, source: &Source, slot: &str, end: &str) -> Result<()> {
    let status = tokio::process::Command::new(bench.cluster.binaries().program("pg_recvlogical"))
        .args(["--dbname", &source.url, "--slot", slot, "--start", "--endpos", end, "--no-loop"])
        .args(["--option", "proto_version=1", "--option", "publication_names=syncline"])
        .args(["--file", "/dev/null", "--fsync-interval", "0"])
        .status()
        .await
        .context("cannot run pg_recvlogical")?;
    ensure!(status.success(), "pg_recvlogical failed");
    Ok(())
}
