//! The body of an upload endpoint: one local transaction, however large a device made it while it was offline.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};
use http_body_util::BodyExt;
use syncline_core::{LocalTransaction, Uploaded};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// The time that a body may take: so much, and a second for each [`SLOWEST`] bytes that have arrived.
const GRACE: Duration = Duration::from_secs(30);
/// Bytes a second that the worst line must carry, after the grace.
const SLOWEST: u64 = 4 << 10;
/// Of a body that is too large, so many times the limit are received and thrown away, and so many bytes in any case: a
/// client that is cut off while it sends sees a broken connection and not the answer.
const DRAINED: usize = 4;
const DRAINED_AT_LEAST: usize = 64 << 20;

/// Extracts the local transaction that a client uploads.
///
/// Takes the place of `Json<LocalTransaction>`, whose limit is 2 MB: a transaction that is larger, such as an import made
/// offline, would be answered with 413 again and again, and no later write would ever get through.
///
/// `LIMIT` is the size of the largest body in bytes; 64 MiB unless changed, as in `Upload<{ 256 << 20 }>`. A larger one
/// is *rejected* as a backend rejects a write (status 200, [`Uploaded::Rejected`] with the limit in its reason):
/// the client rolls it back, records it, and goes on with its next write. Layers that limit bodies in another way, and proxies,
/// are to be set to as much.
///
/// It reads the body into memory, so it belongs after [`Authenticated`](super::Authenticated) among a handler's arguments:
/// then a request without a valid token is refused before.
///
/// ```
/// use axum::{Json, extract::State};
/// use syncline_core::Uploaded;
/// use syncline_transport_http::{Authenticated, Problem, Upload, axum};
/// # #[derive(Clone)] struct Backend;
/// # impl Backend {
/// #     async fn apply(&self, _: &syncline_core::Identity, _: &syncline_core::LocalTransaction) -> syncline_core::Result<Uploaded> {
/// #         Ok(Uploaded::Applied)
/// #     }
/// # }
///
/// async fn upload(
///     State(backend): State<Backend>,
///     Authenticated(user): Authenticated,
///     Upload(transaction): Upload,
/// ) -> Result<Json<Uploaded>, Problem> {
///     Ok(Json(backend.apply(&user, &transaction).await?))
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Upload<const LIMIT: usize = { 64 << 20 }>(pub LocalTransaction);

/// Why there is no transaction in a request: what is answered instead.
#[derive(Debug)]
pub enum UploadRejection {
    /// It is larger than the limit, which no later attempt changes.
    TooLarge(Uploaded),
    /// It is malformed, or did not arrive.
    Problem(Problem),
}

impl IntoResponse for UploadRejection {
    fn into_response(self) -> Response {
        match self {
            Self::TooLarge(rejected) => Json(rejected).into_response(),
            Self::Problem(problem) => problem.into_response(),
        }
    }
}

impl From<Problem> for UploadRejection {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl<S: Send + Sync, const LIMIT: usize> FromRequest<S> for Upload<LIMIT> {
    type Rejection = UploadRejection;

    async fn from_request(request: Request, _: &S) -> Result<Self, UploadRejection> {
        let stated = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let Some(body) = read(request.into_body(), stated, LIMIT).await? else {
            let reason = format!(
                "the transaction is larger than the {LIMIT} bytes that this server takes in one upload; \
                 write it in several transactions, or raise the limit of the server"
            );
            tracing::warn!(stated, reason, "an upload is rejected");
            return Err(UploadRejection::TooLarge(Uploaded::Rejected { reason }));
        };
        // The content type is not looked at: some clients send none, and only a body that parses counts.
        let transaction = serde_json::from_slice(&body).map_err(|error| {
            malformed(format!(
                "the body is no local transaction, {{\"crud\":[{{\"op_id\",\"op\",\"type\",\"id\",\"data\"}}]}}: {error}"
            ))
        })?;
        Ok(Self(transaction))
    }
}

/// The whole body, or nothing if it is larger than `limit`.
async fn read(mut body: Body, stated: Option<u64>, limit: usize) -> Result<Option<Bytes>, Problem> {
    let drained = limit.saturating_mul(DRAINED).max(DRAINED_AT_LEAST) as u64;
    if stated.is_some_and(|stated| stated > drained) {
        return Ok(None);
    }
    let began = Instant::now();
    let mut kept = BytesMut::new();
    let mut received = 0u64;
    while received <= drained {
        let deadline = began + GRACE + Duration::from_secs(received / SLOWEST);
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            let text = format!("the body arrived too slowly: {received} bytes in {} s", began.elapsed().as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "PSYNC_S2001", text)
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| malformed(format!("the body did not arrive: {error}")))?;
        // Trailers carry nothing that is wanted.
        let Ok(data) = frame.into_data() else { continue };
        received += data.len() as u64;
        if received <= limit as u64 {
            kept.put(data);
        } else {
            kept = BytesMut::new();
        }
    }
    Ok((received <= limit as u64).then(|| kept.freeze()))
}

fn malformed(description: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", description)
}
