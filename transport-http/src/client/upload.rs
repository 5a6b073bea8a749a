//! A connector's upload over HTTP.

use reqwest::{Client, StatusCode};
use syncline_core::{Credentials, Error, LocalTransaction, Result, Uploaded};

use super::answer;

/// Smaller bodies are taken everywhere: the usual limits begin here.
const SMALLEST_LIMIT: usize = 1 << 20;

/// Posts a local transaction to the upload endpoint of a backend, and returns what became of it: the body of
/// [`Connector::upload`](syncline_core::Connector::upload) for a backend that answers with [`Uploaded`] as JSON.
///
/// # Errors
/// `Unauthorized` for a token that was refused, so that a new one is fetched; `Protocol` for any other refusal and for an
/// answer that is no [`Uploaded`], with the reason that the backend gave; `Unavailable` if it is away.
/// All of them leave the transaction in the queue, and show in the status of the client.
pub async fn upload(
    client: &Client,
    url: &str,
    writes: &LocalTransaction,
    credentials: &Credentials,
) -> Result<Uploaded> {
    let body = serde_json::to_vec(writes)
        .map_err(|error| Error::internal("the transaction cannot be written as JSON").caused_by(error))?;
    let bytes = body.len();
    let request =
        client.post(url).bearer_auth(&credentials.token).header("content-type", "application/json").body(body);
    let response = request.send().await.map_err(|error| {
        let error = answer::failed(error).context(format!("an upload of {bytes} bytes"));
        // A server that refuses a body for its size may close the connection before the refusal can be read.
        if bytes > SMALLEST_LIMIT { hint(error) } else { error }
    })?;
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let error = Error::protocol(format!("the backend does not take an upload of {bytes} bytes (413)"));
        return Err(hint(error));
    }
    let body = answer::body(answer::accepted(response).await?).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let text = String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
        Error::protocol(format!(
            "the backend answered an upload with {text:?}; it must answer {{\"status\":\"applied\"}} or \
             {{\"status\":\"rejected\",\"reason\":…}}"
        ))
        .caused_by(error)
    })
}

/// What to do about a body that does not get through.
fn hint(error: Error) -> Error {
    let text = format!(
        "{error}. It holds up all later writes: raise the limit that the backend's upload route, or a proxy before it, \
         sets to bodies (in an axum program, take `syncline_transport_http::Upload` in place of `Json`)"
    );
    Error::new(error.kind(), text)
}
