//! Where a server is, and the way to it: TCP, TLS if its URL says so, and the WebSocket handshake.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::uri::{Parts, PathAndQuery, Scheme, Uri};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use syncline_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::watched::Watched;

/// TLS or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection whose handshake is done.
pub(super) type Socket = WebSocketStream<Watched<Box<dyn Io>>>;

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Endpoint {
    /// The server of this URL: `https://` and `http://` as the official SDKs have them, or `wss://` and `ws://`.
    pub(super) fn parse(endpoint: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("{endpoint:?} cannot be an endpoint: {why}"));
        let uri: Uri = endpoint.parse().map_err(|error| wrong("it is no URL").caused_by(error))?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong("it must begin with https://, http://, wss:// or ws://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.clone();
        if authority.as_str().contains('@') {
            return Err(wrong("it may not hold a user"));
        }
        if uri.query().is_some() || endpoint.contains('#') {
            return Err(wrong("it may not hold a query or fragment"));
        }
        let path = format!("{}/sync/stream", uri.path().trim_end_matches('/'));
        let mut parts = Parts::default();
        let scheme = if tls { "wss" } else { "ws" };
        parts.scheme = Some(Scheme::try_from(scheme).map_err(|error| wrong("its scheme").caused_by(error))?);
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|error| wrong("its path").caused_by(error))?);
        let uri = Uri::from_parts(parts).map_err(|error| wrong("it is no URL").caused_by(error))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { uri, host, port, tls })
    }

    /// Connects, to take messages of so many bytes, and to speak one of the subprotocols that are offered if there are any.
    /// Bounded in time by its caller.
    pub(super) async fn connect(
        &self,
        tls: &Arc<ClientConfig>,
        message_bytes: usize,
        offered: Option<&'static str>,
    ) -> Result<Socket> {
        let away = |error: std::io::Error| Error::unavailable("the server cannot be reached").caused_by(error);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(away)?;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "Nagle's algorithm stays on for a connection");
        }
        let io: Box<dyn Io> = if self.tls {
            let name = ServerName::try_from(self.host.clone())
                .map_err(|error| Error::invalid("no certificate can name this host").caused_by(error))?;
            Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(away)?)
        } else {
            Box::new(tcp)
        };
        let mut request = self.uri.clone().into_client_request().map_err(failed)?;
        let user_agent = HeaderValue::from_static(concat!("syncline/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, user_agent);
        if let Some(offered) = offered {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(32 << 10)
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes));
        let (socket, _) = client_async_with_config(request, Watched::new(io), Some(config)).await.map_err(failed)?;
        Ok(socket)
    }
}

/// The error of a connection.
pub(super) fn failed(error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status();
            let kind = match status {
                StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
                status if status.is_server_error() => ErrorKind::Unavailable,
                _ => ErrorKind::Protocol,
            };
            Error::new(kind, format!("the server answered a WebSocket handshake with {status}; check the endpoint"))
        }
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(error)) => {
            Error::protocol("the server does not speak what this client does; check its version").caused_by(error)
        }
        tungstenite::Error::Capacity(error) => {
            Error::protocol("the server sent a line that is larger than this client takes").caused_by(error)
        }
        error => Error::unavailable("the connection to the server broke").caused_by(error),
    }
}

/// TLS with the certificate authorities of Mozilla. The provider is named, because the process may have several, and then
/// there is none by default.
pub(super) fn public_authorities() -> Result<ClientConfig> {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").caused_by(error))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_those_of_the_sdks() {
        for (endpoint, uri, host, port) in [
            ("http://localhost:8080", "ws://localhost:8080/sync/stream", "localhost", 8080),
            ("https://sync.example.com/", "wss://sync.example.com/sync/stream", "sync.example.com", 443),
            ("wss://x.example/base/", "wss://x.example/base/sync/stream", "x.example", 443),
            ("ws://[::1]", "ws://[::1]/sync/stream", "::1", 80),
        ] {
            let parsed = Endpoint::parse(endpoint).expect("an endpoint");
            assert_eq!((&*parsed.uri.to_string(), &*parsed.host, parsed.port), (uri, host, port));
        }
        for endpoint in ["", "x", "ftp://x", "http://", "http://user@x", "http://x/?q=1", "http://x/#f", "/path"] {
            let refused = Endpoint::parse(endpoint).expect_err(endpoint);
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{endpoint}");
        }
    }
}
