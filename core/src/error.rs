//! One error type, whose kind tells the caller what to do.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The result of every fallible call of the core and of its adapters.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, as the code of an application returns it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a caller should do about an [`Error`].
///
/// | Kind | Meaning | What a driver does |
/// |---|---|---|
/// | `Invalid` | wrong configuration, sync config or arguments | stops and reports |
/// | `Unauthorized` | credentials refused or expired | asks for new ones, once per refusal |
/// | `Unavailable` | a network, a database or a disk is away for now | backs off and retries |
/// | `Protocol` | the peer broke the protocol or a limit | closes the connection, reconnects with back-off |
/// | `Data` | a checksum differs or stored state is damaged | discards and downloads again; on a server, stops |
/// | `Closed` | this handle was shut down | returns quietly |
/// | `Internal` | an invariant of ours does not hold | stops; please report it |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Wrong configuration, sync config or arguments: retrying cannot help.
    Invalid,
    /// Credentials were refused or have expired.
    Unauthorized,
    /// Something is away for now; the same call may succeed later.
    Unavailable,
    /// The peer broke the protocol or exceeded a limit.
    Protocol,
    /// A checksum differs, or stored state cannot be read.
    Data,
    /// The handle was shut down.
    Closed,
    /// A broken invariant of ours.
    Internal,
}

/// An error with a [kind](ErrorKind), a sentence and, where there is one, its cause and its wire code.
///
/// `Display` is all of it: the sentence and then every cause, each once, so that whoever prints an error loses nothing.
/// In return `source` of [`std::error::Error`] is always `None`, since reporters such as `anyhow` would print the same
/// causes again; [`cause`](Self::cause) gives the cause itself.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Option<&'static str>,
    message: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is a lower-case sentence that says what failed and how to mend it.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, code: None, message: message.into(), source: None }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::Unauthorized`].
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unauthorized, message)
    }

    /// Shorthand for [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Shorthand for [`ErrorKind::Protocol`].
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// Shorthand for [`ErrorKind::Data`].
    pub fn data(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Shorthand for [`ErrorKind::Closed`].
    pub fn closed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Closed, message)
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with the cause that led to it.
    #[must_use]
    pub fn caused_by(self, source: impl Into<BoxError>) -> Self {
        let source: BoxError = source.into();
        Self(Arc::new(Inner {
            kind: self.0.kind,
            code: self.0.code,
            message: self.0.message.clone(),
            source: Some(Arc::from(source)),
        }))
    }

    /// The same error with a `PSYNC_…` code, which SDKs know.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            code: Some(code),
            message: self.0.message.clone(),
            source: self.0.source.clone(),
        }))
    }

    /// The same cause under one more sentence: `context` comes first.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            code: self.0.code,
            message: format!("{context}: {}", self.0.message).into(),
            source: self.0.source.clone(),
        }))
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The wire code, where one was given.
    pub fn code(&self) -> Option<&'static str> {
        self.0.code
    }

    /// The sentence alone, without the causes that `Display` appends.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What led to it, for those who want to know its type.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }

    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Protocol)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.message.to_string();
        let mut cause = self.cause();
        while let Some(error) = cause {
            let said = error.to_string();
            // Some errors of others say in their own sentence what led to them.
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.kind)?;
        if let Some(code) = self.0.code {
            write!(f, " [{code}]")?;
        }
        write!(f, ": {self}")
    }
}

// Without a source: `Display` has told it.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_cause() {
        let io = std::io::Error::other("no route");
        let error = Error::unavailable("cannot connect").caused_by(io).context("replication");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "replication: cannot connect: no route");
        assert!(error.is_transient());
    }

    /// As `anyhow` and other reporters print an error: its text, then that of each source.
    fn reported(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }

    #[test]
    fn each_cause_is_told_once_whoever_prints_it() {
        let io = std::io::Error::other("no route");
        let inner = Error::unavailable("cannot connect").caused_by(io);
        let error = Error::invalid("replication failed").caused_by(inner);
        assert_eq!(error.to_string(), "replication failed: cannot connect: no route");
        assert_eq!(reported(&error), error.to_string());
        assert_eq!(format!("{error:#}"), error.to_string());
        assert!(error.cause().is_some_and(|cause| cause.is::<Error>()));

        /// An error that breaks the convention: its text ends with that of its source.
        #[derive(Debug)]
        struct Talkative(std::io::Error);
        impl fmt::Display for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sending failed: {}", self.0)
            }
        }
        impl std::error::Error for Talkative {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::unavailable("no answer").caused_by(Talkative(std::io::Error::other("no route")));
        assert_eq!(error.to_string(), "no answer: sending failed: no route");
    }
}
