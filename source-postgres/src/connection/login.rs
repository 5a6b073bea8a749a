//! Logging in: the start-up packet with its pinned settings, and authentication.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::Session;
use super::query::{Connection, Frame};
use crate::config::{ChannelBinding as Binding, PostgresConfig};
use crate::error::{PgError, ServerError};

/// Settings that change how values look as text, what is seen and how long anything takes. In the start-up packet they win
/// over those of the role and of the database, in a walsender too.
const PINNED: [(&str, &str); 13] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("standard_conforming_strings", "on"),
    // Names in the SQL we send and in the expressions we read are always qualified.
    ("search_path", "pg_catalog"),
    ("idle_in_transaction_session_timeout", "0"),
    // Our messages need only be in the log, after what was committed before; a standby that is missing must not hold them
    // back, nor leave processes behind that wait for it.
    ("synchronous_commit", "local"),
    // Rows that a policy would hide are an error instead of missing.
    ("row_security", "off"),
];

/// The oldest server that ends long transactions. An older one would refuse to be told not to.
const TRANSACTION_TIMEOUT: u32 = 17;

/// The statement that undoes the limits that only some servers have, for one of this version.
pub(super) fn limits(version: u32) -> Option<&'static str> {
    (version >= TRANSACTION_TIMEOUT).then_some("SET transaction_timeout = 0")
}

/// Logs in; returns the server's major version.
pub(super) async fn log_in(
    connection: &mut Connection,
    config: &PostgresConfig,
    session: Session,
    application_name: &str,
) -> Result<u32, PgError> {
    let mut parameters = vec![
        ("user", config.user.as_str()),
        ("database", config.database.as_str()),
        ("application_name", application_name),
        // Hosts set limits that would cut a long read; ours are kept on this side.
        ("statement_timeout", "0"),
    ];
    if session == Session::Replication {
        parameters.push(("replication", "database"));
    }
    parameters.extend(PINNED);
    let mut packet = BytesMut::new();
    frontend::startup_message(parameters, &mut packet)?;
    connection.send(&packet).await?;
    authenticate(connection, config).await?;
    let mut version = 0;
    loop {
        let frame = connection.frame().await?;
        match frame.tag {
            b'Z' => return Ok(version),
            b'S' => version = server_version(&frame.body).unwrap_or(version),
            b'K' | b'N' => {}
            b'E' => return Err(server_error(&frame)),
            tag => return Err(unexpected(tag, "during start-up")),
        }
    }
}

/// The major version, if this parameter tells it.
fn server_version(parameter: &[u8]) -> Option<u32> {
    let digits = parameter.strip_prefix(b"server_version\0")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

async fn authenticate(connection: &mut Connection, config: &PostgresConfig) -> Result<(), PgError> {
    let password = || {
        config.password.as_deref().ok_or_else(|| {
            PgError::Invalid("the server asks for a password, but the URL of the database holds none".into())
        })
    };
    let required = config.tls.channel_binding == Binding::Require;
    let unbound = |what: &str| {
        PgError::Invalid(format!(
            "{what}, but channel_binding=require asks for a login that is bound to TLS: set sslmode=require, have the server \
             ask for scram-sha-256 over TLS, or set channel_binding=prefer"
        ))
    };
    let mut bound = false;
    let mut scram: Option<ScramSha256> = None;
    loop {
        let frame = connection.frame().await?;
        match frame.tag {
            b'R' => {}
            b'E' => return Err(server_error(&frame)),
            b'N' => continue,
            tag => return Err(unexpected(tag, "during authentication")),
        }
        let (kind, body) = frame
            .body
            .split_at_checked(4)
            .ok_or_else(|| PgError::Protocol("a request for authentication is too short".into()))?;
        let mut reply = BytesMut::new();
        match (u32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]), &mut scram) {
            // Any other login would let somebody on the way in unnoticed.
            (0 | 3 | 5, None) if required && !bound => return Err(unbound("the server does not ask for SCRAM")),
            (0, None) => return Ok(()),
            // A server that skips the last step of SCRAM has not proven that it knows the password.
            (0, Some(_)) => return Err(PgError::Protocol("the server ended SCRAM before its last step".into())),
            (kind @ (3 | 5), _) if !connection.is_private() => {
                let method = if kind == 3 { "clear text" } else { "md5" };
                return Err(PgError::Invalid(format!(
                    "the server asks for the password in {method} over a connection that others can read: \
                     set sslmode=require, or password_encryption to scram-sha-256"
                )));
            }
            (3, _) => frontend::password_message(password()?.as_bytes(), &mut reply)?,
            (5, _) => {
                let salt = <[u8; 4]>::try_from(body)
                    .map_err(|_| PgError::Protocol("a request for an md5 password has no salt".into()))?;
                let hash = md5_hash(config.user.as_bytes(), password()?.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), &mut reply)?;
            }
            (10, _) => {
                let offered: Vec<&[u8]> = body.split(|&byte| byte == 0).collect();
                let offers = |name: &str| offered.contains(&name.as_bytes());
                let wanted = config.tls.channel_binding != Binding::Disable;
                let (binding, mechanism) = match connection.channel_binding().filter(|_| wanted) {
                    Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                        (ChannelBinding::tls_server_end_point(hash), SCRAM_SHA_256_PLUS)
                    }
                    None if required => {
                        return Err(unbound("the connection has no TLS that a login could be bound to"));
                    }
                    Some(_) if required => return Err(unbound("the server offers no channel binding")),
                    _ if !offers(SCRAM_SHA_256) => {
                        return Err(PgError::Invalid("the server offers no SCRAM that this client knows".into()));
                    }
                    Some(_) => (ChannelBinding::unrequested(), SCRAM_SHA_256),
                    None => (ChannelBinding::unsupported(), SCRAM_SHA_256),
                };
                bound = mechanism == SCRAM_SHA_256_PLUS;
                let exchange = ScramSha256::new(password()?.as_bytes(), binding);
                frontend::sasl_initial_response(mechanism, exchange.message(), &mut reply)?;
                scram = Some(exchange);
            }
            (11, Some(exchange)) => {
                exchange.update(body)?;
                frontend::sasl_response(exchange.message(), &mut reply)?;
            }
            (12, Some(exchange)) => {
                exchange.finish(body)?;
                scram = None;
                continue;
            }
            (kind, _) => {
                return Err(PgError::Invalid(format!(
                    "the server asks for authentication of kind {kind}, which is not supported: use scram-sha-256"
                )));
            }
        }
        connection.send(&reply).await?;
    }
}

pub(super) fn server_error(frame: &Frame) -> PgError {
    PgError::Server(Box::new(ServerError::parse(&frame.body)))
}

pub(super) fn unexpected(tag: u8, when: &str) -> PgError {
    PgError::Protocol(format!("a message `{}` {when}", tag.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_its_version() {
        assert_eq!(server_version(b"server_version\x0017.10 (Debian 17.10-1)\0"), Some(17));
        assert_eq!(server_version(b"server_version\x0018beta1\0"), Some(18));
        assert_eq!(server_version(b"server_encoding\0UTF8\0"), None);
        assert_eq!(server_version(b"server_version\0"), None);
        assert_eq!((limits(16), limits(17).is_some()), (None, true));
    }
}
