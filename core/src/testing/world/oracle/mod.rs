//! What knows the promises: each invariant is one named function, which compares what the ends of the world saw with what
//! must be so. Safety is looked at after every step, progress once faults have ended.
//!
//! The oracle keeps its own account of everything: of checkpoints and the commits they lie at, of operations as they first
//! were, of local writes and what the backend did with them. It takes nothing from the parts that it checks but what they
//! have stored and said.

mod bucket_history;
mod checkpoints;
mod devices;
mod expected;
mod failure;
mod liveness;
mod operations;
mod reads;
mod recovery;
mod streams;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

pub(super) use expected::Rule;
pub(super) use failure::{Failure, Verdict};

use self::bucket_history::BucketHistory;
use self::expected::{Expected, Name, Rows};
use super::database::Database;
use super::device::Device;
use super::ledger::Fact;
use super::process::Process;
use super::stores::WorldBucketStore;
use crate::bucket::BucketId;
use crate::checkpoint::Checkpoint;
use crate::client::SyncClient;
use crate::config::{StreamSubscription, SyncConfig};
use crate::identity::Identity;
use crate::local_transaction::LocalTransaction;
use crate::operation::OpId;
use crate::protocol::ClientLine;
use crate::time::WallTime;
use crate::write_checkpoint::{ClientKey, WriteCheckpoint};

/// What the oracle may look at.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) database: &'a Database,
    pub(super) store: &'a dyn WorldBucketStore,
    pub(super) devices: &'a [Device],
    pub(super) clients: &'a [Option<SyncClient>],
    pub(super) now: u64,
    /// The server's time of day.
    pub(super) server_wall: WallTime,
}

/// The account of a world.
#[derive(Debug)]
pub(super) struct Oracle {
    expected: Expected,
    /// Every checkpoint, with the commit that it lies at.
    shown: BTreeMap<OpId, Shown>,
    last_checkpoint: OpId,
    /// Checkpoints so far.
    published: u64,
    /// The store was reset, and has published nothing since.
    reset: bool,
    histories: BTreeMap<BucketId, BucketHistory>,
    operation_ids: BTreeSet<OpId>,
    /// Rows were read again at that commit, and may be part of the next durable state.
    reread: u64,
    /// The same, of the durable state.
    reread_durable: u64,
    /// The commits that there were when a client was given a number.
    given: BTreeMap<ClientKey, BTreeMap<i64, u64>>,
    streams: BTreeMap<u64, StreamModel>,
    clients: Vec<ClientModel>,
}

#[derive(Debug)]
struct Shown {
    commits: u64,
    checkpoint: Checkpoint,
}

#[derive(Debug)]
struct StreamModel {
    client: usize,
    identity: Identity,
    subscriptions: Vec<StreamSubscription>,
    buckets: BTreeSet<ByteString>,
    origin: Option<Checkpoint>,
    at: Option<OpId>,
    write_checkpoint: Option<WriteCheckpoint>,
    /// When the token had ended by the server's time of day, in the world's time.
    expired_at: Option<u64>,
}

/// A client as it should be.
#[derive(Debug)]
struct ClientModel {
    identity: Identity,
    key: ClientKey,
    /// What the last publishes showed.
    base: Rows,
    /// The checkpoint of the last publish, whole or in part.
    based_on: OpId,
    /// The last checkpoint that was shown whole.
    shown: OpId,
    /// The subscriptions of its request.
    subscriptions: Vec<StreamSubscription>,
    /// What the application is subscribed to now.
    wanted: Vec<StreamSubscription>,
    /// All local writes.
    written: Vec<Write>,
    /// Those that no whole checkpoint has shown yet.
    pending: Vec<Write>,
    /// Transactions, and rows of them that a partial publish has shown as its checkpoint, which carries the write, has them.
    released: BTreeSet<(Option<i64>, Name)>,
    last_synced_at: Option<WallTime>,
    damaged: BTreeSet<String>,
    mismatches: u32,
    must_report: bool,
    kept: BTreeSet<ByteString>,
}

#[derive(Debug, Clone)]
struct Write {
    transaction: LocalTransaction,
    /// The commit by which the backend first applied it.
    applied: Option<u64>,
    refused: bool,
    /// The client was told what became of it.
    answered: bool,
}

impl Oracle {
    pub(super) fn new(config: SyncConfig, rule: Option<Rule>, database: Database) -> Self {
        Self {
            expected: Expected::new(config, rule, database),
            shown: BTreeMap::new(),
            last_checkpoint: OpId::ZERO,
            published: 0,
            reset: false,
            histories: BTreeMap::new(),
            operation_ids: BTreeSet::new(),
            reread: 0,
            reread_durable: 0,
            given: BTreeMap::new(),
            streams: BTreeMap::new(),
            clients: Vec::new(),
        }
    }

