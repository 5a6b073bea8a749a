//! Requests: which buckets a user's connection may have, from its token, parameters and subscriptions alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::evaluate::{Failure, evaluate, is_true};
use super::expression::{RequestInput, RequestSource};
use super::json_tree::{self, JsonTree, Numbers};
use super::normal_form::Side;
use super::plan::{Plan, Querier, Stream};
use crate::bucket::BucketPriority;
use crate::identity::Identity;
use crate::json;
use crate::value::Value;

/// Buckets that one kind of bucket may have in one subscription, so that lists of a client cannot exhaust the memory.
const REQUEST_LIMIT: usize = 10_000;

/// What a client asks for, and who it is.
#[derive(Debug, Clone, Copy)]
pub struct ConfigRequest<'a> {
    /// The verified identity (S7).
    pub identity: &'a Identity,
    /// The parameters of the connection (`connection.parameter('…')`).
    pub parameters: &'a Map<String, Json>,
    /// Whether streams with `auto_subscribe` are included; true unless the client says otherwise.
    pub include_defaults: bool,
    /// The explicit subscriptions.
    pub subscriptions: &'a [StreamSubscription],
}

/// A subscription to one stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamSubscription {
    /// The stream's name. A name that the config does not have is ignored.
    pub stream: String,
    /// The parameters (`subscription.parameter('…')`); absent ones are an empty map.
    pub parameters: Option<Map<String, Json>>,
    /// The priority of its buckets, instead of the stream's.
    pub override_priority: Option<BucketPriority>,
}

/// What a [`ConfigRequest`] may have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResolvedRequest {
    /// Every bucket once.
    pub buckets: Vec<ResolvedBucket>,
    /// The streams that the request uses, in the order of the config.
    pub streams: Vec<ResolvedStream>,
}

/// A bucket of a [`ResolvedRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedBucket {
    /// Index into [`SyncConfig::definitions`](super::SyncConfig::definitions).
    pub definition: usize,
    /// Its parameters as a compact JSON array.
    pub parameters: ByteString,
    /// The smallest number that any of its reasons gives.
    pub priority: BucketPriority,
    /// Everything that leads to it.
    pub reasons: Vec<Reason>,
}

/// Why a bucket belongs to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A stream with `auto_subscribe`: index into [`ResolvedRequest::streams`].
    Default(usize),
    /// An explicit subscription: index into [`ConfigRequest::subscriptions`].
    Subscription(usize),
}

/// A stream that a request uses.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedStream {
    /// Its name.
    pub name: Arc<str>,
    /// Whether the config subscribes everyone to it.
    pub is_default: bool,
    /// Subscriptions that could not be evaluated, with the reason. Their other buckets, and all other streams, are not
    /// affected.
    pub errors: Vec<(SubscriptionRef, String)>,
}

/// Which subscription of a stream is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionRef {
    /// The automatic one.
    Default,
    /// An explicit one: index into [`ConfigRequest::subscriptions`].
    Explicit(usize),
}

/// Resolves a request against a plan.
pub(super) fn resolve(plan: &Plan, request: &ConfigRequest<'_>) -> ResolvedRequest {
    let mut resolved = ResolvedRequest::default();
    let mut places = BTreeMap::new();
    for stream in &plan.streams {
        let automatic = stream.auto_subscribe && request.include_defaults;
        let explicit = request.subscriptions.iter().enumerate().filter(|(_, wish)| wish.stream == *stream.name);
        let wishes: Vec<_> = explicit.map(|(index, wish)| (SubscriptionRef::Explicit(index), Some(wish))).collect();
        if !automatic && wishes.is_empty() {
            continue;
        }
        let index = resolved.streams.len();
        resolved.streams.push(ResolvedStream {
            name: Arc::clone(&stream.name),
            is_default: stream.auto_subscribe,
            errors: Vec::new(),
        });
        let default = automatic.then_some((SubscriptionRef::Default, None));
        for (which, wish) in default.into_iter().chain(wishes) {
            let reason = match which {
                SubscriptionRef::Default => Reason::Default(index),
                SubscriptionRef::Explicit(subscription) => Reason::Subscription(subscription),
            };
            let wish = Wish { request, subscription: wish, reason };
            if let Err(message) = wish.add(stream, &mut resolved.buckets, &mut places) {
                resolved.streams[index].errors.push((which, message));
            }
        }
    }
    resolved
}

/// One subscription, explicit or automatic.
struct Wish<'a> {
    request: &'a ConfigRequest<'a>,
    subscription: Option<&'a StreamSubscription>,
    reason: Reason,
}

