//! What the simulated source remembers of a snapshot between two runs: the bytes of its [`SourceState`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::SourceState;

/// How far tables were read beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct ReadState {
    /// Commits before this one were in the tables when the slot was made; the log goes on after them.
    pub(super) slot_made_at: u64,
    /// Tables that are still to be read, the first one from behind `after` on. None: everything was read.
    pub(super) pending: Vec<Arc<str>>,
    /// The last id that was read of the first of them.
    pub(super) after: Option<String>,
    /// Rows were read that are as new as this commit.
    pub(super) read_at: u64,
    /// A snapshot is under way.
    pub(super) reading: bool,
}

impl ReadState {
    pub(super) fn encode(&self) -> Result<SourceState> {
        let bytes = postcard::to_stdvec(self)
            .map_err(|error| Error::internal("the state of a source cannot be written").caused_by(error))?;
        Ok(SourceState(bytes.into()))
    }

    pub(super) fn decode(state: &[u8]) -> Result<Self> {
        postcard::from_bytes(state)
            .map_err(|error| Error::data("the state of a source cannot be read").caused_by(error))
    }
}
