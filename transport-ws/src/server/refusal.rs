//! Errors as SDKs understand them: a text that begins with a `PSYNC_…` code in brackets.
//!
//! SDKs fetch new credentials if the code begins with `PSYNC_S21`, and also if there is none: so there always is one.

use syncline_core::{Error, ErrorKind};

/// The request cannot be understood.
pub(super) const MALFORMED: &str = "PSYNC_S2001";
/// There is no such path.
pub(super) const NO_ROUTE: &str = "PSYNC_S2002";
/// The server cannot answer now, or does not wait any longer.
pub(super) const UNAVAILABLE: &str = "PSYNC_S2003";
/// The request is written in another way than the server reads.
pub(super) const MEDIA_TYPE: &str = "PSYNC_S2004";
/// The token is none.
pub(super) const NO_CREDENTIALS: &str = "PSYNC_S2101";
/// There is no token.
pub(super) const NO_TOKEN: &str = "PSYNC_S2106";
/// There are too many already.
pub(super) const TOO_MANY: &str = "PSYNC_S2304";

/// The text of a refusal.
pub(super) fn text(code: &str, message: &str) -> String {
    format!("[{code}] {message}")
}

/// The text that tells a client of this error.
pub(super) fn text_of(error: &Error) -> String {
    let (code, message) = told_of(error);
    text(code, &message)
}

/// The code and the text that tell a client of this error. What is internal, and the causes of what is away, go to the log
/// alone.
pub(super) fn told_of(error: &Error) -> (&'static str, String) {
    match (error.kind(), error.code()) {
        // Told where it is counted, and not for each.
        (_, Some(code @ TOO_MANY)) => (code, error.message().to_owned()),
        (ErrorKind::Unauthorized, code) => {
            let code = code.unwrap_or(NO_CREDENTIALS);
            tracing::info!(code, %error, "a connection is not authorized");
            (code, error.to_string())
        }
        (ErrorKind::Invalid | ErrorKind::Protocol, code) => {
            let code = code.unwrap_or(MALFORMED);
            tracing::info!(code, %error, "a request cannot be understood");
            (code, error.to_string())
        }
        (ErrorKind::Unavailable | ErrorKind::Closed, code) => {
            tracing::warn!(%error, "a request cannot be answered now");
            (code.unwrap_or(UNAVAILABLE), error.message().to_owned())
        }
        (_, code) => {
            tracing::error!(%error, "a request failed");
            (code.unwrap_or(MALFORMED), "an internal error; the server's log says more".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_and_no_secret() {
        let cause = || std::io::Error::other("10.0.0.7 refuses the password");
        for (error, expected) in [
            (Error::unauthorized("expired").with_code("PSYNC_S2103"), "[PSYNC_S2103] expired"),
            (Error::unauthorized("no"), "[PSYNC_S2101] no"),
            (Error::invalid("what?"), "[PSYNC_S2001] what?"),
            (Error::unavailable("later").with_code("PSYNC_S2304"), "[PSYNC_S2304] later"),
            (Error::unavailable("away").caused_by(cause()), "[PSYNC_S2003] away"),
            (
                Error::internal("broken").caused_by(cause()),
                "[PSYNC_S2001] an internal error; the server's log says more",
            ),
        ] {
            assert_eq!(text_of(&error), expected);
        }
    }
}
