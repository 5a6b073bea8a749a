//! Recorded bytes in tests.

use bytes::Bytes;

/// The bytes that these hexadecimal digits are.
pub(crate) fn bytes_of(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
