//! What an error of the database means for an upload.

use syncline_core::{BoxError, Error};
use tokio_postgres::error::{DbError, SqlState};

/// What to do after an error of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The write is at fault: it will never be accepted.
    Refused,
    /// The same transaction may pass at once.
    TryAgain,
    /// Tables are not as they were when they were looked up, or the app's SQL is wrong.
    Schema,
    /// The database is away, busy or in trouble.
    Unavailable,
}

/// Judges an error by its SQLSTATE. States that an application raises itself (`P0001` or its own) are refusals.
pub(crate) fn judge(state: &SqlState) -> Verdict {
    let code = state.code();
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        return Verdict::Refused; // row level security says so as well
    }
    match code.get(..2).unwrap_or_default() {
        "40" => Verdict::TryAgain,
        "42" | "0A" | "26" | "34" | "3F" => Verdict::Schema,
        "08" | "25" | "28" | "3D" | "53" | "55" | "57" | "58" | "F0" | "XX" => Verdict::Unavailable,
        _ => Verdict::Refused,
    }
}

/// The reason of a rejection: the database's own sentence, without the detail that may quote rows.
pub(crate) fn reason(table: Option<&str>, error: &DbError) -> String {
    match table {
        Some(table) => format!("`{table}`: {}", error.message()),
        None => error.message().to_owned(),
    }
}

/// An error that is nobody's refusal, as the caller gets it.
pub(crate) fn database_error(error: tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::unavailable("the connection to the database failed").caused_by(error);
    };
    let message = db.message().to_owned();
    let cause = BoxError::from(format!("{message} (SQLSTATE {})", db.code().code()));
    match judge(db.code()) {
        Verdict::Schema | Verdict::Refused => Error::invalid("the database refused a statement").caused_by(cause),
        Verdict::TryAgain | Verdict::Unavailable => Error::unavailable("the database is unavailable").caused_by(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_write_can_help_is_a_refusal() {
        for (code, verdict) in [
            ("23505", Verdict::Refused),
            ("23514", Verdict::Refused),
            ("22P02", Verdict::Refused),
            ("42501", Verdict::Refused),
            ("44000", Verdict::Refused),
            ("54000", Verdict::Refused),
            ("P0001", Verdict::Refused),
            ("PT409", Verdict::Refused),
            ("40001", Verdict::TryAgain),
            ("40P01", Verdict::TryAgain),
            ("42703", Verdict::Schema),
            ("0A000", Verdict::Schema),
            ("57014", Verdict::Unavailable),
            ("55P03", Verdict::Unavailable),
            ("25006", Verdict::Unavailable),
            ("53300", Verdict::Unavailable),
        ] {
            assert_eq!(judge(&SqlState::from_code(code)), verdict, "{code}");
        }
    }
}
