//! What goes wrong between us and a server, and what a caller should do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::{Error, ErrorKind};

use crate::preflight::Occasion;

/// Why an exchange with a server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    #[error("{0}")]
    Server(Box<ServerError>),
    #[error("{0}")]
    Connect(Box<ConnectError>),
    #[error("the connection to Postgres broke")]
    Io(#[from] io::Error),
    #[error("Postgres sent something unexpected: {0}")]
    Protocol(String),
    #[error("Postgres did not answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Invalid(String),
}

/// Why a connection could not be opened: the network, TLS or the login.
#[derive(Debug)]
pub(crate) struct ConnectError {
    /// Of the server, for people.
    pub(crate) address: String,
    pub(crate) cause: PgError,
    /// Once all was right, even a refused login may pass: a password is being rotated, or a server takes over another.
    pub(crate) occasion: Occasion,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause, .. } = self;
        match cause {
            // Whatever answered is Postgres, or says what is wrong with TLS.
            PgError::Server(_) | PgError::Invalid(_) => write!(f, "cannot log in to Postgres at {address}: {cause}"),
            PgError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                write!(f, "cannot agree on TLS with Postgres at {address}: {error}")
            }
            PgError::Io(error) => {
                write!(f, "cannot connect to Postgres at {address}: {error}: is it running, and is the address right?")
            }
            other => {
                write!(f, "cannot connect to Postgres at {address}: {other}: is it running, and is the address right?")
            }
        }
    }
}

/// An error that the server reported.
#[derive(Debug, Default)]
pub(crate) struct ServerError {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) context: Option<String>,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse; odd bytes make it poorer, never fail it.
    pub(crate) fn parse(body: &Bytes) -> Self {
        let mut error = Self::default();
        let mut rest: &[u8] = body;
        while let Some((&field, tail)) = rest.split_first() {
            let Some(end) = tail.iter().position(|&byte| byte == 0) else { break };
            if field == 0 {
                break;
            }
            let text = String::from_utf8_lossy(&tail[..end]).into_owned();
            match field {
                b'V' => error.severity = text,
                b'S' if error.severity.is_empty() => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'W' => error.context = Some(text),
                _ => {}
            }
            rest = &tail[end + 1..];
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres says: {} ({})", self.message, self.code)?;
        for more in [&self.detail, &self.hint, &self.context].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

impl PgError {
    /// The SQLSTATE, if the server reported an error.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            Self::Connect(error) => error.cause.code(),
            _ => None,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) | Self::Timeout(_) => ErrorKind::Unavailable,
            Self::Protocol(_) => ErrorKind::Protocol,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Connect(error) if error.occasion == Occasion::First => error.cause.kind(),
            Self::Connect(_) => ErrorKind::Unavailable,
            Self::Server(error) => match error.code.as_str() {
                "28P01" | "28000" => ErrorKind::Unauthorized,
                "42501" | "3D000" | "3F000" => ErrorKind::Invalid,
                code => match code.get(..2) {
                    Some("42" | "22" | "0A") => ErrorKind::Invalid,
                    _ => ErrorKind::Unavailable,
                },
            },
        }
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        let kind = error.kind();
        match error {
            PgError::Io(io) => Self::new(kind, "the connection to Postgres broke").caused_by(io),
            other => Self::new(kind, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_tells_what_to_do() {
        let body = Bytes::from_static(b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Hlook\0\0");
        let error = PgError::Server(Box::new(ServerError::parse(&body)));
        assert_eq!(error.code(), Some("28P01"));
        let error = Error::from(error);
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert_eq!(error.to_string(), "Postgres says: password authentication failed (28P01); look");
        assert_eq!(ServerError::parse(&Bytes::from_static(b"Mno end")).message, "");
    }
}
