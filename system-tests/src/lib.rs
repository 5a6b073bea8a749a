//! A whole Syncline server on a real Postgres, and devices that sync from it: what the tests of this package share.
//!
//! A part that cannot be started or that fails ends the test by a panic, which is what a test wants.
#![allow(clippy::unwrap_used)]

mod device;
mod server;

use std::future::Future;
use std::time::Duration;

pub use device::Device;
pub use server::Server;

/// Whatever a test waits for is there by then, or never.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `look` answers with something, looking again every few milliseconds. `what` says what is waited for, and
/// how things stand.
///
/// # Panics
/// If it does not within [`DEADLINE`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: impl Fn() -> String, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {}", what()))
}
