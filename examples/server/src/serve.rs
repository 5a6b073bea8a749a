//! `run`: replication, streams and compaction in one process.

use std::future::{self, Future};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use syncline_core::{BucketStore, CompactLimits, Replicator, SyncService};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http as http;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::settings::Settings;

/// Operations that one step of compaction looks at, so that it never holds up replication for long.
const COMPACT_STEP: u64 = 20_000;

/// Runs until a signal ends it, or until something needs a person.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let config = settings.sync_config()?;
    let (source, keys) = (settings.source()?, settings.authenticator()?);
    let store = SqliteBucketStore::open(&settings.store)
        .await
        .with_context(|| format!("cannot open the store {}", settings.store.display()))?;

    // Replication and streams share nothing but the store.
    let replicator = Replicator::new(source, config, store.clone());
    let service = SyncService::with_limits(store.clone(), keys, settings.limits.service());

    let app: Router = Router::new().merge(http::router_with_limits(service.clone(), settings.limits.http()));
    let listener = http::Listener::bind(&settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?
        .patience(settings.limits.patience() + Duration::from_secs(15));
    let address = axum::serve::Listener::local_addr(&listener)?;
    let mut stop = std::pin::pin!(stop_signal()?);
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // Without an answer the sender has gone, and the process ends anyway.
        let _ = stopped.await;
        service.close().await; // ends the streams, which would otherwise keep the server open for ever
    });
    tracing::info!(%address, "serving");

    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        ended = replicator.run() => return ended.context("replication stopped"),
        ended = &mut server => return ended.context("the server stopped"),
        () = compact(&store, settings.limits.compact_interval()) => return Ok(()),
        () = &mut stop => {}
    }
    tracing::info!("stopping: open streams end");
    let _ = stopping.send(());
    tokio::select! {
        ended = &mut server => ended.context("the server stopped"),
        () = sleep(settings.limits.drain()) => {
            tracing::warn!("some streams have not ended in time; they are cut");
            Ok(())
        }
        () = stop_signal()? => Ok(()),
    }
}

/// Removes superseded operations from time to time, in small steps.
async fn compact(store: &SqliteBucketStore, interval: Option<Duration>) {
    let Some(interval) = interval else { return future::pending().await };
    loop {
        sleep(interval).await;
        loop {
            match store.compact(CompactLimits { max_operations: COMPACT_STEP }).await {
                Ok(done) => {
                    tracing::debug!(?done, "compacted");
                    if !done.more {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "compaction failed; it is tried again later");
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Ctrl-C or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
