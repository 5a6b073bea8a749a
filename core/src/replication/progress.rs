//! What replication knows about its own progress, and when a state may be shown. Pure: positions in, decisions out.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::row_image::Shape;
use crate::error::{Error, Result};
use crate::source::{SourcePosition, SourceState};
use crate::time::Time;
use crate::write_checkpoint::MarkerToken;

/// How often a position without changes is stored, so that an idle source can forget what it has sent.
const IDLE_COMMIT: Duration = Duration::from_secs(10);

/// The first byte of [`Stored`] as it is written. The encoding before had no version: it began with a boolean.
const VERSION: u8 = 2;

/// The part of the progress that is stored with every commit that changed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The first snapshot is complete.
    snapshot_done: bool,
    /// No checkpoint before this position (S2).
    no_checkpoint_before: Option<SourcePosition>,
    /// The shapes of stored row images, by number.
    shapes: Vec<Shape>,
    /// A snapshot was begun and is not complete: tables may be empty or half read, after a crash too.
    in_snapshot: bool,
}

/// [`Stored`] as it was when it did not know of snapshots that are under way.
#[derive(Deserialize)]
struct StoredBefore {
    snapshot_done: bool,
    no_checkpoint_before: Option<SourcePosition>,
    shapes: Vec<Shape>,
}

impl Stored {
    fn encode(&self) -> Result<Bytes> {
        let bytes = postcard::to_extend(self, vec![VERSION])
            .map_err(|error| Error::internal("the state of replication cannot be written").caused_by(error))?;
        Ok(bytes.into())
    }

    fn decode(bytes: &Bytes) -> Result<Self> {
        match bytes.split_first() {
            Some((&VERSION, bytes)) => postcard::from_bytes(bytes),
            Some((0 | 1, _)) => postcard::from_bytes(bytes).map(|before: StoredBefore| Self {
                snapshot_done: before.snapshot_done,
                no_checkpoint_before: before.no_checkpoint_before,
                shapes: before.shapes,
                in_snapshot: false,
            }),
            Some((other, _)) => {
                return Err(Error::data(format!("the stored state of replication has the unknown version {other}")));
            }
            None => return Err(Error::data("the stored state of replication is empty")),
        }
        .map_err(|error| Error::data("the stored state of replication cannot be read").caused_by(error))
    }
}

/// Where replication stands between two commits.
///
/// Keeps S2: a commit is published only at a source commit boundary, outside a snapshot, at or above the highest position
/// that any snapshot or reread demands.
#[derive(Debug)]
pub(super) struct Progress {
    stored: Stored,
    stored_changed: bool,
    /// Rows of a snapshot have come whose state has not: they become durable together, or not at all.
    in_unit: bool,
    in_transaction: bool,
    /// Stored rows may be newer than the stream before this position, since their table was read beside it.
    read_until: Option<SourcePosition>,
    position: Option<SourcePosition>,
    position_changed: bool,
    /// The source waits for the position.
    awaited: bool,
    source_state: Option<SourceState>,
    markers: Vec<MarkerToken>,
    changed: bool,
    unpublished: bool,
    last_commit: Time,
}

/// What a commit is to carry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DueCommit {
    pub(super) position: Option<SourcePosition>,
    pub(super) source_state: Option<SourceState>,
    pub(super) replicator_state: Option<Bytes>,
    pub(super) markers: Vec<MarkerToken>,
    pub(super) publish: bool,
}

impl Progress {
    /// Progress as it was stored; `unpublished` says whether there may be commits that no checkpoint shows yet.
    pub(super) fn resume(state: Option<&Bytes>, position: Option<SourcePosition>, now: Time) -> Result<Self> {
        let stored = match state {
            None => Stored::default(),
            Some(bytes) => Stored::decode(bytes)?,
        };
        Ok(Self {
            // Single rows that were read again count too: which ones is not stored.
            read_until: stored.no_checkpoint_before.clone(),
            stored,
            stored_changed: false,
            in_unit: false,
            in_transaction: false,
            position,
            position_changed: false,
            awaited: false,
            source_state: None,
            markers: Vec::new(),
            changed: false,
            // A crash may have hit between the last commit of a snapshot and its publication.
            unpublished: true,
            last_commit: now,
        })
    }

