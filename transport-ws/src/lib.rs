//! WebSocket for Syncline. RSocket, as the official SDKs speak it: the one for React Native where it cannot read a stream over
//! HTTP, the one for Kotlin on Apple's systems, and all for JavaScript when they are told to. And `syncline.v1`, a compact
//! subprotocol of our own, which clients of Syncline get from the same endpoint by [`CompactTransport`]: one connection for all
//! streams and write checkpoints. `docs/protocol.md` has its rules; the rest of this page is about RSocket.
//!
//! The server's side is a route beside those of `syncline-transport-http`, or [`serve`] on a port of its own. Clients ask for
//! write checkpoints by HTTP in any case, so a server needs both; and so [`WebSocketTransport`] is given another transport
//! for that.
//!
//! ```
//! # #[cfg(all(feature = "server", feature = "client"))]
//! # mod example {
//! # use syncline_core::{Authenticator, Error, Identity, Result, async_trait};
//! # #[derive(Debug)]
//! # pub struct Tokens;
//! # #[async_trait]
//! # impl Authenticator for Tokens {
//! #     async fn authenticate(&self, token: &str) -> Result<Identity> {
//! #         if token == "good" { Ok(Identity::new("anna")) } else { Err(Error::unauthorized("no")) }
//! #     }
//! # }
//! # pub async fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use serde_json::json;
//! use syncline_core::memory::{MemoryBucketStore, MemorySource, MemoryTransport};
//! use syncline_core::protocol::{ClientLine, LineDecoder, SyncRequest};
//! use syncline_core::{Credentials, Replicator, SyncConfig, SyncService, Transport};
//! use syncline_transport_ws::{self as ws, WebSocketTransport, axum};
//!
//! // A service, here over parts in memory.
//! let source = MemorySource::new().table("lists", ["id", "name"]);
//! source.put("lists", json!({ "id": "l1", "name": "Groceries" }))?;
//! let config = "
//! config: { edition: 3 }
//! streams:
//!   lists: { auto_subscribe: true, query: SELECT * FROM lists }
//! ";
//! let store = MemoryBucketStore::new();
//! tokio::spawn(Replicator::new(source, SyncConfig::parse(config)?, store.clone()).run());
//! let service = SyncService::new(store, Tokens);
//!
//! // The server: merge the routes of `syncline-transport-http` as well.
//! let app: axum::Router = ws::router(service.clone());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let endpoint = format!("http://{}", listener.local_addr()?);
//! tokio::spawn(async move { axum::serve(listener, app).await });
//!
//! // A client: in place of `MemoryTransport` it has an `HttpTransport`. A `SyncClient` takes all of this.
//! let transport = WebSocketTransport::new(&endpoint, MemoryTransport::new(service))?;
//! let mut stream = transport.open(&SyncRequest::default(), &Credentials::new("good")).await?;
//! let mut lines = LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT);
//! 'synced: while let Some(bytes) = stream.bytes.next().await {
//!     lines.push(bytes?);
//!     while let Some(line) = lines.next()? {
//!         if let ClientLine::CheckpointComplete { .. } = line {
//!             break 'synced;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! # }
//! # #[cfg(all(feature = "server", feature = "client"))]
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
//! #     tokio::time::timeout(std::time::Duration::from_secs(30), example::run()).await.expect("it ends").expect("it works");
//! # });
//! ```
//!
//! # What is bounded
//!
//! Lines are read from the service and sent only against what the client has granted (REQUEST_N), one piece ahead at most.
//! [`WebSocketLimits`] bounds the rest: the time for handshake, SETUP and the check of its token, the size of frames and of
//! requests in fragments, connections, streams of a connection, and the time for which a client may be silent, read nothing or
//! grant nothing. Messages are not compressed, so none can unfold. Who breaks a rule is told by an ERROR frame whose text
//! begins with a `PSYNC_…` code, and by the code of the close: 1002 for the rules of RSocket and WebSocket, 1003 for text,
//! 1008 for a limit of time, 1009 for size; after a refused SETUP the close has none, as in the official service.

#[cfg(feature = "client")]
mod client;
pub mod compact;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod hex;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use axum;
#[cfg(feature = "client")]
pub use client::{CompactTransport, WebSocketTransport};
/// The TLS implementation whose configuration [`WebSocketTransport::tls`] takes.
#[cfg(feature = "client")]
pub use rustls;
#[cfg(feature = "server")]
pub use server::{WebSocketEndpoint, WebSocketLimits, router, router_with_limits, serve};
