//! What happened, as the ends of the world saw it: the oracle's only witness beside the stores themselves.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::lock;
use super::process::Process;
use crate::bucket::BucketId;
use crate::bucket_store::Resume;
use crate::checkpoint::Checkpoint;
use crate::client_store::{ClientState, PublishOutcome, PublishRequest};
use crate::config::StreamSubscription;
use crate::identity::Identity;
use crate::local_transaction::LocalTransaction;
use crate::operation::OpId;
use crate::protocol::ClientLine;
use crate::source::SourcePosition;
use crate::time::WallTime;
use crate::write_checkpoint::{ClientKey, WriteCheckpoint};

/// Something that one of the ends saw.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    /// Something for the timeline only.
    Note(String),
    /// The source committed a transaction; so many there are now.
    SourceCommitted { commits: u64, what: String },
    /// Replication asked for the log from here on, when it was confirmed up to there.
    StreamAsked { from: Option<SourcePosition>, confirmed: u64, lost: bool },
    /// Rows were read again beside the stream, when there were so many commits.
    Reread { commits: u64 },
    /// Replication confirmed that everything up to here is durable.
    Confirmed { position: SourcePosition, durable: Option<SourcePosition> },
    /// The bucket store appended operations of these buckets.
    Appended { buckets: Vec<BucketId> },
    /// The bucket store committed.
    StoreCommitted { position: Option<SourcePosition>, state: Option<bytes::Bytes>, checkpoint: Option<Checkpoint> },
    /// The bucket store forgot everything.
    StoreReset,
    /// The bucket store was opened again after its process had died: where it had stood, and where it stands. `amid` a call,
    /// of which nobody knows whether it took effect.
    StoreReopened { known: Box<Resume>, found: Box<Resume>, amid: bool },
    /// The bucket store was compacted.
    Compacted,
    /// The bucket store gave a client this write checkpoint, when there were so many commits.
    WriteCheckpointGiven { client: ClientKey, number: WriteCheckpoint, commits: u64 },
    /// A stream was opened for a client, by this token's identity.
    StreamOpened { client: usize, stream: u64, identity: Box<Identity>, subscriptions: Vec<StreamSubscription> },
    /// The server sent a line.
    Sent { client: usize, stream: u64, line: Box<ClientLine> },
    /// The server sent what is no line.
    Garbled { client: usize, stream: u64, why: String },
    /// A stream ended at the server.
    StreamEnded { client: usize, stream: u64 },
    /// An application wrote, and was told that it is stored.
    Wrote { client: usize, transaction: LocalTransaction },
    /// A client's store was read by its sync engine.
    Resumed { client: usize, state: Box<ClientState> },
    /// A client's store was asked to show a checkpoint. `kept` are its buckets afterwards.
    Published {
        client: usize,
        request: Box<PublishRequest>,
        outcome: PublishOutcome,
        kept: Vec<(bytestring::ByteString, OpId)>,
        last_synced_at: Option<WallTime>,
    },
    /// A client's store was opened again after its process had died, perhaps amid a publish. `kept` are its buckets.
    Reopened {
        client: usize,
        publish: Option<Box<PublishRequest>>,
        kept: Vec<(bytestring::ByteString, OpId)>,
        last_synced_at: Option<WallTime>,
    },
    /// A client's store did anything else that could be seen.
    Touched { client: usize },
    /// The network changed a data line of this bucket on its way.
    Corrupted { client: usize, bucket: String },
    /// A client gave a transaction to its connector.
    Offered { client: usize, transaction: LocalTransaction },
    /// The backend committed it, as this commit.
    Applied { client: usize, transaction: i64, commits: u64 },
    /// The backend refused it.
    Refused { client: usize, transaction: i64 },
    /// The client was told what became of it.
    Answered { client: usize, transaction: i64 },
    /// A process ended by itself.
    Stopped { process: Process, why: String },
}

/// All facts since they were last taken. A handle.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Vec<Fact>>>);

impl Ledger {
    pub(super) fn record(&self, fact: Fact) {
        lock(&self.0).push(fact);
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.record(Fact::Note(text.into()));
    }

