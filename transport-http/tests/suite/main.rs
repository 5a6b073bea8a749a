//! The conformance suite of transports: client and server over HTTP, in each format and compression that they agree on.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used)]

mod proxy;

use std::sync::Arc;
use std::time::Duration;

use syncline_core::testing::RunningCase;
use syncline_core::testing::transport_suite::{Network, Wire};
use syncline_core::{SyncService, Transport, async_trait};
use syncline_transport_http::{self as http, HttpTransport, axum, reqwest};

use crate::proxy::Proxy;

// region: suite
mod bson {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Http::new(super::Format::Bson, ""));
}
mod ndjson {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Http::new(super::Format::Ndjson, ""));
}
mod gzip {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Http::new(super::Format::Ndjson, "gzip"));
}
mod zstd {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Http::new(super::Format::Bson, "zstd"));
}

fn run_on_tokio(case: RunningCase<'_>) {
    tokio::runtime::Runtime::new().unwrap().block_on(case);
}
// endregion: suite

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Bson,
    Ndjson,
}

/// Servers on ports of their own, each behind a proxy that can break.
#[derive(Debug)]
struct Http {
    format: Format,
    encoding: &'static str,
    proxy: Proxy,
}

impl Http {
    fn new(format: Format, encoding: &'static str) -> Self {
        Self { format, encoding, proxy: Proxy::default() }
    }

    fn transport(&self, endpoint: &str) -> HttpTransport {
        // The library names its own TLS; a program that uses reqwest itself has to choose one.
        let _ = http::rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().gzip(self.encoding == "gzip").zstd(self.encoding == "zstd").no_proxy();
        let transport = HttpTransport::new(endpoint).unwrap().client(client.build().unwrap());
        match self.format {
            Format::Bson => transport,
            Format::Ndjson => transport.prefer_ndjson(),
        }
    }

    /// The endpoint of a server that serves this until the test's runtime ends.
    async fn serve(&self, service: SyncService) -> String {
        let listener = http::Listener::bind("127.0.0.1:0").await.unwrap();
        let server = axum::serve::Listener::local_addr(&listener).unwrap();
        tokio::spawn(http::serve(listener, http::router::<()>(service), std::future::pending()));
        format!("http://{}", self.proxy.before(server).await)
    }
}

// region: wire
#[async_trait]
impl Wire for Http {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(self.transport(&self.serve(service).await))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[async_trait]
impl Network for Http {
    async fn connect_to_nobody(&self) -> Arc<dyn Transport> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        Arc::new(self.transport(&format!("http://{nobody}")))
    }

    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport> {
        let limit = Duration::from_secs(2);
        let transport = self.transport(&self.serve(service).await);
        Arc::new(transport.idle_timeout(limit).answer_timeout(limit))
    }

    async fn cut(&self) {
        self.proxy.cut();
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}
// endregion: wire
