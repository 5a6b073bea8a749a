//! The upload side of a session: one local transaction after another, then a write checkpoint for what was sent.
//!
//! It runs whether a stream is open or not. Every step either waits for an answer with a limit, or for a time.

use std::sync::Arc;
use std::time::Duration;

use crate::client_store::{UploadSequence, UploadState};
use crate::connector::Credentials;
use crate::error::Error;
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::time::Time;
use crate::write_checkpoint::WriteCheckpoint;

use super::event::{Call, ClientCommand, StoreCommand};
use super::options::ClientLimits;
use super::reconnect::{Backoff, Jitter};

/// While there is nothing to do, the queue is looked at again this often, should a signal have been lost (C5).
const IDLE_LOOK: Duration = Duration::from_secs(30);
/// Credentials older than this are not trusted again after a failed upload: the connector's errors may not say why.
const TRUSTED_FOR: Duration = Duration::from_secs(60);
/// The same once fresh ones did not help: most likely the backend is away, and asking for tokens makes it worse.
const TRUSTED_IN_VAIN_FOR: Duration = Duration::from_secs(300);
/// An upload that has taken longer when a stream opens again is given up: it hangs in what the network was before.
const HUNG_AFTER: Duration = Duration::from_secs(15);
/// Bytes a second that any line carries: a large transaction gets its time, or it would be abandoned again and again.
const SLOWEST: u64 = 16 << 10;

#[derive(Debug)]
enum Step {
    Idle {
        look_at: Time,
    },
    Waiting {
        until: Time,
    },
    Load,
    Loading,
    /// Waits for credentials.
    Send(Arc<LocalTransaction>),
    Sending {
        transaction: Arc<LocalTransaction>,
        credentials: Credentials,
        /// From then on it counts as hung if the network was gone meanwhile.
        hung_at: Time,
        limit: Duration,
        deadline: Time,
    },
    Finish(Arc<LocalTransaction>, Uploaded),
    Finishing {
        last: Option<i64>,
    },
    Check,
    Checking,
    /// Waits for credentials. `None`: everything is covered, but nothing came back.
    Ask(Option<UploadSequence>),
    Asking {
        upto: Option<UploadSequence>,
        credentials: Credentials,
        deadline: Time,
    },
    Cover(UploadSequence, WriteCheckpoint),
    Covering,
}

/// What an answer led to, for the session to report.
#[derive(Debug)]
pub(super) enum UploadProgress {
    /// Nothing to report.
    None,
    /// Something was brought to its end.
    Done,
    /// The queue is in this state now.
    State(UploadState),
}

/// The uploads of a session.
#[derive(Debug)]
pub(super) struct Uploads {
    step: Step,
    /// Something happened since the queue was last loaded.
    again: bool,
    backoff: Backoff,
    /// Fresh credentials were tried after a refusal.
    refused: bool,
    /// Fresh credentials were tried after a failure that said nothing about them.
    distrusted: bool,
    /// The last write of the transaction that was finished last.
    finished: Option<i64>,
    /// The queue said that it holds something and gave nothing.
    contradicted: bool,
    /// The newest entry that the store said to be covered, be it by a run of this program before.
    covered: Option<UploadSequence>,
    awaited: Option<WriteCheckpoint>,
    ask_again: Option<Time>,
}

