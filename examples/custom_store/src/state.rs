//! All that a store knows, and what each event does to it: the same whenever it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline_core::memory::{MarkerRequests, Staged, StoredBucket, StoredLookups};
use syncline_core::{
    AppendBatch, BucketId, ChangeCollector, Checkpoint, ClientKey, Commit, CurrentRow, DeployedConfig, Error,
    Generation, MarkerToken, OpId, Result, RowKey, SourcePosition, SourceState, WriteCheckpointRequest,
    assign_definitions,
};

/// What the journal remembers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Committed(Vec<AppendBatch>, Commit),
    /// With the time of day.
    Requested(ClientKey, WriteCheckpointRequest, i64),
    Reset(Generation),
}

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
    pub(crate) lookups: StoredLookups,
    pub(crate) requests: MarkerRequests,
    /// What was appended and not committed.
    #[serde(skip)]
    pub(crate) staged: Staged,
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

    pub(crate) fn forget_staged(&mut self) {
        self.staged = Staged::after(self.last_op);
    }

    pub(crate) fn row(&self, key: &RowKey) -> Option<&CurrentRow> {
        self.staged.row(&self.rows, key)
    }

    pub(crate) fn append(&mut self, batch: AppendBatch) -> Result<()> {
        self.staged.append(batch, &self.rows)
    }

    /// Whether this may be committed.
    pub(crate) fn check(&self, commit: &Commit) -> Result<()> {
        if commit.publish && commit.deploy.is_none() && self.config.is_none() {
            return Err(Error::invalid("a checkpoint cannot be published before a config was deployed"));
        }
        self.staged.check()
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
        let clients = self.requests.rising(&commit.markers, staged.write_checkpoints());
        // Every checkpoint has an id of its own, which none of before a reset had.
        let taken = published.0.max(self.floor.0.saturating_sub(1));
        let needs_id = (config_changed || !clients.is_empty()) && staged.last_op() == taken;
        self.last_op = staged.last_op() + u64::from(needs_id);
        let at = OpId(self.last_op);
        let mut changes = staged.apply(&mut self.buckets, &mut self.rows, &mut self.lookups);
        clients.iter().for_each(|client| changes.client(client));
        self.requests.resolve(&commit.markers, staged.write_checkpoints(), at, published);
        self.position = commit.position.or(self.position.take());
        self.source_state = commit.source_state.or(self.source_state.take());
        self.replicator_state = commit.replicator_state.or(self.replicator_state.take());
        self.forget_staged();
        let config = self.config.clone().filter(|_| commit.publish && at > published);
        let checkpoint = config.map(|config| Checkpoint { op_id: at, generation: self.generation(), config });
        self.checkpoint = checkpoint.clone().or(self.checkpoint.take());
        (checkpoint, changes)
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
}
