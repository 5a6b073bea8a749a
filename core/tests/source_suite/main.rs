//! The conformance suite of `Source`: the source in memory passes it, and each case catches a source that breaks its promise.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod broken_source;
mod caught;
mod memory_hand;

mod memory {
    use std::time::Duration;

    syncline_core::source_tests!(crate::memory_hand::MemoryHand::new(Duration::from_secs(30)));
}
