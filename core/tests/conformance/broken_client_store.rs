//! A client store in memory with one mistake in it.

mod application;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use futures::stream::{BoxStream, StreamExt};
use serde_json::{Map, Value as Json};
use syncline_core::memory::MemoryClientStore;
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, ByteString, Checksum, ClientState, ClientStore, Error, LocalTransaction, LocalWrite, OpId,
    Operation, OperationKind, PublishOutcome, PublishRequest, Result, StoreLease, TargetCheckpoint, UploadSequence,
    UploadState, Uploaded, WallTime, WriteCheckpoint, async_trait,
};

use crate::client_faults::ClientFault::{self, *};
use crate::staged_lines::{Sums, falsify};

type Row = Map<String, Json>;

/// A store that does everything right but one thing. Clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct BrokenClientStore {
    inner: MemoryClientStore,
    fault: ClientFault,
    notes: Arc<Mutex<Notes>>,
}

/// What the mistakes need to know.
#[derive(Debug, Default)]
struct Notes {
    starts: usize,
    /// Sums of the downloaded buckets.
    sums: Sums,
    /// PUTs since the last publish.
    staged: Vec<Operation>,
    published_positions: Vec<(ByteString, OpId)>,
    last_synced: Option<WallTime>,
    /// Buckets that were shown as parts of a whole checkpoint.
    whole: BTreeSet<ByteString>,
    /// Local writes that the store has not taken yet.
    buffered: Vec<Vec<LocalWrite>>,
    inserted: BTreeMap<(String, String), Row>,
    /// Rows before the local writes to them, and whether to show those.
    before: BTreeMap<String, Row>,
    undone: bool,
    offered: BTreeSet<Option<i64>>,
    finished: Option<LocalTransaction>,
    sent_again: Option<LocalTransaction>,
    numbers_from: i64,
    last_number: i64,
    last_cover: Option<WriteCheckpoint>,
    too_early: Option<(UploadSequence, WriteCheckpoint)>,
    covers_lost: bool,
    subscribed: BTreeSet<(String, String)>,
}

/// Lets others have a turn.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn last_write(transaction: &LocalTransaction) -> UploadSequence {
    UploadSequence(transaction.crud.last().map_or(0, |write| write.op_id))
}

fn renumber(mut transaction: LocalTransaction, by: i64) -> LocalTransaction {
    transaction.transaction_id = transaction.transaction_id.map(|number| number + by);
    transaction.crud.iter_mut().for_each(|write| write.op_id += by);
    transaction
}

