//! Requests for write checkpoints, and when they may be shown, in memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::operation::OpId;
use crate::write_checkpoint::{ClientKey, MarkerToken, WriteCheckpoint, WriteCheckpointRequest};

/// Requests of one client that are kept while they wait; beyond it every second one is dropped, never the oldest or the
/// newest, so that neither a lost marker nor a client that asks without end wedges the rest.
const WAITING: usize = 256;

/// All requests, by client. [`MemoryBucketStore`](super::MemoryBucketStore) remembers them so; so may any store that keeps them
/// in memory and makes them durable by other means.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MarkerRequests {
    clients: BTreeMap<ClientKey, Vec<Request>>,
}

/// A number, and the marker that it waits for or the operation id from which on it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    number: WriteCheckpoint,
    state: RequestState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum RequestState {
    Waiting(MarkerToken),
    Resolved(OpId),
}

impl Request {
    fn waits_for(&self, tokens: &[MarkerToken]) -> bool {
        matches!(&self.state, RequestState::Waiting(token) if tokens.contains(token))
    }

    fn is_shown(&self, at: OpId) -> bool {
        matches!(self.state, RequestState::Resolved(from) if from <= at)
    }
}

impl MarkerRequests {
    /// Forgets clients of the same user if there are too many for a new one: those that were confirmed longest ago. `now` is
    /// in Unix milliseconds.
    ///
    /// # Errors
    /// `Unavailable` if all of them wait.
    pub fn make_room(&mut self, client: &ClientKey, now: i64) -> Result<()> {
        // The next number of a client that is forgotten is not below `now`.
        let is_over = |requests: &[Request]| requests.iter().all(|one| one.number.0 <= now);
        if self.forget_others(client, is_over) { Ok(()) } else { Err(ClientKey::too_many()) }
    }

    /// Forgets confirmed clients of the same user for which `is_over` holds if there are too many for a new one. Whether
    /// there is room then.
    fn forget_others(&mut self, client: &ClientKey, is_over: impl Fn(&[Request]) -> bool) -> bool {
        if self.clients.contains_key(client) {
            return true;
        }
        let user = client.user_part();
        let of_user = (self.clients.range(ClientKey(user.into())..)).take_while(|(key, _)| key.0.starts_with(user));
        let of_user: Vec<_> = of_user.filter(|(key, _)| key.user_part() == user).collect();
        let limit = ClientKey::PER_USER as usize;
        if of_user.len() < limit {
            return true;
        }
        let confirmed_at = |requests: &[Request]| {
            let waits = requests.iter().any(|one| matches!(one.state, RequestState::Waiting(_)));
            match requests.last().map(|last| &last.state) {
                Some(RequestState::Resolved(at)) if !waits && is_over(requests) => Some(*at),
                _ => None,
            }
        };
        let over = of_user.iter().filter_map(|(key, requests)| Some((confirmed_at(requests)?, (*key).clone())));
        let mut over: Vec<_> = over.collect();
        over.sort();
        // Several at once, so that this is rare.
        over.truncate(limit / 8);
        over.iter().for_each(|(_, key)| drop(self.clients.remove(key)));
        !over.is_empty()
    }

    /// The number that a request gets, and whether it needs a marker.
    pub fn number(&self, client: &ClientKey, request: WriteCheckpointRequest, now: i64) -> (WriteCheckpoint, bool) {
        let last = self.clients.get(client).and_then(|requests| requests.last());
        let stored = last.map_or(0, |last| last.number.0);
        let number = match request {
            WriteCheckpointRequest::Next => stored.saturating_add(1).max(now).max(1),
            WriteCheckpointRequest::AtLeast(number) => number.0.max(stored),
        };
        let waits = last.is_none_or(|last| number > stored || matches!(last.state, RequestState::Waiting(_)));
        (WriteCheckpoint(number), waits)
    }

