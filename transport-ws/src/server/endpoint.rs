//! Where connections come in: beside the HTTP routes on one port, or on a port of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use serde_json::json;
use syncline_core::{Clock, SyncService, SystemClock, Time};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server as handshake;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::compact::Calls;
use super::connection::Connection;
use super::limits::WebSocketLimits;
use super::refusal::NO_ROUTE;
use super::socket::{Socket, config};
use super::subprotocol::Subprotocol;
use crate::compact;

/// No limit is above this: a server has fewer sockets.
const MOST_CONNECTIONS: u32 = 1 << 24;

/// The route `GET /sync/stream` that takes WebSocket connections. It merges with the routes of `syncline-transport-http`,
/// so that one port serves all SDKs.
///
/// Has a state of its own, so it merges into a router of any state. Connections live on in tasks of their own:
/// [`SyncService::close`] ends their streams, and a [`WebSocketEndpoint`] says when the last of them has ended.
pub fn router<S: Clone + Send + Sync + 'static>(service: SyncService) -> Router<S> {
    router_with_limits(service, WebSocketLimits::default())
}

/// The same with other limits.
pub fn router_with_limits<S: Clone + Send + Sync + 'static>(
    service: SyncService,
    limits: WebSocketLimits,
) -> Router<S> {
    WebSocketEndpoint::new(service, limits).router()
}

/// Serves WebSocket connections on a port of their own, at any path, until it is dropped; then all of them are cut.
pub async fn serve(listener: TcpListener, service: SyncService, limits: WebSocketLimits) -> Infallible {
    WebSocketEndpoint::new(service, limits).serve(listener).await
}

/// Where connections come in, and who knows how many there are. A handle: clones are the same.
#[derive(Debug, Clone)]
pub struct WebSocketEndpoint {
    service: SyncService,
    limits: WebSocketLimits,
    /// One for each open connection.
    places: Arc<Semaphore>,
}

impl WebSocketEndpoint {
    /// The connections of a service.
    pub fn new(service: SyncService, mut limits: WebSocketLimits) -> Self {
        limits.connections = limits.connections.min(MOST_CONNECTIONS as usize);
        Self { service, limits, places: Arc::new(Semaphore::new(limits.connections)) }
    }

    /// The route, as [`router`] makes it.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new().route("/sync/stream", get(upgrade)).with_state(self.clone())
    }

    /// Serves connections on a port of their own, as [`serve`] does.
    pub async fn serve(&self, listener: TcpListener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(self.clone().accept(stream))),
                    Err(error) => {
                        // Too many open files, mostly: others close before this can work again.
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection ended in a panic");
                    }
                }
            }
        }
    }

    /// Waits until no connection is open. An HTTP server that is shut down does not wait for them: they are none of its own
    /// any more. After [`SyncService::close`] their streams have ended, and clients close what has no stream; one that does
    /// not is cut after [`WebSocketLimits::patience`].
    ///
    /// Cancel safe.
    pub async fn drained(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(MOST_CONNECTIONS);
        // Nobody closes it.
        let _ = self.places.acquire_many(all).await;
    }

    /// A connection from its first byte.
    async fn accept(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "Nagle's algorithm stays on for a connection");
        }
        let begun = SystemClock.now();
        let mut spoken = Spoken::RSocket;
        #[allow(clippy::result_large_err, reason = "it is what the handshake takes")]
        let answer = |request: &handshake::Request, mut response: handshake::Response| {
            spoken = Spoken::negotiate(request.headers());
            if let Some(name) = spoken.name() {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            }
            Ok(response)
        };
        let handshake = accept_hdr_async_with_config(stream, answer, Some(config(&self.limits)));
        match timeout(self.limits.setup_time, handshake).await {
            Ok(Ok(socket)) => self.run(socket, spoken, begun).await,
            Ok(Err(error)) => tracing::debug!(%error, "a WebSocket handshake failed"),
            Err(_) => tracing::debug!("a WebSocket handshake took too long"),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, socket: WebSocketStream<S>, spoken: Spoken, begun: Time) {
        let limits = self.limits;
        match spoken {
            Spoken::RSocket => self.carry(socket, Connection::new(begun, limits), begun).await,
            Spoken::Compact { compress } => self.carry(socket, Calls::new(begun, limits, compress), begun).await,
        }
    }

    async fn carry<S, P>(self, socket: WebSocketStream<S>, connection: P, begun: Time)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        P: Subprotocol,
    {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let socket = Socket::new(socket, connection, self.service, self.limits, begun);
        match place {
            Ok(_place) => socket.run().await,
            Err(_) => {
                tracing::warn!("a WebSocket connection is refused: there are too many");
                socket.refuse().await;
            }
        }
    }
}

