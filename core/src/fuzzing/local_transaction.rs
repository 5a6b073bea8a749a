//! Uploads, as backends receive them.

use crate::local_transaction::LocalTransaction;

/// The body of an upload: what is read is written and read the same.
pub fn local_transaction(bytes: &[u8]) {
    let Ok(transaction) = serde_json::from_slice::<LocalTransaction>(bytes) else { return };
    let written = serde_json::to_vec(&transaction).unwrap_or_else(|error| panic!("it cannot be written: {error}"));
    let read = serde_json::from_slice::<LocalTransaction>(&written);
    assert_eq!(read.unwrap_or_else(|error| panic!("it cannot be read again: {error}")), transaction);
    // The estimate decides how long an upload may take, so it must not be out of all proportion.
    let (estimated, real) = (transaction.approximate_bytes(), written.len() as u64);
    assert!(estimated <= 4 * real + 256, "estimated {estimated} bytes instead of {real}");
}
