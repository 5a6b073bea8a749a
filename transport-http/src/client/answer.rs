//! Answers of a server: what they mean, and their bodies within a limit.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use std::time::Duration;
use syncline_core::protocol::Framing;
use syncline_core::{Error, ErrorKind, Result};

/// Longer bodies of answers other than streams are not read.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The codes that a server may give, so that they can be told apart without reading texts.
const CODES: &[&str] = &[
    "PSYNC_S2001",
    "PSYNC_S2002",
    "PSYNC_S2003",
    "PSYNC_S2004",
    "PSYNC_S2101",
    "PSYNC_S2102",
    "PSYNC_S2103",
    "PSYNC_S2104",
    "PSYNC_S2105",
    "PSYNC_S2106",
    "PSYNC_S2204",
    "PSYNC_S2302",
    "PSYNC_S2304",
    "PSYNC_S2305",
];

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

/// The answer if it is a success; otherwise the error that it states.
pub(super) async fn accepted(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let kind = match status {
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    };
    if let (true, Some(target)) = (status.is_redirection(), response.headers().get(LOCATION)) {
        // Not followed: the token is for this endpoint, and a POST may become a GET on the way.
        let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
        return Err(Error::new(kind, format!("the server redirects to {target}; use that as the endpoint")));
    }
    // What stands in the body is only an explanation; the status decides even if it cannot be read.
    let body = body(response).await.unwrap_or_default();
    let refusal = serde_json::from_slice::<Refusal>(&body).ok().map(|refusal| refusal.error);
    let (code, description) = refusal.map_or((None, None), |refusal| (refusal.code, refusal.description));
    let mut message = format!("the server answered {status}");
    for part in [&description, &code].into_iter().flatten() {
        message.push_str(": ");
        message.extend(part.chars().take(500));
    }
    let error = Error::new(kind, message);
    Err(match code.and_then(|code| CODES.iter().find(|known| **known == code)) {
        Some(code) => error.with_code(code),
        None => error,
    })
}

/// How the lines of a stream are cut, by the content type of the answer.
pub(super) fn framing(response: &Response) -> Result<Framing> {
    let stated = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim();
    [Framing::Bson, Framing::Ndjson]
        .into_iter()
        .find(|framing| essence.eq_ignore_ascii_case(framing.content_type()))
        .ok_or_else(|| {
            Error::protocol(format!("the server answered with {stated:?}, which is no sync stream; check the endpoint"))
        })
}

/// The whole body of an answer that is short.
pub(super) async fn body(mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if body.len() + piece.len() > MAX_BODY_BYTES {
            return Err(Error::protocol("the server answered with more than was asked for"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The bytes of a stream; it fails if none come for so long.
pub(super) fn pieces(response: Response, idle: Duration) -> BoxStream<'static, Result<Bytes>> {
    let bytes = response.bytes_stream().boxed();
    futures::stream::unfold(Some(bytes), move |bytes| async move {
        let mut bytes = bytes?;
        match tokio::time::timeout(idle, bytes.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(bytes))),
            Ok(Some(Err(error))) => Some((Err(failed(error)), None)),
            Err(_) => {
                let message = format!("nothing came from the server for {} s", idle.as_secs_f64());
                Some((Err(Error::unavailable(message)), None))
            }
        }
    })
    .boxed()
}

/// The error of a request that got no answer, or of an answer that was cut.
pub(super) fn failed(error: reqwest::Error) -> Error {
    let message = if error.is_connect() {
        "the server cannot be reached"
    } else if error.is_timeout() {
        "the server did not answer in time"
    } else if error.is_decode() {
        "the answer of the server is damaged"
    } else {
        "the connection to the server broke"
    };
    Error::unavailable(message).caused_by(error)
}
