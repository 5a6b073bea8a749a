//! C4, C6, C8 and C9: what a client's store does and never does.

use std::collections::BTreeSet;

use bytestring::ByteString;

use super::failure::{Failure, Verdict, holds};
use super::{Oracle, View};
use crate::client_store::{PublishOutcome, PublishRequest};
use crate::local_transaction::LocalTransaction;
use crate::operation::OpId;
use crate::time::WallTime;

/// As many mismatches in a row must be reported.
const MISMATCHES: u32 = 3;

impl Oracle {
    /// C4: a local write is seen by the next read, at once, whatever sync is doing.
    ///
    /// How long a real database keeps a write waiting cannot be seen in virtual time with a store in memory; the tests of
    /// the database on a device measure it.
    pub(super) fn c4_a_write_is_seen_at_once(
        &self,
        view: &View<'_>,
        client: usize,
        written: &LocalTransaction,
    ) -> Verdict {
        let queued = view.devices[client].store.is_queued(written.transaction_id);
        holds("C4", queued, || format!("client {client} wrote {written:?}, and its store does not have it"))
    }

    /// C6: sums differ only where the network damaged something, each such bucket alone is discarded, and the third time in
    /// a row is reported in the status.
    pub(super) fn c6_a_mismatch_discards_that_bucket(
        &mut self,
        client: usize,
        request: &PublishRequest,
        outcome: &PublishOutcome,
        kept: &[(ByteString, OpId)],
    ) -> Verdict {
        let model = &mut self.clients[client];
        let PublishOutcome::Mismatch(discarded) = outcome else {
            if request.partial.is_none() {
                model.mismatches = 0;
            }
            model.kept = kept.iter().map(|(name, _)| name.clone()).collect();
            return Ok(());
        };
        let before = std::mem::replace(&mut model.kept, kept.iter().map(|(name, _)| name.clone()).collect());
        model.mismatches += 1;
        if model.mismatches >= MISMATCHES {
            model.must_report = true;
        }
        let sound = discarded.iter().find(|bucket| !model.damaged.contains(&***bucket));
        holds("C6", sound.is_none(), || {
            format!("client {client} found a wrong sum in {sound:?}, of which nothing was damaged")
        })?;
        let kept: BTreeSet<&ByteString> = kept.iter().map(|(name, _)| name).collect();
        let lost = before.iter().find(|bucket| {
            request.target.buckets.contains_key(*bucket) && !discarded.contains(bucket) && !kept.contains(bucket)
        });
        holds("C6", lost.is_none(), || {
            format!("client {client} discarded {lost:?} as well, when {discarded:?} differed")
        })
    }

    /// C8: no content keeps a checkpoint from being shown: a store never answers that it cannot show what it was sent.
    ///
    /// Declared tables, constraints and triggers are those of the database on a device, whose tests look at them.
    pub(super) fn c8_nothing_blocks_a_publish(&self, what: &str) -> Verdict {
        let blocked = what.contains("store failed");
        holds("C8", !blocked, || what.to_owned())
    }

    /// C9: the checkpoints that a client shows, the numbers of its writes, and the time of its last sync never go back,
    /// whatever its clocks do.
    pub(super) fn c9_nothing_goes_back(
        &mut self,
        client: usize,
        request: &PublishRequest,
        last_synced_at: Option<WallTime>,
    ) -> Verdict {
        let model = &mut self.clients[client];
        let (now, before) = (request.target.last_op_id, model.shown);
        holds("C9", now >= before, || format!("client {client} shows {now} after {before}"))?;
        let synced_before = std::mem::replace(&mut model.last_synced_at, last_synced_at);
        holds("C9", last_synced_at >= synced_before, || {
            format!("client {client} was last synced at {last_synced_at:?}, and before that at {synced_before:?}")
        })
    }

    /// C9 as well: see [above](Self::c9_nothing_goes_back).
    pub(super) fn c9_write_numbers_rise(&mut self, client: usize, written: &LocalTransaction) -> Verdict {
        let model = &self.clients[client];
        let last = model.written.last().and_then(|write| write.transaction.crud.last()).map(|write| write.op_id);
        let first = written.crud.first().map(|write| write.op_id);
        match (last, first) {
            (Some(last), Some(first)) if first <= last => {
                Err(Failure { invariant: "C9", what: format!("client {client} numbered a write {first} after {last}") })
            }
            _ => Ok(()),
        }
    }
}
