//! S2, S3 and S4: when a state of the source may be shown, what the source may forget, and what is in the buckets.

use super::super::content::Row;
use super::super::database::commits_at;
use super::super::read_state::ReadState;
use super::expected::{BucketKey, Buckets, Rows, is_same};
use super::failure::{Failure, Verdict, holds};
use super::{Oracle, Shown, View};
use crate::bucket::BucketId;
use crate::checkpoint::Checkpoint;
use crate::operation::OpId;
use crate::source::SourcePosition;

impl Oracle {
    /// S2: a checkpoint lies at a commit of the source, outside a snapshot, and not before anything that was read beside
    /// the log and is part of it: what the durable state of the source says of its snapshots, and rows read again.
    ///
    /// Whatever it contains is synced when it is published, because the commit that publishes makes it durable: that shows
    /// [after a crash](Self::s3_a_crash_loses_no_commit).
    pub(super) fn s2_checkpoints_are_consistent_states(
        &mut self,
        checkpoint: &Checkpoint,
        position: Option<&SourcePosition>,
        state: Option<&bytes::Bytes>,
    ) -> Verdict {
        let commits = position.and_then(commits_at);
        let Some(commits) = commits else {
            let what = format!("checkpoint {} lies at {position:?}, where no commit ends", checkpoint.op_id);
            return Err(Failure { invariant: "S2", what });
        };
        let state = state.and_then(|state| ReadState::decode(state).ok()).unwrap_or_default();
        holds("S2", !state.reading, || format!("checkpoint {} shows half a snapshot: {state:?}", checkpoint.op_id))?;
        holds("S2", state.read_at <= commits, || {
            format!("checkpoint {} at commit {commits} has rows of commit {}", checkpoint.op_id, state.read_at)
        })?;
        holds("S2", self.reread_durable <= commits, || {
            format!("checkpoint {} at commit {commits} has rows of commit {}", checkpoint.op_id, self.reread_durable)
        })?;
        self.shown.insert(checkpoint.op_id, Shown { commits, checkpoint: checkpoint.clone() });
        Ok(())
    }

    /// S3: only what the store has made durable is confirmed to the source, and nothing that was confirmed is asked for
    /// again.
    ///
    /// That a replay changes nothing shows in S4, since every crash, every cut and every snapshot replays.
    pub(super) fn s3_nothing_is_confirmed_too_early(
        &self,
        confirmed: &SourcePosition,
        durable: Option<&SourcePosition>,
    ) -> Verdict {
        holds("S3", durable.is_some_and(|durable| confirmed <= durable), || {
            format!("{confirmed:?} was confirmed, but only {durable:?} is durable")
        })
    }

    /// S3 as well: see [above](Self::s3_nothing_is_confirmed_too_early).
    pub(super) fn s3_nothing_is_asked_for_twice(
        &self,
        from: Option<&SourcePosition>,
        confirmed: u64,
        lost: bool,
    ) -> Verdict {
        let from = from.and_then(commits_at);
        holds("S3", lost || from.is_none_or(|from| from >= confirmed), || {
            format!("changes after commit {from:?} are asked for, but those up to {confirmed} were confirmed")
        })
    }

    /// S4: at each checkpoint each bucket reduces to exactly the rows that its definition yields over the source at the
    /// checkpoint's commit, and there is no other bucket with rows. A row of before a column was added need not have it.
    pub(super) fn s4_buckets_hold_what_they_should(&mut self, checkpoint: &Checkpoint) -> Verdict {
        let Some(shown) = self.shown.get(&checkpoint.op_id) else { return Ok(()) };
        let commits = shown.commits;
        let config = self.expected.number(&checkpoint.config.text);
        let expected = self.expected.buckets(config, commits);
        difference(&self.contents(checkpoint), &expected).map_or(Ok(()), |what| {
            Err(Failure {
                invariant: "S4",
                what: format!("at checkpoint {}, commit {commits}: {what}", checkpoint.op_id),
            })
        })
    }

    /// What the buckets of the deployed definitions hold.
    pub(super) fn contents(&self, checkpoint: &Checkpoint) -> Buckets {
        let mut contents = Buckets::new();
        for (bucket, history) in &self.histories {
            for key in keys_of(bucket, checkpoint) {
                let rows = history.reduction.rows();
                if !rows.is_empty() {
                    contents.insert(key, rows);
                }
            }
        }
        contents
    }

    /// Whether everything that the source has is in the newest checkpoint.
    pub(in super::super) fn missing_in_store(&mut self, view: &View<'_>) -> Option<String> {
        let commits = view.database.commits();
        let config = self.expected.newest();
        let expected = self.expected.buckets(config, commits);
        let newest: Option<(OpId, Checkpoint)> =
            self.shown.last_key_value().map(|(op_id, shown)| (*op_id, shown.checkpoint.clone()));
        match newest.filter(|_| !self.reset) {
            None => Some("there is no checkpoint".to_owned()),
            Some((_, checkpoint)) if self.expected.number(&checkpoint.config.text) != config => {
                Some("the config is not deployed".to_owned())
            }
            Some((_, checkpoint)) => difference(&self.contents(&checkpoint), &expected),
        }
    }
}

/// The definitions of a checkpoint that a bucket is of.
fn keys_of(bucket: &BucketId, checkpoint: &Checkpoint) -> Vec<BucketKey> {
    let definitions = checkpoint.config.definitions.iter().enumerate();
    let of = definitions.filter(|(_, definition)| definition.id == bucket.definition);
    of.map(|(index, _)| (index, bucket.parameters.clone())).collect()
}

fn difference(are: &Buckets, should_be: &Buckets) -> Option<String> {
    for (key, expected) in should_be {
        let none = Rows::new();
        let rows = are.get(key).unwrap_or(&none);
        if !same(rows, expected) {
            return Some(format!("bucket {key:?} holds {rows:?}, not {expected:?}"));
        }
    }
    let extra = are.keys().find(|key| !should_be.contains_key(*key))?;
    Some(format!("bucket {extra:?} should be empty, but holds {:?}", are.get(extra)))
}

fn same(one: &Rows, other: &Rows) -> bool {
    let is_in = |row: &Row, of: &[Row]| of.iter().any(|one| is_same(row, one));
    let contained = |rows: &[Row], of: &[Row]| rows.len() == of.len() && rows.iter().all(|row| is_in(row, of));
    one.len() == other.len()
        && one.iter().all(|(name, rows)| other.get(name).is_some_and(|of| contained(rows, of) && contained(of, rows)))
}
