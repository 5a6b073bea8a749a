//! Obeys one [`ServerSession`]: the only place of the server's side that awaits.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{self, BoxFuture, Either, FutureExt};

use super::event::{CheckpointUpdate, ResolvedStreams, ServerCommand, ServerEvent, ServerLine, Touched};
use super::fan_out::{Membership, Notice};
use super::renewal::NewExpiry;
use super::resolution::{Resolved, StreamResolver};
use super::send_budget::{HeldBytes, Share};
use super::service::{Inner, StreamPermit};
use super::session::ServerSession;
use crate::bucket::{BucketId, Generation};
use crate::bucket_store::ReadRequest;
use crate::checkpoint::{Checkpoint, LookupKey};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::lookup_change::LookupChange;
use crate::operation::OpId;
use crate::protocol::{DataHeader, Framing, SyncRequest};
use crate::time::Time;
use crate::write_checkpoint::ClientKey;

/// Lines are handed to the transport in pieces of about this size.
const COALESCE: usize = 32 << 10;
/// A line of fewer bytes is not counted against what all streams may hold.
const UNCOUNTED: usize = 16 << 10;

/// An answer of the store that has not come yet.
type Asked = BoxFuture<'static, Result<Answer>>;

enum Answer {
    Told(ServerEvent),
    /// Sums cannot be had at this checkpoint, or not at all.
    Gone(Error),
}

/// A checkpoint whose buckets are being found.
struct Resolving {
    checkpoint: Checkpoint,
    since: OpId,
    touched: Touched,
    asked: BoxFuture<'static, Result<Vec<LookupChange>>>,
}

/// One stream: its session and what it needs to obey it.
pub(super) struct StreamDriver {
    inner: Arc<Inner>,
    session: ServerSession,
    membership: Membership,
    /// Who asks for what, until it is resolved: it may be larger than all else that a stream keeps.
    request: Option<(Identity, SyncRequest)>,
    client: ClientKey,
    framing: Framing,
    resolved_at: Option<Generation>,
    /// Kept as long as the buckets of the request may change.
    resolver: Option<Box<StreamResolver>>,
    resolving: Option<Box<Resolving>>,
    buffer: Vec<u8>,
    /// A line that waits for its share of what all streams may hold, and the asking for it.
    held: Option<ServerLine>,
    asking: Option<BoxFuture<'static, Share>>,
    /// The share of what is in the buffer.
    share: Option<Share>,
    /// What the store was asked.
    asked: Option<Asked>,
    /// A timer that goes off then, kept from wait to wait.
    timer: Option<(Time, BoxFuture<'static, ()>)>,
    ended: bool,
    /// Where a new token is told of.
    renewal: Option<Arc<NewExpiry>>,
    _permit: StreamPermit,
}

impl StreamDriver {
    pub(super) fn new(
        inner: Arc<Inner>,
        identity: Identity,
        request: SyncRequest,
        framing: Framing,
        permit: StreamPermit,
    ) -> Result<Self> {
        let (limit, subscriptions) = (inner.limits.subscriptions_per_stream, &request.streams);
        if subscriptions.as_ref().is_some_and(|streams| streams.subscriptions.len() > limit) {
            let message = format!(
                "the request has more than {limit} subscriptions: ask for fewer, or raise \
                 `ServiceLimits::subscriptions_per_stream`"
            );
            return Err(Error::invalid(message).with_code("PSYNC_S2305"));
        }
        let session = ServerSession::new(&identity, &request, inner.limits.session, inner.clock.now())?;
        let membership = inner.fan_out.join();
        let client = ClientKey::new(&identity, request.client_id.as_deref());
        Ok(Self {
            inner,
            session,
            membership,
            request: Some((identity, request)),
            client,
            framing,
            resolved_at: None,
            resolver: None,
            resolving: None,
            buffer: Vec::new(),
            held: None,
            asking: None,
            share: None,
            asked: None,
            timer: None,
            ended: false,
            renewal: None,
            _permit: permit,
        })
    }

    /// The stream takes new tokens from there. It looks whenever it is told something, and so at the latest when the old one ends.
    pub(super) fn renewed_by(mut self, renewal: Arc<NewExpiry>) -> Self {
        self.renewal = Some(renewal);
        self
    }

    /// The next bytes for the client; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.ended {
            return None;
        }
        match self.fill().await {
            Ok(()) if self.buffer.is_empty() => None,
            Ok(()) => Some(Ok(self.piece())),
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }

