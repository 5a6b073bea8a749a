//! Keeps the house in order: what a compiler does not check and a reviewer should not have to.
#![allow(clippy::unwrap_used)]

mod docs;
mod entropy;
mod fuzz_targets;
mod layers;
mod manifests;
mod mutations;
mod source;
mod suites;
mod tree;
