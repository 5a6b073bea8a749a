//! Subscriptions to streams: which are held by handles, when they end, and when they must be renewed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::bucket::BucketPriority;
use crate::client_store::{StoredSubscription, TargetCheckpoint};
use crate::json;
use crate::protocol::{StreamDescription, SubscriptionReason};
use crate::time::{Time, WallTime};

use super::event::StoreCommand;
use super::status::StreamStatus;

/// How long a subscription lasts after its last handle is gone, unless it says otherwise.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(86_400);
/// While a handle holds it, a subscription is stored for at least this long, and renewed in time.
const SHORTEST_LEASE: Duration = Duration::from_secs(120);
/// The clock of the wall may jump, so expiry is looked at again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A held subscription that the store does not have although it was saved is saved again after this: most likely the clock
/// jumped over its end in between.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

/// A subscription that at least one handle holds.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldSubscription {
    /// The stream.
    pub stream: String,
    /// Its parameters.
    pub parameters: Map<String, Json>,
    /// A priority that overrides that of the config.
    pub priority: Option<BucketPriority>,
    /// How long it lasts after the last handle is gone.
    pub ttl: Duration,
}

/// What tells subscriptions apart: the stream and the parameters in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SubscriptionKey {
    stream: String,
    parameters: String,
}

impl SubscriptionKey {
    pub(super) fn new(stream: &str, parameters: &Map<String, Json>) -> Self {
        let mut text = Vec::new();
        write_object(&mut text, parameters);
        Self { stream: stream.to_owned(), parameters: String::from_utf8_lossy(&text).into_owned() }
    }
}

fn write_object(out: &mut Vec<u8>, object: &Map<String, Json>) {
    // Sorted here, because whether the map sorts depends on features that other crates choose.
    let sorted: BTreeMap<&String, &Json> = object.iter().collect();
    out.push(b'{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, key);
        out.push(b':');
        write_canonical(out, value);
    }
    out.push(b'}');
}

fn write_canonical(out: &mut Vec<u8>, value: &Json) {
    match value {
        Json::Object(object) => write_object(out, object),
        Json::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(out, item);
            }
            out.push(b']');
        }
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

/// How long a held subscription is stored for.
pub(super) fn lease(ttl: Duration) -> Duration {
    ttl.max(SHORTEST_LEASE)
}

/// The end of something that lasts `duration` from now.
pub(super) fn end_of(wall: WallTime, duration: Duration) -> WallTime {
    WallTime(wall.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
}

/// The subscriptions of a session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    stored: Vec<StoredSubscription>,
    held: BTreeMap<SubscriptionKey, HeldSubscription>,
    /// When the rows of streams that the server subscribes us to were last complete, in this session.
    defaults: BTreeMap<String, WallTime>,
    saves: VecDeque<StoreCommand>,
    /// The store is to be read again.
    stale: bool,
    look_again: Option<Time>,
    /// Held ones were missing from the store and were saved; if they are missing still, the store will not have them.
    saved_missing: bool,
}

impl Subscriptions {
    pub(super) fn stored(&self) -> &[StoredSubscription] {
        &self.stored
    }

    /// The handles changed.
    pub(super) fn hold(&mut self, wall: WallTime, held: Vec<HeldSubscription>) {
        let held: BTreeMap<_, _> =
            held.into_iter().map(|one| (SubscriptionKey::new(&one.stream, &one.parameters), one)).collect();
        for (key, released) in &self.held {
            if !held.contains_key(key) {
                let end = (!released.ttl.is_zero()).then(|| end_of(wall, released.ttl));
                self.saves.push_back(save(released, end));
            }
        }
        self.held = held;
        self.stale = true;
    }