    pub(super) fn take(&self) -> Vec<Fact> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = |position: &Option<SourcePosition>| match position {
            Some(position) => super::database::commits_at(position).map_or("?".to_owned(), |at| format!("commit {at}")),
            None => "nothing".to_owned(),
        };
        match self {
            Self::Note(text) => f.write_str(text),
            Self::SourceCommitted { commits, what } => write!(f, "source: commit {commits}: {what}"),
            Self::StreamAsked { from, confirmed, lost } => {
                write!(f, "replicator asks for changes after {}, confirmed {confirmed}", position(from))?;
                if *lost { f.write_str(" (the slot is gone)") } else { Ok(()) }
            }
            Self::Reread { commits } => write!(f, "source: rows read again at commit {commits}"),
            Self::Confirmed { position: at, .. } => {
                write!(f, "replicator confirms {}", position(&Some(at.clone())))
            }
            Self::Appended { buckets } => write!(f, "bucket store: operations for {} buckets", buckets.len()),
            Self::StoreCommitted { position: at, checkpoint, .. } => {
                write!(f, "bucket store: commits {}", position(at))?;
                match checkpoint {
                    Some(checkpoint) => write!(f, " as checkpoint {}", checkpoint.op_id),
                    None => Ok(()),
                }
            }
            Self::StoreReset => f.write_str("bucket store: reset"),
            Self::StoreReopened { found, amid, .. } => {
                let amid = if *amid { " after a death amid a call" } else { "" };
                write!(f, "bucket store: opened again{amid} at {}", position(&found.position))
            }
            Self::Compacted => f.write_str("bucket store: compacted"),
            Self::WriteCheckpointGiven { client, number, commits } => {
                write!(f, "bucket store: gives {} write checkpoint {number} at commit {commits}", client.0)
            }
            Self::StreamOpened { client, stream, .. } => write!(f, "server: stream {stream} of client {client} opens"),
            Self::Sent { client, stream, line, .. } => {
                write!(f, "server: stream {stream} to client {client}: {}", describe(line))
            }
            Self::Garbled { client, stream, why } => {
                write!(f, "server: stream {stream} to client {client} is garbled: {why}")
            }
            Self::StreamEnded { client, stream } => write!(f, "server: stream {stream} of client {client} ends"),
            Self::Wrote { client, transaction } => {
                let what: Vec<String> = transaction
                    .crud
                    .iter()
                    .map(|write| format!("{:?} {}/{}", write.op, write.table, write.id))
                    .collect();
                write!(f, "client {client} writes {}: {}", transaction.transaction_id.unwrap_or(0), what.join(", "))
            }
            Self::Resumed { client, state } => {
                write!(f, "client {client} resumes with {} buckets", state.buckets.len())
            }
            Self::Published { client, request, outcome, .. } => {
                write!(f, "client {client} publishes {}", request.target.last_op_id)?;
                if let Some(priority) = request.partial {
                    write!(f, " up to priority {}", priority.0)?;
                }
                write!(f, ": {outcome:?}")
            }
            Self::Reopened { client, publish, .. } => {
                let amid = if publish.is_some() { " after a death amid a publish" } else { "" };
                write!(f, "client {client} opens its store again{amid}")
            }
            Self::Touched { client } => write!(f, "client {client} stores something"),
            Self::Corrupted { client, bucket } => write!(f, "network: data of {bucket} to client {client} damaged"),
            Self::Offered { client, transaction } => {
                write!(f, "client {client} uploads {}", transaction.transaction_id.unwrap_or(0))
            }
            Self::Applied { client, transaction, commits } => {
                write!(f, "backend: applies {transaction} of client {client} as commit {commits}")
            }
            Self::Refused { client, transaction } => write!(f, "backend: refuses {transaction} of client {client}"),
            Self::Answered { client, transaction } => {
                write!(f, "client {client} knows what became of {transaction}")
            }
            Self::Stopped { process, why } => write!(f, "{process} stopped: {why}"),
        }
    }
}

fn describe(line: &ClientLine) -> String {
    match line {
        ClientLine::Checkpoint(line) => {
            format!("checkpoint {} of {} buckets", line.last_op_id, line.buckets.len())
        }
        ClientLine::CheckpointDiff(line) => {
            format!("checkpoint {}, {} buckets changed", line.last_op_id, line.updated_buckets.len())
        }
        ClientLine::Data(line) => format!("{} operations of {}", line.operations.len(), line.bucket),
        ClientLine::CheckpointComplete { last_op_id } => format!("checkpoint {last_op_id} complete"),
        ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
            format!("checkpoint {last_op_id} complete up to priority {}", priority.0)
        }
        ClientLine::TokenExpiresIn(seconds) => format!("token expires in {seconds} s"),
        ClientLine::Unknown => "an unknown line".to_owned(),
    }
}
