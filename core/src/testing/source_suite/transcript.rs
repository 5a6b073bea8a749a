//! The order that the events of a stream must keep, and its transactions.

use crate::source::{SourceEvent, SourcePosition, SourceState};
use crate::write_checkpoint::MarkerToken;

/// A transaction of which something was wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transaction {
    /// Its changes and markers.
    pub(super) events: Vec<SourceEvent>,
    /// Where to go on after it.
    pub(super) position: SourcePosition,
}

/// What one stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Where the stream is.
    pub(super) position: Option<SourcePosition>,
    /// The newest state that it gave.
    pub(super) state: Option<SourceState>,
    /// Transactions that were not empty.
    pub(super) transactions: Vec<Transaction>,
    /// The state that is to be stored with each of them.
    pub(super) states: Vec<Option<SourceState>>,
    open: Option<Vec<SourceEvent>>,
    lost: bool,
}

impl Transcript {
    /// Of a stream that goes on after this position.
    pub(super) fn after(position: Option<SourcePosition>, state: Option<SourceState>) -> Self {
        Self { position, state, ..Self::default() }
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether this marker came, in a transaction that has ended.
    pub(super) fn has(&self, token: &MarkerToken) -> bool {
        let marker = SourceEvent::Marker(token.clone());
        self.transactions.iter().any(|transaction| transaction.events.contains(&marker))
    }

    /// Notes an event.
    ///
    /// # Panics
    /// If it may not come now.
    pub(super) fn note(&mut self, event: &SourceEvent) {
        assert!(!self.lost, "nothing may come after HistoryLost, but {event:?}");
        match event {
            SourceEvent::HistoryLost { .. } => self.lost = true,
            SourceEvent::TableReset { .. } | SourceEvent::SnapshotRows { .. } => self.outside(event),
            SourceEvent::SnapshotProgress { state, .. } | SourceEvent::SnapshotDone { state, .. } => {
                self.outside(event);
                self.state = Some(state.clone());
            }
            SourceEvent::Put { .. }
            | SourceEvent::Remove { .. }
            | SourceEvent::Truncate { .. }
            | SourceEvent::Marker(_) => self.open.get_or_insert_default().push(event.clone()),
            SourceEvent::Commit { position, state, .. } => {
                let before = self.position.replace(position.clone());
                assert!(
                    before.as_ref() < Some(position),
                    "positions must rise with every commit, but after {before:?} came {position:?}"
                );
                if state.is_some() {
                    self.state.clone_from(state);
                }
                let events = self.open.take().unwrap_or_default();
                if !events.is_empty() {
                    self.transactions.push(Transaction { events, position: position.clone() });
                    self.states.push(self.state.clone());
                }
            }
            SourceEvent::Progress { position, .. } => {
                self.outside(event);
                let before = self.position.replace(position.clone());
                assert!(
                    before.as_ref() <= Some(position),
                    "positions never fall, but after {before:?} came {position:?}"
                );
            }
        }
    }

    fn outside(&self, event: &SourceEvent) {
        assert!(self.open.is_none(), "this may not come inside a transaction: {event:?}");
    }
}
