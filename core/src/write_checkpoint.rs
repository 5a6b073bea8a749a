//! Write checkpoints: "your uploads have come back".

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::identity::Identity;

/// The number of a request to be told when everything acknowledged before it has come back (S6). From 1; it never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteCheckpoint(pub i64);

impl fmt::Display for WriteCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose write checkpoint it is: a user on one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientKey(pub Arc<str>);

impl ClientKey {
    /// Clients of one user that a store remembers. For one more it forgets those that were confirmed longest ago, whose
    /// next number is not smaller than their last one; if all of them wait, it refuses. A client whose number the source
    /// confirms is never refused, and takes the place of any that was confirmed.
    pub const PER_USER: u32 = 1_000;

    /// The length of `sub`, a colon and `sub`, then the id of the client's database after a slash if it sent one: no two
    /// pairs have one key, whatever slashes they hold.
    pub fn new(identity: &Identity, client_id: Option<&str>) -> Self {
        let user = identity.user_id();
        let length = user.len();
        Self(match client_id {
            None => format!("{length}:{user}").into(),
            Some(client) => format!("{length}:{user}/{client}").into(),
        })
    }

    /// The part that all clients of the user share: each has this key, or one that goes on with a slash.
    pub fn user_part(&self) -> &str {
        let part = self.0.split_once(':').and_then(|(length, rest)| {
            let end = self.0.len() - rest.len() + length.parse::<usize>().ok()?;
            self.0.get(..end)
        });
        part.unwrap_or(&self.0)
    }

    /// The error for one client too many.
    pub fn too_many() -> Error {
        let message = format!("{} clients of this user wait for write checkpoints already", Self::PER_USER);
        Error::unavailable(message).with_code("PSYNC_S2304")
    }
}

/// How a write checkpoint gets its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteCheckpointRequest {
    /// The store gives the next one, starting at the time of day in Unix milliseconds.
    Next,
    /// The client names it; smaller or equal ones leave the record alone and the stored one is the answer.
    AtLeast(WriteCheckpoint),
}

impl WriteCheckpointRequest {
    /// The largest number that a client may name, so that there is always a larger one.
    pub const LARGEST: WriteCheckpoint = WriteCheckpoint(1 << 62);

    /// Checks the number.
    ///
    /// # Errors
    /// `Invalid` for one below 1 or above [`LARGEST`](Self::LARGEST).
    pub fn check(self) -> Result<()> {
        match self {
            Self::AtLeast(number) if number.0 < 1 || number > Self::LARGEST => {
                Err(Error::invalid("the number of a write checkpoint must be from 1 to 2^62"))
            }
            _ => Ok(()),
        }
    }
}

/// A random token that travels through the source as a marker and comes back in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MarkerToken(pub Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clients_have_one_key() {
        let key = |user: &str, client| ClientKey::new(&Identity::new(user), client);
        assert_ne!(key("a", Some("b/c")), key("a/b", Some("c")));
        assert_ne!(key("a/b", None), key("a", Some("b")));
        assert_eq!(key("a/b", Some("c:d/e")).user_part(), "3:a/b");
        assert_eq!(key("", None).user_part(), "0:");
        assert_eq!(ClientKey("9:short".into()).user_part(), "9:short");
    }
}
