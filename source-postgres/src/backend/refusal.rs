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

/// Where Postgres raises what row level security refuses.
const ROW_LEVEL_SECURITY: &str = "ExecWithCheckOptions";
/// Where PL/pgSQL executes `RAISE`.
const RAISE: &str = "exec_stmt_raise";

/// Judges an error. States that an application raises itself (`P0001` or its own) are refusals.
pub(crate) fn judge(error: &DbError) -> Verdict {
    verdict(error.code(), error.routine())
}

fn verdict(state: &SqlState, routine: Option<&str>) -> Verdict {
    let code = state.code();
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        // A policy or a trigger refuses this write. Otherwise the role lacks a privilege, which no write can help: then
        // nothing is to be rejected, because a GRANT mends it.
        return match routine {
            Some(ROW_LEVEL_SECURITY | RAISE) => Verdict::Refused,
            _ => Verdict::Schema,
        };
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
    match judge(db) {
        Verdict::Schema if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::invalid("the backend's role lacks a privilege in the database: grant it").caused_by(cause)
        }
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
            ("42501", Verdict::Schema),
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
            assert_eq!(super::verdict(&SqlState::from_code(code), Some("aclcheck_error")), verdict, "{code}");
            assert_eq!(super::verdict(&SqlState::from_code(code), None), verdict, "{code}");
        }
        for routine in [ROW_LEVEL_SECURITY, RAISE] {
            assert_eq!(super::verdict(&SqlState::INSUFFICIENT_PRIVILEGE, Some(routine)), Verdict::Refused);
        }
    }
}
