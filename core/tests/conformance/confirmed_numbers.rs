//! What a broken bucket store makes of the write checkpoints that the source confirms.

use std::collections::BTreeMap;

use syncline_core::{AppendBatch, ClientKey, WriteCheckpoint, WriteCheckpointRequest};

use crate::bucket_faults::BucketFault::{self, *};

type Numbers = BTreeMap<ClientKey, WriteCheckpoint>;

/// The numbers that came, to show others or lose some.
#[derive(Debug, Default)]
pub(crate) struct ConfirmedNumbers {
    /// Appended and not committed.
    open: Numbers,
    /// The last of each client that was committed.
    committed: Numbers,
}

impl ConfirmedNumbers {
    /// Takes note of a batch, and takes its numbers away if they come only with the commit.
    pub(crate) fn append(&mut self, fault: BucketFault, batch: &mut AppendBatch) {
        self.open.extend(batch.write_checkpoints.clone());
        if matches!(fault, LosesConfirmedNumbersOfHiddenCommits | ConfirmedNumbersOutliveARollback) {
            batch.write_checkpoints.clear();
        }
    }

    /// What is appended late, just before a commit.
    pub(crate) fn commit(&mut self, fault: BucketFault, publish: bool) -> AppendBatch {
        let open = std::mem::take(&mut self.open);
        self.committed.extend(open.clone());
        let late = match fault {
            LosesConfirmedNumbersOfHiddenCommits if publish => open,
            ConfirmedNumbersOutliveARollback => open,
            _ => Numbers::new(),
        };
        AppendBatch { write_checkpoints: late, ..AppendBatch::default() }
    }

    pub(crate) fn roll_back(&mut self, fault: BucketFault) {
        if fault != ConfirmedNumbersOutliveARollback {
            self.open.clear();
        }
    }

    pub(crate) fn reset(&mut self, fault: BucketFault) {
        self.open.clear();
        if fault != ConfirmedNumbersOutliveAReset {
            self.committed.clear();
        }
    }

    /// What is shown instead.
    pub(crate) fn falsify(&self, fault: BucketFault, clients: &[ClientKey], shown: &mut [Option<WriteCheckpoint>]) {
        for (client, shown) in clients.iter().zip(shown) {
            let committed = self.committed.get(client).copied();
            match fault {
                ConfirmedNumbersAreShownWhenAppended => *shown = self.open.get(client).copied().max(*shown),
                TheLastConfirmedNumberCounts => *shown = committed.or(*shown),
                AnyNumberOfConfirmedClients | ConfirmedNumbersOutliveAReset => *shown = shown.or(committed),
                _ => {}
            }
        }
    }

    /// Whether a request is answered as if the source had confirmed nothing.
    pub(crate) fn is_overlooked(&self, fault: BucketFault, client: &ClientKey, asked: WriteCheckpointRequest) -> bool {
        let below = |number| self.committed.get(client).is_some_and(|confirmed| number < *confirmed);
        fault == RequestsOverlookConfirmedNumbers
            && matches!(asked, WriteCheckpointRequest::AtLeast(number) if below(number))
    }
}
