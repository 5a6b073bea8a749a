//! The server's side: a router to merge into an application's own, and what its routes may use.

mod address_guard;
mod authenticated;
mod body;
mod content_coding;
mod cors;
mod jwt_authenticator;
mod listener;
mod negotiation;
mod problem;
mod published_keys;
mod refresh_schedule;
mod router;
mod routes;
mod serve;
mod turns;
mod upload;

pub use authenticated::{Authenticated, bearer_token};
pub use cors::cors;
pub use jwt_authenticator::JwtAuthenticator;
pub use listener::{Connection, Listener};
pub use problem::Problem;
pub use router::{HttpLimits, router, router_with_limits};
pub use serve::serve;
pub use upload::{Upload, UploadRejection};