    pub(super) fn add_client(&mut self, identity: Identity, client_id: &str) {
        let key = ClientKey::new(&identity, Some(client_id));
        self.clients.push(ClientModel {
            identity,
            key,
            base: Rows::new(),
            based_on: OpId::ZERO,
            shown: OpId::ZERO,
            subscriptions: Vec::new(),
            wanted: Vec::new(),
            written: Vec::new(),
            pending: Vec::new(),
            released: BTreeSet::new(),
            last_synced_at: None,
            damaged: BTreeSet::new(),
            mismatches: 0,
            must_report: false,
            kept: BTreeSet::new(),
        });
    }

    /// Another config is to be deployed from here on.
    pub(super) fn switch(&mut self, config: SyncConfig, rule: Option<Rule>) {
        self.expected.switch(config, rule);
    }

    /// The application of a client is subscribed to these streams now.
    pub(super) fn wants(&mut self, client: usize, subscriptions: Vec<StreamSubscription>) {
        self.clients[client].wanted = subscriptions;
    }

    /// A process was crashed: what it knew is gone.
    pub(super) fn crashed(&mut self, process: Process) {
        if let Process::Client(client) = process {
            self.clients[client].mismatches = 0;
            self.clients[client].must_report = false;
        }
    }

    /// Takes in what happened in one step, and checks every promise that it touches.
    pub(super) fn take(&mut self, fact: &Fact, view: &View<'_>) -> Verdict {
        match fact {
            Fact::Note(_) | Fact::SourceCommitted { .. } => Ok(()),
            Fact::StreamAsked { from, confirmed, lost } => {
                self.reread = 0;
                self.s3_nothing_is_asked_for_twice(from.as_ref(), *confirmed, *lost)
            }
            Fact::Reread { commits } => {
                self.reread = self.reread.max(*commits);
                Ok(())
            }
            Fact::Confirmed { position, durable } => self.s3_nothing_is_confirmed_too_early(position, durable.as_ref()),
            Fact::Appended { buckets } => {
                for bucket in buckets {
                    self.histories.entry(bucket.clone()).or_default();
                }
                Ok(())
            }
            Fact::StoreCommitted { position, state, checkpoint } => {
                self.reread_durable = self.reread_durable.max(self.reread);
                let Some(checkpoint) = checkpoint else { return Ok(()) };
                self.s1_operation_ids_are_never_reused(view, checkpoint)?;
                self.last_checkpoint = checkpoint.op_id;
                self.reset = false;
                self.s2_checkpoints_are_consistent_states(checkpoint, position.as_ref(), state.as_ref())?;
                self.s4_buckets_hold_what_they_should(checkpoint)
            }
            Fact::StoreReset => {
                self.histories.clear();
                self.reread_durable = 0;
                self.reset = true;
                Ok(())
            }
            Fact::StoreReopened { known, found, amid } => self.s3_a_crash_loses_no_commit(view, known, found, *amid),
            Fact::Compacted => self.s5_compaction_changes_nothing(view),
            Fact::WriteCheckpointGiven { client, number, commits } => {
                let of = self.given.entry(client.clone()).or_default();
                let known = of.entry(number.0).or_insert(*commits);
                *known = (*known).max(*commits);
                Ok(())
            }
            Fact::StreamOpened { client, stream, identity, subscriptions } => {
                let model = StreamModel {
                    client: *client,
                    identity: Identity::clone(identity),
                    subscriptions: subscriptions.clone(),
                    buckets: BTreeSet::new(),
                    origin: None,
                    at: None,
                    write_checkpoint: None,
                    expired_at: None,
                };
                self.streams.insert(*stream, model);
                Ok(())
            }
            Fact::Sent { stream, line, .. } => self.sent(*stream, line),
            Fact::Garbled { why, .. } => Err(Failure { invariant: "S8", what: why.clone() }),
            Fact::StreamEnded { stream, .. } => {
                self.streams.remove(stream);
                Ok(())
            }
            Fact::Wrote { client, transaction } => {
                self.c9_write_numbers_rise(*client, transaction)?;
                self.c4_a_write_is_seen_at_once(view, *client, transaction)?;
                let transaction = transaction.clone();
                let write = Write { transaction, applied: None, refused: false, answered: false };
                let model = &mut self.clients[*client];
                model.written.push(write.clone());
                model.pending.push(write);
                self.client(*client, view)
            }
            Fact::Resumed { client, .. } => {
                self.reported(*client, view)?;
                self.client(*client, view)
            }
            Fact::Published { client, request, outcome, kept, last_synced_at } => {
                self.c6_a_mismatch_discards_that_bucket(*client, request, outcome, kept)?;
                if *outcome == crate::client_store::PublishOutcome::Published {
                    self.published(*client, request, *last_synced_at)?;
                }
                self.client(*client, view)
            }
            Fact::Reopened { client, publish, kept, last_synced_at } => {
                self.c2_a_crash_loses_no_write(view, *client, publish.as_deref(), *last_synced_at, kept)
            }
            Fact::Touched { client } => self.client(*client, view),
            Fact::Corrupted { client, bucket } => {
                self.clients[*client].damaged.insert(bucket.clone());
                Ok(())
            }
            Fact::Offered { client, transaction } => {
                self.c7_only_writes_are_uploaded(*client, transaction)?;
                self.c2_writes_are_offered_in_order(*client, transaction)
            }
            Fact::Applied { client, transaction, commits } => {
                self.mark(*client, *transaction, |write| write.applied = write.applied.or(Some(*commits)));
                Ok(())
            }
            Fact::Refused { client, transaction } => {
                self.mark(*client, *transaction, |write| write.refused = true);
                Ok(())
            }
            Fact::Answered { client, transaction } => {
                self.mark(*client, *transaction, |write| write.answered = true);
                Ok(())
            }
            Fact::Stopped { process, why } => {
                self.c8_nothing_blocks_a_publish(why)?;
                let invariant = if matches!(process, Process::Client(_)) { "C5" } else { "S10" };
                Err(Failure { invariant, what: format!("{process} stopped: {why}") })
            }
        }
    }

