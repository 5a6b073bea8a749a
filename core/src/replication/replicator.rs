//! The driver of replication: obeys [`Progress`], moves events from the source into the store.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{self, Either, FutureExt};
use futures::stream::{BoxStream, StreamExt};

use super::applier::Applier;
use super::progress::Progress;
use super::status::{ReplicationPhase, ReplicationStatus};
use super::store_call::{SentCommit, StoreCall};
use super::upkeep::Upkeep;
use crate::bucket_store::{AppendBatch, BucketStore, Commit, Deploy, Resume};
use crate::checkpoint::DeployedConfig;
use crate::clock::{Clock, SystemClock};
use crate::config::SyncConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Source, SourceEvent, SourceStart};
use crate::time::Time;
use crate::write_checkpoint::MarkerToken;

const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Replication must go on within two seconds of the restart of whatever stopped.
const LAST_RETRY: Duration = Duration::from_millis(1_000);
/// Changes wait for a shared commit at most this long while more keep coming, and until so many of them wait.
const COMMIT_DELAY: Duration = Duration::from_millis(50);
const COMMIT_ROWS: u64 = 20_000;
/// A backlog is waited for up to so many times longer from commit to commit: who lags seconds behind gains more by
/// arriving sooner than by being shown the way. Pages that many changes touch are then written once for all of them.
const LONGEST_SHARE: u32 = 8;
const COMPACT_EVERY: Duration = Duration::from_secs(600);

/// Brings the changes of a [`Source`] through a [`SyncConfig`] into a [`BucketStore`].
///
/// A handle: cheap to clone, all clones are the same replicator. It shares nothing with a
/// [`SyncService`](crate::SyncService) but the store. While it runs it also compacts the store, so that what is
/// superseded does not fill the disk.
#[derive(Debug, Clone)]
pub struct Replicator {
    inner: Arc<Inner>,
    compact_every: Option<Duration>,
}

#[derive(Debug)]
struct Inner {
    source: Box<dyn Source>,
    config: SyncConfig,
    store: Box<dyn BucketStore>,
    clock: Box<dyn Clock>,
    status: Mutex<ReplicationStatus>,
}

impl Replicator {
    /// A replicator of these parts. Touches nothing before [`run`](Self::run).
    pub fn new(source: impl Source + 'static, config: SyncConfig, store: impl BucketStore + 'static) -> Self {
        Self::with_clock(source, config, store, SystemClock)
    }

    /// The same on another clock.
    pub fn with_clock(
        source: impl Source + 'static,
        config: SyncConfig,
        store: impl BucketStore + 'static,
        clock: impl Clock + 'static,
    ) -> Self {
        let inner = Inner {
            source: Box::new(source),
            config,
            store: Box::new(store),
            clock: Box::new(clock),
            status: Mutex::default(),
        };
        Self { inner: Arc::new(inner), compact_every: Some(COMPACT_EVERY) }
    }

    /// How long after one sweep over the store the next begins, which removes what is superseded by then; 10 minutes
    /// unless said otherwise. `None`: never, for a store that something else [compacts](BucketStore::compact).
    ///
    /// A sweep goes in slices with pauses between them, so that a commit waits for one slice at most. One that fails
    /// is logged, and the next comes after the same time.
    #[must_use]
    pub fn compact_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.compact_every = interval.into();
        self
    }

    /// What it is doing now.
    pub fn status(&self) -> ReplicationStatus {
        self.inner.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replicates until something needs a person. Retries what can pass, with back-off of at most a second.
    ///
    /// # Errors
    /// `Invalid` if the source, the config or the store must be changed by someone; `Data` and `Internal` if stored state
    /// cannot be trusted.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the next run resumes from what is durable.
    pub fn run(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let Self { inner, compact_every } = self.clone();
        async move {
            let upkeep = async {
                match compact_every {
                    Some(every) => Upkeep::new(&*inner.store, &*inner.clock, every).run().await,
                    None => future::pending().await,
                }
            };
            let replication = inner.run();
            futures::pin_mut!(replication, upkeep);
            // Beside all attempts, so that a source that comes and goes does not put it off for ever.
            match future::select(replication, upkeep).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right((never, _)) => match never {},
            }
        }
    }
}

