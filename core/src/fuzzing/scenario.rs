//! The simulated world, as bytes would have it.

use crate::testing::Scenario;

/// A scenario that the bytes decide: the oracle looks on after every step.
pub fn scenario(bytes: &[u8]) {
    if let Err(broken) = Scenario::from_bytes(bytes).shrunk() {
        panic!("{broken}");
    }
}