    /// Records that a number waits for a marker.
    pub fn record(&mut self, client: &ClientKey, number: WriteCheckpoint, token: MarkerToken) {
        let requests = self.clients.entry(client.clone()).or_default();
        let request = Request { number, state: RequestState::Waiting(token) };
        if requests.last() == Some(&request) {
            return;
        }
        requests.push(request);
        let waiting = requests.iter().filter(|request| matches!(request.state, RequestState::Waiting(_))).count();
        if waiting > WAITING {
            let last = requests.len() - 1;
            let mut index = 0;
            let mut odd = false;
            requests.retain(|request| {
                let newest = index == last;
                index += 1;
                if newest || matches!(request.state, RequestState::Resolved(_)) {
                    return true;
                }
                odd = !odd;
                odd
            });
        }
    }

    /// Whose write checkpoint rises with these markers and these numbers of the source.
    pub fn rising(&self, tokens: &[MarkerToken], confirmed: &BTreeMap<ClientKey, WriteCheckpoint>) -> Vec<ClientKey> {
        let mut clients = self.waiting_for(tokens);
        let rise = confirmed.iter().filter(|(client, number)| self.rises(client, **number));
        clients.extend(rise.map(|(client, _)| client.clone()));
        clients
    }

    fn waiting_for(&self, tokens: &[MarkerToken]) -> Vec<ClientKey> {
        if tokens.is_empty() {
            return Vec::new();
        }
        let waits = |requests: &[Request]| requests.iter().any(|request| request.waits_for(tokens));
        self.clients.iter().filter(|(_, requests)| waits(requests)).map(|(client, _)| client.clone()).collect()
    }

    /// Whether this number is above all that were confirmed.
    fn rises(&self, client: &ClientKey, number: WriteCheckpoint) -> bool {
        let mut requests = self.clients.get(client).into_iter().flatten();
        requests.all(|one| one.number < number || matches!(one.state, RequestState::Waiting(_)))
    }

    /// The markers came back, and the source confirmed these numbers: requests that wait for one of them, and smaller
    /// numbers of the same clients, may be shown from `from` on. What is older than the newest that is shown at `published`
    /// is dropped.
    pub fn resolve(
        &mut self,
        tokens: &[MarkerToken],
        confirmed: &BTreeMap<ClientKey, WriteCheckpoint>,
        from: OpId,
        published: OpId,
    ) {
        for client in self.waiting_for(tokens) {
            let Some(requests) = self.clients.get_mut(&client) else { continue };
            let number = requests.iter().filter(|request| request.waits_for(tokens)).map(|one| one.number).max();
            number.into_iter().for_each(|number| resolve_one(requests, number, from, published));
        }
        for (client, number) in confirmed {
            if self.rises(client, *number) {
                // Whoever waits is not forgotten, so that there may be a few too many.
                self.forget_others(client, |_| true);
                resolve_one(self.clients.entry(client.clone()).or_default(), *number, from, published);
            }
        }
    }

    /// The largest number of a client that may be shown.
    pub fn shown(&self, client: &ClientKey, at: OpId) -> Option<WriteCheckpoint> {
        let requests = self.clients.get(client)?;
        requests.iter().filter(|request| request.is_shown(at)).map(|request| request.number).max()
    }

    /// The markers that requests wait for.
    pub fn pending(&self) -> BTreeSet<MarkerToken> {
        let waits = |request: &Request| match &request.state {
            RequestState::Waiting(token) => Some(token.clone()),
            RequestState::Resolved(_) => None,
        };
        self.clients.values().flatten().filter_map(waits).collect()
    }

    /// The newest number of each client waits again, for this marker; all else is dropped. Returns whether any waits.
    pub fn reset(&mut self, token: &MarkerToken) -> bool {
        for requests in self.clients.values_mut() {
            if let Some(last) = requests.pop() {
                requests.clear();
                requests.push(Request { number: last.number, state: RequestState::Waiting(token.clone()) });
            }
        }
        !self.clients.is_empty()
    }
}

/// A number of a client may be shown from `from` on, and with it all that are smaller.
fn resolve_one(requests: &mut Vec<Request>, number: WriteCheckpoint, from: OpId, published: OpId) {
    let shown = requests.iter().filter(|request| request.is_shown(published)).map(|one| one.number).max();
    requests.retain(|request| match request.state {
        RequestState::Waiting(_) => request.number > number,
        RequestState::Resolved(_) => Some(request.number) >= shown,
    });
    let at = requests.iter().position(|request| request.number > number).unwrap_or(requests.len());
    requests.insert(at, Request { number, state: RequestState::Resolved(from) });
}
