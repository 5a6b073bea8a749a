//! Where a database is and how to log in: what its URL says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use syncline_core::{Error, Result};

/// How a database is reached, parsed from a URL such as `postgres://user:password@host:5432/name?sslmode=verify-full`.
///
/// Known parameters: `sslmode`, `sslrootcert` (a PEM file, or `system`), `sslcert` and `sslkey` (PEM files), `host` (the
/// directory of a Unix socket). Others are refused, so that a typing error is not taken for a setting.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
    pub(crate) tls: TlsOptions,
}

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
                other => return Err(wrong(&format!("there is no parameter `{other}`"))),
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
        })
    }
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
