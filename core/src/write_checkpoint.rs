//! Write checkpoints: "your uploads have come back".

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub Arc<str>);

impl ClientKey {
    /// `sub`, and the id of the client's database after a slash if it sent one.
    pub fn new(identity: &Identity, client_id: Option<&str>) -> Self {
        let user = identity.user_id();
        Self(match client_id {
            None => user.into(),
            Some(client) => format!("{user}/{client}").into(),
        })
    }
}

/// How a write checkpoint gets its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCheckpointRequest {
    /// The store gives the next one, starting at the time of day in Unix milliseconds.
    Next,
    /// The client names it; smaller or equal ones leave the record alone and the stored one is the answer.
    AtLeast(WriteCheckpoint),
}

/// A random token that travels through the source as a marker and comes back in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MarkerToken(pub Arc<str>);
