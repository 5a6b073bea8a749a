//! The transport keeps every obligation of its trait: the conformance suite of transports, run on it.
#![allow(clippy::unwrap_used)]

mod proxy;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use custom_transport::UnixTransport;
use syncline_core::testing::RunningCase;
use syncline_core::testing::transport_suite::{Network, Wire};
use syncline_core::{SyncService, Transport, async_trait};
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::proxy::Proxy;

syncline_core::transport_tests!(on: run_on_tokio, Sockets::new());

fn run_on_tokio(case: RunningCase<'_>) {
    tokio::runtime::Runtime::new().unwrap().block_on(case);
}

/// Servers on sockets in a folder, each behind a proxy that can break.
#[derive(Debug)]
struct Sockets {
    folder: TempDir,
    proxy: Proxy,
}

impl Sockets {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), proxy: Proxy::default() }
    }

    /// The path to a server that serves this until the test's runtime ends. A case has one.
    fn serve(&self, service: SyncService) -> PathBuf {
        let [server, proxy] = ["server", "proxy"].map(|name| self.folder.path().join(name));
        tokio::spawn(custom_transport::serve(UnixListener::bind(&server).unwrap(), service));
        self.proxy.start(UnixListener::bind(&proxy).unwrap(), server);
        proxy
    }
}

#[async_trait]
impl Wire for Sockets {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(UnixTransport(self.serve(service), Duration::from_secs(60)))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[async_trait]
impl Network for Sockets {
    async fn connect_to_nobody(&self) -> Arc<dyn Transport> {
        Arc::new(UnixTransport(self.folder.path().join("nobody"), Duration::from_secs(60)))
    }

    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(UnixTransport(self.serve(service), Duration::from_secs(2)))
    }

    async fn cut(&self) {
        self.proxy.cut();
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}
