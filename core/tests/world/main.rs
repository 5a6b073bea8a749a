//! The simulated world: what a test of a sync config looks like, and what the world does to itself.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

mod seeds;
mod stories;
