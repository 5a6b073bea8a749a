//! A network in this process, which can break, around the transport in memory: as it should be, or with a fault.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, BoxStream, StreamExt};
use syncline_core::memory::MemoryTransport;
use syncline_core::protocol::SyncRequest;
use syncline_core::testing::transport_suite::{Network, Wire};
use syncline_core::{
    Bytes, Clock, Credentials, Error, LineStream, Result, SyncService, SystemClock, Transport, WriteCheckpoint,
    async_trait,
};

use crate::broken::Fault;

/// How long an impatient client waits for a silent server.
const IMPATIENCE: Duration = Duration::from_millis(200);

type Pieces = BoxStream<'static, Result<Bytes>>;

/// Where all connections are known.
#[derive(Debug)]
pub(crate) struct LocalNetwork {
    patience: Duration,
    fault: Option<Fault>,
    state: Arc<State>,
}

/// The state of the network, and who waits for it to change.
#[derive(Default)]
struct State(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    stalled: bool,
    cuts: u64,
    wakers: Vec<Waker>,
    /// Streams that a fault keeps open.
    kept: Vec<Pieces>,
    /// Streams that are open.
    open: usize,
    number: Option<WriteCheckpoint>,
    first_token: Option<Credentials>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let (outcome, wakers) = {
            let mut inner = self.0.lock().unwrap();
            (change(&mut inner), std::mem::take(&mut inner.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        outcome
    }

    /// Ready once this holds.
    async fn until(&self, condition: impl Fn(&Inner) -> bool) {
        std::future::poll_fn(|cx| {
            let mut inner = self.0.lock().unwrap();
            if condition(&inner) {
                return Poll::Ready(());
            }
            inner.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl LocalNetwork {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, fault: None, state: Arc::default() }
    }

    pub(crate) fn broken(fault: Fault, patience: Duration) -> Self {
        Self { patience, fault: Some(fault), state: Arc::default() }
    }

    fn transport(&self, server: Option<SyncService>, limit: Option<Duration>) -> Arc<dyn Transport> {
        let limit = if self.fault == Some(Fault::WaitsForever) { None } else { limit };
        let server = server.map(MemoryTransport::new);
        Arc::new(LocalTransport { server, limit, fault: self.fault, state: Arc::clone(&self.state) })
    }
}

#[async_trait]
impl Wire for LocalNetwork {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        self.transport(Some(service), None)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

#[async_trait]
impl Network for LocalNetwork {
    async fn connect_to_nobody(&self) -> Arc<dyn Transport> {
        self.transport(None, None)
    }

    async fn connect_impatiently(&self, service: SyncService) -> Arc<dyn Transport> {
        self.transport(Some(service), Some(IMPATIENCE))
    }

    async fn cut(&self) {
        self.state.change(|state| state.cuts += 1);
    }

    async fn stall(&self) {
        self.state.change(|state| state.stalled = true);
    }
}

/// A client's end.
#[derive(Debug)]
struct LocalTransport {
    /// The server, if there is one.
    server: Option<MemoryTransport>,
    /// How long a silent server is waited for.
    limit: Option<Duration>,
    fault: Option<Fault>,
    state: Arc<State>,
}

impl LocalTransport {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn server(&self) -> Result<&MemoryTransport> {
        let absent = || match self.has(Fault::AbsenceIsInvalid) {
            true => Error::invalid("there is no such server"),
            false => Error::unavailable("the server cannot be reached"),
        };
        self.server.as_ref().ok_or_else(absent)
    }

    /// Waits while nothing passes.
    async fn pass(&self) -> Result<()> {
        within(self.limit, self.state.until(|state| !state.stalled)).await
    }
}

/// Only within a limit, if there is one.
async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Result<T> {
    let Some(limit) = limit else { return Ok(future.await) };
    match select(Box::pin(future), SystemClock.sleep_until(SystemClock.now() + limit)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(_) => Err(Error::unavailable("nothing came from the server")),
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        self.pass().await?;
        let mut request = request.clone();
        let mut credentials = credentials.clone();
        match self.fault {
            Some(Fault::ForgetsParameters) => request.parameters = Default::default(),
            Some(Fault::ForgetsSubscriptions) => request.streams = None,
            Some(Fault::SharesTheFirstToken) => {
                credentials = self.state.change(|state| state.first_token.get_or_insert(credentials).clone());
            }
            Some(Fault::FewStreams) if self.state.change(|state| state.open) >= 16 => {
                return Err(Error::unavailable("no more connections"));
            }
            _ => {}
        }
        let opened = self.server()?.open(&request, &credentials).await;
        let opened = opened.map_err(|error| match self.has(Fault::RefusalIsUnavailable) {
            true => Error::unavailable("the server refused").caused_by(error),
            false => error,
        })?;
        let LineStream { framing, bytes } = opened;
        if self.has(Fault::LeavesCancelledOpens) {
            // On its way for a moment, and kept by nobody who would notice that it is not wanted any more.
            self.state.change(|state| state.kept.push(bytes));
            step().await;
            let bytes = self.state.change(|state| state.kept.pop()).unwrap();
            return Ok(LineStream { framing, bytes: self.guarded(bytes) });
        }
        let bytes = match self.fault {
            Some(fault) => broken(bytes, fault, Arc::clone(&self.state)),
            // Small pieces, cut anywhere.
            None => bytes.map(|piece| piece.map(cut)).flat_map(pieces).boxed(),
        };
        Ok(LineStream { framing, bytes: self.guarded(bytes) })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        self.pass().await?;
        let server = self.server()?;
        let client_id = if self.has(Fault::OneClientForAll) { "somebody" } else { client_id };
        let number = server.write_checkpoint(client_id, credentials).await.map_err(|error| {
            match self.has(Fault::RefusalIsUnavailable) {
                true => Error::unavailable("the server refused").caused_by(error),
                false => error,
            }
        })?;
        if self.has(Fault::RemembersNumbers) {
            return Ok(self.state.change(|state| *state.number.get_or_insert(number)));
        }
        Ok(number)
    }
}

/// Once around.
async fn step() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Two pieces of one, the second of which begins anywhere.
fn cut(mut piece: Bytes) -> Vec<Bytes> {
    let at = piece.len() / 3;
    let first = piece.split_to(at);
    vec![first, piece]
}

fn pieces(pieces: Result<Vec<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
    match pieces {
        Ok(pieces) => stream::iter(pieces.into_iter().map(Ok)).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    }
}

/// Counts an open stream.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.change(|inner| inner.open += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|inner| inner.open -= 1);
    }
}

impl LocalTransport {
    /// A stream that breaks with the network, and whose server is let go with it.
    fn guarded(&self, bytes: Pieces) -> Pieces {
        let state = Arc::clone(&self.state);
        let cuts = state.change(|inner| inner.cuts);
        let (limit, fault, open) = (self.limit, self.fault, Open::new(&state));
        let guarded = Some((bytes, state, open));
        stream::unfold(guarded, move |guarded| async move {
            let (mut bytes, state, open) = guarded?;
            let next = {
                let passing = async {
                    state.until(|inner| !inner.stalled).await;
                    bytes.next().await
                };
                let broken = state.until(|inner| inner.cuts != cuts);
                let (passing, broken) = (Box::pin(within(limit, passing)), Box::pin(broken));
                match select(broken, passing).await {
                    Either::Left(_) if fault == Some(Fault::CutIsAnEnd) => return None,
                    Either::Left(_) => Err(Error::unavailable("the connection broke")),
                    Either::Right((next, _)) => next,
                }
            };
            match next {
                Ok(None) => None,
                Ok(Some(Ok(piece))) => Some((Ok(piece), Some((bytes, state, open)))),
                Ok(Some(Err(error))) | Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// A stream with a fault.
fn broken(bytes: Pieces, fault: Fault, state: Arc<State>) -> Pieces {
    match fault {
        Fault::LosesAPiece => bytes.enumerate().filter_map(async |(at, piece)| (at != 1).then_some(piece)).boxed(),
        Fault::AddsBlankLines => {
            let blank = |piece: Bytes| [&piece[..], b"\n"].concat().into();
            bytes.map(move |piece| piece.map(blank)).boxed()
        }
        Fault::LimitsLines => {
            let limited = |piece: Bytes| match piece.len() > 1 << 20 {
                true => Err(Error::protocol("this line is too long")),
                false => Ok(piece),
            };
            bytes.map(move |piece| piece.and_then(limited)).boxed()
        }
        Fault::OneAtATime if state.change(|inner| inner.open) > 0 => stream::pending().boxed(),
        Fault::FailureIsAnEnd => bytes.take_while(|piece| futures::future::ready(piece.is_ok())).boxed(),
        Fault::KeepsDroppedStreams => {
            // The server's end stays with the network.
            let (sender, receiver) = futures::channel::mpsc::unbounded();
            let forwarded = bytes.inspect(move |piece| {
                let _ = sender.unbounded_send(piece.clone());
            });
            state.change(|inner| inner.kept.push(forwarded.boxed()));
            let mut receiver = receiver;
            stream::poll_fn(move |cx| {
                let mut inner = state.0.lock().unwrap();
                inner.kept.iter_mut().for_each(|kept| drop(kept.poll_next_unpin(cx)));
                receiver.poll_next_unpin(cx)
            })
            .boxed()
        }
        Fault::NeverEnds => bytes.chain(stream::pending()).boxed(),
        Fault::EndsWithAnError => {
            bytes.chain(stream::iter([Err(Error::unavailable("the connection was closed"))])).boxed()
        }
        _ => bytes,
    }
}

/// What the transport in memory is served by, without a network around it.
#[derive(Debug)]
pub(crate) struct InMemory;

#[async_trait]
impl Wire for InMemory {
    async fn connect(&self, service: SyncService) -> Arc<dyn Transport> {
        Arc::new(MemoryTransport::new(service))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}