impl BrokenClientStore {
    pub(crate) fn new(fault: ClientFault) -> Self {
        Self { inner: MemoryClientStore::new("device"), fault, notes: Arc::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn is(&self, fault: ClientFault) -> bool {
        self.fault == fault
    }

    /// The store takes the writes that it has put off.
    fn flush(&self) {
        let mut buffered = std::mem::take(&mut self.notes().buffered);
        if self.is(QueueInOrderOfRows) {
            buffered.sort_by_key(|writes| writes.first().map(|write| write.id.clone()));
        }
        for writes in buffered {
            self.inner.write(writes);
        }
    }

    /// Everything downloaded is gone.
    async fn forget_downloads(&self) -> Result<()> {
        self.notes().sums = Sums::default();
        self.inner.begin_checkpoint(&Arc::default()).await
    }

    /// Shows the buckets up to a priority as if nothing held them back.
    async fn force(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        let mut target = TargetCheckpoint::clone(&request.target);
        target.buckets.retain(|_, bucket| request.partial.is_none_or(|partial| bucket.priority <= partial));
        target.buckets.values_mut().for_each(|bucket| bucket.priority = BucketPriority::HIGHEST);
        let forced = PublishRequest {
            target: Arc::new(target),
            partial: Some(BucketPriority::HIGHEST),
            requested: Arc::clone(&request.requested),
            now: request.now,
        };
        self.inner.publish(&forced).await
    }

    /// What the mistake makes of a request.
    async fn misread(&self, request: &PublishRequest) -> Result<PublishRequest> {
        let mut request = request.clone();
        let mut target = TargetCheckpoint::clone(&request.target);
        let uploads = self.inner.upload_state().await?;
        let stored = self.inner.resume(WallTime(i64::MIN)).await?.buckets;
        match (self.fault, request.partial) {
            (PartialShowsEverything, Some(_)) => request.partial = Some(BucketPriority(u8::MAX)),
            (PartialDeletes, Some(partial)) => {
                target.buckets.retain(|_, bucket| bucket.priority <= partial);
                request.partial = None;
            }
            (RowsOfBucketsThatLeftStay, None) if stored.iter().any(|(name, _)| !target.buckets.contains_key(name)) => {
                request.partial = Some(BucketPriority(u8::MAX));
            }
            (SkipsChecksums, _) => {
                let notes = self.notes();
                target.buckets.iter_mut().for_each(|(name, bucket)| bucket.checksum = notes.sums.of(name));
            }
            (AbsenceIsRight, _) => {
                let notes = self.notes();
                let absent = target.buckets.iter_mut().filter(|(name, _)| !notes.sums.knows(name));
                absent.for_each(|(_, bucket)| bucket.checksum = Checksum::default());
            }
            (CoveredWritesPass, None) => target.write_checkpoint = target.write_checkpoint.max(uploads.awaited),
            (SubscriptionsNeverKnow, _) => request.requested = Arc::from([]),
            _ => {}
        }
        request.target = Arc::new(target);
        Ok(request)
    }

    /// Whether a publish that should be held back is not.
    fn lets_pass(&self, request: &PublishRequest, uploads: UploadState) -> bool {
        let is_sent = uploads.queued == 0 && uploads.uncovered.is_some();
        match self.fault {
            PrioritiesPassLocalWrites => request.partial.is_some(),
            QueuedWritesPass => uploads.queued > 0,
            SentWritesPass => is_sent,
            OneCoverIsForAllWrites => {
                let covered = self.notes().last_cover;
                covered.is_some() && covered <= request.target.write_checkpoint
            }
            _ => false,
        }
    }

    async fn published(&self, request: &PublishRequest) -> Result<()> {
        let positions = self.inner.resume(WallTime(i64::MIN)).await?.buckets;
        let whole = request.partial.is_none();
        let staged = {
            let mut notes = self.notes();
            notes.published_positions = positions;
            if self.is(PartialCountsAsSynced) || (self.is(LastSyncFollowsTheClock) && whole) {
                notes.last_synced = Some(request.now);
            }
            if whole {
                notes.numbers_from = notes.last_number;
                notes.whole.extend(request.target.buckets.keys().cloned());
            }
            std::mem::take(&mut notes.staged)
        };
        if let Some(row) = staged.first().filter(|_| self.is(PublishesAreUploaded) && whole) {
            let data = row.data.as_deref().and_then(|text| serde_json::from_str(text).ok());
            self.inner.put(&row.object_type, &row.object_id, data.unwrap_or_default());
        }
        Ok(())
    }
}

#[async_trait]
impl ClientStore for BrokenClientStore {
    async fn lease(&self) -> Result<StoreLease> {
        if self.is(LeaseForEverybody) {
            return Ok(StoreLease::new(()));
        }
        self.inner.lease().await
    }

    async fn resume(&self, now: WallTime) -> Result<ClientState> {
        self.flush();
        let now = if self.is(ExpiredSubscriptionsStay) { WallTime(i64::MIN) } else { now };
        let mut state = self.inner.resume(now).await?;
        state.uploads = self.upload_state().await?;
        let notes = self.notes();
        match self.fault {
            NewIdWithEachStart => state.client_id = format!("device {}", notes.starts).into(),
            PositionsOfTheLastPublish => state.buckets = notes.published_positions.clone(),
            HidesPartsThatLeft => {
                state.buckets.retain(|(name, at)| *at > OpId::ZERO || notes.whole.contains(name));
            }
            HidesBucketsThatLeft => state.buckets.retain(|(_, at)| *at > OpId::ZERO),
            PartialCountsAsSynced | LastSyncFollowsTheClock => state.last_synced_at = notes.last_synced,
            _ => {}
        }
        Ok(state)
    }

    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Row,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()> {
        let is_new = self.notes().subscribed.insert((stream.to_owned(), format!("{parameters:?}")));
        if self.is(IgnoresRenewals) && !is_new {
            return Ok(());
        }
        self.inner.subscribe(stream, parameters, priority, expires_at).await
    }

    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()> {
        if self.is(KeepsBucketsThatLeft) {
            return Ok(());
        }
        self.notes().sums.retain(target);
        self.inner.begin_checkpoint(target).await
    }

    async fn stage(&self, lines: &[DataLine]) -> Result<()> {
        let operations = || lines.iter().flat_map(|line| &line.operations);
        let is_known = |one: &Operation| ["", "lists", "todos"].contains(&&*one.object_type);
        if self.is(RefusesUnknownTables) && !operations().all(is_known) {
            return Err(Error::data("there is no such table"));
        }
        let is_object =
            |one: &Operation| one.data.as_deref().is_none_or(|data| serde_json::from_str::<Row>(data).is_ok());
        if self.is(RefusesWhatIsNoObject) && !operations().all(is_object) {
            return Err(Error::data("a row is no JSON object"));
        }
        let lines = {
            let mut notes = self.notes();
            notes.staged.extend(operations().filter(|one| one.kind == OperationKind::Put).cloned());
            falsify(self.fault, lines, &mut notes.sums)
        };
        self.inner.stage(&lines).await
    }

    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        self.flush();
        let uploads = self.inner.upload_state().await?;
        let differing = self.notes().sums.differing(&request.target);
        match self.fault {
            KeepsWrongBuckets if !differing.is_empty() => return Ok(PublishOutcome::Mismatch(differing)),
            PartialTestsEverySum if request.partial.is_some() && !differing.is_empty() => {
                return Ok(PublishOutcome::Mismatch(differing));
            }
            HighestPriorityWaits if request.partial.is_some() && uploads != UploadState::default() => {
                return Ok(PublishOutcome::Held);
            }
            ShowsInTwoSteps if request.target.buckets.len() > 1 => {
                let mut half = TargetCheckpoint::clone(&request.target);
                half.buckets.pop_last();
                self.inner.publish(&PublishRequest { target: Arc::new(half), ..request.clone() }).await?;
                pause().await;
            }
            _ => {}
        }
        let request = self.misread(request).await?;
        let mut outcome = self.inner.publish(&request).await?;
        if outcome == PublishOutcome::Held && self.lets_pass(&request, uploads) {
            outcome = self.force(&request).await?;
        }
        match &outcome {
            PublishOutcome::Published => self.published(&request).await?,
            PublishOutcome::Mismatch(_) if self.is(WrongSumDiscardsEverything) => self.forget_downloads().await?,
            PublishOutcome::Mismatch(names) => names.iter().for_each(|name| self.notes().sums.forget(name)),
            PublishOutcome::Held if self.is(DropsWhatIsHeld) => self.forget_downloads().await?,
            PublishOutcome::Held => {}
        }
        Ok(outcome)
    }

    async fn upload_state(&self) -> Result<UploadState> {
        self.flush();
        let mut state = self.inner.upload_state().await?;
        let notes = self.notes();
        if self.is(ForgetsWhatIsCovered) {
            state.covered = None;
        }
        if notes.covers_lost {
            state = UploadState { uncovered: state.covered.take(), awaited: None, ..state };
        }
        if notes.sent_again.is_some() {
            state = UploadState { queued: state.queued + 1, uncovered: None, ..state };
        }
        Ok(state)
    }

    async fn next_upload(&self) -> Result<Option<LocalTransaction>> {
        self.flush();
        let next = self.inner.next_upload().await?;
        let mut notes = self.notes();
        if notes.sent_again.is_some() {
            return Ok(notes.sent_again.clone());
        }
        let Some(next) = next else { return Ok(None) };
        match self.fault {
            OffersUploadsOnce if !notes.offered.insert(next.transaction_id) => Ok(None),
            NumbersStartAgainWithAnEmptyQueue => {
                notes.last_number = last_write(&next).0;
                Ok(Some(renumber(next, -notes.numbers_from)))
            }
            _ => Ok(Some(next)),
        }
    }

    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
        let mut transaction = transaction.clone();
        match self.fault {
            NumbersStartAgainWithAnEmptyQueue => transaction = renumber(transaction, self.notes().numbers_from),
            FinishesWhateverIsNext => transaction = self.inner.next_upload().await?.unwrap_or(transaction),
            RejectedWritesAreUndoneAtOnce => self.notes().undone = *outcome != Uploaded::Applied,
            _ => {}
        }
        let outcome = if self.is(ForgetsRejections) { &Uploaded::Applied } else { outcome };
        self.inner.finish_upload(&transaction, outcome).await?;
        let too_early = {
            let mut notes = self.notes();
            notes.sent_again = None;
            notes.finished = Some(transaction);
            notes.too_early.take()
        };
        match too_early {
            Some((upto, checkpoint)) => self.inner.cover(upto, checkpoint).await,
            None => Ok(()),
        }
    }

    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
        self.flush();
        let state = self.inner.upload_state().await?;
        {
            let mut notes = self.notes();
            notes.last_cover = Some(checkpoint);
            notes.covers_lost = false;
            if self.is(CoversWhatWasNotSent) && state.queued > 0 {
                notes.too_early = Some((upto, checkpoint));
            }
        }
        match self.fault {
            CoversEverythingThatWasSent => {
                let all = state.uncovered.max(state.covered).unwrap_or(upto);
                self.inner.cover(all, checkpoint).await
            }
            LargerNumbersStay => {
                self.inner.cover(upto, state.awaited.map_or(checkpoint, |other| checkpoint.max(other))).await
            }
            _ => self.inner.cover(upto, checkpoint).await,
        }
    }

    fn upload_changes(&self) -> BoxStream<'static, ()> {
        let changes = self.inner.upload_changes();
        if self.is(TellsOneChange) { changes.take(1).boxed() } else { changes }
    }
}
