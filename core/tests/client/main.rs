//! The client: its session as conversations, golden vectors and random orders; its driver against a server in memory.
#![allow(clippy::unwrap_used)]

mod clock;
mod driver;
mod golden;
mod orders;
mod server;
mod session;
mod talk;
mod whole;
