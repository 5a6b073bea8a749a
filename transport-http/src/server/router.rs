//! The router: every route of the protocol, to be merged into an application's own.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use syncline_core::SyncService;

use super::cors::cors;
use super::problem::Problem;
use super::routes;
use super::turns::Turns;

/// Limits of the router.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Bytes of a request body; more is answered with 413. Default 1 MiB.
    pub request_bytes: usize,
    /// Time for a request body to arrive. Default 15 s.
    pub request_time: Duration,
    /// A client that takes nothing of its stream for so long is cut off. Default 60 s.
    pub patience: Duration,
    /// Requests for write checkpoints that are answered at once; as many wait for their turn, and more are answered with
    /// 429. Default 100.
    pub write_checkpoints: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            request_time: Duration::from_secs(15),
            patience: Duration::from_secs(60),
            write_checkpoints: 100,
        }
    }
}

/// What the routes know.
#[derive(Debug, Clone)]
pub(super) struct HttpState {
    pub(super) service: SyncService,
    pub(super) limits: HttpLimits,
    pub(super) write_checkpoints: Turns,
}

/// The routes of the PowerSync protocol over HTTP: `POST /sync/stream`, `GET /write-checkpoint2.json`,
/// `POST /sync/checkpoint-request` and `GET /probes/…`, with CORS for browsers.
///
/// Has a state of its own, so it merges into a router of any state.
pub fn router<S: Clone + Send + Sync + 'static>(service: SyncService) -> Router<S> {
    router_with_limits(service, HttpLimits::default())
}

/// The same with other limits.
pub fn router_with_limits<S: Clone + Send + Sync + 'static>(service: SyncService, limits: HttpLimits) -> Router<S> {
    // SDKs expect 404 for a method that a path does not have.
    let wrong_method = || async { Problem::not_found("route of this method and path") };
    Router::new()
        .route("/sync/stream", post(routes::sync_stream).fallback(wrong_method))
        .route("/write-checkpoint2.json", get(routes::write_checkpoint).fallback(wrong_method))
        .route("/sync/checkpoint-request", post(routes::checkpoint_request).fallback(wrong_method))
        .route("/probes/startup", get(routes::startup).fallback(wrong_method))
        .route("/probes/liveness", get(routes::liveness).fallback(wrong_method))
        .route("/probes/readiness", get(routes::readiness).fallback(wrong_method))
        .layer(cors())
        .with_state(HttpState { service, limits, write_checkpoints: Turns::new(limits.write_checkpoints) })
}
