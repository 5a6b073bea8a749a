//! A bucket store in memory with one mistake in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use syncline_core::memory::MemoryBucketStore;
use syncline_core::{
    AppendBatch, BucketChecksum, BucketId, BucketStore, ByteString, Bytes, Checkpoint, ClientKey, Commit,
    CompactLimits, Compacted, CurrentRow, DefinitionId, DeployedConfig, Generation, LookupChange, LookupDifference,
    LookupKey, LookupRows, MarkerToken, OpId, OperationChunk, Published, ReadRequest, Result, Resume, RowKey,
    SourcePosition, TableId, WriteCheckpoint, WriteCheckpointRequest, async_trait,
};

use crate::bucket_faults::BucketFault::{self, *};
use crate::changed_answers::{Told, falsify_checkpoints, falsify_chunk};
use crate::confirmed_numbers::ConfirmedNumbers;

/// A store that does everything right but one thing. Clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct BrokenBucketStore {
    inner: MemoryBucketStore,
    fault: BucketFault,
    notes: Arc<Mutex<Notes>>,
}

/// What the mistakes need to know.
#[derive(Debug, Default)]
struct Notes {
    open: bool,
    deployed: bool,
    /// The checkpoint that an append made.
    leaked: Option<Checkpoint>,
    generation: Option<Generation>,
    /// Ids of checkpoints.
    checkpoints: BTreeSet<OpId>,
    last_named: OpId,
    after_reset: bool,
    was_reset: bool,
    position: Option<SourcePosition>,
    rows: BTreeSet<RowKey>,
    /// Rows as they were before what is not committed.
    before: BTreeMap<RowKey, Option<CurrentRow>>,
    forms: BTreeMap<ByteString, DefinitionId>,
    numbers: BTreeMap<ClientKey, WriteCheckpoint>,
    tokens: Vec<MarkerToken>,
    /// The newest checkpoint when it was compacted last.
    compacted: Option<OpId>,
    told: Told,
    confirmed: ConfirmedNumbers,
}

