//! Conformance suites for adapters, and the means to test without a network.

pub mod bucket_store_suite;
pub mod client_store_suite;
pub mod source_suite;
pub mod transport_suite;

mod deadline;
mod world;

use std::future::Future;
use std::pin::Pin;

pub use crate::config::naive_config::{NaiveConfig, NaiveRow, NaiveTable};
pub(crate) use world::Random;
pub use world::{Mortal, Report, Scenario, World, WorldBucketStore, WorldClient, WorldClientStore, WorldStores};

/// A case of a suite, to be run to its end on one thread.
pub type RunningCase<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs a case of a suite to its end in this thread, for adapters that need no runtime.
pub fn run_here(case: RunningCase<'_>) {
    futures::executor::block_on(case);
}
