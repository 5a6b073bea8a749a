//! The 32-bit checksum of operations and buckets.

use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A checksum modulo 2³². That of a bucket is the wrapping sum of those of its operations, so that it can be kept up to
/// date by addition and compared without reading the operations again.
///
/// Source: section 4.2 of the protocol reference. On the wire it may be signed, unsigned or a whole double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Checksum(pub u32);

impl Checksum {
    /// That of a PUT: the first four bytes, little-endian, of SHA-256 over `put.{type}.{id}.{data}`.
    pub fn of_put(object_type: &str, object_id: &str, data: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"put.");
        hash.update(object_type);
        hash.update(b".");
        hash.update(object_id);
        hash.update(b".");
        hash.update(data);
        Self::first_bytes(hash)
    }

    /// That of a REMOVE: the same over `delete.{subkey}`.
    pub fn of_remove(subkey: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"delete.");
        hash.update(subkey);
        Self::first_bytes(hash)
    }

    fn first_bytes(hash: Sha256) -> Self {
        let digest = hash.finalize();
        Self(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }

    /// As the service prints sums: signed.
    pub fn signed(self) -> i32 {
        self.0 as i32
    }

    /// From any form a peer may send: signed, unsigned, or a double without a fraction.
    pub fn from_wire(value: i64) -> Self {
        Self(value as u32)
    }
}

impl Add for Checksum {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.wrapping_add(rhs.0))
    }
}

impl AddAssign for Checksum {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl Sub for Checksum {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0.wrapping_sub(rhs.0))
    }
}
