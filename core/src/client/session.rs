//! The client's side of the protocol, as a plain state machine.
//!
//! Three things go on side by side: a stream is kept open and what it brings is staged and shown; local transactions are
//! uploaded one by one; credentials and subscriptions are kept fresh. They meet at the store, which gets one command at a
//! time, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::connector::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::ClientLine;
use crate::time::{Time, WallTime};

use super::connection::{Connection, Due};
use super::credentials::CredentialCache;
use super::download::{Downloads, Showing};
use super::event::{Call, ClientCommand, ClientEvent, StoreCommand};
use super::options::ClientOptions;
use super::reconnect::{Backoff, Jitter};
use super::status::{SyncProblem, SyncStatus};
use super::subscription::Subscriptions;
use super::upload::Uploads;

mod store_reply;

/// So many checksum mismatches in a row are an error (C6).
const MISMATCHES: u32 = 3;
/// A checkpoint that is held back is tried again at least this often, should a signal have been lost (C5).
const RETRY_HELD: Duration = Duration::from_secs(10);
/// A store that has not answered for so long is reported.
const STORE_STALLED: Duration = Duration::from_secs(60);
/// A server announces that a token expires; with so many seconds left, another is fetched.
const TOKEN_EXPIRES_SOON: i64 = 30;
/// More steps than this are not taken from the stream ahead of the store.
const WAITING_STEPS: usize = 4096;

/// The client's side of the protocol: events in, commands out; time and chance are arguments.
///
/// Feed it with [`handle`](Self::handle), then carry out what [`poll`](Self::poll) gives until it gives nothing, and tell it
/// a [`Tick`](ClientEvent::Tick) at [`poll_timeout`](Self::poll_timeout). Every command but `CloseStream`, `Abandon` and
/// `Stop` is answered by one event, late or never: the session waits for no answer of the network without a limit.
#[derive(Debug)]
pub struct ClientSession {
    options: ClientOptions,
    jitter: Jitter,
    client_id: Option<Arc<str>>,
    credentials: CredentialCache,
    /// Those of the stream expire, so that it is to be replaced when others come.
    renewing: bool,
    connection: Connection,
    downloads: Downloads,
    uploads: Uploads,
    subscriptions: Subscriptions,
    /// Delays between attempts of a publish that the store could not carry out.
    publish_backoff: Backoff,
    /// Delays between readings of the store that failed.
    resume_backoff: Backoff,
    mismatches: u32,
    store: Option<StoreCall>,
    /// Whose turn it is at the store, if both sides want it.
    upload_turn: bool,
    commands: VecDeque<ClientCommand>,
    status: SyncStatus,
    stopped: bool,
}

#[derive(Debug)]
struct StoreCall {
    since: WallTime,
    look_at: Time,
    showing: Option<Showing>,
    /// The store is read for the request of the next stream, after everything of the one before was staged.
    for_request: bool,
}

impl ClientSession {
    /// A session that has done nothing yet; `seed` decides how its back-offs are spread. It starts with its first event,
    /// for example a [`Tick`](ClientEvent::Tick).
    pub fn new(options: ClientOptions, seed: u64) -> Self {
        let limits = &options.limits;
        Self {
            jitter: Jitter::new(seed),
            client_id: None,
            credentials: CredentialCache::new(limits),
            renewing: false,
            connection: Connection::new(limits),
            downloads: Downloads::new(limits.stage_bytes),
            uploads: Uploads::new(limits),
            subscriptions: Subscriptions::default(),
            publish_backoff: Backoff::new(limits.reconnect),
            resume_backoff: Backoff::new(limits.reconnect),
            mismatches: 0,
            store: None,
            upload_turn: false,
            commands: VecDeque::new(),
            status: SyncStatus::default(),
            stopped: false,
            options,
        }
    }

