//! The conformance suite of transports: client and server over WebSocket, by RSocket and by the compact subprotocol.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used)]

#[path = "../../../transport-http/tests/suite/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use syncline_core::testing::RunningCase;
use syncline_core::testing::transport_suite::{Network, Wire};
use syncline_core::{SyncService, Transport, async_trait};
use syncline_transport_http::{self as http, HttpTransport};
use syncline_transport_ws::{self as ws, CompactTransport, WebSocketLimits, WebSocketTransport, axum};

use crate::proxy::Proxy;

mod beside_http {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Sockets::new(super::Place::BesideHttp));
}
mod alone {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Sockets::new(super::Place::Alone));
}

mod compact {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Compact::new(super::Place::Alone, false));
}
mod compact_zstd_beside_http {
    syncline_core::transport_tests!(on: super::run_on_tokio, super::Compact::new(super::Place::BesideHttp, true));
}

fn run_on_tokio(case: RunningCase<'_>) {
    tokio::runtime::Runtime::new().unwrap().block_on(case);
}

/// Where the WebSocket endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One port serves both.
    BesideHttp,
    /// It has a port of its own; write checkpoints go to another.
    Alone,
}

/// Servers on ports of their own, each behind a proxy that can break.
#[derive(Debug)]
struct Sockets {
    place: Place,
    proxy: Proxy,
}

type Both = WebSocketTransport<HttpTransport>;

impl Sockets {
    fn new(place: Place) -> Self {
        Self { place, proxy: Proxy::default() }
    }

    /// A transport to servers that serve this until the test's runtime ends.
    async fn both(&self, service: SyncService, limit: Option<Duration>) -> Both {
        let listener = http::Listener::bind("127.0.0.1:0").await.unwrap();
        let server = axum::serve::Listener::local_addr(&listener).unwrap();
        let router = http::router::<()>(service.clone()).merge(ws::router(service.clone()));
        tokio::spawn(http::serve(listener, router, std::future::pending()));
        let http_endpoint = format!("http://{}", self.proxy.before(server).await);
        let ws_endpoint = match self.place {
            Place::BesideHttp => http_endpoint.clone(),
            Place::Alone => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let server = listener.local_addr().unwrap();
                tokio::spawn(ws::serve(listener, service, WebSocketLimits::default()));
                format!("ws://{}", self.proxy.before(server).await)
            }
        };
        transport(&ws_endpoint, &http_endpoint, limit)
    }
}

fn transport(ws_endpoint: &str, http_endpoint: &str, limit: Option<Duration>) -> Both {
    let write_checkpoints = HttpTransport::new(http_endpoint).unwrap();
    let Some(limit) = limit else { return WebSocketTransport::new(ws_endpoint, write_checkpoints).unwrap() };
    let transport = WebSocketTransport::new(ws_endpoint, write_checkpoints.answer_timeout(limit)).unwrap();
    transport.idle_timeout(limit).answer_timeout(limit)
}

#[async_trait]
impl Wire for Sockets {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(self.both(service, None).await)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[async_trait]
impl Network for Sockets {
    async fn connect_to_nobody(&self) -> Arc<dyn Transport> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        Arc::new(transport(&nobody, &nobody, None))
    }

    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(self.both(service, Some(Duration::from_secs(2))).await)
    }

    async fn cut(&self) {
        self.proxy.cut();
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}

/// Servers that are asked for the compact subprotocol, for streams and for write checkpoints.
#[derive(Debug)]
struct Compact {
    place: Place,
    compressed: bool,
    proxy: Proxy,
}

impl Compact {
    fn new(place: Place, compressed: bool) -> Self {
        Self { place, compressed, proxy: Proxy::default() }
    }

    /// A transport to a server that serves this until the test's runtime ends.
    async fn one(&self, service: SyncService) -> CompactTransport {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        match self.place {
            Place::BesideHttp => {
                let router = http::router::<()>(service.clone()).merge(ws::router(service));
                tokio::spawn(axum::serve(listener, router).into_future());
            }
            Place::Alone => drop(tokio::spawn(ws::serve(listener, service, WebSocketLimits::default()))),
        }
        let endpoint = format!("ws://{}", self.proxy.before(server).await);
        CompactTransport::new(&endpoint).unwrap().compressed(self.compressed)
    }
}

#[async_trait]
impl Wire for Compact {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(self.one(service).await)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[async_trait]
impl Network for Compact {
    async fn connect_to_nobody(&self) -> Arc<dyn Transport> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        Arc::new(CompactTransport::new(&nobody).unwrap())
    }

    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport> {
        let limit = Duration::from_secs(2);
        Arc::new(self.one(service).await.idle_timeout(limit).answer_timeout(limit))
    }

    async fn cut(&self) {
        self.proxy.cut();
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}
