//! The error of the client's database.

use rusqlite::ErrorCode;
use syncline_core::{BoxError, ErrorKind};

/// The result of every call of a [`Database`](crate::Database).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the client's database.
///
/// `?` turns errors of `rusqlite`, of `serde_json` and of the core into it; any other error of an application goes
/// through [`Error::other`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused or failed.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// JSON could not be read or written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The core or this library failed; its kind says what to do.
    #[error(transparent)]
    Core(#[from] syncline_core::Error),
    /// A row does not fit the type that it was to become.
    #[error("a row does not fit the type asked for: {0}")]
    Row(String),
    /// An index or a trigger that the application made stands in the way of a synced row. A publish removes it and goes on.
    #[error("an index or trigger of the application on table {table:?} refused a synced row: {cause}")]
    Obstructed {
        /// The synced table.
        table: String,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// The application's own error, given back by a closure.
    #[error(transparent)]
    Other(BoxError),
}

impl Error {
    /// An error of the application, to leave a closure with. The transaction is rolled back.
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sqlite(error) => sqlite_kind(error),
            Self::Json(_) => ErrorKind::Data,
            Self::Core(error) => error.kind(),
            Self::Obstructed { .. } => ErrorKind::Unavailable,
            Self::Row(_) | Self::Other(_) => ErrorKind::Invalid,
        }
    }
}

/// Whether a statement failed for a reason that has nothing to do with what it says.
pub(crate) fn is_trouble_of_the_file(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some() && sqlite_kind(error) != ErrorKind::Invalid
}

/// Locks, full disks and failing devices pass; damage needs a new download; everything else is a wrong statement.
fn sqlite_kind(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed,
        ) => ErrorKind::Unavailable,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Data,
        _ => ErrorKind::Invalid,
    }
}

impl From<Error> for syncline_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            other => {
                let message = match &other {
                    Error::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                        "the disk of the client's database is full: free some space and it goes on"
                    }
                    Error::Sqlite(_) => "the client's database failed",
                    Error::Json(_) => "stored JSON could not be read",
                    _ => "the client's database refused",
                };
                Self::new(other.kind(), message).caused_by(other)
            }
        }
    }
}