    /// The number of a shape, new or known.
    pub(super) fn shape_number(&mut self, shape: Shape) -> u32 {
        let known = self.stored.shapes.iter().position(|known| *known == shape);
        let number = known.unwrap_or_else(|| {
            self.stored.shapes.push(shape);
            self.stored_changed = true;
            self.stored.shapes.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The shape of a number.
    pub(super) fn shape(&self, number: u32) -> Option<&Shape> {
        self.stored.shapes.get(number as usize)
    }

    /// Rows of a snapshot were appended, or those of a table were taken away before one.
    pub(super) fn snapshot_rows(&mut self) {
        self.in_unit = true;
        self.changed = true;
        self.set_in_snapshot(true);
    }

    /// A unit of a snapshot is complete: it must be committed now, and not be shown.
    pub(super) fn snapshot_unit(&mut self, state: SourceState) {
        self.in_unit = false;
        self.changed = true;
        self.source_state = Some(state);
        self.set_in_snapshot(true);
    }

    fn set_in_snapshot(&mut self, in_snapshot: bool) {
        self.stored_changed |= self.stored.in_snapshot != in_snapshot;
        self.stored.in_snapshot = in_snapshot;
    }

    /// Whether rows of a snapshot may be stored that must not be shown.
    pub(super) fn in_snapshot(&self) -> bool {
        self.stored.in_snapshot
    }

    /// The snapshot is complete.
    pub(super) fn snapshot_done(&mut self, no_checkpoint_before: SourcePosition, state: SourceState) {
        self.in_unit = false;
        self.set_in_snapshot(false);
        self.changed = true;
        self.source_state = Some(state);
        self.stored.snapshot_done = true;
        self.stored_changed = true;
        self.read_until = self.read_until.take().max(Some(no_checkpoint_before.clone()));
        self.hold_until(no_checkpoint_before);
    }

    /// Up to where the stream has been applied.
    pub(super) fn position(&self) -> Option<&SourcePosition> {
        self.position.as_ref()
    }

    /// Whether the stream has passed this position.
    pub(super) fn has_passed(&self, position: &SourcePosition) -> bool {
        self.position.as_ref().is_some_and(|passed| position <= passed)
    }

    /// Whether no table was read at a later moment than that where the stream is now.
    pub(super) fn has_passed_reading(&self) -> bool {
        !self.stored.in_snapshot && self.read_until.as_ref().is_none_or(|until| self.has_passed(until))
    }

    /// No checkpoint before this position.
    pub(super) fn hold_until(&mut self, position: SourcePosition) {
        if self.stored.no_checkpoint_before.as_ref().is_none_or(|held| *held < position) {
            self.stored.no_checkpoint_before = Some(position);
            self.stored_changed = true;
        }
    }

    /// A change belongs to a transaction that has not ended.
    pub(super) fn transaction_change(&mut self) {
        self.in_transaction = true;
        self.changed = true;
    }

    /// A marker belongs to a transaction that has not ended.
    pub(super) fn marker(&mut self, token: MarkerToken) {
        self.in_transaction = true;
        self.changed = true;
        self.markers.push(token);
    }

    /// A transaction ended.
    pub(super) fn transaction_end(&mut self, position: SourcePosition, state: Option<SourceState>) {
        self.in_transaction = false;
        self.advance(position);
        if state.is_some() {
            self.source_state = state;
        }
    }

    /// Outside a transaction, nothing of interest lies before this position; `awaited` if the source waits for it.
    pub(super) fn idle(&mut self, position: SourcePosition, awaited: bool) {
        self.in_transaction = false;
        self.advance(position);
        // If it is stored already, the source has been told.
        self.awaited |= awaited && self.position_changed;
    }

    fn advance(&mut self, position: SourcePosition) {
        if self.position.as_ref().is_none_or(|known| *known < position) {
            self.position = Some(position);
            self.position_changed = true;
        }
    }

    /// Whether what was committed may be shown at this point.
    fn publishable(&self) -> bool {
        self.stored.snapshot_done
            && !self.stored.in_snapshot
            && !self.in_transaction
            && self.stored.no_checkpoint_before.as_ref().is_none_or(|held| self.has_passed(held))
    }

    /// What holds back the next checkpoint, for an operator (S10).
    pub(super) fn blocker(&self) -> Option<&'static str> {
        if !self.stored.snapshot_done || self.stored.in_snapshot {
            Some("a snapshot is not complete")
        } else if !self.publishable() && !self.in_transaction {
            Some("the stream has not passed the end of a snapshot")
        } else {
            None
        }
    }

    /// Whether a commit is worth its fsync now: at a boundary, with something to say.
    pub(super) fn commit_due(&self, now: Time) -> bool {
        if self.in_transaction || self.in_unit {
            return false;
        }
        let unblocks = self.unpublished && self.publishable();
        self.changed
            || self.source_state.is_some()
            || unblocks
            || (self.position_changed && (self.awaited || now.since(self.last_commit) >= IDLE_COMMIT))
    }

    /// When an idle position is to be stored.
    pub(super) fn next_idle_commit(&self) -> Option<Time> {
        (self.position_changed && !self.in_transaction && !self.in_unit).then(|| self.last_commit + IDLE_COMMIT)
    }

    /// What the commit carries. Call [`committing`](Self::committing) as soon as it is on its way.
    pub(super) fn due_commit(&self) -> Result<DueCommit> {
        let replicator_state = if self.stored_changed { Some(self.stored.encode()?) } else { None };
        Ok(DueCommit {
            // Within a snapshot there is no position yet; the state says where to go on.
            position: self.position_changed.then(|| self.position.clone()).flatten(),
            source_state: self.source_state.clone(),
            replicator_state,
            markers: self.markers.clone(),
            publish: self.publishable(),
        })
    }

    /// The commit is on its way: whatever comes from here on belongs to the next one. If it fails, this progress is void, and
    /// [`resume`](Self::resume) knows where to go on. Returns the position that the source may forget once it is durable.
    pub(super) fn committing(&mut self, now: Time, published: bool) -> Option<&SourcePosition> {
        self.stored_changed = false;
        self.source_state = None;
        self.markers.clear();
        self.unpublished = if published { false } else { self.unpublished || self.changed };
        self.changed = false;
        self.awaited = false;
        self.last_commit = now;
        std::mem::take(&mut self.position_changed).then_some(self.position.as_ref()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u8) -> SourcePosition {
        SourcePosition(Bytes::from(vec![position]))
    }

    fn state() -> SourceState {
        SourceState(Bytes::from_static(b"s"))
    }

    fn fresh() -> Progress {
        Progress::resume(None, None, Time(0)).expect("nothing to read")
    }

    #[test]
    fn nothing_is_published_before_the_stream_has_passed_the_snapshot() {
        let mut progress = fresh();
        progress.snapshot_unit(state());
        assert!(progress.commit_due(Time(0)));
        assert!(!progress.due_commit().expect("a commit").publish);
        progress.committing(Time(0), false);
        progress.snapshot_done(at(5), state());
        assert!(!progress.due_commit().expect("a commit").publish);
        progress.committing(Time(0), false);
        progress.transaction_change();
        assert!(!progress.commit_due(Time(0)), "never inside a transaction");
        progress.transaction_end(at(4), None);
        assert!(!progress.due_commit().expect("a commit").publish, "position 4 lies before 5");
        progress.committing(Time(0), false);
        progress.idle(at(5), false);
        assert!(progress.commit_due(Time(0)), "an idle position unblocks what waits");
        assert!(progress.due_commit().expect("a commit").publish);
        assert_eq!(progress.committing(Time(0), true), Some(&at(5)));
        progress.idle(at(6), false);
        assert!(!progress.commit_due(Time(9_999)));
        assert!(progress.commit_due(Time(10_000)));
    }

    #[test]
    fn a_position_that_the_source_waits_for_is_stored_at_once() {
        let mut progress = fresh();
        progress.idle(at(1), true);
        assert!(progress.commit_due(Time(0)));
        progress.committing(Time(0), false);
        progress.idle(at(1), true);
        assert!(!progress.commit_due(Time(0)), "it is stored already");
        progress.idle(at(2), false);
        assert!(!progress.commit_due(Time(0)));
        progress.idle(at(2), true);
        assert!(progress.commit_due(Time(0)), "it was told before, and is awaited now");
    }

    #[test]
    fn a_restart_knows_what_holds_publication_back() {
        let mut progress = fresh();
        progress.snapshot_done(at(5), state());
        let stored = progress.due_commit().expect("a commit").replicator_state;
        let mut again = Progress::resume(stored.as_ref(), Some(at(4)), Time(0)).expect("readable");
        assert!(!again.commit_due(Time(0)));
        again.idle(at(7), false);
        assert!(again.due_commit().expect("a commit").publish);
    }

    #[test]
    fn a_restart_knows_that_a_snapshot_is_under_way() {
        let mut progress = fresh();
        progress.snapshot_done(at(1), state());
        progress.idle(at(2), false);
        assert!(progress.due_commit().expect("a commit").publish);
        progress.committing(Time(0), true);
        // A table is read again: it was reset, and a part of it became durable.
        progress.snapshot_rows();
        assert!(!progress.commit_due(Time(99_999)), "rows become durable only with the state that tells of them");
        progress.snapshot_unit(state());
        let stored = progress.due_commit().expect("a commit").replicator_state;
        let mut again = Progress::resume(stored.as_ref(), Some(at(2)), Time(0)).expect("readable");
        again.transaction_change();
        again.transaction_end(at(3), None);
        assert!(!again.due_commit().expect("a commit").publish, "half a table must not be shown");
        assert_eq!(again.blocker(), Some("a snapshot is not complete"));
        again.snapshot_done(at(3), state());
        assert!(again.due_commit().expect("a commit").publish);
    }

    #[test]
    fn a_state_of_the_version_before_is_read() {
        let before = (true, Some(at(7)), Vec::<Shape>::new());
        let bytes = Bytes::from(postcard::to_stdvec(&before).expect("encodes"));
        let mut progress = Progress::resume(Some(&bytes), Some(at(6)), Time(0)).expect("readable");
        progress.idle(at(6), false);
        assert!(!progress.due_commit().expect("a commit").publish);
        progress.idle(at(7), false);
        assert!(progress.due_commit().expect("a commit").publish);
        assert!(Progress::resume(Some(&Bytes::from_static(&[9])), None, Time(0)).is_err());
    }

    #[test]
    fn a_position_never_goes_back() {
        let mut progress = fresh();
        progress.transaction_end(at(9), None);
        progress.idle(at(3), false);
        assert_eq!(progress.due_commit().expect("a commit").position, Some(at(9)));
    }
}