    /// The store was read: `stored` is what lives. Renews what handles hold.
    pub(super) fn resumed(&mut self, now: Time, wall: WallTime, stored: Vec<StoredSubscription>) {
        self.stored = stored;
        self.stale = false;
        let mut pause = LONGEST_PAUSE;
        let mut missing: Vec<_> = self.held.keys().cloned().collect();
        for one in &mut self.stored {
            let key = SubscriptionKey::new(&one.stream, &one.parameters);
            missing.retain(|held| *held != key);
            let mut left = duration_until(wall, one.expires_at);
            if let Some(held) = self.held.get(&key) {
                let lease = lease(held.ttl);
                if left <= lease / 2 {
                    one.expires_at = end_of(wall, lease);
                    self.saves.push_back(save(held, Some(one.expires_at)));
                    left = lease;
                }
                left = left.saturating_sub(lease / 2);
            }
            pause = pause.min(left);
        }
        if missing.is_empty() {
            self.saved_missing = false;
        } else if self.saved_missing {
            pause = pause.min(SAVE_AGAIN);
        } else {
            self.saved_missing = true;
            self.stale = true;
            for held in missing.iter().filter_map(|key| self.held.get(key)) {
                self.saves.push_back(save(held, Some(end_of(wall, lease(held.ttl)))));
            }
        }
        self.look_again =
            (!self.stored.is_empty() || !self.held.is_empty()).then(|| now + pause.max(Duration::from_secs(1)));
    }

    /// Whether the store is to be read again, now that this much time has passed.
    pub(super) fn stale(&mut self, now: Time) -> bool {
        if self.look_again.is_some_and(|at| at <= now) {
            self.look_again = None;
            self.saved_missing = false;
            self.stale = true;
        }
        self.stale
    }

    /// The store could not be read or written: look again then.
    pub(super) fn failed(&mut self, again: Time) {
        self.stale = false;
        self.look_again = Some(again);
    }

    pub(super) fn next_save(&mut self) -> Option<StoreCommand> {
        self.saves.pop_front()
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        self.look_again
    }

    /// A checkpoint was shown, up to a priority or as a whole: notes whose rows are complete.
    pub(super) fn shown(
        &mut self,
        wall: WallTime,
        target: &TargetCheckpoint,
        requested: &[StoredSubscription],
        partial: Option<BucketPriority>,
    ) {
        let indexes = indexes(requested);
        let done = |index: u32| {
            is_complete(target, index, partial)
                && requested
                    .get(index as usize)
                    .is_some_and(|one| subscription_error(&target.streams, &one.stream, index as usize).is_none())
        };
        for stored in &mut self.stored {
            let index = indexes.get(&SubscriptionKey::new(&stored.stream, &stored.parameters));
            if index.is_some_and(|index| u32::try_from(*index).is_ok_and(&done)) {
                stored.last_synced_at = stored.last_synced_at.max(Some(wall));
            }
        }
        if partial.is_none() {
            let defaults = target.streams.iter().filter(|stream| stream.is_default && !is_refused(stream));
            for stream in defaults {
                let at = self.defaults.entry(stream.name.clone()).or_insert(wall);
                *at = (*at).max(wall);
            }
        }
    }

    /// Whether a stream that asked for `requested` is to be opened again to ask for something else.
    pub(super) fn differ_from(&self, requested: &[StoredSubscription]) -> bool {
        let keys = |list: &[StoredSubscription]| {
            let mut keys: Vec<_> =
                list.iter().map(|one| (SubscriptionKey::new(&one.stream, &one.parameters), one.priority)).collect();
            keys.sort();
            keys
        };
        keys(&self.stored) != keys(requested)
    }

    /// What the application is to see, given the last announced checkpoint and what its request named.
    pub(super) fn describe(
        &self,
        announced: Option<(&[StreamDescription], &[StoredSubscription])>,
    ) -> Vec<StreamStatus> {
        let indexes = announced.map(|(_, requested)| indexes(requested)).unwrap_or_default();
        let mut described: Vec<_> = self
            .stored
            .iter()
            .map(|one| {
                let key = SubscriptionKey::new(&one.stream, &one.parameters);
                let index = indexes.get(&key).copied();
                let known = announced.and_then(|(streams, _)| streams.iter().find(|stream| stream.name == one.stream));
                let error = match (index, announced) {
                    (Some(index), Some((streams, _))) => subscription_error(streams, &one.stream, index),
                    _ => None,
                };
                StreamStatus {
                    stream: one.stream.clone(),
                    parameters: Some(one.parameters.clone()),
                    is_default: known.is_some_and(|stream| stream.is_default),
                    active: index.is_some() && known.is_some(),
                    priority: one.priority,
                    held: self.held.contains_key(&key),
                    expires_at: Some(one.expires_at),
                    last_synced_at: one.last_synced_at,
                    error,
                }
            })
            .collect();
        if let Some((streams, _)) = announced {
            for stream in streams.iter().filter(|stream| stream.is_default) {
                let error = stream.errors.iter().find(|error| error.subscription.is_none());
                described.push(StreamStatus {
                    stream: stream.name.clone(),
                    parameters: None,
                    is_default: true,
                    active: true,
                    priority: None,
                    held: false,
                    expires_at: None,
                    last_synced_at: self.defaults.get(&stream.name).copied(),
                    error: error.map(|error| error.message.clone()),
                });
            }
        }
        described
    }
}

