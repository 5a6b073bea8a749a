//! Conformance suites for adapters, and the means to test without a network.

pub mod bucket_store_suite;
pub mod client_store_suite;

mod deadline;
mod world;

pub use world::{Report, Scenario, World, WorldClient};
