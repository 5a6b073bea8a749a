//! The server's side: a router to merge into an application's own, and what its routes may use.

mod authenticated;
mod body;
mod cors;
mod negotiation;
mod problem;
mod router;
mod routes;

pub use authenticated::Authenticated;
pub use problem::Problem;
pub use router::{HttpLimits, router, router_with_limits};
