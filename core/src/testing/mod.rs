//! Conformance suites for adapters, and the means to test without a network.

pub mod bucket_store_suite;
pub mod client_store_suite;
pub mod source_suite;
pub mod transport_suite;

mod deadline;
mod patience;
mod world;

pub use world::{Report, Scenario, World, WorldClient};

/// Runs a case of a suite to its end in this thread, for adapters that need no runtime.
pub fn run_here(case: futures::future::LocalBoxFuture<'_, ()>) {
    futures::executor::block_on(case);
}
