//! `run`: replication and streams in one process.

use std::future::Future;

use anyhow::{Context, Result, bail};
use axum::Router;
use syncline_core::{BucketStore, Replicator, SyncService};
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http as http;
use syncline_transport_ws as ws;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::replication;
use crate::settings::Settings;

/// Runs until a signal ends it, or until something needs a person while there is nothing to serve.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let config = settings.sync_config()?;
    let (source, keys) = (settings.source()?, settings.authenticator()?);
    let store = SqliteBucketStore::open(&settings.store)
        .await
        .with_context(|| format!("cannot open the store {}", settings.store.display()))?;
    // A changed config is not served by the one before it: the change may be what closes a leak.
    if let Some(deployed) = store.resume().await?.config {
        config.check_deployed(&deployed)?;
    }
    let limits = &settings.limits;

    // Replication and streams share nothing but the store.
    let replicator = Replicator::new(source, config, store.clone()).compact_every(limits.compact_interval());
    let service = SyncService::with_limits(store.clone(), keys, limits.service());

    // One port for SDKs that sync over HTTP and for those that do over WebSocket.
    let sockets = ws::WebSocketEndpoint::new(service.clone(), limits.websocket());
    let app: Router =
        Router::new().merge(http::router_with_limits(service.clone(), limits.http())).merge(sockets.router());
    let listener = http::Listener::bind(&settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?
        .patience(limits.connection_patience())
        .idle(limits.idle());
    let address = axum::serve::Listener::local_addr(&listener)?;
    let mut stop = std::pin::pin!(stop_signal()?);
    let (stopping, stopped) = oneshot::channel();
    let server = http::serve(listener, app, async move {
        // Without an answer the sender has gone, and the process ends anyway.
        let _ = stopped.await;
        service.close().await; // ends the streams, which would otherwise keep the server open for ever
    });
    tracing::info!(%address, "serving");

    let mut server = std::pin::pin!(server);
    let outcome = tokio::select! {
        ended = replication::run(&replicator, &store, limits.retry_interval()) => {
            ended.context("replication stopped, and nothing is stored that could be served")
        }
        never = replication::log_status(&replicator) => match never {},
        () = &mut server => bail!("the server stopped"),
        () = &mut stop => Ok(()),
    };
    tracing::info!("stopping: open streams end");
    let _ = stopping.send(());
    let ending = async {
        server.await;
        sockets.drained().await; // which the HTTP server does not wait for
    };
    let drained = tokio::select! {
        () = ending => Ok(()),
        () = sleep(limits.drain()) => {
            tracing::warn!("some streams have not ended in time; they are cut");
            Ok(())
        }
        () = stop_signal()? => Ok(()),
    };
    outcome.and(drained)
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
