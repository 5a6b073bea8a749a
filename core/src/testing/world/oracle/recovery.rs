//! S1, S3, C1 and C2 over crashes: what was told to be stored is there when a store is opened again, and of what was under
//! way there is all or nothing.

use super::failure::{Failure, Verdict, holds};
use super::{Oracle, View};
use crate::bucket_store::Resume;
use crate::client_store::PublishRequest;
use crate::operation::OpId;
use crate::time::WallTime;

use super::super::ledger::Fact;

impl Oracle {
    /// S1 and S3: a bucket store that is opened again stands where its last commit left it, with everything that was
    /// published; only if its process died amid a call it may also stand where that call would have left it.
    pub(super) fn s3_a_crash_loses_no_commit(
        &mut self,
        view: &View<'_>,
        known: &Resume,
        found: &Resume,
        amid: bool,
    ) -> Verdict {
        let reset = found.generation != known.generation;
        let same = !reset
            && found.position == known.position
            && found.source_state == known.source_state
            && found.replicator_state == known.replicator_state
            && found.config == known.config
            && found.checkpoint == known.checkpoint;
        holds("S3", same || amid, || format!("a crash has changed {known:?} to {found:?}"))?;
        let op_id = |resume: &Resume| resume.checkpoint.as_ref().map(|checkpoint| checkpoint.op_id);
        if reset {
            let empty = found.position.is_none() && found.checkpoint.is_none() && found.config.is_none();
            holds("S3", empty, || format!("half a reset is left: {found:?}"))?;
            self.take(&Fact::StoreReset, view)?;
        } else if !same {
            let later = found.position >= known.position && op_id(found) >= op_id(known);
            holds("S3", later, || format!("a crash amid a commit has set {known:?} back to {found:?}"))?;
            let checkpoint = found.checkpoint.clone().filter(|_| op_id(found) > op_id(known));
            let state = found.source_state.as_ref().map(|state| state.0.clone());
            self.take(&Fact::StoreCommitted { position: found.position.clone(), state, checkpoint }, view)?;
        }
        // All of it is read, down to the first operation.
        self.s5_nothing_differs(view).map_err(|what| Failure { invariant: "S1", what: format!("after a crash {what}") })
    }

    /// C1 and C2: a client's database that is opened again shows what it showed, with every write that was told to be
    /// stored; only if the device lost its power amid a publish, it may also show what that would have shown.
    pub(super) fn c2_a_crash_loses_no_write(
        &mut self,
        view: &View<'_>,
        client: usize,
        publish: Option<&PublishRequest>,
        last_synced_at: Option<WallTime>,
        kept: &[(bytestring::ByteString, OpId)],
    ) -> Verdict {
        if let Some(request) = publish
            && self.was_published(view, client, request, last_synced_at)
        {
            self.published(client, request, last_synced_at)?;
        }
        self.clients[client].kept = kept.iter().map(|(name, _)| name.clone()).collect();
        self.client(client, view)
    }

    /// Whether a publish that nobody heard of took effect.
    fn was_published(
        &self,
        view: &View<'_>,
        client: usize,
        request: &PublishRequest,
        last_synced_at: Option<WallTime>,
    ) -> bool {
        let model = &self.clients[client];
        if request.partial.is_none() {
            // It is the only thing that forgets writes, or sets the time.
            let store = &view.devices[client].store;
            let forgotten = model.pending.iter().any(|write| !store.is_queued(write.transaction.transaction_id));
            if forgotten || last_synced_at > model.last_synced_at {
                return true;
            }
        }
        // If what is seen is the same either way, the model of before holds for both.
        self.c1_a_read_sees_one_checkpoint(view, client).is_err()
    }
}
