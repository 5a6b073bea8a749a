//! Where a database is and how to log in: what its URL says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use syncline_core::{Error, Result, nearest_name};

/// How a database is reached, parsed from a URL such as `postgres://user:password@host:5432/name?sslmode=verify-full`.
///
/// Known parameters, which mean what they mean to libpq: `sslmode`, `sslrootcert` (a PEM file, or `system`), `sslcert` and
/// `sslkey` (PEM files), `channel_binding` (`disable`, `prefer` or `require`), `connect_timeout` (in seconds, 10 unless it
/// says otherwise; each attempt has a limit), `host` (the directory of a Unix socket), `application_name` (accepted, but
/// ours is used). Others are refused, so that a typing error is not taken for a setting.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
    pub(crate) tls: TlsOptions,
    /// For the whole of connecting and logging in.
    pub(crate) connect_timeout: Duration,
}

/// What a URL may say behind its question mark.
const PARAMETERS: [&str; 8] =
    ["application_name", "channel_binding", "connect_timeout", "host", "sslcert", "sslkey", "sslmode", "sslrootcert"];
/// The limit of an attempt to connect, unless the URL has one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An attempt that takes longer is none.
const LONGEST_CONNECT_TIMEOUT: u64 = 3600;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of its socket.
    Unix(PathBuf),
}

/// How the connection is protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsOptions {
    pub(crate) mode: SslMode,
    pub(crate) roots: Option<PathBuf>,
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) channel_binding: ChannelBinding,
}

/// `channel_binding`: whether a login by SCRAM is bound to the TLS session, so that nobody between us and the server can
/// pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ChannelBinding {
    Disable,
    /// Where there is TLS and the server offers it.
    #[default]
    Prefer,
    /// Every other login is refused.
    Require,
}

/// `sslmode`, with the meaning that libpq gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SslMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl PostgresConfig {
    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The server's address for people: host and port, or the socket's directory.
    pub fn address(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
            Host::Unix(directory) => format!("{} (port {})", directory.display(), self.port),
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        f.debug_struct("PostgresConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl FromStr for PostgresConfig {
    type Err = Error;

    /// # Errors
    /// `Invalid`, with what is wrong; the password is never repeated.
    fn from_str(url: &str) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(format!("not the URL of a Postgres database: {what}"));
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("it must begin with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if address.contains(',') {
            return Err(wrong("several hosts are not supported"));
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
                (host, after.strip_prefix(':').unwrap_or(""))
            }
            None => address.split_once(':').unwrap_or((address, "")),
        };
        let port = if port.is_empty() { 5432 } else { port.parse().map_err(|_| wrong("the port is not a number"))? };
        let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("a percent sign is not followed by a byte"));
        let user = decode(user)?;
        if user.is_empty() {
            return Err(wrong("it names no user"));
        }
        let mut host = decode(host)?;
        let database = decode(path)?;
        let mut tls = TlsOptions::default();
        let mut connect_timeout = CONNECT_TIMEOUT;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("a parameter has no value"))?;
            let value = decode(value)?;
            match name {
                "host" => host = value,
                "sslmode" => {
                    tls.mode = match value.as_str() {
                        "disable" => SslMode::Disable,
                        "prefer" => SslMode::Prefer,
                        "require" => SslMode::Require,
                        "verify-ca" => SslMode::VerifyCa,
                        "verify-full" => SslMode::VerifyFull,
                        _ => {
                            return Err(wrong(
                                "sslmode is none of disable, prefer, require, verify-ca and verify-full",
                            ));
                        }
                    }
                }
                "sslrootcert" if value == "system" => tls.roots = None,
                "sslrootcert" => tls.roots = Some(value.into()),
                "sslcert" => tls.certificates = Some(value.into()),
                "sslkey" => tls.key = Some(value.into()),
                // Ours is set anyway, so that an operator recognises our connections.
                "application_name" => {}
                "channel_binding" => {
                    tls.channel_binding = match value.as_str() {
                        "disable" => ChannelBinding::Disable,
                        "prefer" => ChannelBinding::Prefer,
                        "require" => ChannelBinding::Require,
                        _ => return Err(wrong("channel_binding is none of disable, prefer and require")),
                    }
                }
                "connect_timeout" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=LONGEST_CONNECT_TIMEOUT).contains(seconds));
                    let complaint = "connect_timeout is not a number of seconds from 1 to 3600";
                    connect_timeout = Duration::from_secs(seconds.ok_or_else(|| wrong(complaint))?);
                }
                other => return Err(wrong(&unknown(other))),
            }
        }
        // As in libpq: who names the authorities wants them to count.
        if tls.mode == SslMode::Require && tls.roots.is_some() {
            tls.mode = SslMode::VerifyCa;
        }
        let host = match host.as_str() {
            "" => Host::Tcp("localhost".into()),
            directory if directory.starts_with('/') => Host::Unix(directory.into()),
            _ => Host::Tcp(host),
        };
        Ok(Self {
            host,
            port,
            password: password.map(decode).transpose()?,
            database: if database.is_empty() { user.clone() } else { database },
            user,
            tls,
            connect_timeout,
        })
    }
}