impl Inner {
    async fn run(&self) -> Result<()> {
        let mut delay = FIRST_RETRY;
        loop {
            let commits = self.status(|status| {
                status.phase = ReplicationPhase::Connecting;
                status.commits
            });
            let error = match self.attempt().await {
                // It asked to be opened again, with what is stored now.
                Ok(()) if self.status(|status| status.commits > commits) => {
                    delay = FIRST_RETRY;
                    continue;
                }
                Ok(()) => Error::unavailable("the source ended its stream"),
                Err(error) => error,
            };
            let went_on = self.status(|status| {
                status.phase = ReplicationPhase::Waiting;
                status.error = Some(error.to_string());
                status.commits > commits
            });
            match error.kind() {
                ErrorKind::Unavailable | ErrorKind::Protocol => {}
                ErrorKind::Closed => return Ok(()),
                _ => {
                    self.status(|status| status.phase = ReplicationPhase::Stopped);
                    return Err(error);
                }
            }
            if went_on {
                delay = FIRST_RETRY;
            }
            tracing::warn!(%error, retry_in_ms = delay.as_millis(), "replication was interrupted");
            self.clock.sleep_until(self.clock.now() + delay).await;
            delay = (delay * 2).min(LAST_RETRY);
        }
    }

    /// One run of the source's stream: returns when it ended.
    async fn attempt(&self) -> Result<()> {
        let resume = self.store.resume().await?;
        let deployed = self.deploy(&resume).await?;
        let progress = Progress::resume(resume.replicator_state.as_ref(), resume.position.clone(), self.clock.now())?;
        let start = SourceStart {
            selection: self.config.selection().clone(),
            position: resume.position,
            state: resume.source_state,
        };
        let events = self.source.events(start).await?;
        let applier = Applier::new(self.config.clone(), deployed);
        let mut run = Run { inner: self, progress, applier, call: None, batched_since: None, status_rows: 0, share: 1 };
        let markers = self.send_markers();
        let stream = run.follow(events);
        futures::pin_mut!(markers, stream);
        match future::select(stream, markers).await {
            Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
        }
    }

    /// Sends each pending marker through the source; returns only with an error that does not pass by itself.
    async fn send_markers(&self) -> Result<()> {
        let mut pending: BoxStream<'static, Result<MarkerToken>> = self.store.pending_markers();
        while let Some(token) = pending.next().await {
            let token = token?;
            let mut delay = FIRST_RETRY;
            // What hinders a marker need not hinder changes: the stream goes on meanwhile. One that was sent twice is
            // found the first time.
            while let Err(error) = self.source.emit_marker(&token).await {
                if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Protocol) {
                    return Err(error);
                }
                tracing::warn!(%error, retry_in_ms = delay.as_millis(), "a write checkpoint's marker was not sent");
                self.status(|status| status.error = Some(format!("a marker cannot be sent: {error}")));
                self.clock.sleep_until(self.clock.now() + delay).await;
                delay = (delay * 2).min(LAST_RETRY);
            }
        }
        Err(Error::unavailable("the store ended its stream of markers"))
    }

    /// Makes sure that the store has this config, or says how they differ.
    async fn deploy(&self, resume: &Resume) -> Result<Arc<DeployedConfig>> {
        if let Some(config) = &resume.config {
            self.config.check_deployed(config)?;
            if config.text == *self.config.text() {
                return Ok(Arc::clone(config));
            }
        }
        for event in self.config.unused_event_names() {
            tracing::warn!(event = &**event, "nothing takes this event of the sync config");
        }
        let forms = self.config.forms().cloned().collect();
        let deploy = Deploy { text: self.config.text().clone(), forms };
        self.store.commit(Commit { deploy: Some(deploy), ..Commit::default() }).await?;
        let resume = self.store.resume().await?;
        resume.config.ok_or_else(|| Error::internal("the bucket store forgot the config that it was given"))
    }

    fn status<T>(&self, change: impl FnOnce(&mut ReplicationStatus) -> T) -> T {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The state of one run of the stream.
struct Run<'a> {
    inner: &'a Inner,
    progress: Progress,
    applier: Applier,
    /// What the store is at work on. The next batch is received and evaluated meanwhile.
    call: Option<StoreCall<'a>>,
    /// Since when changes wait for a commit that they share with later ones.
    batched_since: Option<Time>,
    /// Rows since the last commit.
    status_rows: u64,
    /// How many times longer than at first changes wait for others; more with every commit in the midst of a backlog.
    share: u32,
}