    /// Looks at what changes with time alone.
    pub(super) fn after_step(&mut self, view: &View<'_>) -> Verdict {
        for model in self.streams.values_mut() {
            // A clock that was set back makes a token good again.
            let over = model.identity.expiry().is_some_and(|end| end <= view.server_wall);
            model.expired_at = over.then(|| model.expired_at.unwrap_or(view.now));
        }
        self.s7_streams_end_with_their_token(view.now)
    }

    fn sent(&mut self, stream: u64, line: &ClientLine) -> Verdict {
        let at = match line {
            ClientLine::Checkpoint(line) => Some((line.last_op_id, Some(line.write_checkpoint))),
            ClientLine::CheckpointDiff(line) => Some((line.last_op_id, Some(line.write_checkpoint))),
            ClientLine::CheckpointComplete { last_op_id }
            | ClientLine::PartialCheckpointComplete { last_op_id, .. } => Some((*last_op_id, None)),
            _ => None,
        };
        if let Some((at, write_checkpoint)) = at {
            self.s8_a_stream_has_one_config(stream, at)?;
            if let Some(write_checkpoint) = write_checkpoint {
                self.s6_write_checkpoints_tell_the_truth(stream, at, write_checkpoint)?;
            }
            if let Some(model) = self.streams.get_mut(&stream) {
                model.at = Some(at);
            }
        }
        self.s7_streams_have_their_own_buckets(stream, line)
    }

    fn published(
        &mut self,
        client: usize,
        request: &crate::client_store::PublishRequest,
        last_synced_at: Option<WallTime>,
    ) -> Verdict {
        let at = request.target.last_op_id;
        let Some(shown) = self.shown.get(&at) else {
            let what = format!("client {client} shows checkpoint {at}, which was never published");
            return Err(Failure { invariant: "C1", what });
        };
        let commits = shown.commits;
        self.c3_nothing_is_published_over_pending_writes(client, request, commits)?;
        self.c9_nothing_goes_back(client, request, last_synced_at)?;
        if request.partial.is_some() {
            self.s8_a_switch_is_never_shown_in_parts(client, at)?;
        }
        self.publish(client, request, commits)
    }

    /// What holds for a client at any time.
    fn client(&self, client: usize, view: &View<'_>) -> Verdict {
        self.c1_a_read_sees_one_checkpoint(view, client)?;
        self.c2_no_write_is_lost(view, client)
    }

    /// C6 as well: after three mismatches in a row the status says so.
    fn reported(&mut self, client: usize, view: &View<'_>) -> Verdict {
        let model = &mut self.clients[client];
        if !std::mem::take(&mut model.must_report) {
            return Ok(());
        }
        let status = view.clients[client].as_ref().map(SyncClient::current_status);
        let silent = status.is_some_and(|status| status.download_error.is_none());
        failure::holds("C6", !silent, || {
            format!("client {client} met wrong sums again and again, and its status is calm")
        })
    }

    fn mark(&mut self, client: usize, transaction: i64, mark: impl Fn(&mut Write)) {
        let model = &mut self.clients[client];
        let writes = model.written.iter_mut().chain(&mut model.pending);
        writes.filter(|write| write.transaction.transaction_id == Some(transaction)).for_each(mark);
    }
}