/// What to say of a parameter that nobody knows.
fn unknown(name: &str) -> String {
    let near =
        nearest_name(name, &PARAMETERS).map(|near| format!("did you mean `{near}`? Otherwise ")).unwrap_or_default();
    format!("there is no parameter `{name}`: {near}remove it (known are {})", PARAMETERS.join(", "))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_url() {
        let config: PostgresConfig =
            "postgresql://us%40er:p%3Aw%2Fd@db.example.com:6543/my%20db?sslmode=verify-full&sslrootcert=/ca.pem"
                .parse()
                .unwrap();
        assert_eq!(config.host, Host::Tcp("db.example.com".into()));
        assert_eq!((config.port, config.user.as_str(), config.database()), (6543, "us@er", "my db"));
        assert_eq!(config.password.as_deref(), Some("p:w/d"));
        assert_eq!(config.tls.mode, SslMode::VerifyFull);
        assert!(!format!("{config:?}").contains("p:w/d"));
    }

    #[test]
    fn defaults_sockets_and_addresses() {
        let config: PostgresConfig = "postgres://me@localhost".parse().unwrap();
        assert_eq!((config.port, config.database(), config.tls.mode), (5432, "me", SslMode::Prefer));
        let config: PostgresConfig = "postgres://me@%2Ftmp%2Fx:1234/db".parse().unwrap();
        assert_eq!((config.host, config.port), (Host::Unix("/tmp/x".into()), 1234));
        let config: PostgresConfig = "postgres://me@[::1]:77/db".parse().unwrap();
        assert_eq!(config.address(), "[::1]:77");
        let config: PostgresConfig = "postgres://me@h/db?sslmode=require&sslrootcert=/ca".parse().unwrap();
        assert_eq!(config.tls.mode, SslMode::VerifyCa);
    }

    #[test]
    fn what_hosts_put_into_their_urls_is_understood() {
        let parse = |query: &str| format!("postgres://me@h/db?{query}").parse::<PostgresConfig>();
        let config = parse("sslmode=require&channel_binding=require&connect_timeout=15").unwrap();
        assert_eq!(config.tls.channel_binding, ChannelBinding::Require);
        assert_eq!(config.connect_timeout, Duration::from_secs(15));
        let config = parse("channel_binding=disable").unwrap();
        assert_eq!((config.tls.channel_binding, config.connect_timeout), (ChannelBinding::Disable, CONNECT_TIMEOUT));
        assert_eq!(parse("").unwrap().tls.channel_binding, ChannelBinding::Prefer);
        let told = |query: &str| parse(query).unwrap_err().to_string();
        assert!(told("channel_binding=yes").contains("none of disable, prefer and require"));
        for wrong in ["0", "-1", "soon", "3601"] {
            assert!(told(&format!("connect_timeout={wrong}")).contains("from 1 to 3600"), "{wrong}");
        }
        let known = "remove it (known are application_name, channel_binding, connect_timeout, host, sslcert, sslkey, \
                     sslmode, sslrootcert)";
        assert!(told("pgbouncer=true").ends_with(&format!("there is no parameter `pgbouncer`: {known}")));
        assert!(
            told("sslmod=require")
                .ends_with(&format!("there is no parameter `sslmod`: did you mean `sslmode`? Otherwise {known}"))
        );
    }

    #[test]
    fn wrong_urls_are_refused() {
        for url in [
            "",
            "mysql://a@b/c",
            "postgres://host/db",
            "postgres://a@b:x/c",
            "postgres://a@b/c?sslmod=require",
            "postgres://a@b/c?sslmode=yes",
            "postgres://a%zz@b/c",
            "postgres://a@b,c/d",
        ] {
            assert!(url.parse::<PostgresConfig>().is_err(), "{url}");
        }
    }
}
