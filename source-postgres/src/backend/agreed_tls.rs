//! A socket on which TLS was agreed before tokio-postgres gets it, told to it so that it can bind its login to the TLS
//! session.

use std::convert::Infallible;
use std::future::{Ready, ready};

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding as Mode, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::config::{self, PostgresConfig};
use crate::connection::Socket;

/// Connects nothing: whether and how TLS protects the socket was decided when it was opened.
#[derive(Debug)]
pub(crate) struct AgreedTls;

impl AgreedTls {
    /// Makes tokio-postgres take the socket as it is, and bind the login to it as the URL says.
    pub(crate) fn prepare(login: &mut Config, config: &PostgresConfig) {
        // So it asks the server nothing before the login.
        login.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        login.channel_binding(match config.tls.channel_binding {
            config::ChannelBinding::Disable => Mode::Disable,
            config::ChannelBinding::Prefer => Mode::Prefer,
            config::ChannelBinding::Require => Mode::Require,
        });
    }
}

impl TlsConnect<Socket> for AgreedTls {
    type Stream = Socket;
    type Error = Infallible;
    type Future = Ready<Result<Socket, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(socket))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        Self::channel_binding(self).map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