impl Wish<'_> {
    fn add(
        &self,
        stream: &Stream,
        buckets: &mut Vec<ResolvedBucket>,
        places: &mut BTreeMap<(usize, ByteString), usize>,
    ) -> Result<(), String> {
        let priority = self.subscription.and_then(|wish| wish.override_priority).unwrap_or(stream.priority);
        let mut failures = Vec::new();
        for querier in &stream.queriers {
            let parameters = match self.parameters(querier) {
                Ok(parameters) => parameters,
                Err(failure) => {
                    failures.push(failure.message);
                    continue;
                }
            };
            for parameters in parameters {
                let place = *places.entry((querier.definition, parameters.clone())).or_insert_with(|| {
                    let definition = querier.definition;
                    buckets.push(ResolvedBucket { definition, parameters, priority, reasons: Vec::new() });
                    buckets.len() - 1
                });
                let bucket = &mut buckets[place];
                bucket.priority = bucket.priority.min(priority);
                if !bucket.reasons.contains(&self.reason) {
                    bucket.reasons.push(self.reason);
                }
            }
        }
        failures.dedup();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    /// The parameters of all buckets that a querier finds.
    fn parameters(&self, querier: &Querier) -> Result<Vec<ByteString>, Failure> {
        for filter in &querier.filters {
            if !is_true(&*evaluate(filter, &|input| Cow::Owned(self.input(input)))?) {
                return Ok(Vec::new());
            }
        }
        let mut combined: Vec<Vec<u8>> = vec![b"[".to_vec()];
        for (index, sets) in querier.parameters.iter().enumerate() {
            let mut values: Option<Vec<Vec<u8>>> = None;
            for side in sets {
                let found = self.values(side)?;
                values = Some(match values {
                    None => found,
                    Some(values) => {
                        let found: BTreeSet<_> = found.into_iter().collect();
                        values.into_iter().filter(|value| found.contains(value)).collect()
                    }
                });
            }
            let values = values.unwrap_or_default();
            if combined.len().saturating_mul(values.len()) > REQUEST_LIMIT {
                let message = format!("the parameters of this request ask for more than {REQUEST_LIMIT} buckets");
                return Err(Failure::new("too-many-buckets", message));
            }
            combined = (combined.iter())
                .flat_map(|head| {
                    values.iter().map(move |value| {
                        let mut both = head.clone();
                        if index > 0 {
                            both.push(b',');
                        }
                        both.extend_from_slice(value);
                        both
                    })
                })
                .collect();
        }
        combined
            .into_iter()
            .map(|mut parameters| {
                parameters.push(b']');
                ByteString::try_from(parameters).map_err(|error| Failure::new("bad-parameter-value", error.to_string()))
            })
            .collect()
    }

    /// The distinct values of one side, each as JSON. NULL and blobs are in no bucket.
    fn values(&self, side: &Side<RequestInput>) -> Result<Vec<Vec<u8>>, Failure> {
        let value = evaluate(side.expression(), &|input| Cow::Owned(self.input(input)))?;
        let values = match side {
            Side::Value(_) => vec![value.into_owned()],
            Side::Elements(_) => json_tree::each(&value)?,
        };
        let mut written: Vec<Vec<u8>> = Vec::with_capacity(values.len());
        let mut seen = BTreeSet::new();
        for value in values.iter().filter(|value| !matches!(value, Value::Null | Value::Blob(_))) {
            let mut out = Vec::new();
            json::write_parameter(&mut out, value);
            if seen.insert(out.clone()) {
                written.push(out);
            }
        }
        Ok(written)
    }

    /// A value of the request.
    fn input(&self, input: &RequestInput) -> Value {
        let source = match input.source {
            RequestSource::Auth => Some(self.request.identity.claims()),
            RequestSource::Connection => Some(self.request.parameters),
            RequestSource::Subscription => match self.subscription {
                // The automatic subscription has no parameters at all.
                None => None,
                Some(wish) => match &wish.parameters {
                    Some(parameters) => Some(parameters),
                    None if input.path.is_empty() => return Value::text("{}"),
                    None => None,
                },
            },
        };
        let Some(source) = source else { return Value::Null };
        let Some((first, rest)) = input.path.split_first() else {
            let entries = source.iter().map(|(key, value)| (key.clone(), value.into()));
            return JsonTree::Object(entries.collect()).value(Numbers::Doubles);
        };
        let mut found = source.get(&**first);
        for key in rest {
            found = match found {
                Some(Json::Object(map)) => map.get(&**key),
                Some(Json::Array(items)) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
        }
        found.map_or(Value::Null, |found| JsonTree::from(found).value(Numbers::Doubles))
    }
}