impl BrokenBucketStore {
    pub(crate) fn new(fault: BucketFault) -> Self {
        Self { inner: MemoryBucketStore::new(), fault, notes: Arc::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn is(&self, fault: BucketFault) -> bool {
        self.fault == fault
    }

    fn newest(&self) -> OpId {
        self.notes().checkpoints.last().copied().unwrap_or_default()
    }

    /// All tokens that are pending now.
    fn pending(&self) -> Vec<MarkerToken> {
        let mut stream = self.inner.pending_markers();
        let mut tokens = Vec::new();
        while let Some(Some(Ok(token))) = stream.next().now_or_never() {
            tokens.push(token);
        }
        tokens
    }

    fn bucket(&self, bucket: &BucketId) -> BucketId {
        if !self.is(IgnoresCaseOfParameters) {
            return bucket.clone();
        }
        BucketId { parameters: bucket.parameters.to_lowercase().into(), ..bucket.clone() }
    }

    fn misnumbered(&self, config: &DeployedConfig) -> Arc<DeployedConfig> {
        let mut config = config.clone();
        if self.is(AFormHasOneNumberForEver) {
            let mut notes = self.notes();
            for definition in &mut config.definitions {
                let next = DefinitionId(u32::try_from(notes.forms.len()).unwrap() + 1);
                definition.id = *notes.forms.entry(definition.form.clone()).or_insert(next);
            }
        }
        Arc::new(config)
    }

    /// The checkpoint as it is told.
    fn misnamed(&self, checkpoint: Checkpoint, had_operations: bool) -> Checkpoint {
        let mut checkpoint = Checkpoint { config: self.misnumbered(&checkpoint.config), ..checkpoint };
        let mut notes = self.notes();
        notes.checkpoints.insert(checkpoint.op_id);
        let after_reset = std::mem::take(&mut notes.after_reset);
        match self.fault {
            CheckpointsAreNamedAfterOperations if !had_operations && notes.last_named > OpId::ZERO => {
                checkpoint.op_id = notes.last_named;
            }
            ResetKeepsTheId if after_reset => checkpoint.op_id = notes.last_named,
            _ => {}
        }
        notes.last_named = checkpoint.op_id;
        let first = *notes.generation.get_or_insert(checkpoint.generation);
        if self.is(ResetKeepsTheGeneration) {
            checkpoint.generation = first;
        }
        checkpoint
    }

    /// The markers that a commit confirms.
    fn markers(&self, commit: &Commit) -> Vec<MarkerToken> {
        let mut markers = commit.markers.clone();
        if markers.is_empty() {
            return markers;
        }
        let pending = self.pending();
        let given = |token: &MarkerToken| commit.markers.contains(token);
        match self.fault {
            MarkersConfirmLaterRequests => {
                let first = pending.iter().position(given).unwrap_or(pending.len());
                markers.extend(pending[first..].iter().cloned());
            }
            MarkersConfirmEarlierRequestsOfAll => {
                let last = pending.iter().rposition(given).map_or(0, |last| last + 1);
                markers.extend(pending[..last].iter().cloned());
            }
            MarkersOutliveAReset if self.notes().was_reset => markers.extend(pending),
            LosesMarkersOfHiddenCommits if !commit.publish => markers.clear(),
            ForgetsRecentMarkers => {
                let notes = self.notes();
                markers.retain(|token| notes.tokens.iter().take(256).any(|early| early == token));
            }
            _ => {}
        }
        markers
    }
}

#[async_trait]
impl BucketStore for BrokenBucketStore {
    async fn resume(&self) -> Result<Resume> {
        if self.is(ResumeCommitsWhatIsOpen) {
            self.inner.commit(Commit::default()).await?;
        }
        let mut resume = self.inner.resume().await?;
        resume.config = resume.config.map(|config| self.misnumbered(&config));
        let mut notes = self.notes();
        notes.open = false;
        notes.before.clear();
        notes.told.forget_open();
        notes.confirmed.roll_back(self.fault);
        if self.is(OnlyTheLastPositionCounts) {
            resume.position = notes.position.clone();
        }
        let first = *notes.generation.get_or_insert(resume.generation);
        if self.is(ResetKeepsTheGeneration) {
            resume.generation = first;
        }
        Ok(resume)
    }

    async fn current_rows(&self, keys: &[RowKey]) -> Result<Vec<Option<CurrentRow>>> {
        let mut rows = self.inner.current_rows(keys).await?;
        if self.is(RowsAreThoseOfTheLastCommit) {
            let notes = self.notes();
            for (row, key) in rows.iter_mut().zip(keys) {
                *row = notes.before.get(key).cloned().unwrap_or(row.take());
            }
        }
        Ok(rows)
    }

    async fn append(&self, mut batch: AppendBatch) -> Result<()> {
        let keys: Vec<RowKey> = batch.rows.iter().map(|(key, _)| key.clone()).collect();
        let before = self.inner.current_rows(&keys).await?;
        let is_large = batch.operations.len() >= 1000;
        {
            let mut notes = self.notes();
            notes.open |= !batch.is_empty();
            for (key, row) in keys.iter().zip(before) {
                notes.before.entry(key.clone()).or_insert(row);
            }
            notes.rows.extend(keys);
            let Notes { told, rows, confirmed, .. } = &mut *notes;
            batch.operations.iter().for_each(|operation| told.append(&operation.bucket));
            confirmed.append(self.fault, &mut batch);
            let known: BTreeSet<TableId> = rows.iter().map(|key| key.table).collect();
            match self.fault {
                LosesSubkeys => batch.operations.iter_mut().for_each(|one| one.subkey = ByteString::new()),
                IgnoresCaseOfParameters => {
                    batch.operations.iter_mut().for_each(|one| one.bucket = self.bucket(&one.bucket));
                }
                OneEntryPerLookupKey => {
                    let row = RowKey { table: TableId(0), key: Bytes::new() };
                    batch.lookups.iter_mut().for_each(|entry| entry.row = row.clone());
                }
                TruncatesEveryTable if !batch.truncate.is_empty() => batch.truncate = known.into_iter().collect(),
                TruncationsForgetRowsOnly => {
                    let truncated = std::mem::take(&mut batch.truncate);
                    let forgotten = rows.iter().filter(|key| truncated.contains(&key.table));
                    let forgotten: Vec<_> = forgotten.map(|key| (key.clone(), None)).collect();
                    batch.rows.splice(0..0, forgotten);
                }
                _ => {}
            }
        }
        let appended = self.inner.append(batch).await;
        match self.fault {
            GoesOnAfterAFailedAppend if appended.is_err() => drop(self.inner.resume().await?),
            CommitsWhatIsAppended => {
                let leaked = self.inner.commit(Commit { publish: true, ..Commit::default() }).await?;
                self.notes().leaked = leaked;
            }
            CommitsLargeAppendsEarly if is_large => {
                self.inner.commit(Commit { publish: true, ..Commit::default() }).await?;
            }
            _ => {}
        }
        appended
    }

    async fn commit(&self, mut commit: Commit) -> Result<Option<Checkpoint>> {
        let markers = self.markers(&commit);
        let (had_operations, published) = {
            let mut notes = self.notes();
            notes.position = commit.position.clone();
            notes.before.clear();
            notes.told.commit(commit.publish);
            (std::mem::take(&mut notes.open), commit.publish)
        };
        let late = self.notes().confirmed.commit(self.fault, commit.publish);
        self.inner.append(late).await?;
        let had_markers = !commit.markers.is_empty();
        commit.markers = markers;
        let has_config = {
            let mut notes = self.notes();
            notes.deployed |= commit.deploy.is_some();
            notes.deployed
        };
        if self.is(PublishesEveryCommit) || self.is(ShowsHiddenCommits) {
            commit.publish |= has_config;
        }
        if self.is(PublishesWithoutAConfig) {
            commit.publish &= has_config;
        }
        let mut checkpoint = self.inner.commit(commit).await?;
        checkpoint = checkpoint.or(self.notes().leaked.take());
        let repeats = self.is(EveryCommitIsACheckpoint) || (self.is(EveryMarkerIsAChange) && had_markers);
        if repeats && published && checkpoint.is_none() {
            checkpoint =
                self.inner.checkpoints().next().now_or_never().flatten().transpose()?.map(|item| item.checkpoint);
        }
        let checkpoint = checkpoint.map(|checkpoint| self.misnamed(checkpoint, had_operations));
        Ok(checkpoint.filter(|_| published || !self.is(ShowsHiddenCommits)))
    }

    async fn reset(&self) -> Result<()> {
        {
            let mut notes = self.notes();
            (notes.open, notes.deployed) = (false, false);
            (notes.after_reset, notes.was_reset) = (true, true);
            notes.confirmed.reset(self.fault);
        }
        self.inner.reset().await
    }

    fn checkpoints(&self) -> BoxStream<'static, Result<Published>> {
        let (fault, notes) = (self.fault, Arc::clone(&self.notes));
        falsify_checkpoints(fault, self.inner.checkpoints(), move |item| {
            notes.lock().unwrap().told.falsify(fault, item);
        })
    }

    async fn lookup(&self, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupRows>> {
        self.inner.lookup(if self.is(LookupsOfNow) { self.newest() } else { at }, keys).await
    }

    async fn lookup_changes(&self, since: OpId, at: OpId, keys: &[LookupKey]) -> Result<Vec<LookupChange>> {
        if self.is(DifferencesOutliveCompaction) && self.notes().compacted.is_some_and(|compacted| since < compacted) {
            // As if nothing had been there whose state is gone.
            let come = |rows: LookupRows| LookupDifference { come: rows.rows, ..LookupDifference::default() };
            let answers = self.inner.lookup(at, keys).await?.into_iter();
            return Ok(answers.map(|rows| LookupChange::Difference(come(rows))).collect());
        }
        let before = self.notes().checkpoints.range(..at).next_back().copied();
        let since = before.filter(|_| self.is(DifferencesOfTheLastCheckpointOnly)).unwrap_or(since);
        self.inner.lookup_changes(since, at, keys).await
    }

    async fn checksums(&self, at: OpId, buckets: &[BucketId]) -> Result<Vec<BucketChecksum>> {
        let buckets: Vec<_> = buckets.iter().map(|bucket| self.bucket(bucket)).collect();
        self.inner.checksums(if self.is(ChecksumsOfNow) { self.newest() } else { at }, &buckets).await
    }

    async fn read(&self, requests: &[ReadRequest]) -> Result<Vec<OperationChunk>> {
        let mut requests = requests.to_vec();
        for request in &mut requests {
            request.bucket = self.bucket(&request.bucket);
            match self.fault {
                IgnoresWhereToBegin => request.after = OpId::ZERO,
                IgnoresTheLimitOfReads => request.max_bytes = usize::MAX,
                _ => {}
            }
        }
        if self.is(AnswersInOrderOfBuckets) {
            requests.sort_by_key(|request| request.bucket.clone());
        }
        let mut answers = self.inner.read(&requests).await?;
        let checkpoints = self.notes().checkpoints.clone();
        for answer in &mut answers {
            for chunk in &mut answer.chunks {
                *chunk = falsify_chunk(self.fault, chunk, &checkpoints)?;
            }
            if self.is(CompactionNamesNothing) {
                answer.superseded = None;
            }
        }
        Ok(answers)
    }

    async fn request_write_checkpoint(
        &self,
        client: &ClientKey,
        request: WriteCheckpointRequest,
    ) -> Result<WriteCheckpoint> {
        if self.is(RefusesRequestsDuringAnAppend) && self.notes().open {
            return Err(syncline_core::Error::unavailable("the store is busy"));
        }
        if let WriteCheckpointRequest::AtLeast(named) = request
            && self.notes().confirmed.is_overlooked(self.fault, client, request)
        {
            return Ok(named);
        }
        let last = self.notes().numbers.get(client).map_or(0, |number| number.0);
        let asked = match (self.fault, request) {
            (NumbersStartAtOne, WriteCheckpointRequest::Next) => {
                WriteCheckpointRequest::AtLeast(WriteCheckpoint(last + 1))
            }
            _ => request,
        };
        let number = match self.inner.request_write_checkpoint(client, asked).await {
            Err(_) if self.is(AnyNumberOfClients) => WriteCheckpoint(1),
            answer => answer?,
        };
        self.notes().numbers.insert(client.clone(), number);
        Ok(match request {
            WriteCheckpointRequest::AtLeast(named) if self.is(TheLastNameCounts) => named,
            _ => number,
        })
    }

    async fn write_checkpoints(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        let mut shown = self.inner.write_checkpoints(at, clients).await?;
        self.notes().confirmed.falsify(self.fault, clients, &mut shown);
        if self.is(ShownBeforeItsMarker) {
            let notes = self.notes();
            shown = clients.iter().map(|client| notes.numbers.get(client).copied()).collect();
        }
        Ok(shown)
    }

    fn pending_markers(&self) -> BoxStream<'static, Result<MarkerToken>> {
        let (fault, notes) = (self.fault, Arc::clone(&self.notes));
        let mut first = None;
        let falsified = move |token: Result<MarkerToken>| {
            let mut tokens: Vec<_> = token.into_iter().collect();
            notes.lock().unwrap().tokens.extend(tokens.iter().cloned());
            let first: &mut Option<MarkerToken> = &mut first;
            match fault {
                MarkersComeTwice => tokens.extend(tokens.clone()),
                SendsTheOldMarkerAgain => {
                    tokens.iter_mut().for_each(|token| *token = first.get_or_insert(token.clone()).clone());
                }
                _ => {}
            }
            futures::stream::iter(tokens.into_iter().map(Ok))
        };
        self.inner.pending_markers().map(falsified).flatten().boxed()
    }

    async fn compact(&self, limits: CompactLimits) -> Result<Compacted> {
        let newest = self.newest();
        self.notes().compacted = Some(newest);
        match self.fault {
            NeverCompacts => Ok(Compacted::default()),
            IgnoresTheLimitOfCompaction => self.inner.compact(CompactLimits { max_operations: u64::MAX }).await,
            CompactsTheFuture => {
                self.inner.commit(Commit { publish: true, ..Commit::default() }).await?;
                self.inner.compact(limits).await
            }
            _ => self.inner.compact(limits).await,
        }
    }
}
