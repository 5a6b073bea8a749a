//! What each route does.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value, json};
use syncline_core::protocol::SyncRequest;
use syncline_core::{Readiness, WriteCheckpoint, WriteCheckpointRequest};

use super::authenticated::authenticate;
use super::body::stream_body;
use super::content_coding::ContentCoding;
use super::negotiation::framing;
use super::problem::Problem;
use super::router::HttpState;
use super::serve::LongLived;

/// How long an answer waits for the first piece of its stream, which shows whether there will be one.
const FIRST_PIECE: Duration = Duration::from_secs(1);

type Lines = BoxStream<'static, syncline_core::Result<Bytes>>;

/// `POST /sync/stream`: validated first, then authenticated, then streamed until the client goes.
pub(super) async fn sync_stream(State(state): State<HttpState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = read(&parts.headers, body, &state).await?;
    let request: SyncRequest = if body.is_empty() {
        SyncRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| invalid(&error))?
    };
    let identity = authenticate(&parts, &state.service).await?;
    let framing = framing(&parts.headers, request.raw_data);
    let user_agent = parts.headers.get("x-user-agent").or_else(|| parts.headers.get("user-agent"));
    let user = identity.user_id();
    let (client_id, buckets) = (request.client_id.clone(), request.buckets.len());
    let expiry = identity.expiry();
    let mut lines = begun(state.service.stream(identity, request, framing)?).await?;
    tracing::info!(user, client_id, buckets, ?framing, ?user_agent, "a sync stream opens");
    let headers = [
        (CONTENT_TYPE, framing.content_type()),
        (HeaderName::from_static("x-accel-buffering"), "no"),
        // A proxy that compresses would buffer.
        (CACHE_CONTROL, "no-transform"),
        (VARY, "accept-encoding"),
    ];
    let coding = ContentCoding::negotiate(&parts.headers);
    if let Some(coding) = coding {
        lines = coding.compress(lines);
    }
    let coding = coding.map(|coding| [(CONTENT_ENCODING, coding.name())]);
    let body = stream_body(lines, state.limits.patience, expiry);
    Ok((Extension(LongLived), headers, coding, body).into_response())
}

/// A stream after its first piece has come, if it comes soon: an error before it is still told by a status and a code, and
/// not by a connection that breaks. There is nothing to wait for long: a store without a checkpoint has no first line yet.
async fn begun(mut lines: Lines) -> Result<Lines, Problem> {
    match tokio::time::timeout(FIRST_PIECE, lines.next()).await {
        Ok(Some(Ok(first))) => Ok(stream::once(async { Ok(first) }).chain(lines).boxed()),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Ok(stream::empty().boxed()),
        Err(_) => Ok(lines),
    }
}

/// `GET /write-checkpoint2.json?client_id=…`: the next number, at once.
pub(super) async fn write_checkpoint(
    State(state): State<HttpState>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    let identity = authenticate(&parts, &state.service).await?;
    let client_id = query.get("client_id").map(String::as_str);
    let _turn = state.write_checkpoints.take().await?;
    let next = WriteCheckpointRequest::Next;
    let number = state.service.request_write_checkpoint(&identity, client_id, next).await?;
    Ok(Json(json!({ "data": { "write_checkpoint": number.to_string() } })))
}

/// `POST /sync/checkpoint-request`: a number that the client made.
pub(super) async fn checkpoint_request(
    State(state): State<HttpState>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    let body = read(&parts.headers, body, &state).await?;
    let fields: Map<String, Value> =
        if body.is_empty() { Map::new() } else { serde_json::from_slice(&body).map_err(|error| invalid(&error))? };
    let field = |name: &str| fields.get(name).cloned().or_else(|| query.get(name).cloned().map(Value::from));
    let Some(Value::String(client_id)) = field("client_id") else {
        return Err(bad_field("`client_id` must be a string"));
    };
    let number = match field("checkpoint_request_id") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(number)) => number.as_i64().filter(|number| *number < 1 << 53),
        _ => None,
    };
    let Some(number) = number.filter(|number| *number >= 1) else {
        return Err(bad_field("`checkpoint_request_id` must be a whole number from 1, as a decimal string"));
    };
    let identity = authenticate(&parts, &state.service).await?;
    let at_least = WriteCheckpointRequest::AtLeast(WriteCheckpoint(number));
    let _turn = state.write_checkpoints.take().await?;
    let stored = state.service.request_write_checkpoint(&identity, Some(&client_id), at_least).await?;
    Ok(Json(json!({ "data": { "checkpoint_request_id": stored.to_string() } })))
}

/// `GET /probes/startup`.
pub(super) async fn startup(State(state): State<HttpState>) -> Response {
    let readiness = state.service.readiness();
    probe(readiness, readiness.started)
}

/// `GET /probes/liveness`: also while the service closes, or it would be killed before its streams have ended.
pub(super) async fn liveness(State(state): State<HttpState>) -> Response {
    probe(state.service.readiness(), true)
}

/// `GET /probes/readiness`.
pub(super) async fn readiness(State(state): State<HttpState>) -> Response {
    let readiness = state.service.readiness();
    probe(readiness, readiness.started && readiness.ready)
}

fn probe(readiness: Readiness, good: bool) -> Response {
    let touched_at = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let touched_at = format!("{touched_at:.3}");
    let body = json!({ "ready": readiness.ready, "started": readiness.started, "touched_at": touched_at });
    let status = if good { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, Json(body)).into_response()
}

/// The body of a request, within its limits.
async fn read(headers: &HeaderMap, body: Body, state: &HttpState) -> Result<Bytes, Problem> {
    let limits = &state.limits;
    let collect = Limited::new(body, limits.request_bytes).collect();
    let collected = tokio::time::timeout(limits.request_time, collect).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "PSYNC_S2001", "the request body did not arrive in time")
    })?;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "FST_ERR_CTP_BODY_TOO_LARGE",
                format!(
                    "the request body is larger than {} bytes, the limit that `HttpLimits::request_bytes` sets",
                    limits.request_bytes
                ),
            ));
        }
        Err(error) => return Err(Problem::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", error.to_string())),
    };
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !bytes.is_empty() && !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "FST_ERR_CTP_INVALID_MEDIA_TYPE",
            "the request body must be `application/json`",
        ));
    }
    Ok(bytes)
}

fn invalid(error: &serde_json::Error) -> Problem {
    let code = if error.is_data() { "PSYNC_S2001" } else { "FST_ERR_CTP_INVALID_JSON_BODY" };
    Problem::new(StatusCode::BAD_REQUEST, code, format!("the request body is malformed: {error}"))
}

fn bad_field(description: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", description)
}
