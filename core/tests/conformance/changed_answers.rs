//! What a broken bucket store makes of the answers that it gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, poll_fn};
use futures::task::Poll;
use syncline_core::{
    BucketId, ChangeSet, Changes, Checksum, Chunk, ChunkBuilder, OpId, OperationKind, Published, Result,
};

use crate::bucket_faults::BucketFault::{self, *};

/// Which buckets changed when, to tell of too few.
#[derive(Debug, Default)]
pub(crate) struct Told {
    open: BTreeSet<BucketId>,
    /// Of commits that were not published yet.
    hidden: BTreeSet<BucketId>,
    /// Of the last checkpoint, and those among them that were committed before.
    last: BTreeSet<BucketId>,
    last_hidden: BTreeSet<BucketId>,
}

impl Told {
    pub(crate) fn append(&mut self, bucket: &BucketId) {
        self.open.insert(bucket.clone());
    }

    pub(crate) fn forget_open(&mut self) {
        self.open.clear();
    }

    pub(crate) fn commit(&mut self, publish: bool) {
        let open = std::mem::take(&mut self.open);
        if publish {
            self.last_hidden = std::mem::take(&mut self.hidden);
            self.last = open.union(&self.last_hidden).cloned().collect();
        } else {
            self.hidden.extend(open);
        }
    }

    pub(crate) fn falsify(&self, fault: BucketFault, item: &mut Published) {
        let Changes::These(changes) = &item.changes else { return };
        let mut changes = ChangeSet::clone(changes);
        match fault {
            NamesNoLookups => changes.lookups.clear(),
            ConfirmedNumbersWakeNobody => changes.clients.clear(),
            NamesTheLastCheckpointOnly => changes.buckets.retain(|bucket| self.last.contains(bucket)),
            NamesNothingOfHiddenCommits => changes.buckets.retain(|bucket| !self.last_hidden.contains(bucket)),
            _ => {}
        }
        item.changes = Changes::These(Arc::new(changes));
    }
}

/// The stream of checkpoints as a store with this mistake tells them.
pub(crate) fn falsify_checkpoints(
    fault: BucketFault,
    mut stream: BoxStream<'static, Result<Published>>,
    falsify: impl Fn(&mut Published) + Send + 'static,
) -> BoxStream<'static, Result<Published>> {
    let mut waited = false;
    let mut before: Option<Published> = None;
    poll_fn(move |context| {
        let Poll::Ready(item) = stream.poll_next_unpin(context) else {
            waited = true;
            return Poll::Pending;
        };
        let Some(Ok(mut item)) = item else { return Poll::Ready(item) };
        falsify(&mut item);
        match (fault, before.replace(item.clone())) {
            (WakesWithTheCheckpointBefore, Some(before)) if waited => item.checkpoint = before.checkpoint,
            (ResetIsNoChange, Some(_)) if matches!(item.changes, Changes::Unknown) => {
                item.changes = Changes::These(Arc::default());
            }
            _ => {}
        }
        waited = false;
        Poll::Ready(Some(Ok(item)))
    })
    .boxed()
}

/// A chunk as a store with this mistake returns it.
pub(crate) fn falsify_chunk(fault: BucketFault, chunk: &Chunk, checkpoints: &BTreeSet<OpId>) -> Result<Chunk> {
    let mut builder = ChunkBuilder::new();
    for mut operation in chunk.operations(0..chunk.len()) {
        let before = OpId(operation.op_id.0.saturating_sub(1));
        match (fault, operation.kind) {
            (FirstIdIsThatOfTheCheckpoint, _) if checkpoints.contains(&before) => operation.op_id = before,
            (ClearsLoseTheirSum, OperationKind::Clear) => operation.checksum = Checksum::default(),
            _ => {}
        }
        builder.push(operation)?;
    }
    Ok(builder.finish())
}
