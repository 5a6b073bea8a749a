//! S9, S10 and C5: that things go on. Looked at once faults have ended and time has passed.

use super::expected::is_same;
use super::failure::{Failure, Verdict};
use super::{Oracle, View};
use crate::client_store::UploadState;
use futures::FutureExt;

impl Oracle {
    /// S10: every commit of the source is in a checkpoint, so many seconds of virtual time after the last fault.
    pub(in super::super) fn s10_every_commit_is_published(&mut self, view: &View<'_>) -> Verdict {
        self.missing_in_store(view).map_or(Ok(()), |what| Err(Failure { invariant: "S10", what }))
    }

    /// C5: a client is current without a call of its application: it shows everything that the source has for it, and none
    /// of its writes waits.
    pub(in super::super) fn c5_a_client_is_current(&mut self, view: &View<'_>, client: usize) -> Verdict {
        self.missing_at(view, client).map_or(Ok(()), |what| Err(Failure { invariant: "C5", what }))
    }

    /// S9: a client is current although another one has stalled.
    pub(in super::super) fn s9_nobody_waits_for_a_stalled_client(
        &mut self,
        view: &View<'_>,
        client: usize,
        stalled: usize,
    ) -> Verdict {
        self.missing_at(view, client).map_or(Ok(()), |what| {
            Err(Failure { invariant: "S9", what: format!("while client {stalled} does nothing, {what}") })
        })
    }

    /// What a client lacks of the newest state, if anything.
    pub(in super::super) fn missing_at(&mut self, view: &View<'_>, client: usize) -> Option<String> {
        let commits = view.database.commits();
        let model = &self.clients[client];
        let (identity, wanted) = (model.identity.clone(), model.wanted.clone());
        let state = view.devices[client].store.upload_state().now_or_never().and_then(Result::ok).unwrap_or_default();
        if state != UploadState::default() {
            return Some(format!("client {client} has writes that wait: {state:?}"));
        }
        let mut shown = model.subscriptions.clone();
        for one in &wanted {
            let place = shown.iter().position(|shown| shown.stream == one.stream && shown.parameters == one.parameters);
            match place {
                Some(place) => drop(shown.remove(place)),
                None => return Some(format!("client {client} has never shown the stream {one:?}")),
            }
        }
        // What the application has left lasts for its time to live.
        let subscriptions = model.subscriptions.clone();
        let config = self.expected.newest();
        let should_be = match self.expected.rows(config, commits, &identity, &subscriptions, None) {
            Ok(rows) => rows,
            Err(what) => return Some(what),
        };
        let are = view.devices[client].store.visible_rows();
        if let Some((name, rows)) = should_be
            .iter()
            .find(|(name, rows)| are.get(*name).is_none_or(|row| !rows.iter().any(|one| is_same(row, one))))
        {
            return Some(format!(
                "client {client} shows checkpoint {} with {name:?} as {:?}, but at commit {commits} it is {rows:?}",
                self.clients[client].shown,
                are.get(name)
            ));
        }
        let extra = are.keys().find(|name| !should_be.contains_key(*name))?;
        Some(format!("client {client} still shows {extra:?} at commit {commits}"))
    }
}
