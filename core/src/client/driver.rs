//! Carries out what a client session asks for: one future, no runtime.
//!
//! At most one call of each kind is under way, so all of them are polled at each wake-up. Nothing of the store is held
//! while the network is waited for: a call of the store is a future of its own, which ends before its answer is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::client_store::ClientStore;
use crate::clock::Clock;
use crate::connector::{Connector, Credentials};
use crate::error::{BoxError, Error, Result};
use crate::local_transaction::Uploaded;
use crate::protocol::{ClientLine, LineDecoder};
use crate::time::Time;
use crate::transport::{LineStream, Transport};
use crate::write_checkpoint::WriteCheckpoint;

use super::event::{Call, ClientCommand, ClientEvent, StoreCommand, StoreReply};
use super::session::ClientSession;
use super::{Shared, SyncClient};

/// After so many rounds without a pause, other tasks get their turn.
const ROUNDS: usize = 128;
/// Bytes that are taken from a stream before they are told.
const READ_BYTES: usize = 256 << 10;

pub(super) struct Driver {
    store: Arc<dyn ClientStore>,
    transport: Arc<dyn Transport>,
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    line_bytes: usize,
    session: ClientSession,
    store_call: Option<BoxFuture<'static, StoreReply>>,
    credentials_call: Option<BoxFuture<'static, Result<Credentials>>>,
    upload_call: Option<BoxFuture<'static, Result<Uploaded>>>,
    write_checkpoint_call: Option<BoxFuture<'static, Result<WriteCheckpoint>>>,
    open_call: Option<BoxFuture<'static, Result<LineStream>>>,
    stream: Option<(BoxStream<'static, Result<bytes::Bytes>>, LineDecoder)>,
    upload_changes: Option<BoxStream<'static, ()>>,
    timer: Option<(Time, BoxFuture<'static, ()>)>,
    stopped: Option<Result<()>>,
}

impl Driver {
    pub(super) fn new(client: &SyncClient) -> Self {
        let seed = client.seed.unwrap_or_else(|| client.clock.wall().0.unsigned_abs());
        Self {
            store: Arc::clone(&client.store),
            transport: Arc::clone(&client.transport),
            connector: Arc::clone(&client.connector),
            clock: Arc::clone(&client.clock),
            shared: Arc::clone(&client.shared),
            line_bytes: client.options.limits.line_bytes,
            session: ClientSession::new(client.options.clone(), seed),
            store_call: None,
            credentials_call: None,
            upload_call: None,
            write_checkpoint_call: None,
            open_call: None,
            stream: None,
            // Before the queue is first read, lest a change between the two is missed.
            upload_changes: Some(client.store.upload_changes()),
            timer: None,
            stopped: None,
        }
    }

    /// The first events.
    pub(super) fn start(&mut self) {
        self.shared.changed.store(true, Ordering::Release);
        self.tell(ClientEvent::Tick);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.shared.runner.register(cx.waker());
        for _ in 0..ROUNDS {
            let mut moved = self.poll_calls(cx);
            moved |= self.poll_stream(cx);
            moved |= self.poll_signals(cx);
            moved |= self.poll_timer(cx);
            self.shared.feed.show(self.session.status());
            if let Some(result) = self.stopped.take() {
                return Poll::Ready(result);
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the session what happened, and starts what it asks for.
    fn tell(&mut self, event: ClientEvent) {
        self.session.handle(self.clock.now(), self.clock.wall(), event);
        while let Some(command) = self.session.poll() {
            self.start_command(command);
        }
    }

    fn start_command(&mut self, command: ClientCommand) {
        match command {
            ClientCommand::Store(command) => self.store_call = Some(call_store(Arc::clone(&self.store), command)),
            ClientCommand::FetchCredentials => {
                let connector = Arc::clone(&self.connector);
                self.credentials_call =
                    Some(Box::pin(async move { connector.credentials().await.map_err(connector_error) }));
            }
            ClientCommand::Open { request, credentials } => {
                let transport = Arc::clone(&self.transport);
                self.stream = None;
                self.open_call = Some(Box::pin(async move { transport.open(&request, &credentials).await }));
            }
            ClientCommand::CloseStream => {
                self.open_call = None;
                self.stream = None;
            }
            ClientCommand::Upload { transaction, credentials } => {
                let connector = Arc::clone(&self.connector);
                self.upload_call = Some(Box::pin(async move {
                    connector.upload(&transaction, &credentials).await.map_err(connector_error)
                }));
            }
            ClientCommand::RequestWriteCheckpoint { client_id, credentials } => {
                let transport = Arc::clone(&self.transport);
                self.write_checkpoint_call =
                    Some(Box::pin(async move { transport.write_checkpoint(&client_id, &credentials).await }));
            }
            ClientCommand::Abandon(Call::Credentials) => self.credentials_call = None,
            ClientCommand::Abandon(Call::Upload) => self.upload_call = None,
            ClientCommand::Abandon(Call::WriteCheckpoint) => self.write_checkpoint_call = None,
            ClientCommand::Stop(result) => self.stopped = Some(result),
        }
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if let Some(reply) = poll_call(&mut self.store_call, cx) {
            self.tell(ClientEvent::Store(reply));
            moved = true;
        }
        if let Some(reply) = poll_call(&mut self.credentials_call, cx) {
            self.tell(ClientEvent::Credentials(reply));
            moved = true;
        }
        if let Some(reply) = poll_call(&mut self.upload_call, cx) {
            self.tell(ClientEvent::Uploaded(reply));
            moved = true;
        }
        if let Some(reply) = poll_call(&mut self.write_checkpoint_call, cx) {
            self.tell(ClientEvent::WriteCheckpoint(reply));
            moved = true;
        }
        if let Some(reply) = poll_call(&mut self.open_call, cx) {
            match reply {
                Ok(LineStream { framing, bytes }) => {
                    self.stream = Some((bytes, LineDecoder::new(framing, self.line_bytes)));
                    self.tell(ClientEvent::Opened);
                }
                Err(error) => self.tell(ClientEvent::StreamEnded(Err(error))),
            }
            moved = true;
        }
        moved
    }

    /// Reads what has arrived and tells it as one.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.session.wants_lines() {
            return false;
        }
        let Some((bytes, decoder)) = &mut self.stream else { return false };
        let mut lines = Vec::new();
        let mut read = 0;
        let ended = loop {
            if read >= READ_BYTES {
                break None;
            }
            match bytes.poll_next_unpin(cx) {
                Poll::Pending => break None,
                Poll::Ready(None) => {
                    let last = decoder.finish();
                    break Some(last.map(|line| lines.extend(line)));
                }
                Poll::Ready(Some(Err(error))) => break Some(Err(error)),
                Poll::Ready(Some(Ok(chunk))) => {
                    read += chunk.len().max(1);
                    decoder.push(chunk);
                    if let Err(error) = decode(decoder, &mut lines) {
                        break Some(Err(error));
                    }
                }
            }
        };
        if ended.is_some() {
            self.stream = None;
        }
        if !lines.is_empty() {
            self.tell(ClientEvent::Lines(lines));
        } else if read > 0 {
            self.tell(ClientEvent::Heard);
        }
        match ended {
            // The lines before may have made the session close this stream, or even ask for another.
            Some(result) if self.open_call.is_none() && self.stream.is_none() => {
                self.tell(ClientEvent::StreamEnded(result));
                true
            }
            Some(_) => true,
            None => read > 0,
        }
    }

    fn poll_signals(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let mut queue_changed = false;
        while let Some(changes) = &mut self.upload_changes {
            match changes.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(())) => queue_changed = true,
                Poll::Ready(None) => self.upload_changes = None,
            }
            if queue_changed {
                // A stream that is always ready must not keep us here; the next round asks it again.
                moved = true;
                break;
            }
        }
        if queue_changed {
            self.tell(ClientEvent::UploadQueueChanged);
        }
        if self.shared.changed.swap(false, Ordering::AcqRel) {
            let held = self.shared.held();
            self.tell(ClientEvent::Subscriptions(held));
            moved = true;
        }
        if self.shared.retry.swap(false, Ordering::AcqRel) {
            self.tell(ClientEvent::RetryNow);
            moved = true;
        }
        moved
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(wanted) = self.session.poll_timeout() else { return false };
        // One that rings too early costs a tick; making one for every byte that moves a deadline would cost more.
        if self.timer.as_ref().is_none_or(|(at, _)| *at > wanted) {
            self.timer = Some((wanted, self.clock.sleep_until(wanted)));
        }
        let Some((_, timer)) = &mut self.timer else { return false };
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer = None;
        self.tell(ClientEvent::Tick);
        true
    }
}

fn decode(decoder: &mut LineDecoder, lines: &mut Vec<ClientLine>) -> Result<()> {
    while let Some(line) = decoder.next()? {
        lines.push(line);
    }
    Ok(())
}

fn poll_call<T>(call: &mut Option<BoxFuture<'static, T>>, cx: &mut Context<'_>) -> Option<T> {
    let Poll::Ready(reply) = call.as_mut()?.as_mut().poll(cx) else { return None };
    *call = None;
    Some(reply)
}

fn call_store(store: Arc<dyn ClientStore>, command: StoreCommand) -> BoxFuture<'static, StoreReply> {
    Box::pin(async move {
        match command {
            StoreCommand::Resume { now } => StoreReply::Resumed(store.resume(now).await),
            StoreCommand::BeginCheckpoint(target) => StoreReply::Begun(store.begin_checkpoint(&target).await),
            StoreCommand::Stage(lines) => StoreReply::Staged(store.stage(&lines).await),
            StoreCommand::Publish(request) => StoreReply::Published(store.publish(&request).await),
            StoreCommand::LoadUpload => StoreReply::UploadLoaded(store.next_upload().await),
            StoreCommand::FinishUpload { transaction, outcome } => {
                StoreReply::UploadFinished(store.finish_upload(&transaction, &outcome).await)
            }
            StoreCommand::LoadUploadState => StoreReply::UploadStateLoaded(store.upload_state().await),
            StoreCommand::Cover { upto, checkpoint } => StoreReply::Covered(store.cover(upto, checkpoint).await),
            StoreCommand::SaveSubscription { stream, parameters, priority, expires_at } => {
                StoreReply::SubscriptionSaved(store.subscribe(&stream, &parameters, priority, expires_at).await)
            }
        }
    })
}

/// An application's error: its own kind if it is one of ours, otherwise something that may pass.
fn connector_error(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::unavailable("the connector failed").caused_by(error),
    }
}