    /// What is in the buffer, with its share.
    fn piece(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.buffer);
        match self.share.take() {
            None => bytes.into(),
            Some(mut share) => {
                share.settle(bytes.capacity());
                Bytes::from_owner(HeldBytes { bytes, _share: share })
            }
        }
    }

    /// Runs until there are bytes to send and nothing more without waiting, or until the end.
    async fn fill(&mut self) -> Result<()> {
        let mut late = false;
        loop {
            self.look()?;
            if self.held.is_some() && !self.send_held().await? {
                return Ok(());
            }
            match self.session.poll() {
                Some(ServerCommand::Send(line)) => {
                    if size(&line) >= UNCOUNTED {
                        self.held = Some(line);
                        continue;
                    }
                    self.encode(&line);
                }
                Some(ServerCommand::Describe { at, buckets, write_checkpoint }) => {
                    self.asked = Some(self.describe(at, buckets, write_checkpoint)?);
                }
                Some(ServerCommand::Read(requests)) => self.asked = Some(self.read(requests)?),
                Some(ServerCommand::Close) => {
                    (self.asked, self.resolving) = (None, None);
                    self.ended = true;
                    return Ok(());
                }
                // Nothing comes soon: what there is, is sent.
                None if !self.buffer.is_empty() && (late || !self.is_asking()) => return Ok(()),
                None if self.is_asking() => late |= !self.answer().await?,
                None => self.wait().await?,
            }
            if self.buffer.len() >= COALESCE {
                return Ok(());
            }
        }
    }

    /// Encodes the line that waits once it has its share; whether to go on. What is in the buffer is handed over first: its
    /// share may be the one that is missing.
    async fn send_held(&mut self) -> Result<bool> {
        let Some(bytes) = self.held.as_ref().filter(|_| !self.session.is_closed()).map(size) else {
            // A session that ends takes back what it has not said.
            (self.held, self.asking) = (None, None);
            return Ok(true);
        };
        if !self.buffer.is_empty() {
            return Ok(false);
        }
        while self.share.is_none() {
            let (due, mut timer) = self.take_timer();
            let asking = self.asking.get_or_insert_with(|| self.inner.sends.clone().take(bytes).boxed());
            match future::select(asking, &mut timer).await {
                Either::Left((share, _)) => {
                    self.timer = Some((due, timer));
                    self.asking = None;
                    self.share = Some(share);
                }
                Either::Right(_) => self.look()?,
            }
            if self.session.is_closed() {
                (self.held, self.asking, self.share) = (None, None, None);
                return Ok(true);
            }
        }
        if let Some(line) = self.held.take() {
            self.encode(&line);
        }
        Ok(self.buffer.len() < COALESCE)
    }

    fn describe(&self, at: OpId, buckets: Vec<BucketId>, write_checkpoint: bool) -> Result<Asked> {
        let (inner, client, generation) = (Arc::clone(&self.inner), self.client.clone(), self.generation()?);
        Ok(async move {
            let checksums = match inner.reads.checksums(generation, at, &buckets).await {
                Ok(checksums) => checksums,
                Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(Answer::Gone(error)),
                Err(error) => return Err(error),
            };
            let write_checkpoint = match write_checkpoint {
                true => inner.store.write_checkpoints(at, &[client]).await?.pop().flatten(),
                false => None,
            };
            Ok(Answer::Told(ServerEvent::Described { checksums, write_checkpoint }))
        }
        .boxed())
    }

    fn read(&self, requests: Vec<ReadRequest>) -> Result<Asked> {
        let (inner, generation) = (Arc::clone(&self.inner), self.generation()?);
        Ok(async move {
            let chunks = inner.reads.read(generation, &requests).await?;
            Ok(Answer::Told(ServerEvent::Read(chunks)))
        }
        .boxed())
    }

    /// Whether the store was asked something.
    fn is_asking(&self) -> bool {
        self.asked.is_some() || self.resolving.is_some()
    }

    /// Waits for an answer of the store, or until the session wants to be ticked: signs of life are sent and a token ends
    /// also while a store is slow. Returns whether an answer came.
    async fn answer(&mut self) -> Result<bool> {
        let (due, mut timer) = self.take_timer();
        let found = match &mut self.resolving {
            Some(resolving) => (&mut resolving.asked).left_future(),
            None => future::pending().right_future(),
        };
        let answer = match &mut self.asked {
            Some(asked) => asked.left_future(),
            None => future::pending().right_future(),
        };
        let come = match future::select(future::select(found, answer), &mut timer).await {
            Either::Left((Either::Left((found, _)), _)) => Either::Left(found),
            Either::Left((Either::Right((answer, _)), _)) => Either::Right(answer),
            Either::Right(_) => return Ok(false),
        };
        self.timer = Some((due, timer));
        match come {
            Either::Left(found) => self.found(found)?,
            Either::Right(answer) => {
                self.asked = None;
                self.inner.note(&answer);
                self.told(answer?)?;
            }
        }
        Ok(true)
    }

    fn told(&mut self, answer: Answer) -> Result<()> {
        match answer {
            Answer::Told(event) => self.tell(event),
            // If compaction went past the checkpoint there is a newer one already; if not, the store itself is away.
            Answer::Gone(error) if self.resolving.is_none() => match self.membership.look(true)? {
                Some(notice) => {
                    self.tell(ServerEvent::Gone)?;
                    self.notice(notice)
                }
                None => Err(error),
            },
            Answer::Gone(_) => self.tell(ServerEvent::Gone),
        }
    }

    /// Rows were looked up for the checkpoint whose buckets are being found.
    fn found(&mut self, answers: Result<Vec<LookupChange>>) -> Result<()> {
        let Some(resolving) = self.resolving.take() else { return Ok(()) };
        self.inner.note(&answers);
        let Resolving { checkpoint, since, touched, .. } = *resolving;
        match answers {
            Ok(answers) => {
                let resolver = self.resolver.as_mut().ok_or_else(|| Error::internal("nothing is being resolved"))?;
                resolver.answer(answers)?;
                self.resolve(checkpoint, since, touched)
            }
            // Compaction went past the checkpoint, as above. What changed up to it is still to be told.
            Err(error) if error.kind() == ErrorKind::Unavailable => match self.membership.look(true)? {
                Some(Notice::Checkpoint { checkpoint, touched: newer, .. }) => {
                    let mut touched = touched;
                    touched.merge(newer);
                    self.notice(Notice::Checkpoint { checkpoint, since, touched })
                }
                Some(notice) => self.notice(notice),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Looks for what does not wait for the end of a download: a newer checkpoint, once the session may be interrupted,
    /// what time brings, and the end of the service.
    fn look(&mut self) -> Result<()> {
        let (now, wall) = (self.inner.clock.now(), self.inner.clock.wall());
        if self.session.poll_timeout(now, wall) <= now {
            self.tell(ServerEvent::Tick)?;
        }
        match self.membership.look(self.session.wants_checkpoint() && self.resolving.is_none())? {
            Some(notice) => self.notice(notice),
            None => Ok(()),
        }
    }

    /// Waits for a checkpoint that concerns this stream, or until the session wants to be ticked.
    async fn wait(&mut self) -> Result<()> {
        let (due, mut timer) = self.take_timer();
        let notice = match future::select(self.membership.next(), &mut timer).await {
            Either::Left((notice, _)) => Some(notice?),
            Either::Right(_) => None,
        };
        // Without a notice the next look tells what time brings.
        let Some(notice) = notice else { return Ok(()) };
        self.timer = Some((due, timer));
        self.notice(notice)
    }

    /// A timer that goes off when the session wants to be ticked, or a little earlier.
    fn take_timer(&mut self) -> (Time, BoxFuture<'static, ()>) {
        let clock = &self.inner.clock;
        let due = self.session.poll_timeout(clock.now(), clock.wall());
        match self.timer.take() {
            Some(timer) if timer.0 <= due => timer,
            _ => (due, clock.sleep_until(due)),
        }
    }

    fn tell(&mut self, event: ServerEvent) -> Result<()> {
        let (now, wall) = (self.inner.clock.now(), self.inner.clock.wall());
        // Before all else, since whatever is told ends the session whose token has ended.
        if let Some(expiry) = self.renewal.as_ref().and_then(|renewal| renewal.take()) {
            self.session.handle(now, wall, ServerEvent::Renewed(expiry))?;
        }
        self.session.handle(now, wall, event)
    }

    fn notice(&mut self, notice: Notice) -> Result<()> {
        match notice {
            Notice::Closing => self.tell(ServerEvent::Closing),
            Notice::Checkpoint { checkpoint, since, touched } => {
                if let Some((identity, request)) = self.request.take() {
                    let limits = (self.inner.limits.buckets_per_stream, Arc::clone(&self.inner.buckets));
                    let config = self.inner.compiled(&checkpoint.config)?;
                    let (deployed, generation) = (Arc::clone(&checkpoint.config), checkpoint.generation);
                    let resolver = StreamResolver::new(&config, deployed, generation, &identity, request, limits);
                    self.resolver = Some(Box::new(resolver));
                    self.resolved_at = Some(checkpoint.generation);
                    // Whatever changed while the buckets were not known yet must be looked at.
                    return self.resolve(checkpoint, since, Touched::Unknown);
                }
                if let Some(resolver) = &mut self.resolver {
                    if !resolver.is_of(&checkpoint) {
                        // Another config or store: the client connects again.
                        return self.tell(ServerEvent::Closing);
                    }
                    if resolver.note(&touched) {
                        // What changes after this checkpoint may concern the buckets that are found.
                        self.membership.set_undecided(checkpoint.op_id);
                        return self.resolve(checkpoint, since, touched);
                    }
                }
                self.tell(ServerEvent::Checkpoint(CheckpointUpdate { checkpoint, touched, resolved: None }))
            }
        }
    }

    /// Finds the buckets of the request at a checkpoint, as far as that goes without asking, and tells the session once they
    /// are known. What it knew of lookups that have changed was so up to `since`.
    fn resolve(&mut self, checkpoint: Checkpoint, since: OpId, touched: Touched) -> Result<()> {
        let resolver = self.resolver.as_mut().ok_or_else(|| Error::internal("a stream without a request"))?;
        match resolver.step()? {
            Resolved::Asks(keys) => {
                let asked = self.look_up(checkpoint.op_id, keys);
                self.resolving = Some(Box::new(Resolving { checkpoint, since, touched, asked }));
                Ok(())
            }
            Resolved::AsksWhatChanged(keys) => {
                let asked = self.look_up_changes(since, checkpoint.op_id, keys);
                self.resolving = Some(Box::new(Resolving { checkpoint, since, touched, asked }));
                Ok(())
            }
            Resolved::Done { streams, interest } => {
                if !resolver.is_dynamic() {
                    self.resolver = None;
                }
                self.membership.set_interest(interest, &self.client);
                self.tell_resolved(checkpoint, touched, streams)
            }
        }
    }

    fn tell_resolved(&mut self, checkpoint: Checkpoint, touched: Touched, streams: ResolvedStreams) -> Result<()> {
        let resolved = Some(streams);
        self.tell(ServerEvent::Checkpoint(CheckpointUpdate { checkpoint, touched, resolved }))
    }

    fn look_up(&self, at: OpId, keys: Vec<LookupKey>) -> BoxFuture<'static, Result<Vec<LookupChange>>> {
        let inner = Arc::clone(&self.inner);
        let whole = |rows: Vec<_>| rows.into_iter().map(LookupChange::Whole).collect();
        async move { inner.store.lookup(at, &keys).await.map(whole) }.boxed()
    }

    fn look_up_changes(
        &self,
        since: OpId,
        at: OpId,
        keys: Vec<LookupKey>,
    ) -> BoxFuture<'static, Result<Vec<LookupChange>>> {
        let inner = Arc::clone(&self.inner);
        async move { inner.store.lookup_changes(since, at, &keys).await }.boxed()
    }

    /// The generation of the store that this stream is of.
    fn generation(&self) -> Result<Generation> {
        self.resolved_at.ok_or_else(|| Error::internal("a stream reads before it has resolved its buckets"))
    }

    fn encode(&mut self, line: &ServerLine) {
        let (framing, out) = (self.framing, &mut self.buffer);
        match line {
            ServerLine::Checkpoint(line) => framing.checkpoint(out, line),
            ServerLine::CheckpointDiff(line) => framing.checkpoint_diff(out, line),
            ServerLine::Data { bucket, chunks, after, next_after, has_more } => {
                let header = DataHeader { bucket, after: *after, next_after: *next_after, has_more: *has_more };
                framing.data(out, header, chunks);
            }
            ServerLine::Complete { last_op_id } => framing.complete(out, *last_op_id),
            ServerLine::PartialComplete { last_op_id, priority } => {
                framing.partial_complete(out, *last_op_id, *priority);
            }
            ServerLine::TokenExpiresIn(seconds) => framing.token_expires_in(out, *seconds),
        }
    }
}

/// About how many bytes a line will have: those of its operations.
fn size(line: &ServerLine) -> usize {
    match line {
        ServerLine::Data { chunks, .. } => chunks.iter().map(|(chunk, range)| chunk.body_size(range.clone())).sum(),
        _ => 0,
    }
}
