//! The compact subprotocol over real sockets.
#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used)]

mod bench;
mod client;
mod hostile;
mod kept;
mod tokens;
