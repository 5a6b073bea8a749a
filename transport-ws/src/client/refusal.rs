//! What a server's refusal means for a client.

use syncline_core::{Error, ErrorKind};

/// The codes that a server may give, and what they mean for the client.
const CODES: &[(&str, ErrorKind)] = &[
    ("PSYNC_S2001", ErrorKind::Protocol),
    ("PSYNC_S2002", ErrorKind::Protocol),
    ("PSYNC_S2003", ErrorKind::Unavailable),
    ("PSYNC_S2004", ErrorKind::Protocol),
    ("PSYNC_S2101", ErrorKind::Unauthorized),
    ("PSYNC_S2102", ErrorKind::Unauthorized),
    ("PSYNC_S2103", ErrorKind::Unauthorized),
    ("PSYNC_S2104", ErrorKind::Unauthorized),
    ("PSYNC_S2105", ErrorKind::Unauthorized),
    ("PSYNC_S2106", ErrorKind::Unauthorized),
    ("PSYNC_S2204", ErrorKind::Unavailable),
    ("PSYNC_S2302", ErrorKind::Unavailable),
    ("PSYNC_S2304", ErrorKind::Unavailable),
    ("PSYNC_S2305", ErrorKind::Protocol),
];

/// The error of a code that a server states, with its text; a code that is not known means this.
pub(super) fn refused(stated: &str, text: &str, otherwise: ErrorKind) -> Error {
    // Not as long as the server likes.
    let text: String = text.chars().take(500).collect();
    let message = format!("the server refused the stream: {text}");
    match CODES.iter().find(|(code, _)| *code == stated) {
        Some((code, kind)) => Error::new(*kind, message).with_code(code),
        // Whatever else is wrong with the credentials.
        None if stated.starts_with("PSYNC_S21") => Error::new(ErrorKind::Unauthorized, message),
        None => Error::new(otherwise, message),
    }
}
