//! A bucket store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::marker_requests::MarkerRequests;
use super::staged::Staged;
use super::stored_bucket::StoredBucket;
use super::stored_lookups::StoredLookups;
use crate::bucket::{BucketId, Generation};
use crate::bucket_read::BucketRead;
use crate::bucket_store::{
    AppendBatch, BucketStore, Commit, CompactLimits, Compacted, CurrentRow, OperationChunk, ReadRequest, Resume,
    assign_definitions,
};
use crate::checkpoint::{BucketChecksum, Checkpoint, DeployedConfig, LookupKey, LookupRows, Published};
use crate::checkpoint_feed::CheckpointFeed;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::lookup_change::LookupChange;
use crate::marker_feed::MarkerFeed;
use crate::operation::OpId;
use crate::source::{SourcePosition, SourceState};
use crate::table::RowKey;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// A [`BucketStore`] in memory. A handle: clones are the same store, which is gone with the last of them.
///
/// "Durable" means here: as long as the process. It never waits, so it needs no thread and no runtime.
#[derive(Debug, Clone)]
pub struct MemoryBucketStore {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    checkpoints: CheckpointFeed,
    markers: MarkerFeed,
}

#[derive(Debug)]
struct State {
    generation: Generation,
    /// The last operation id of the committed state.
    last_op: u64,
    next_definition: u32,
    next_token: u64,
    position: Option<SourcePosition>,
    source_state: Option<SourceState>,
    replicator_state: Option<Bytes>,
    config: Option<Arc<DeployedConfig>>,
    /// Checkpoints below this are of an earlier generation.
    floor: OpId,
    /// The lookups of checkpoints below this were compacted.
    lookup_floor: OpId,
    /// When buckets of definitions that are gone were dropped for the last time.
    dropped: OpId,
    buckets: BTreeMap<BucketId, StoredBucket>,
    rows: BTreeMap<RowKey, CurrentRow>,
    lookups: StoredLookups,
    requests: MarkerRequests,
    staged: Staged,
    /// Where the next round of compaction goes on.
    compact_from: Option<BucketId>,
}

impl Default for MemoryBucketStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBucketStore {
    /// An empty store on the clock of the system; its generation is taken from the time.
    pub fn new() -> Self {
        let clock = SystemClock;
        let now = clock.wall().0;
        Self::with_clock(clock, Generation(mix(now.unsigned_abs())))
    }

    /// An empty store that is the same in every run: for simulations. Markers are numbered within the generation.
    pub fn with_clock(clock: impl Clock + 'static, generation: Generation) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Arc::new(clock),
                state: Mutex::new(State::new(generation)),
                checkpoints: CheckpointFeed::default(),
                markers: MarkerFeed::default(),
            }),
        }
    }

    /// What a process would find that opened the store after this one's had died: everything that was committed, and new
    /// streams. This handle and its clones are left empty.
    #[cfg(feature = "testing")]
    pub(crate) fn reopened(&self) -> Self {
        let mut state = {
            let mut state = self.state();
            let generation = state.generation;
            std::mem::replace(&mut *state, State::new(generation))
        };
        state.staged = Staged::after(state.last_op);
        state.compact_from = None;
        let checkpoints = CheckpointFeed::new(self.shared.checkpoints.current());
        if state.last_op > self.published().0 {
            // Committed and not published: nobody knows any more what it was.
            checkpoints.record(crate::changes::ChangeCollector::unknown());
        }
        let markers = MarkerFeed::new(self.shared.markers.pending());
        let clock = Arc::clone(&self.shared.clock);
        Self { shared: Arc::new(Shared { clock, state: Mutex::new(state), checkpoints, markers }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> OpId {
        self.shared.checkpoints.current().map_or(OpId::ZERO, |checkpoint| checkpoint.op_id)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.checkpoints.close();
        self.markers.close();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("checkpoint", &self.checkpoints.current()).finish_non_exhaustive()
    }
}

/// A number from a number, spread over all bits.
fn mix(number: u64) -> u32 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

impl State {
    /// That of an empty store.
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            last_op: 0,
            next_definition: 1,
            next_token: 1,
            position: None,
            source_state: None,
            replicator_state: None,
            config: None,
            floor: OpId::ZERO,
            lookup_floor: OpId::ZERO,
            dropped: OpId::ZERO,
            buckets: BTreeMap::new(),
            rows: BTreeMap::new(),
            lookups: StoredLookups::default(),
            requests: MarkerRequests::default(),
            staged: Staged::default(),
            compact_from: None,
        }
    }

    fn token(&mut self) -> MarkerToken {
        let number = self.next_token;
        self.next_token += 1;
        MarkerToken(format!("{}-{number}", self.generation).into())
    }

    fn check_floor(&self, at: OpId, floor: OpId) -> Result<()> {
        if at < floor {
            return Err(Error::unavailable(format!("the state at {at} is gone, ask at a newer checkpoint")));
        }
        Ok(())
    }

    /// Drops buckets and lookups of definitions that are neither deployed nor published. Rows may still name them, but
    /// nobody is sent their operations any more.
    fn drop_unused(&mut self, checkpoint: Option<Checkpoint>) {
        let Some(Checkpoint { op_id, config, .. }) = checkpoint else { return };
        let definitions = self.config.iter().chain([&config]).flat_map(|config| &config.definitions);
        let live: BTreeSet<_> = definitions.map(|definition| definition.id).collect();
        let buckets = self.buckets.len();
        self.buckets.retain(|bucket, _| live.contains(&bucket.definition));
        if self.buckets.len() < buckets {
            self.dropped = op_id;
        }
        if self.lookups.retain(|key| live.contains(&key.index)) {
            self.lookup_floor = self.lookup_floor.max(op_id);
        }
    }
}

