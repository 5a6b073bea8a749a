//! The state of one stream of a connection: what its client has granted, and the lines that wait for that.

use std::time::Duration;

use bytes::Bytes;
use syncline_core::{Error, Result, Time};

use crate::frame::MAX_31;

/// After its token has expired, a stream may take so long for what was read before.
const AFTER_EXPIRY: Duration = Duration::from_secs(30);

/// One stream.
#[derive(Debug)]
pub(super) struct Lines {
    /// How many lines the client takes now; the largest number means any.
    credit: u32,
    /// Lines that were pulled and not granted: the rest of one piece.
    held: Bytes,
    /// A piece was asked for and has not come.
    pub(super) pulling: bool,
    /// Since when the client has granted nothing.
    blocked: Option<Time>,
}

impl Lines {
    pub(super) fn new(credit: u32) -> Self {
        Self { credit, held: Bytes::new(), pulling: false, blocked: None }
    }

    /// Adds to the credit; it stays a number that RSocket has.
    pub(super) fn grant(&mut self, n: u32) {
        self.credit = self.credit.saturating_add(n).min(MAX_31);
        if self.credit > 0 {
            self.blocked = None;
        }
    }

    /// The piece that was pulled.
    pub(super) fn hold(&mut self, piece: Bytes) {
        self.pulling = false;
        self.held = piece;
    }

    /// The next line, if it is granted.
    ///
    /// # Errors
    /// `Internal` if the piece is not made of lines.
    pub(super) fn next(&mut self, now: Time) -> Result<Option<Bytes>> {
        if self.credit == 0 {
            self.blocked.get_or_insert(now);
            return Ok(None);
        }
        if self.held.is_empty() {
            return Ok(None);
        }
        let broken = || Error::internal("the service sent a piece that does not end with a whole line");
        let length = self.held.first_chunk::<4>().map(|length| i32::from_le_bytes(*length)).ok_or_else(broken)?;
        let length = usize::try_from(length).ok().filter(|length| (5..=self.held.len()).contains(length));
        let line = self.held.split_to(length.ok_or_else(broken)?);
        if self.credit != MAX_31 {
            self.credit -= 1;
        }
        Ok(Some(line))
    }

    /// Whether another piece is granted, wanted, and not asked for.
    pub(super) fn wants_piece(&self) -> bool {
        self.credit > 0 && self.held.is_empty() && !self.pulling
    }

    /// Whether lines wait for the client.
    pub(super) fn has_lines(&self) -> bool {
        !self.held.is_empty()
    }

    /// When a client that grants nothing has waited long enough. A stream that is not pulled cannot end with its token by
    /// itself.
    pub(super) fn deadline(&self, patience: Duration, expiry: Option<Time>) -> Option<Time> {
        let blocked = self.blocked? + patience;
        let after = if self.has_lines() { AFTER_EXPIRY } else { Duration::ZERO };
        Some(expiry.map_or(blocked, |expiry| blocked.min(expiry + after)))
    }
}
