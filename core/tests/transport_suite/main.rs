//! The conformance suite of `Transport`: the transport in memory passes it, also over a network that cuts and breaks, and each
//! case catches a transport that breaks its promise.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod broken;
mod local_network;

mod memory {
    syncline_core::transport_tests!(in_process: crate::local_network::InMemory);
}

mod network {
    use std::time::Duration;

    syncline_core::transport_tests!(crate::local_network::LocalNetwork::new(Duration::from_secs(30)));
}
