//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use syncline_core::{Bytes, Error, SourcePosition};

/// A byte position in the write-ahead log of one cluster.
///
/// Always compared as a number: the text form `X/Y` sorts wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position as a source hands it out: eight bytes, big-endian, so that it sorts as the number does.
    pub fn position(self) -> SourcePosition {
        SourcePosition(Bytes::copy_from_slice(&self.0.to_be_bytes()))
    }
}

impl TryFrom<&SourcePosition> for Lsn {
    type Error = Error;

    /// # Errors
    /// `Data` if the position is not one that [`Lsn::position`] made.
    fn try_from(position: &SourcePosition) -> Result<Self, Error> {
        let bytes: [u8; 8] = position
            .0
            .as_ref()
            .try_into()
            .map_err(|_| Error::data(format!("a stored position has {} bytes instead of 8", position.0.len())))?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    /// # Errors
    /// `Protocol` if it is not two hexadecimal numbers of 32 bits with a slash between them.
    fn from_str(text: &str) -> Result<Self, Error> {
        let half = |text: &str| {
            // `from_str_radix` would take a sign.
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| Error::protocol(format!("`{text}` is not a position in the write-ahead log")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_texts_are_refused() {
        for text in ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/-2", "1/100000000", "G/1", " 1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_read_back_and_sort(a: u64, b: u64) {
            let (a, b) = (Lsn(a), Lsn(b));
            prop_assert_eq!(a.to_string().parse::<Lsn>().unwrap(), a);
            prop_assert_eq!(Lsn::try_from(&a.position()).unwrap(), a);
            prop_assert_eq!(a.cmp(&b), a.position().cmp(&b.position()));
        }
    }
}
