//! What an error of SQLite means for a caller.

use rusqlite::ErrorCode;
use syncline_core::Error;

/// The error under a sentence that says what was tried.
pub(super) fn failed(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        let code = error.sqlite_error_code();
        let sentence = match code {
            Some(ErrorCode::DiskFull) => {
                Error::unavailable(format!("{what}: the disk is full, free some space and it goes on"))
            }
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted,
            ) => Error::unavailable(what),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Error::data(format!("{what}: the file is damaged"))
            }
            Some(ErrorCode::TooBig) => Error::invalid(format!("{what}: a row is larger than SQLite can store")),
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::InvalidColumnType(..) => Error::data(format!("{what}: stored state is unreadable")),
                _ => Error::internal(what),
            },
        };
        sentence.caused_by(error)
    }
}

/// Numbers are stored as SQLite's signed integers.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from SQLite's signed integer.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
