//! All that a store knows, and what each event does to it: the same whenever it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline_core::memory::{MarkerRequests, StoredBucket};
use syncline_core::{
    AppendBatch, BucketId, ByteString, ChangeCollector, Checkpoint, ChunkBuilder, ClientKey, Commit, CurrentRow,
    DeployedConfig, Error, Generation, LookupEntry, LookupKey, MarkerToken, NewOperation, OpId, Result, RowKey,
    SourcePosition, SourceState, TableId, WriteCheckpoint, WriteCheckpointRequest, assign_definitions,
};

/// What the journal remembers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Committed(Vec<AppendBatch>, Commit),
    /// With the time of day.
    Requested(ClientKey, WriteCheckpointRequest, i64),
    Reset(Generation),
}

/// What a row yields for a lookup key, from which operation on.
pub(crate) type Outputs = Vec<(OpId, Vec<ByteString>)>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The number of the [`Generation`].
    generation: u32,
    last_op: u64,
    next_definition: u32,
    next_marker: u64,
    pub(crate) position: Option<SourcePosition>,
    pub(crate) source_state: Option<SourceState>,
    pub(crate) replicator_state: Option<Bytes>,
    pub(crate) config: Option<Arc<DeployedConfig>>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Checkpoints below this are of before a reset.
    pub(crate) floor: OpId,
    /// The lookups of checkpoints below this were compacted.
    pub(crate) lookup_floor: OpId,
    pub(crate) buckets: BTreeMap<BucketId, StoredBucket>,
    rows: BTreeMap<RowKey, CurrentRow>,
    pub(crate) lookups: BTreeMap<LookupKey, BTreeMap<RowKey, Outputs>>,
    pub(crate) requests: MarkerRequests,
    #[serde(skip)]
    staged: Staged,
}

/// What was appended and not committed.
#[derive(Debug, Default)]
struct Staged {
    last_op: u64,
    chunks: BTreeMap<BucketId, ChunkBuilder>,
    rows: BTreeMap<RowKey, Option<CurrentRow>>,
    lookups: Vec<(OpId, LookupEntry)>,
    write_checkpoints: BTreeMap<ClientKey, WriteCheckpoint>,
    changes: ChangeCollector,
    /// Something failed: nothing is taken any more.
    failed: bool,
}