impl Run<'_> {
    async fn follow(&mut self, mut events: BoxStream<'static, Result<Vec<SourceEvent>>>) -> Result<()> {
        let mut ready: Option<Option<Result<Vec<SourceEvent>>>> = None;
        loop {
            let next = match ready.take() {
                Some(next) => next,
                None => {
                    self.settle().await?;
                    self.next_batch(&mut events).await?
                }
            };
            let Some(Ok(batch)) = next else {
                self.settle().await?;
                return next.transpose().map(drop);
            };
            for event in batch {
                if let SourceEvent::HistoryLost { reason } = event {
                    self.settle().await?;
                    tracing::error!(reason, "the history of the source is lost; everything is read again");
                    self.inner.store.reset().await?;
                    return Err(Error::unavailable(format!("the history of the source is lost: {reason}")));
                }
                let boundary = matches!(event, SourceEvent::Commit { .. });
                self.handle(event).await?;
                // A batch may end anywhere, and under a backlog always inside a transaction.
                if boundary && self.waited_enough() {
                    self.commit().await?;
                    self.share = (self.share * 2).min(LONGEST_SHARE);
                }
            }
            // Transactions that have arrived already share one commit; a lone one waits for nobody.
            ready = events.next().now_or_never();
            if ready.is_none() {
                self.share = 1;
            }
            let due = ready.is_none() && self.progress.commit_due(self.inner.clock.now());
            if due || self.waited_enough() {
                self.commit().await?;
            }
        }
    }

    /// Whether changes that could be committed have waited for others long enough.
    fn waited_enough(&mut self) -> bool {
        let now = self.inner.clock.now();
        if !self.progress.commit_due(now) {
            return false;
        }
        let since = *self.batched_since.get_or_insert(now);
        now.since(since) >= COMMIT_DELAY * self.share || self.status_rows >= COMMIT_ROWS * u64::from(self.share)
    }

    /// The next batch, storing an idle position when it is time for that.
    async fn next_batch(
        &mut self,
        events: &mut BoxStream<'static, Result<Vec<SourceEvent>>>,
    ) -> Result<Option<Result<Vec<SourceEvent>>>> {
        loop {
            let Some(at) = self.progress.next_idle_commit() else { return Ok(events.next().await) };
            let timer = self.inner.clock.sleep_until(at);
            match future::select(events.next(), timer).await {
                Either::Left((next, _)) => return Ok(next),
                Either::Right(_) => {
                    if self.progress.commit_due(self.inner.clock.now()) {
                        self.commit().await?;
                        self.settle().await?;
                    }
                }
            }
        }
    }

    async fn handle(&mut self, event: SourceEvent) -> Result<()> {
        if let SourceEvent::TableReset { .. }
        | SourceEvent::SnapshotRows { .. }
        | SourceEvent::SnapshotProgress { .. } = event
        {
            // Transactions before a snapshot need not wait for its end to be shown.
            if !self.progress.in_snapshot() && self.progress.commit_due(self.inner.clock.now()) {
                self.commit().await?;
            }
        }
        match event {
            // Handled by the caller, who ends the run.
            SourceEvent::HistoryLost { .. } => {}
            SourceEvent::TableReset { table } => {
                self.truncate(vec![table]).await?;
                self.progress.snapshot_rows();
            }
            SourceEvent::SnapshotRows { table, rows } => {
                self.status_rows += rows.len() as u64;
                self.applier.snapshot(&table, rows, &mut self.progress)?;
                self.progress.snapshot_rows();
            }
            SourceEvent::SnapshotProgress { state, progress } => {
                self.inner.status(|status| {
                    status.phase = ReplicationPhase::Snapshot;
                    status.snapshot = Some(progress);
                });
                self.progress.snapshot_unit(state);
                self.commit().await?;
            }
            SourceEvent::SnapshotDone { no_checkpoint_before, state } => {
                self.progress.snapshot_done(no_checkpoint_before, state);
                self.commit().await?;
                self.settle().await?;
                self.inner.status(|status| {
                    status.phase = ReplicationPhase::Streaming;
                    status.snapshot = None;
                });
            }
            SourceEvent::Put { table, row, old_key } => {
                self.status_rows += 1;
                self.applier.put(table, row, old_key, &mut self.progress)?;
                self.progress.transaction_change();
            }
            SourceEvent::Remove { key, .. } => {
                self.status_rows += 1;
                self.applier.remove(key);
                self.progress.transaction_change();
            }
            SourceEvent::Truncate { tables } => {
                self.truncate(tables).await?;
                self.progress.transaction_change();
            }
            SourceEvent::Marker(token) => self.progress.marker(token),
            SourceEvent::Commit { position, committed_at, state } => {
                self.progress.transaction_end(position, state);
                if committed_at.is_some() {
                    self.inner.status(|status| status.last_committed_at = committed_at);
                }
            }
            SourceEvent::Progress { position, awaited } => self.progress.idle(position, awaited),
        }
        if self.applier.is_full() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn truncate(&mut self, tables: Vec<crate::table::TableId>) -> Result<()> {
        self.flush().await?;
        let batch = AppendBatch { truncate: tables, ..Default::default() };
        self.append(batch).await
    }

    /// Hands on what was evaluated. The store is at work on it when this returns.
    async fn flush(&mut self) -> Result<()> {
        if self.applier.is_empty() {
            return Ok(());
        }
        self.settle().await?;
        let batch = self.applier.take_batch(&*self.inner.store, &*self.inner.source, &mut self.progress).await?;
        if batch.is_empty() { Ok(()) } else { self.append(batch).await }
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<()> {
        self.settle().await?;
        let store = &self.inner.store;
        let append = async move { store.append(batch).await.map(|()| None) };
        self.call = Some(StoreCall::begin(append.boxed(), None));
        Ok(())
    }

    /// Begins one durable step.
    async fn commit(&mut self) -> Result<()> {
        self.flush().await?;
        self.settle().await?;
        let due = self.progress.due_commit()?;
        let publish = due.publish;
        let commit = Commit {
            position: due.position,
            source_state: due.source_state,
            replicator_state: due.replicator_state,
            deploy: None,
            markers: due.markers,
            publish,
        };
        self.batched_since = None;
        let sent = SentCommit {
            position: self.progress.committing(self.inner.clock.now(), publish).cloned(),
            rows: std::mem::take(&mut self.status_rows),
            failed: self.applier.take_failures(),
            blocker: self.progress.blocker(),
        };
        let store = &self.inner.store;
        let commit = async move { store.commit(commit).await };
        self.call = Some(StoreCall::begin(commit.boxed(), sent));
        Ok(())
    }

    /// Waits for the end of what the store is at work on. Only once a commit is durable may the source forget.
    async fn settle(&mut self) -> Result<()> {
        let Some(call) = self.call.take() else { return Ok(()) };
        let (checkpoint, sent) = call.end().await?;
        let Some(sent) = sent else { return Ok(()) };
        if let Some(position) = &sent.position {
            self.inner.source.acknowledge(position);
        }
        self.inner.status(|status| {
            status.commits += 1;
            status.rows += sent.rows;
            status.failed_rows += sent.failed;
            status.error = None;
            status.blocked_by = sent.blocker;
            if status.phase == ReplicationPhase::Connecting {
                status.phase = ReplicationPhase::Streaming;
            }
            if sent.position.is_some() {
                status.position = sent.position;
            }
        });
        if let Some(checkpoint) = checkpoint {
            tracing::debug!(op_id = checkpoint.op_id.0, "published a checkpoint");
        }
        Ok(())
    }
}