/// Where each subscription stands in a request.
fn indexes(requested: &[StoredSubscription]) -> BTreeMap<SubscriptionKey, usize> {
    let keys = requested.iter().map(|one| SubscriptionKey::new(&one.stream, &one.parameters));
    keys.zip(0..).collect()
}

/// Why the subscription with this index in the request yields no rows.
fn subscription_error(streams: &[StreamDescription], stream: &str, index: usize) -> Option<String> {
    let Some(known) = streams.iter().find(|known| known.name == stream) else {
        return Some(format!("the server's sync config has no stream `{stream}`"));
    };
    let error = known.errors.iter().find(|error| error.subscription.is_some_and(|at| at as usize == index))?;
    Some(error.message.clone())
}

/// Whether the automatic subscription to this stream yields no rows.
fn is_refused(stream: &StreamDescription) -> bool {
    stream.errors.iter().any(|error| error.subscription.is_none())
}

/// Whether all rows of the subscription with this index are in buckets up to `priority`.
fn is_complete(target: &TargetCheckpoint, index: u32, priority: Option<BucketPriority>) -> bool {
    let Some(priority) = priority else { return true };
    target.buckets.values().all(|bucket| {
        bucket.priority <= priority || !bucket.subscriptions.contains(&SubscriptionReason::Subscription(index))
    })
}

fn save(held: &HeldSubscription, expires_at: Option<WallTime>) -> StoreCommand {
    StoreCommand::SaveSubscription {
        stream: held.stream.clone(),
        parameters: held.parameters.clone(),
        priority: held.priority,
        expires_at,
    }
}

fn duration_until(wall: WallTime, end: WallTime) -> Duration {
    Duration::from_millis(u64::try_from(end.0.saturating_sub(wall.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_held_subscription_that_the_store_has_dropped_again_is_soon_saved_again() {
        let held = HeldSubscription { stream: "s".into(), parameters: Map::new(), priority: None, ttl: Duration::ZERO };
        let mut subscriptions = Subscriptions::default();
        subscriptions.hold(WallTime(0), vec![held]);
        let saves = |subscriptions: &mut Subscriptions| std::iter::from_fn(|| subscriptions.next_save()).count();
        subscriptions.resumed(Time(0), WallTime(0), Vec::new());
        assert_eq!(saves(&mut subscriptions), 1);
        // The clock jumped over its end before it was read.
        subscriptions.resumed(Time(1), WallTime(1 << 40), Vec::new());
        assert_eq!(saves(&mut subscriptions), 0, "not at once, lest a store that never has it makes a loop");
        let again = subscriptions.timeout().unwrap();
        assert!(again <= Time(10_001), "{again:?}");
        assert!(subscriptions.stale(again));
        subscriptions.resumed(again, WallTime(1 << 40), Vec::new());
        assert_eq!(saves(&mut subscriptions), 1);
    }

    #[test]
    fn parameters_are_the_same_in_any_order() {
        let key = |parameters: Json| SubscriptionKey::new("s", parameters.as_object().unwrap());
        assert_eq!(key(json!({"a": 1, "b": {"x": [1, {"q": 2, "p": 3}], "y": "\""}})), {
            key(json!({"b": {"y": "\"", "x": [1, {"p": 3, "q": 2}]}, "a": 1}))
        });
        assert_ne!(key(json!({"a": 1})), key(json!({"a": "1"})));
        assert_ne!(key(json!({"a": [1, 2]})), key(json!({"a": [2, 1]})));
    }
}