impl State {
    pub(crate) fn new(generation: Generation) -> Self {
        Self { generation: generation.0, ..Self::default() }
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    pub(crate) fn published(&self) -> OpId {
        self.checkpoint.as_ref().map_or(OpId::ZERO, |checkpoint| checkpoint.op_id)
    }

    fn next_token(&mut self) -> MarkerToken {
        self.next_marker += 1;
        MarkerToken(format!("{}-{}", self.generation(), self.next_marker).into())
    }

    /// Forgets what was appended.
    pub(crate) fn forget_staged(&mut self) {
        self.staged = Staged { last_op: self.last_op, ..Staged::default() };
    }

    /// Takes nothing more before `forget_staged`.
    pub(crate) fn spoil_staged(&mut self) {
        self.staged.failed = true;
    }

    pub(crate) fn row(&self, key: &RowKey) -> Option<&CurrentRow> {
        self.staged.rows.get(key).map_or_else(|| self.rows.get(key), Option::as_ref)
    }

    pub(crate) fn append(&mut self, batch: AppendBatch) -> Result<()> {
        self.check(&Commit::default())?;
        self.staged.failed = true;
        let mut lookups = Vec::new();
        for table in batch.truncate {
            for key in self.keys_of(table) {
                let Some(row) = self.row(&key).cloned() else { continue };
                for one in row.memberships {
                    let subkey = key.subkey(&one.object_id);
                    self.staged.add(&NewOperation::remove(one.bucket, one.object_type, one.object_id, subkey))?;
                }
                let gone = |index| LookupEntry { row: key.clone(), key: index, outputs: Vec::new() };
                lookups.extend(row.lookups.into_iter().map(gone));
                self.staged.rows.insert(key, None);
            }
        }
        batch.operations.iter().try_for_each(|operation| self.staged.add(operation))?;
        self.staged.rows.extend(batch.rows);
        lookups.extend(batch.lookups);
        self.staged.last_op += u64::from(!lookups.is_empty());
        for entry in lookups {
            self.staged.changes.lookup(&entry.key);
            self.staged.lookups.push((OpId(self.staged.last_op), entry));
        }
        for (client, number) in batch.write_checkpoints {
            let largest = self.staged.write_checkpoints.entry(client).or_insert(number);
            *largest = number.max(*largest);
        }
        self.staged.failed = false;
        Ok(())
    }

    fn keys_of(&self, table: TableId) -> BTreeSet<RowKey> {
        let from = RowKey { table, key: Bytes::new() };
        let stored = self.rows.range(&from..).map(|(key, _)| key).take_while(|key| key.table == table);
        let staged = self.staged.rows.range(&from..).map(|(key, _)| key).take_while(|key| key.table == table);
        stored.chain(staged).cloned().collect()
    }

    /// Whether this may be committed.
    pub(crate) fn check(&self, commit: &Commit) -> Result<()> {
        if self.staged.failed {
            return Err(Error::unavailable("an append or a commit failed; start again from resume"));
        }
        if commit.publish && commit.deploy.is_none() && self.config.is_none() {
            return Err(Error::invalid("a checkpoint cannot be published before a config was deployed"));
        }
        Ok(())
    }

    /// The checkpoint that results, and what changed.
    pub(crate) fn commit(&mut self, commit: Commit) -> (Option<Checkpoint>, ChangeCollector) {
        let mut staged = std::mem::take(&mut self.staged);
        let published = self.published();
        let deployed = commit.deploy.map(|deploy| {
            let definitions = assign_definitions(&deploy, self.config.as_deref(), &mut self.next_definition);
            Arc::new(DeployedConfig { text: deploy.text, definitions })
        });
        let config_changed = deployed.is_some() && deployed != self.config;
        self.config = deployed.or(self.config.take());
        let clients = self.requests.rising(&commit.markers, &staged.write_checkpoints);
        clients.iter().for_each(|client| staged.changes.client(client));
        // Every checkpoint has an id of its own, which none of before a reset had.
        let taken = published.0.max(self.floor.0.saturating_sub(1));
        let needs_id = (config_changed || !clients.is_empty()) && staged.last_op == taken;
        self.last_op = staged.last_op + u64::from(needs_id);
        let at = OpId(self.last_op);
        for (bucket, mut builder) in staged.chunks {
            self.buckets.entry(bucket).or_default().push(builder.finish());
        }
        for (key, row) in staged.rows {
            _ = match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        for (from, LookupEntry { row, key, outputs }) in staged.lookups {
            let states = self.lookups.entry(key).or_default().entry(row).or_default();
            states.retain(|(other, _)| *other != from);
            states.push((from, outputs));
        }
        self.requests.resolve(&commit.markers, &staged.write_checkpoints, at, published);
        self.position = commit.position.or(self.position.take());
        self.source_state = commit.source_state.or(self.source_state.take());
        self.replicator_state = commit.replicator_state.or(self.replicator_state.take());
        self.forget_staged();
        let config = self.config.clone().filter(|_| commit.publish && at > published);
        let checkpoint = config.map(|config| Checkpoint { op_id: at, generation: self.generation(), config });
        self.checkpoint = checkpoint.clone().or(self.checkpoint.take());
        (checkpoint, staged.changes)
    }

    /// Records a request, which waits for the marker that is returned.
    pub(crate) fn request(
        &mut self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
        now: i64,
    ) -> Result<MarkerToken> {
        self.requests.make_room(client, now)?;
        let (number, _) = self.requests.number(client, request, now);
        let token = self.next_token();
        self.requests.record(client, number, token.clone());
        Ok(token)
    }

    /// Forgets everything but what must go on rising. Returns the marker that write checkpoints wait for then.
    pub(crate) fn reset(&mut self, generation: Generation) -> Option<MarkerToken> {
        let Self { last_op, next_definition, next_marker, .. } = *self;
        let (floor, mut requests) = (OpId(last_op + 1), std::mem::take(&mut self.requests));
        *self = Self { last_op, next_definition, next_marker, floor, lookup_floor: floor, ..Self::new(generation) };
        let token = self.next_token();
        let waits = requests.reset(&token);
        self.requests = requests;
        self.forget_staged();
        waits.then_some(token)
    }

    /// Keeps only the newest state of each lookup at the published checkpoint.
    pub(crate) fn compact_lookups(&mut self) {
        let (published, mut floor) = (self.published(), self.lookup_floor);
        self.lookups.retain(|_, rows| {
            rows.retain(|_, states| {
                let newest = states.partition_point(|(from, _)| *from <= published);
                let is_gone = states[..newest].last().is_some_and(|(_, outputs)| outputs.is_empty());
                let dropped = if is_gone { newest } else { newest.saturating_sub(1) };
                if dropped > 0 {
                    floor = floor.max(states[newest - 1].0);
                    states.drain(..dropped);
                }
                !states.is_empty()
            });
            !rows.is_empty()
        });
        self.lookup_floor = floor;
    }
}

impl Staged {
    fn add(&mut self, operation: &NewOperation) -> Result<()> {
        self.last_op += 1;
        self.changes.bucket(&operation.bucket);
        self.chunks.entry(operation.bucket.clone()).or_default().push_new(OpId(self.last_op), operation)
    }
}
