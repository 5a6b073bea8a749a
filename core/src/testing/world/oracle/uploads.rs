//! C2 and C7: what becomes of local writes, and what is uploaded at all.

use super::failure::{Verdict, holds};
use super::{Oracle, View};
use crate::client_store::UploadState;
use crate::local_transaction::LocalTransaction;
use futures::FutureExt;

impl Oracle {
    /// C2: writes are offered oldest first, and none before the outcome of the one before it was known; what was told to be
    /// stored is in the queue for as long as no publish shows it.
    ///
    /// That each is brought to its end shows in C5, which is looked at when faults have ended.
    pub(super) fn c2_writes_are_offered_in_order(&self, client: usize, offered: &LocalTransaction) -> Verdict {
        let number = offered.transaction_id;
        let writes = &self.clients[client].written;
        let skipped = writes.iter().find(|write| write.transaction.transaction_id < number && !write.answered);
        holds("C2", skipped.is_none(), || format!("client {client} uploads {number:?} before {skipped:?}"))
    }

    /// C2 as well: see [above](Self::c2_writes_are_offered_in_order).
    pub(super) fn c2_no_write_is_lost(&self, view: &View<'_>, client: usize) -> Verdict {
        let unsent = self.clients[client].pending.iter().filter(|write| !write.answered).count() as u64;
        let state = view.devices[client].store.upload_state().now_or_never().and_then(Result::ok);
        let queued = state.map_or(0, |UploadState { queued, .. }| queued);
        holds("C2", queued >= unsent, || {
            format!("client {client} was told that {unsent} writes are stored which nobody took, but queues {queued}")
        })
    }

    /// C2 as well, when faults have ended: each write was applied, or was refused and is recorded so.
    pub(in super::super) fn c2_every_write_has_come_to_an_end(&self, view: &View<'_>) -> Verdict {
        for (client, model) in self.clients.iter().enumerate() {
            let open = model.written.iter().find(|write| write.applied.is_none() && !write.refused);
            holds("C2", open.is_none(), || format!("client {client}: nobody took {open:?}"))?;
            let recorded = view.devices[client].store.rejected();
            let unknown = model.written.iter().find(|write| {
                write.refused && !recorded.iter().any(|(transaction, _)| *transaction == write.transaction)
            });
            holds("C2", unknown.is_none(), || format!("client {client} has no record that {unknown:?} was refused"))?;
        }
        Ok(())
    }

    /// C7: every transaction that is uploaded is one that the application wrote, as it wrote it.
    pub(super) fn c7_only_writes_are_uploaded(&self, client: usize, offered: &LocalTransaction) -> Verdict {
        let known = self.clients[client].written.iter().any(|write| write.transaction == *offered);
        holds("C7", known, || format!("client {client} uploads {offered:?}, which nobody wrote"))
    }
}