    /// Takes in what happened. Events of calls that were abandoned, and of streams that were closed, must not be told.
    pub fn handle(&mut self, now: Time, wall: WallTime, event: ClientEvent) {
        if self.stopped {
            return;
        }
        match event {
            ClientEvent::Tick => {}
            ClientEvent::Store(reply) => self.store_replied(now, wall, reply),
            ClientEvent::Credentials(reply) => self.credentials_came(now, wall, reply),
            ClientEvent::Opened => {
                let was_away = !self.connection.is_replacing();
                if self.connection.opened(now) {
                    if was_away && self.uploads.give_up_hung(now) {
                        self.commands.push_back(ClientCommand::Abandon(Call::Upload));
                    }
                    self.uploads.wake();
                }
            }
            ClientEvent::Heard => {
                self.connection.heard(now);
            }
            ClientEvent::Lines(lines) => self.lines_came(now, wall, lines),
            ClientEvent::StreamEnded(result) => {
                if self.connection.has_stream() {
                    self.stream_ended(now, wall, result.err());
                }
            }
            ClientEvent::Uploaded(Ok(outcome)) => {
                self.uploads.uploaded(outcome);
            }
            ClientEvent::WriteCheckpoint(Ok(checkpoint)) => {
                self.uploads.asked(now, checkpoint, &self.options.limits);
            }
            ClientEvent::Uploaded(Err(error)) | ClientEvent::WriteCheckpoint(Err(error)) => {
                if self.uploads.credentials_in_use().is_some() {
                    self.upload_failed(now, wall, &error);
                }
            }
            ClientEvent::UploadQueueChanged => self.uploads.trigger(),
            ClientEvent::Subscriptions(held) => {
                self.subscriptions.hold(wall, held);
                self.describe_streams();
            }
            ClientEvent::RetryNow => {
                self.credentials.retry_now();
                self.connection.retry_now();
                self.uploads.wake();
            }
        }
        self.advance(now, wall);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<ClientCommand> {
        self.commands.pop_front()
    }

    /// When to tell the next [`Tick`](ClientEvent::Tick). `None` only before the first event and after the end.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let limits = &self.options.limits;
        [
            self.store.as_ref().map(|call| call.look_at),
            self.credentials.timeout(),
            self.connection.timeout(self.wants_lines(), limits),
            self.uploads.timeout(self.connection.is_open()),
            // These two, once due, wait for the store and not for a time.
            self.subscriptions.timeout().filter(|_| self.store.is_none()),
            self.downloads.postponed().map(|postponed| postponed.retry_at).filter(|_| self.store.is_none()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether more lines may be told. Otherwise the stream is not to be read for now.
    pub fn wants_lines(&self) -> bool {
        self.downloads.waiting_bytes() < self.options.limits.buffered_bytes
            && self.downloads.waiting_steps() < WAITING_STEPS
    }

    /// What is known about the synchronisation.
    pub fn status(&self) -> &SyncStatus {
        &self.status
    }

    // ---- events --------------------------------------------------------------------------------------------------

    fn lines_came(&mut self, now: Time, wall: WallTime, lines: Vec<ClientLine>) {
        if !self.connection.heard(now) {
            return;
        }
        for line in lines {
            let taken = match line {
                ClientLine::Checkpoint(checkpoint) => {
                    self.downloads.checkpoint(checkpoint);
                    self.describe_streams();
                    Ok(())
                }
                ClientLine::CheckpointDiff(diff) => self.downloads.checkpoint_diff(diff),
                ClientLine::Data(data) => {
                    self.downloads.data(data);
                    Ok(())
                }
                ClientLine::CheckpointComplete { last_op_id } => self.downloads.complete(last_op_id, None),
                ClientLine::PartialCheckpointComplete { last_op_id, priority } => {
                    self.downloads.complete(last_op_id, Some(priority))
                }
                ClientLine::TokenExpiresIn(seconds) => {
                    self.uploads.trigger();
                    if seconds <= 0 {
                        if let Some(credentials) = self.connection.credentials().cloned() {
                            self.credentials.refuse(&credentials);
                        }
                        return self.stream_ended(now, wall, None);
                    }
                    if seconds <= TOKEN_EXPIRES_SOON {
                        self.renew_credentials(now);
                    }
                    Ok(())
                }
                ClientLine::Unknown => Ok(()),
            };
            if let Err(error) = taken {
                return self.stream_ended(now, wall, Some(error));
            }
        }
    }

    /// The stream's credentials expire soon: takes those that were fetched since, or fetches others.
    fn renew_credentials(&mut self, now: Time) {
        if self.credentials.get().is_some_and(|kept| self.connection.credentials() != Some(kept)) {
            self.connection.replace_soon(now, true);
        } else {
            self.credentials.refresh();
            self.renewing = true;
        }
    }

    fn stream_ended(&mut self, now: Time, wall: WallTime, error: Option<Error>) {
        let mut refused = false;
        if let Some(error) = error {
            tracing::debug!(%error, "the sync stream ended");
            match error.kind() {
                // What a server calls invalid may be mended there, without anyone at this device.
                ErrorKind::Internal => return self.stop(Err(error)),
                ErrorKind::Unauthorized => {
                    refused = true;
                    if let Some(credentials) = self.connection.credentials().cloned() {
                        self.credentials.refuse(&credentials);
                    }
                }
                _ => {}
            }
            SyncProblem::report(&mut self.status.download_error, &error, wall);
        }
        self.close_stream();
        self.connection.ended(now, refused, &mut self.jitter);
    }

    fn close_stream(&mut self) {
        if self.connection.has_stream() {
            self.commands.push_back(ClientCommand::CloseStream);
        }
        self.downloads.stream_gone();
    }

    fn credentials_came(&mut self, now: Time, wall: WallTime, reply: Result<Credentials>) {
        if !self.credentials.fetching() {
            return;
        }
        match reply {
            Ok(credentials) => {
                // Those that uploads asked for say nothing about a stream that was not refused.
                let renewed = std::mem::replace(&mut self.renewing, false);
                if renewed && self.connection.is_open() && self.connection.credentials() != Some(&credentials) {
                    self.connection.replace_soon(now, true);
                }
                self.credentials.fetched(now, credentials);
            }
            Err(error) => {
                let error = error.context("the connector gave no credentials");
                self.credentials.failed(now, &mut self.jitter);
                if self.connection.needs_credentials() {
                    SyncProblem::report(&mut self.status.download_error, &error, wall);
                }
                if self.uploads.needs_credentials() {
                    SyncProblem::report(&mut self.status.upload_error, &error, wall);
                }
            }
        }
    }

    fn upload_failed(&mut self, now: Time, wall: WallTime, error: &Error) {
        let refused = error.kind() == ErrorKind::Unauthorized;
        if let Some(credentials) = self.uploads.credentials_in_use().cloned()
            && (refused || self.uploads.distrusts(now, self.credentials.fetched_at()))
        {
            self.credentials.refuse(&credentials);
        }
        SyncProblem::report(&mut self.status.upload_error, error, wall);
        self.uploads.failed(now, refused, &mut self.jitter);
    }

    fn describe_streams(&mut self) {
        self.status.streams = self.subscriptions.describe(self.downloads.announced());
    }

    fn stop(&mut self, result: Result<()>) {
        self.stopped = true;
        self.commands.clear();
        self.commands.push_back(ClientCommand::Stop(result));
        self.status.connected = false;
        self.status.connecting = false;
        self.status.uploading = false;
        self.status.downloading = None;
    }

    // ---- what is due ---------------------------------------------------------------------------------------------

    fn advance(&mut self, now: Time, wall: WallTime) {
        self.tick(now, wall);
        if self.stopped {
            return;
        }
        self.call_network(now);
        self.call_store(now, wall);
        self.status.connected = self.connection.shows_connected();
        self.status.connecting = self.connection.shows_connecting();
        self.status.uploading = self.uploads.is_sending();
        self.status.downloading = self.downloads.progress();
    }

    fn tick(&mut self, now: Time, wall: WallTime) {
        let limits = self.options.limits;
        if let Some(call) = &mut self.store
            && call.look_at <= now
        {
            call.look_at = now + STORE_STALLED;
            self.status.store_stalled_since = Some(call.since);
        }
        if self.credentials.overdue(now) {
            self.commands.push_back(ClientCommand::Abandon(Call::Credentials));
            let error = Error::unavailable(format!("no answer within {:?}", limits.credentials));
            self.credentials_came(now, wall, Err(error));
        }
        self.credentials.tick(now);
        if let Some((call, error)) = self.uploads.tick(now, self.connection.is_open(), &limits) {
            self.commands.push_back(ClientCommand::Abandon(call));
            self.upload_failed(now, wall, &error);
        }
        let reading = self.wants_lines();
        match self.connection.tick(now, reading, &limits) {
            None => {}
            Some(Due::NotOpened) => {
                let text = format!("the server did not open a stream within {:?}", limits.open);
                self.stream_ended(now, wall, Some(Error::unavailable(text)));
            }
            Some(Due::Silent) => {
                let text = format!("the server was silent for {:?}", limits.idle);
                self.stream_ended(now, wall, Some(Error::unavailable(text)));
            }
            Some(Due::Replace) => {
                self.close_stream();
                self.connection.replaced();
            }
        }
    }

    fn call_network(&mut self, now: Time) {
        let limits = self.options.limits;
        if let Some(since) = self.connection.trusted_from() {
            self.credentials.forget_older(since);
        }
        let awaited = self.connection.needs_credentials() || self.uploads.needs_credentials();
        if self.credentials.start(now, awaited, &limits) {
            self.commands.push_back(ClientCommand::FetchCredentials);
        }
        let Some(credentials) = self.credentials.get() else {
            if self.connection.needs_credentials() {
                self.connection.interrupted();
            }
            return;
        };
        if let Some(request) = self.connection.start(now, credentials, &limits) {
            let credentials = credentials.clone();
            self.commands.push_back(ClientCommand::Open { request, credentials });
        }
        if let Some(client_id) = &self.client_id
            && let Some(command) = self.uploads.next_call(now, credentials, client_id, &limits)
        {
            self.commands.push_back(command);
        }
    }

    fn call_store(&mut self, now: Time, wall: WallTime) {
        if self.store.is_some() {
            return;
        }
        // The first call tells who we are.
        let upload_first = std::mem::replace(&mut self.upload_turn, false) && self.client_id.is_some();
        let upload = if upload_first { self.uploads.next_store() } else { None };
        let (command, showing) = match upload {
            Some(command) => (command, None),
            None => match self.next_download(now, wall) {
                Some(step) => {
                    self.upload_turn = true;
                    step
                }
                None if self.client_id.is_some() => match self.uploads.next_store() {
                    Some(command) => (command, None),
                    None => return,
                },
                None => return,
            },
        };
        let for_request = matches!(command, StoreCommand::Resume { .. }) && self.connection.wants_request();
        self.store = Some(StoreCall { since: wall, look_at: now + STORE_STALLED, showing, for_request });
        self.commands.push_back(ClientCommand::Store(command));
    }

    fn next_download(&mut self, now: Time, wall: WallTime) -> Option<(StoreCommand, Option<Showing>)> {
        if let Some(save) = self.subscriptions.next_save() {
            return Some((save, None));
        }
        if let Some(step) = self.downloads.next(now, wall) {
            return Some(step);
        }
        // What the stream before brought is in the store by now, so that the request names it.
        let stale = self.subscriptions.stale(now) && self.connection.has_request();
        (self.connection.wants_request() || stale).then_some((StoreCommand::Resume { now: wall }, None))
    }
}
