//! The store: what is durable, and who is told.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream::BoxStream;
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketRead, BucketStore, Checkpoint, CheckpointFeed, ClientKey, Clock,
    Commit, CompactLimits, Compacted, CurrentRow, Error, Generation, LookupKey, LookupRows, MarkerFeed, MarkerToken,
    OpId, OperationChunk, Published, ReadRequest, Result, Resume, RowKey, SystemClock, WriteCheckpoint,
    WriteCheckpointRequest, async_trait,
};

use crate::journal::Journal;
use crate::state::{Event, State};

/// A bucket store in memory, which a journal on disk makes durable.
#[derive(Debug)]
pub struct JournalStore {
    /// Taken first, and by writers alone.
    writer: Mutex<Writer>,
    state: Mutex<State>,
    checkpoints: CheckpointFeed,
    markers: MarkerFeed,
}

#[derive(Debug)]
struct Writer {
    journal: Journal,
    appended: Vec<AppendBatch>,
    compact_from: Option<BucketId>,
}

fn random_generation() -> Generation {
    Generation(RandomState::new().hash_one(0) as u32)
}

fn replay(state: Option<State>, events: Vec<Event>) -> Result<State> {
    let mut state = state.unwrap_or_else(|| State::new(random_generation()));
    state.forget_staged();
    for event in events {
        match event {
            Event::Committed(batches, commit) => {
                batches.into_iter().try_for_each(|batch| state.append(batch))?;
                state.commit(commit);
            }
            Event::Requested(client, request, now) => _ = state.request(&client, request, now)?,
            Event::Reset(generation) => _ = state.reset(generation),
        }
    }
    let published = state.published();
    state.buckets.values_mut().try_for_each(|bucket| bucket.compact(published).map(|_| ()))?;
    Ok(state)
}

impl JournalStore {
    /// Opens the journal at `path`, or makes one.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be used, or is in use; `Data` if it is damaged or no journal.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (journal, state) = Journal::open(path.as_ref(), replay)?;
        Ok(Self {
            checkpoints: CheckpointFeed::new(state.checkpoint.clone()),
            markers: MarkerFeed::new(state.requests.pending()),
            writer: Mutex::new(Writer { journal, appended: Vec::new(), compact_from: None }),
            state: Mutex::new(state),
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        self.checkpoints.close();
        self.markers.close();
    }
}

fn check_floor(at: OpId, floor: OpId) -> Result<()> {
    if at < floor { Err(Error::unavailable(format!("the state at {at} is gone"))) } else { Ok(()) }
}

#[async_trait]
impl BucketStore for JournalStore {
    async fn resume(&self) -> Result<Resume> {
        let (mut writer, mut state) = (self.writer(), self.state());
        writer.appended.clear();
        state.forget_staged();
        Ok(Resume {
            generation: state.generation(),
            position: state.position.clone(),
            source_state: state.source_state.clone(),
            replicator_state: state.replicator_state.clone(),
            config: state.config.clone(),
            checkpoint: state.checkpoint.clone(),
        })
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.row(key).cloned()).collect())
    }

    async fn append(&self, batch: AppendBatch) -> Result<()> {
        let mut writer = self.writer();
        self.state().append(batch.clone())?;
        writer.appended.push(batch);
        Ok(())
    }

    async fn commit(&self, commit: Commit) -> Result<Option<Checkpoint>> {
        let mut writer = self.writer();
        self.state().check(&commit)?;
        let event = Event::Committed(std::mem::take(&mut writer.appended), commit.clone());
        writer.journal.append(&event).inspect_err(|_| self.state().staged.spoil())?;
        let tokens = commit.markers.clone();
        let (checkpoint, changes) = self.state().commit(commit);
        self.markers.resolve(&tokens);
        self.checkpoints.record(changes);
        checkpoint.iter().for_each(|checkpoint| self.checkpoints.publish(checkpoint.clone()));
        Ok(checkpoint)
    }

    async fn reset(&self) -> Result<()> {
        let mut writer = self.writer();
        let old = self.state().generation();
        let generation = Some(random_generation()).filter(|new| *new != old).unwrap_or(Generation(!old.0));
        writer.journal.append(&Event::Reset(generation))?;
        writer.appended.clear();
        let mut state = self.state();
        let marker = state.reset(generation);
        self.markers.clear();
        marker.into_iter().for_each(|marker| self.markers.push(marker));
        self.checkpoints.reset();
        Ok(())
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        self.checkpoints.subscribe()
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        let state = self.state();
        check_floor(at, state.lookup_floor)?;
        let at = at.min(state.published());
        Ok(keys.iter().map(|key| state.lookups.rows(key, at)).collect())
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        let state = self.state();
        check_floor(at, state.floor)?;
        let at = at.min(state.published());
        let sum =
            |bucket| state.buckets.get(bucket).map_or_else(|| Ok(Default::default()), |bucket| bucket.checksum(at));
        buckets.iter().map(sum).collect()
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        let state = self.state();
        let answer = |request: &ReadRequest| {
            let request = ReadRequest { upto: request.upto.min(state.published()), ..request.clone() };
            let bucket = state.buckets.get(&request.bucket);
            let mut answer = bucket.map_or_else(|| BucketRead::new(&request).finish(), |bucket| bucket.read(&request));
            if request.upto < state.floor {
                answer.superseded = answer.superseded.max(Some(state.floor));
            }
            answer
        };
        Ok(requests.iter().map(answer).collect())
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        request.check()?;
        let mut writer = self.writer();
        let now = SystemClock.wall().0;
        let (number, waits) = {
            let mut state = self.state();
            state.requests.make_room(client, now)?;
            state.requests.number(client, request, now)
        };
        if waits {
            writer.journal.append(&Event::Requested(client.clone(), request, now))?;
            let marker = self.state().request(client, request, now)?;
            self.markers.push(marker);
        }
        Ok(number)
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        let state = self.state();
        let at = at.min(state.published());
        Ok(clients.iter().map(|client| state.requests.shown(client, at)).collect())
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        self.markers.subscribe()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        let (mut writer, mut state) = (self.writer(), self.state());
        let (published, mut done) = (state.published(), Compacted::default());
        let from = writer.compact_from.take();
        if from.is_none() {
            let floor = state.lookups.compact(published);
            state.lookup_floor = state.lookup_floor.max(floor.unwrap_or_default());
        }
        for (id, bucket) in state.buckets.iter_mut().filter(|(id, _)| from.as_ref().is_none_or(|from| *id >= from)) {
            if done.operations >= limits.max_operations {
                (writer.compact_from, done.more) = (Some(id.clone()), true);
                break;
            }
            let (operations, bytes) = bucket.compact(published)?;
            done.operations += operations;
            done.bytes_freed += bytes;
        }
        Ok(done)
    }
}
