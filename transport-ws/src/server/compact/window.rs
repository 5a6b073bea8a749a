//! The state of one open stream: what its client has granted, and the bytes that wait for that.

use std::time::Duration;

use bytes::Bytes;
use syncline_core::Time;

use crate::compact::MOST_LINE_BYTES;

/// After its token has expired, a stream may take so long for what was read before.
const AFTER_EXPIRY: Duration = Duration::from_secs(30);

/// One stream.
#[derive(Debug)]
pub(super) struct Window {
    /// How many bytes of lines the client takes now.
    credit: u64,
    /// Bytes that were pulled and not granted: the rest of one piece.
    held: Bytes,
    /// A piece was asked for and has not come.
    pub(super) pulling: bool,
    /// Since when the client has granted nothing.
    blocked: Option<Time>,
    /// When its token expires.
    pub(super) expiry: Option<Time>,
    /// A new token is being verified.
    pub(super) renewing: bool,
}

impl Window {
    pub(super) fn new(credit: u64, expiry: Option<Time>) -> Self {
        Self { credit, held: Bytes::new(), pulling: false, blocked: None, expiry, renewing: false }
    }

    pub(super) fn grant(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
        if self.credit > 0 {
            self.blocked = None;
        }
    }

    /// The piece that was pulled.
    pub(super) fn hold(&mut self, piece: Bytes) {
        self.pulling = false;
        self.held = piece;
    }

    /// The next bytes, as far as they are granted.
    pub(super) fn next(&mut self, now: Time) -> Option<Bytes> {
        if self.credit == 0 {
            self.blocked.get_or_insert(now);
            return None;
        }
        let granted = usize::try_from(self.credit).unwrap_or(usize::MAX);
        let length = self.held.len().min(granted).min(MOST_LINE_BYTES);
        self.credit -= length as u64;
        (length > 0).then(|| self.held.split_to(length))
    }

    /// Whether another piece is granted, wanted, and not asked for.
    pub(super) fn wants_piece(&self) -> bool {
        self.credit > 0 && self.held.is_empty() && !self.pulling
    }

    /// Whether bytes wait for the client.
    pub(super) fn has_bytes(&self) -> bool {
        !self.held.is_empty()
    }

    /// When a client that grants nothing has waited long enough. A stream that is not pulled cannot end with its token by
    /// itself.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Time> {
        let blocked = self.blocked? + patience;
        let after = if self.has_bytes() { AFTER_EXPIRY } else { Duration::ZERO };
        Some(self.expiry.map_or(blocked, |expiry| blocked.min(expiry + after)))
    }
}