#[async_trait]
impl BucketStore for MemoryBucketStore {
    async fn resume(&self) -> Result<Resume> {
        let mut state = self.state();
        state.staged = Staged::after(state.last_op);
        Ok(Resume {
            generation: state.generation,
            position: state.position.clone(),
            source_state: state.source_state.clone(),
            replicator_state: state.replicator_state.clone(),
            config: state.config.clone(),
            checkpoint: self.shared.checkpoints.current(),
        })
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.staged.row(&state.rows, key).cloned()).collect())
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        let mut state = self.state();
        let State { staged, rows, .. } = &mut *state;
        staged.append(batch, rows)
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        let mut state = self.state();
        state.staged.check()?;
        if commit.publish && commit.deploy.is_none() && state.config.is_none() {
            return Err(Error::invalid("a checkpoint cannot be published before a config was deployed"));
        }
        let published = self.published();
        let mut next_definition = state.next_definition;
        let deployed = commit.deploy.map(|deploy| {
            let definitions = assign_definitions(&deploy, state.config.as_deref(), &mut next_definition);
            Arc::new(DeployedConfig { text: deploy.text, definitions })
        });
        let config_changed = deployed.is_some() && deployed != state.config;
        let mut staged = std::mem::take(&mut state.staged);
        let clients = state.requests.rising(&commit.markers, staged.write_checkpoints());
        let taken = published.0.max(state.floor.0.saturating_sub(1));
        // So that every checkpoint has its own id, which none of before a reset had.
        let needs_id = (config_changed || !clients.is_empty()) && staged.last_op() == taken;
        let last_op = OpId(staged.last_op() + u64::from(needs_id));
        state.last_op = last_op.0;
        let State { buckets, rows, lookups, .. } = &mut *state;
        let mut changes = staged.apply(buckets, rows, lookups);
        clients.iter().for_each(|client| changes.client(client));
        state.requests.resolve(&commit.markers, staged.write_checkpoints(), last_op, published);
        state.staged = Staged::after(last_op.0);
        state.next_definition = next_definition;
        if config_changed {
            state.config = deployed;
        }
        state.position = commit.position.or(state.position.take());
        state.source_state = commit.source_state.or(state.source_state.take());
        state.replicator_state = commit.replicator_state.or(state.replicator_state.take());
        self.shared.markers.resolve(&commit.markers);
        self.shared.checkpoints.record(changes);
        let config = state.config.clone().filter(|_| commit.publish && last_op > published);
        let checkpoint = config.map(|config| Checkpoint { op_id: last_op, generation: state.generation, config });
        if let Some(checkpoint) = &checkpoint {
            self.shared.checkpoints.publish(checkpoint.clone());
        }
        Ok(checkpoint)
    }

    async fn reset(&self) -> Result<()> {
        let mut state = self.state();
        let last_op = state.last_op.max(state.staged.last_op());
        let generation = Generation(mix(u64::from(state.generation.0).wrapping_add(1 << 32)));
        let mut requests = std::mem::take(&mut state.requests);
        let token = state.token();
        self.shared.markers.clear();
        if requests.reset(&token) {
            self.shared.markers.push(token);
        }
        *state = State {
            generation,
            last_op,
            next_definition: state.next_definition,
            next_token: state.next_token,
            position: None,
            source_state: None,
            replicator_state: None,
            config: None,
            floor: OpId(last_op + 1),
            lookup_floor: OpId(last_op + 1),
            dropped: OpId::ZERO,
            buckets: BTreeMap::new(),
            rows: BTreeMap::new(),
            lookups: StoredLookups::default(),
            requests,
            staged: Staged::after(last_op),
            compact_from: None,
        };
        self.shared.checkpoints.reset();
        Ok(())
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.shared.checkpoints.subscribe()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        let state = self.state();
        state.check_floor(at, state.lookup_floor)?;
        let at = at.min(self.published());
        Ok(keys.iter().map(|key| state.lookups.rows(key, at)).collect())
    }

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        let state = self.state();
        state.check_floor(at, state.lookup_floor)?;
        let at = at.min(self.published());
        let change = |key| {
            let changed = self.shared.checkpoints.changed_rows(key, since, at);
            match changed.filter(|_| since >= state.lookup_floor) {
                Some(rows) => LookupChange::Difference(state.lookups.difference(key, &rows, since, at)),
                None => LookupChange::Whole(state.lookups.rows(key, at)),
            }
        };
        Ok(keys.iter().map(change).collect())
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        let state = self.state();
        state.check_floor(at, state.floor)?;
        let at = at.min(self.published());
        let checksum = |bucket| match state.buckets.get(bucket) {
            Some(stored) => stored.checksum(at),
            None => state.check_floor(at, state.dropped).map(|()| BucketChecksum::default()),
        };
        buckets.iter().map(checksum).collect()
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        let state = self.state();
        let published = self.published();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let request = ReadRequest { upto: request.upto.min(published), ..request.clone() };
            let (mut answer, floor) = match state.buckets.get(&request.bucket) {
                Some(bucket) => (bucket.read(&request), state.floor),
                None => (BucketRead::new(&request).finish(), state.floor.max(state.dropped)),
            };
            if request.upto < floor {
                answer.superseded = answer.superseded.max(Some(floor));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        request.check()?;
        let mut state = self.state();
        let now = self.shared.clock.wall().0;
        state.requests.make_room(client, now)?;
        let (number, waits) = state.requests.number(client, request, now);
        if waits {
            match self.shared.markers.join() {
                Some(token) => {
                    state.requests.record(client, number, token);
                    self.shared.markers.release();
                }
                None => {
                    let token = state.token();
                    state.requests.record(client, number, token.clone());
                    self.shared.markers.push(token);
                }
            }
        }
        Ok(number)
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        let state = self.state();
        let at = at.min(self.published());
        Ok(clients.iter().map(|client| state.requests.shown(client, at)).collect())
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.shared.markers.subscribe()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        let mut state = self.state();
        let published = self.published();
        let mut done = Compacted::default();
        let from = state.compact_from.take();
        if from.is_none() {
            let floor = state.lookups.compact(published);
            state.lookup_floor = state.lookup_floor.max(floor.unwrap_or_default());
            state.drop_unused(self.shared.checkpoints.current());
        }
        let mut compact_from = None;
        for (id, bucket) in state.buckets.iter_mut() {
            if from.as_ref().is_some_and(|from| id < from) {
                continue;
            }
            if done.operations >= limits.max_operations {
                compact_from = Some(id.clone());
                break;
            }
            let (operations, bytes) = bucket.compact(published)?;
            done.operations += operations;
            done.bytes_freed += bytes;
        }
        done.more = compact_from.is_some();
        state.compact_from = compact_from;
        Ok(done)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    crate::bucket_store_tests!(super::MemoryBucketStore::new());
}