impl Uploads {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            step: Step::Load,
            again: false,
            backoff: Backoff::new(limits.retry_upload),
            refused: false,
            distrusted: false,
            finished: None,
            contradicted: false,
            covered: None,
            awaited: None,
            ask_again: None,
        }
    }

    /// There may be something to upload. A back-off is waited out.
    pub(super) fn trigger(&mut self) {
        match self.step {
            Step::Idle { .. } => self.step = Step::Load,
            Step::Load => {}
            _ => self.again = true,
        }
    }

    /// The same, and a back-off ends: the network is back.
    pub(super) fn wake(&mut self) {
        if matches!(self.step, Step::Waiting { .. }) {
            self.step = Step::Load;
        }
        self.trigger();
    }

    /// The network was gone and is back. True if the upload under way hangs: it is to be abandoned, and starts over.
    pub(super) fn give_up_hung(&mut self, now: Time) -> bool {
        let hangs = matches!(self.step, Step::Sending { hung_at, .. } if hung_at <= now);
        if hangs {
            self.step = Step::Load;
        }
        hangs
    }

    /// A checkpoint was shown: what was awaited may have come.
    pub(super) fn shown(&mut self) {
        if self.awaited.is_some() {
            self.trigger();
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        matches!(self.step, Step::Send(_) | Step::Sending { .. } | Step::Finish(..) | Step::Finishing { .. })
    }

    pub(super) fn needs_credentials(&self) -> bool {
        matches!(self.step, Step::Send(_) | Step::Ask(_))
    }

    /// Ends waits that are over. A call that took too long is to be abandoned and counts as failed.
    pub(super) fn tick(&mut self, now: Time, connected: bool, limits: &ClientLimits) -> Option<(Call, Error)> {
        match &self.step {
            Step::Waiting { until } if *until <= now => self.step = Step::Load,
            Step::Idle { .. } if connected && self.ask_again.is_some_and(|at| at <= now) => {
                self.ask_again = Some(now + limits.write_checkpoint);
                self.step = Step::Ask(None);
            }
            Step::Idle { look_at } if *look_at <= now => self.step = Step::Load,
            Step::Sending { deadline, limit, .. } if *deadline <= now => {
                let text = format!("the upload took longer than {limit:?}");
                return Some((Call::Upload, Error::unavailable(text)));
            }
            Step::Asking { deadline, .. } if *deadline <= now => {
                let text = format!("the server gave no write checkpoint within {:?}", limits.write_checkpoint);
                return Some((Call::WriteCheckpoint, Error::unavailable(text)));
            }
            _ => {}
        }
        None
    }

    /// The call over the network that is due, if any.
    pub(super) fn next_call(
        &mut self,
        now: Time,
        credentials: &Credentials,
        client_id: &Arc<str>,
        limits: &ClientLimits,
    ) -> Option<ClientCommand> {
        match &self.step {
            Step::Send(transaction) => {
                let (transaction, credentials) = (Arc::clone(transaction), credentials.clone());
                let transfer = Duration::from_secs(transaction.approximate_bytes() / SLOWEST);
                let (hung_at, limit) = (now + HUNG_AFTER + transfer, limits.upload + transfer);
                let deadline = now + limit;
                let command =
                    ClientCommand::Upload { transaction: Arc::clone(&transaction), credentials: credentials.clone() };
                self.step = Step::Sending { transaction, credentials, hung_at, limit, deadline };
                Some(command)
            }
            Step::Ask(upto) => {
                let credentials = credentials.clone();
                let deadline = now + limits.write_checkpoint;
                let command = ClientCommand::RequestWriteCheckpoint {
                    client_id: Arc::clone(client_id),
                    credentials: credentials.clone(),
                };
                self.step = Step::Asking { upto: *upto, credentials, deadline };
                Some(command)
            }
            _ => None,
        }
    }

    /// The next call of the store, if one is due.
    pub(super) fn next_store(&mut self) -> Option<StoreCommand> {
        let (command, next) = match &self.step {
            Step::Load => {
                self.again = false;
                (StoreCommand::LoadUpload, Step::Loading)
            }
            Step::Finish(transaction, outcome) => {
                let last = transaction.crud.last().map(|write| write.op_id);
                let command =
                    StoreCommand::FinishUpload { transaction: Arc::clone(transaction), outcome: outcome.clone() };
                (command, Step::Finishing { last })
            }
            Step::Check => (StoreCommand::LoadUploadState, Step::Checking),
            Step::Cover(upto, checkpoint) => {
                (StoreCommand::Cover { upto: *upto, checkpoint: *checkpoint }, Step::Covering)
            }
            _ => return None,
        };
        self.step = next;
        Some(command)
    }

    /// `next_upload` answered.
    pub(super) fn loaded(&mut self, transaction: Option<LocalTransaction>) -> Result<UploadProgress, Error> {
        let Some(transaction) = transaction else {
            self.step = Step::Check;
            return Ok(UploadProgress::None);
        };
        self.contradicted = false;
        let last = transaction.crud.last().map(|write| write.op_id);
        if last.is_some() && last == self.finished {
            return Err(Error::data("the upload queue offers a transaction again that was finished"));
        }
        self.step = Step::Send(Arc::new(transaction));
        Ok(UploadProgress::None)
    }

    /// The connector answered in time; false if nobody asked.
    pub(super) fn uploaded(&mut self, outcome: Uploaded) -> bool {
        let Step::Sending { transaction, .. } = &self.step else { return false };
        self.step = Step::Finish(Arc::clone(transaction), outcome);
        true
    }

    /// `finish_upload` answered.
    pub(super) fn finished(&mut self) -> UploadProgress {
        if let Step::Finishing { last } = self.step {
            self.finished = last;
        }
        self.succeeded();
        self.step = Step::Load;
        UploadProgress::Done
    }

    /// `upload_state` answered.
    pub(super) fn checked(
        &mut self,
        now: Time,
        state: UploadState,
        limits: &ClientLimits,
    ) -> Result<UploadProgress, Error> {
        self.awaited = state.awaited;
        self.covered = state.covered;
        match state.awaited {
            Some(_) => self.ask_again = self.ask_again.or(Some(now + limits.write_checkpoint)),
            None => self.ask_again = None,
        }
        if state.queued > 0 {
            // Most likely written since; but then the next load finds it.
            if std::mem::replace(&mut self.contradicted, true) {
                return Err(Error::data("the upload queue holds transactions but offers none"));
            }
            self.step = Step::Load;
        } else if let Some(upto) = state.uncovered {
            self.contradicted = false;
            self.step = Step::Ask(Some(upto));
        } else {
            self.contradicted = false;
            self.succeeded();
            self.rest(now);
        }
        Ok(UploadProgress::State(state))
    }

    /// The server gave a write checkpoint; false if nobody asked.
    pub(super) fn asked(&mut self, now: Time, checkpoint: WriteCheckpoint, limits: &ClientLimits) -> bool {
        let Step::Asking { upto, .. } = self.step else { return false };
        self.ask_again = Some(now + limits.write_checkpoint);
        // If numbers fell, the server forgot the one that is awaited: the new one stands in for it.
        let fell = self.awaited.is_some_and(|awaited| checkpoint < awaited);
        match upto.or(self.covered.filter(|_| fell)) {
            Some(upto) => self.step = Step::Cover(upto, checkpoint),
            None => self.rest(now),
        }
        true
    }

    /// `cover` answered.
    pub(super) fn covered(&mut self) -> UploadProgress {
        self.succeeded();
        self.step = Step::Check;
        UploadProgress::Done
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.refused = false;
        self.distrusted = false;
    }

    fn rest(&mut self, now: Time) {
        self.step = if self.again { Step::Load } else { Step::Idle { look_at: now + IDLE_LOOK } };
    }

    /// The credentials of the running call, if there is one.
    pub(super) fn credentials_in_use(&self) -> Option<&Credentials> {
        match &self.step {
            Step::Sending { credentials, .. } | Step::Asking { credentials, .. } => Some(credentials),
            _ => None,
        }
    }

    /// Whether credentials that were fetched then may be why an upload failed. Whoever asks fetches others.
    pub(super) fn distrusts(&mut self, now: Time, fetched_at: Time) -> bool {
        let trusted_for = if self.distrusted { TRUSTED_IN_VAIN_FOR } else { TRUSTED_FOR };
        let distrusts = now.since(fetched_at) > trusted_for;
        self.distrusted |= distrusts;
        distrusts
    }

    /// The step at hand failed: it starts over after a while; at once after the first refusal of credentials.
    pub(super) fn failed(&mut self, now: Time, refused: bool, jitter: &mut Jitter) {
        if refused && !std::mem::replace(&mut self.refused, true) {
            self.step = Step::Load;
            return;
        }
        self.step = Step::Waiting { until: self.backoff.next(now, jitter) };
    }

    pub(super) fn timeout(&self, connected: bool) -> Option<Time> {
        match &self.step {
            Step::Idle { look_at } => {
                let ask = self.ask_again.filter(|_| connected);
                Some(ask.map_or(*look_at, |at| at.min(*look_at)))
            }
            Step::Waiting { until } => Some(*until),
            Step::Sending { deadline, .. } | Step::Asking { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }
}