/// `GET /sync/stream`: from HTTP to WebSocket.
async fn upgrade(State(endpoint): State<WebSocketEndpoint>, mut request: Request) -> Response {
    // Over HTTP/2 a WebSocket begins in another way, which is not offered.
    let key = if request.version() == Version::HTTP_11 { handshake_key(request.headers()) } else { None };
    let Some(key) = key else { return no_route() };
    let accept = derive_accept_key(key.as_bytes());
    let spoken = Spoken::negotiate(request.headers());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let begun = SystemClock.now();
        match timeout(endpoint.limits.setup_time, upgraded).await {
            Ok(Ok(io)) => {
                let config = config(&endpoint.limits);
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
                endpoint.run(socket, spoken, begun).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a connection was not upgraded"),
            Err(_) => tracing::debug!("a connection was not upgraded in time"),
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, accept.as_str())];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    if let Some(name) = spoken.name() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    response
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// By whoever asks for nothing else, as the official SDKs do, who name no subprotocol.
    RSocket,
    /// Syncline's own, in its first version.
    Compact { compress: bool },
}

impl Spoken {
    /// The first of what the client offers that is known here.
    fn negotiate(headers: &HeaderMap) -> Self {
        let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let known = |name: &str| match name.trim() {
            compact::NAME => Some(Self::Compact { compress: false }),
            compact::NAME_WITH_ZSTD => Some(Self::Compact { compress: true }),
            _ => None,
        };
        offers.flat_map(|offer| offer.split(',')).find_map(known).unwrap_or(Self::RSocket)
    }

    /// What the server answers.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::RSocket => None,
            Self::Compact { compress: false } => Some(compact::NAME),
            Self::Compact { compress: true } => Some(compact::NAME_WITH_ZSTD),
        }
    }
}

/// The client's key, if this is the handshake of a WebSocket.
fn handshake_key(headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let names = |name: HeaderName, wanted: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
    };
    let asked = names(CONNECTION, "upgrade") && names(UPGRADE, "websocket");
    (asked && text(SEC_WEBSOCKET_VERSION)? == "13").then(|| text(SEC_WEBSOCKET_KEY).map(str::to_owned)).flatten()
}

/// What SDKs expect of a path without a route.
fn no_route() -> Response {
    let description = "this path takes POST requests and WebSocket connections";
    let error = json!({ "name": "RequestError", "code": NO_ROUTE, "status": 404, "description": description });
    let body = json!({ "error": error }).to_string();
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subprotocol_that_is_known_is_spoken_and_rsocket_without_one() {
        let (plain, zstd) = (Spoken::Compact { compress: false }, Spoken::Compact { compress: true });
        for (offers, spoken) in [
            (&[][..], Spoken::RSocket),
            (&["syncline.v1"], plain),
            (&["syncline.v1.zstd, syncline.v1"], zstd),
            (&["syncline.v1,syncline.v1.zstd"], plain),
            (&["syncline.v2, graphql-ws", "syncline.v1"], plain),
            (&["syncline.v2", "SYNCLINE.V1", "rsocket"], Spoken::RSocket),
        ] {
            let mut headers = HeaderMap::new();
            for offer in offers {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            assert_eq!(Spoken::negotiate(&headers), spoken, "{offers:?}");
            assert!(spoken.name().is_none_or(|name| offers.iter().any(|offer| offer.contains(name))));
        }
    }
}
