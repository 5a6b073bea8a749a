//! The bytes to and from a server: TCP, TLS over it, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::config::{Host, PostgresConfig, SslMode};
use crate::error::PgError;

/// An open socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Connects and agrees on TLS as `sslmode` wants it. There is no way back to plain text after a failed handshake.
    pub(crate) async fn open(config: &PostgresConfig) -> Result<Self, PgError> {
        let host = match &config.host {
            Host::Unix(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", config.port));
                return Ok(Self::Unix(UnixStream::connect(path).await?));
            }
            Host::Tcp(host) => host,
        };
        // Names are resolved at each attempt, since a failover moves them; all their addresses are tried.
        let mut stream = TcpStream::connect((host.as_str(), config.port)).await?;
        stream.set_nodelay(true)?;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        if config.tls.mode == SslMode::Disable {
            return Ok(Self::Tcp(stream));
        }
        let mut request = bytes::BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        // Exactly one byte is read: more would be what somebody slipped in before the handshake.
        match stream.read_u8().await? {
            b'S' => Ok(Self::Tls(Box::new(tls::handshake(config, host, stream).await?))),
            b'N' if config.tls.mode == SslMode::Prefer => Ok(Self::Tcp(stream)),
            b'N' => Err(PgError::Invalid(
                "the server offers no TLS, but sslmode asks for it: turn TLS on there, or set sslmode=disable".into(),
            )),
            other => Err(PgError::Protocol(format!("byte {other} instead of an answer about TLS"))),
        }
    }

    /// Whether nobody on the way can read what is sent.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// The bytes that bind a login to this TLS connection, if there are any.
    pub(crate) fn channel_binding(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream.get_ref().1),
            _ => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
