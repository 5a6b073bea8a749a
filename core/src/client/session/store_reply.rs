//! What a client session makes of the answers of its store.

use std::sync::Arc;

use bytestring::ByteString;

use crate::bucket::BucketPriority;
use crate::client_store::{ClientState, PublishOutcome, StoredSubscription, UploadState};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::OpId;
use crate::protocol::{BucketPosition, RequestedStreams, RequestedSubscription, SyncRequest};
use crate::time::{Time, WallTime};

use super::super::download::Showing;
use super::super::event::StoreReply;
use super::super::status::SyncProblem;
use super::super::upload::{UploadProgress, Uploads};
use super::{ClientSession, MISMATCHES, RETRY_HELD};

impl ClientSession {
    pub(super) fn store_replied(&mut self, now: Time, wall: WallTime, reply: StoreReply) {
        let Some(call) = self.store.take() else { return };
        self.status.store_stalled_since = None;
        if !self.wants_lines() {
            // The stream is not read, so that silence means nothing.
            self.connection.heard(now);
        }
        let failure = match reply {
            StoreReply::Resumed(Ok(state)) => {
                self.resume_backoff.reset();
                self.resumed(now, wall, state, call.for_request);
                return;
            }
            StoreReply::Published(Ok(outcome)) => {
                if let Some(showing) = call.showing {
                    self.publish_ended(now, wall, showing, outcome);
                }
                return;
            }
            StoreReply::UploadLoaded(Ok(loaded)) => {
                return self.upload_went(now, wall, |uploads| uploads.loaded(loaded));
            }
            StoreReply::UploadFinished(Ok(())) => return self.upload_went(now, wall, |uploads| Ok(uploads.finished())),
            StoreReply::UploadStateLoaded(Ok(state)) => {
                let limits = self.options.limits;
                return self.upload_went(now, wall, |uploads| uploads.checked(now, state, &limits));
            }
            StoreReply::Covered(Ok(())) => return self.upload_went(now, wall, |uploads| Ok(uploads.covered())),
            StoreReply::Begun(Ok(())) | StoreReply::Staged(Ok(())) | StoreReply::SubscriptionSaved(Ok(())) => return,
            StoreReply::Resumed(Err(error))
            | StoreReply::Begun(Err(error))
            | StoreReply::Staged(Err(error))
            | StoreReply::Published(Err(error))
            | StoreReply::UploadLoaded(Err(error))
            | StoreReply::UploadFinished(Err(error))
            | StoreReply::UploadStateLoaded(Err(error))
            | StoreReply::Covered(Err(error))
            | StoreReply::SubscriptionSaved(Err(error))
                if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Data | ErrorKind::Internal) =>
            {
                return self.stop(Err(error.context("the client's store failed")));
            }
            failure => failure,
        };
        match failure {
            StoreReply::Published(Err(error)) if error.kind() != ErrorKind::Closed => {
                SyncProblem::report(&mut self.status.download_error, &error, wall);
                if let Some(showing) = call.showing {
                    let retry_at = self.publish_backoff.next(now, &mut self.jitter);
                    self.downloads.postpone(showing, retry_at);
                }
            }
            StoreReply::Begun(Err(error)) | StoreReply::Staged(Err(error)) if error.kind() != ErrorKind::Closed => {
                // What the store has now is read from it again, by the next request.
                self.downloads.clear();
                SyncProblem::report(&mut self.status.download_error, &error, wall);
                self.close_stream();
                self.connection.ended(now, false, &mut self.jitter);
            }
            StoreReply::Resumed(Err(error)) | StoreReply::SubscriptionSaved(Err(error))
                if error.kind() != ErrorKind::Closed =>
            {
                SyncProblem::report(&mut self.status.download_error, &error, wall);
                let again = self.resume_backoff.next(now, &mut self.jitter);
                self.subscriptions.failed(again);
                if self.connection.wants_request() {
                    self.connection.ended(now, false, &mut self.jitter);
                }
            }
            StoreReply::UploadLoaded(Err(error))
            | StoreReply::UploadFinished(Err(error))
            | StoreReply::UploadStateLoaded(Err(error))
            | StoreReply::Covered(Err(error))
                if error.kind() != ErrorKind::Closed =>
            {
                SyncProblem::report(&mut self.status.upload_error, &error, wall);
                self.uploads.failed(now, false, &mut self.jitter);
            }
            // The store was closed.
            _ => self.stop(Ok(())),
        }
    }

    fn resumed(&mut self, now: Time, wall: WallTime, state: ClientState, for_request: bool) {
        let ClientState { client_id, buckets, subscriptions, last_synced_at, uploads } = state;
        self.status.last_synced_at = self.status.last_synced_at.max(last_synced_at);
        self.status.uploads = uploads;
        self.subscriptions.resumed(now, wall, subscriptions);
        if for_request && self.connection.wants_request() {
            let requested: Arc<[StoredSubscription]> = self.subscriptions.stored().into();
            let request = self.request(&client_id, &buckets, &requested);
            self.downloads.stream_asked(requested, buckets.into_iter().map(|(name, _)| name));
            self.connection.prepared(Arc::new(request));
        } else if self.connection.has_request() && self.subscriptions.differ_from(self.downloads.requested()) {
            self.connection.replace_soon(now, false);
        }
        if self.client_id.is_none() {
            self.jitter.mix(&client_id);
        }
        self.client_id = Some(client_id);
        self.describe_streams();
    }

    fn request(
        &self,
        client_id: &str,
        buckets: &[(ByteString, OpId)],
        requested: &[StoredSubscription],
    ) -> SyncRequest {
        let subscriptions = requested.iter().map(|one| RequestedSubscription {
            stream: one.stream.clone(),
            parameters: (!one.parameters.is_empty()).then(|| one.parameters.clone()),
            override_priority: one.priority.map(|priority| priority.0),
        });
        let positions =
            buckets.iter().map(|(name, after)| BucketPosition { name: name.to_string(), after: after.to_string() });
        SyncRequest {
            buckets: positions.collect(),
            include_checksum: true,
            raw_data: true,
            binary_data: true,
            client_id: Some(client_id.to_owned()),
            parameters: self.options.parameters.clone(),
            app_metadata: self.options.app_metadata.clone(),
            streams: Some(RequestedStreams {
                include_defaults: self.options.include_defaults,
                subscriptions: subscriptions.collect(),
            }),
        }
    }

    fn publish_ended(&mut self, now: Time, wall: WallTime, showing: Showing, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::Published => {
                self.publish_backoff.reset();
                self.downloads.shown(&showing);
                self.subscriptions.shown(wall, &showing.target, &showing.requested, showing.partial);
                if showing.partial.is_none() {
                    self.mismatches = 0;
                    self.connection.proved();
                    self.downloads.received(&showing);
                    self.status.last_synced_at = self.status.last_synced_at.max(Some(wall));
                    self.status.held_by_uploads_since = None;
                    self.status.download_error = None;
                    self.uploads.shown();
                }
                self.describe_streams();
            }
            PublishOutcome::Held => {
                self.publish_backoff.reset();
                if showing.partial.is_none() {
                    self.mismatches = 0;
                    self.connection.proved();
                    self.downloads.received(&showing);
                    self.status.held_by_uploads_since.get_or_insert(wall);
                    self.status.download_error = None;
                    if showing.first {
                        // The queue may be empty by now: then it is tried again at once, but only this once.
                        self.uploads.trigger();
                    }
                    let mut buckets = showing.target.buckets.values();
                    if showing.first && buckets.any(|bucket| bucket.priority == BucketPriority::HIGHEST) {
                        self.downloads.show_highest(&showing);
                    }
                }
                self.downloads.postpone(Showing { first: false, ..showing }, now + RETRY_HELD);
            }
            PublishOutcome::Mismatch(buckets) => {
                self.mismatches += 1;
                let names = list_buckets(&buckets);
                tracing::warn!(buckets = %names, times = self.mismatches, "checksums differ; downloading again");
                if self.mismatches >= MISMATCHES {
                    let text =
                        format!("checksums differ {} times in a row, downloading again: {names}", self.mismatches);
                    SyncProblem::report(&mut self.status.download_error, &Error::data(text), wall);
                }
                self.downloads.clear();
                self.close_stream();
                self.connection.ended(now, false, &mut self.jitter);
            }
        }
    }

    fn upload_went(&mut self, now: Time, wall: WallTime, step: impl FnOnce(&mut Uploads) -> Result<UploadProgress>) {
        match step(&mut self.uploads) {
            Ok(UploadProgress::None) => {}
            Ok(UploadProgress::Done) => self.status.upload_error = None,
            Ok(UploadProgress::State(state)) => {
                self.status.uploads = state;
                if state.queued == 0 && state.uncovered.is_none() {
                    self.status.upload_error = None;
                    self.retry_held(now, &state);
                }
            }
            Err(error) => {
                SyncProblem::report(&mut self.status.upload_error, &error, wall);
                self.uploads.failed(now, false, &mut self.jitter);
            }
        }
    }

    /// All is sent and covered: a checkpoint that carries the awaited write checkpoint can be shown.
    fn retry_held(&mut self, now: Time, state: &UploadState) {
        if let Some(postponed) = self.downloads.postponed()
            && postponed.showing.target.write_checkpoint >= state.awaited
        {
            self.downloads.retry_postponed(now);
        }
    }
}

/// Names of buckets for a message, shortened.
fn list_buckets(buckets: &[ByteString]) -> String {
    const SHOWN: usize = 3;
    let mut text = buckets.iter().take(SHOWN).map(|name| &**name).collect::<Vec<_>>().join(", ");
    if buckets.len() > SHOWN {
        text.push_str(&format!(" and {} more", buckets.len() - SHOWN));
    }
    text
}
