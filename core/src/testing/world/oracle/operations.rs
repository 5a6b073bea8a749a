//! S1 and S5: operation ids, and what compaction may do to operations.

use super::bucket_history::{Reduction, read};
use super::failure::{Failure, Verdict, holds};
use super::{Oracle, View};
use crate::checkpoint::Checkpoint;
use crate::operation::OpId;
use futures::FutureExt;

/// Places in a bucket's history at which a client is imagined to stand, per compaction.
const RESUME_POINTS: usize = 12;

impl Oracle {
    /// S1: checkpoints rise, and each operation lies above the checkpoint before it and belongs to one bucket alone.
    /// Looks at all operations of a new checkpoint that the one before did not have, and now and then at all that are
    /// below it: none may have been added there.
    ///
    /// What a crash of the store leaves of it is looked at [after each](Self::s3_a_crash_loses_no_commit).
    pub(super) fn s1_operation_ids_are_never_reused(&mut self, view: &View<'_>, checkpoint: &Checkpoint) -> Verdict {
        let before = self.last_checkpoint;
        holds("S1", checkpoint.op_id > before, || {
            format!("checkpoint {} follows checkpoint {before}", checkpoint.op_id)
        })?;
        self.published += 1;
        let all = self.published.is_multiple_of(16);
        for (bucket, history) in &mut self.histories {
            let from = if all { OpId::ZERO } else { before };
            for operation in read(view.store, bucket, from, checkpoint.op_id) {
                if operation.op_id <= before {
                    let known = history.operations.iter().any(|known| known.op_id == operation.op_id);
                    holds("S1", known, || {
                        format!("operation {} was added to {bucket:?} below checkpoint {before}", operation.op_id)
                    })?;
                    continue;
                }
                let fresh = self.operation_ids.insert(operation.op_id);
                holds("S1", fresh, || format!("operation {} of {bucket:?} is another's too", operation.op_id))?;
                history.add(operation);
            }
        }
        Ok(())
    }

    /// S5: wherever a client may stand in the history of a bucket as it first was, the operations that are there now lead
    /// it to the same rows and the same sum, and the store names that sum.
    ///
    /// That a checkpoint which compaction invalidated is not completed shows in C6: no client sees a sum that differs.
    pub(super) fn s5_compaction_changes_nothing(&mut self, view: &View<'_>) -> Verdict {
        self.s5_nothing_differs(view).map_err(|what| Failure { invariant: "S5", what })
    }

    /// S5 as well: how what the store has now differs from what it had, if it does.
    pub(super) fn s5_nothing_differs(&self, view: &View<'_>) -> Result<(), String> {
        let holds = |truth: bool, what: &dyn Fn() -> String| if truth { Ok(()) } else { Err(what()) };
        let at = self.last_checkpoint;
        for (bucket, history) in &self.histories {
            let now = read(view.store, bucket, OpId::ZERO, at);
            let told = view.store.checksums(at, std::slice::from_ref(bucket)).now_or_never();
            let told = told.and_then(Result::ok).and_then(|mut sums| sums.pop()).map(|sum| sum.checksum);
            // A definition that is gone has no sums any more.
            holds(told.is_none_or(|told| told == history.reduction.sum), &|| {
                format!("the sum of {bucket:?} at {at} is {told:?}, but was {:?}", history.reduction.sum)
            })?;
            let step = (history.operations.len() / RESUME_POINTS).max(1);
            let points = history.operations.iter().map(|operation| operation.op_id).step_by(step);
            for point in std::iter::once(OpId::ZERO).chain(points) {
                let mut client = Reduction::of(history.operations.iter().take_while(|one| one.op_id <= point));
                now.iter().filter(|one| one.op_id > point).for_each(|one| client.apply(one));
                holds(client == history.reduction, &|| {
                    format!("a client at {point} of {bucket:?} ends up with {client:?}, not {:?}", history.reduction)
                })?;
            }
        }
        Ok(())
    }
}
