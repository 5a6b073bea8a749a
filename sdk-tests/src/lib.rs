//! The official PowerSync SDK for Node, unmodified, as a client that a test drives.
//!
//! `client.mjs` beside this crate's manifest runs the SDK in a process of its own; a [`NodeClient`] gives it commands.

mod node_client;

pub use node_client::{NodeClient, Wire};
