//! Requests: which buckets a user's connection may have, from its token, parameters and subscriptions alone.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::evaluate::{Failure, evaluate, has_equals, is_true};
use super::expression::{RequestInput, RequestSource};
use super::json_tree::{self, JsonTree, Numbers};
use super::normal_form::Side;
use super::plan::{Plan, Querier, Stream};
use crate::bucket::BucketPriority;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::json;
use crate::value::Value;

/// Buckets that one kind of bucket may have in one subscription, so that lists of a client cannot exhaust the memory.
const REQUEST_LIMIT: usize = 10_000;
/// Reasons per bucket that a resolution may give, on average, at its limit of buckets.
const REASONS_PER_BUCKET: usize = 4;
/// Bytes of values and parameters that a resolution may handle: what takes a moment, and no longer.
const REQUEST_BYTES: usize = 16 << 20;

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

/// What a resolution may take: no request of one client may hold up or starve the others (S9).
#[derive(Debug)]
pub(super) struct Budget {
    /// Buckets in all.
    buckets: usize,
    /// Reasons of all buckets together.
    reasons: usize,
    /// Bytes that values and parameters may still take.
    bytes: Cell<usize>,
}

impl Budget {
    /// For at most so many buckets.
    pub(super) fn new(buckets: usize) -> Self {
        Self { buckets, reasons: buckets.saturating_mul(REASONS_PER_BUCKET), bytes: Cell::new(REQUEST_BYTES) }
    }

    /// Whatever it takes.
    pub(super) fn unlimited() -> Self {
        Self { buckets: usize::MAX, reasons: usize::MAX, bytes: Cell::new(usize::MAX) }
    }

    fn spend(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    fn is_spent(&self) -> bool {
        self.bytes.get() == 0
    }

    fn exceeded(&self, what: &str) -> Error {
        let limit = self.buckets;
        Error::invalid(format!(
            "{what} (the limit of this service is {limit} buckets: ask for fewer, or raise `buckets_per_stream`)"
        ))
        .with_code("PSYNC_S2305")
    }
}

/// Resolves a request against a plan.
///
/// # Errors
/// `Invalid` with `PSYNC_S2305` as soon as it exceeds the budget.
pub(super) fn resolve(plan: &Plan, request: &ConfigRequest<'_>, budget: &Budget) -> Result<ResolvedRequest> {
    let mut resolved = ResolvedRequest::default();
    let mut found = FoundBuckets::new(budget);
    for stream in &plan.streams {
        let automatic = stream.auto_subscribe && request.include_defaults;
        let explicit = request.subscriptions.iter().enumerate().filter(|(_, wish)| wish.stream == *stream.name);
        let explicit: Vec<_> = explicit.collect();
        if !automatic && explicit.is_empty() {
            continue;
        }
        let index = resolved.streams.len();
        let mut errors = Vec::new();
        if automatic {
            let answer = Wish { request, subscription: None, budget }.answer(stream, &mut found)?;
            found.add(&answer, stream.priority, Reason::Default(index))?;
            errors.extend(answer.failure.map(|message| (SubscriptionRef::Default, message)));
        }
        // Subscriptions that differ in nothing but their priority have one answer.
        let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
        for (number, subscription) in explicit {
            let parameters = subscription.parameters.as_ref().map(|map| JsonTree::Object(entries(map)));
            let parameters = parameters.map_or_else(String::new, |tree| tree.text(Numbers::Doubles));
            let answer = match answers.entry(parameters) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let wish = Wish { request, subscription: Some(subscription), budget };
                    new.insert(wish.answer(stream, &mut found)?)
                }
            };
            let priority = subscription.override_priority.unwrap_or(stream.priority);
            found.add(answer, priority, Reason::Subscription(number))?;
            if let Some(message) = &answer.failure {
                errors.push((SubscriptionRef::Explicit(number), message.clone()));
            }
        }
        let (name, is_default) = (Arc::clone(&stream.name), stream.auto_subscribe);
        resolved.streams.push(ResolvedStream { name, is_default, errors });
    }
    resolved.buckets = found.buckets;
    Ok(resolved)
}

fn entries(map: &Map<String, Json>) -> Vec<(String, JsonTree)> {
    map.iter().map(|(key, value)| (key.clone(), value.into())).collect()
}

/// The buckets that were found so far.
struct FoundBuckets<'a> {
    buckets: Vec<ResolvedBucket>,
    places: BTreeMap<(usize, ByteString), usize>,
    reasons: usize,
    budget: &'a Budget,
}

impl<'a> FoundBuckets<'a> {
    fn new(budget: &'a Budget) -> Self {
        Self { buckets: Vec::new(), places: BTreeMap::new(), reasons: 0, budget }
    }

    /// The place of a bucket in the list.
    fn place(&mut self, definition: usize, parameters: ByteString) -> Result<usize> {
        match self.places.entry((definition, parameters)) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let place = self.buckets.len();
                if place == self.budget.buckets {
                    return Err(self.budget.exceeded("this user's streams yield too many buckets"));
                }
                let (_, parameters) = new.key().clone();
                let (priority, reasons) = (BucketPriority(u8::MAX), Vec::new());
                self.buckets.push(ResolvedBucket { definition, parameters, priority, reasons });
                Ok(*new.insert(place))
            }
        }
    }

    /// One more reason for the buckets of an answer.
    fn add(&mut self, answer: &Answer, priority: BucketPriority, reason: Reason) -> Result<()> {
        self.reasons = self.reasons.saturating_add(answer.places.len());
        if self.reasons > self.budget.reasons {
            return Err(self.budget.exceeded("this user's subscriptions lead to too many buckets"));
        }
        for &place in &answer.places {
            let bucket = &mut self.buckets[place];
            bucket.priority = bucket.priority.min(priority);
            bucket.reasons.push(reason);
        }
        Ok(())
    }
}

/// What one subscription yields.
struct Answer {
    /// Places of buckets, each once.
    places: Vec<usize>,
    /// Why there may be more.
    failure: Option<String>,
}

/// One subscription, explicit or automatic.
struct Wish<'a> {
    request: &'a ConfigRequest<'a>,
    subscription: Option<&'a StreamSubscription>,
    budget: &'a Budget,
}

impl Wish<'_> {
    fn answer(&self, stream: &Stream, found: &mut FoundBuckets<'_>) -> Result<Answer> {
        let mut places = Vec::new();
        let mut failures = Vec::new();
        for querier in &stream.queriers {
            match self.parameters(querier) {
                Ok(parameters) => {
                    for parameters in parameters {
                        places.push(found.place(querier.definition, parameters)?);
                    }
                }
                Err(failure) => {
                    self.budget.spend(failure.message.len());
                    failures.push(failure.message);
                }
            }
            if self.budget.is_spent() {
                return Err(self.budget.exceeded("the parameters of this request yield too much"));
            }
        }
        places.sort_unstable();
        places.dedup();
        failures.dedup();
        Ok(Answer { places, failure: (!failures.is_empty()).then(|| failures.join("; ")) })
    }

    /// The parameters of all buckets that a querier finds.
    fn parameters(&self, querier: &Querier) -> std::result::Result<Vec<ByteString>, Failure> {
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
            self.budget.spend(product(&combined, &values));
            if self.budget.is_spent() {
                // Which ends the whole resolution.
                return Ok(Vec::new());
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

    /// The distinct values of one side, each as JSON. What equals nothing is in no bucket.
    fn values(&self, side: &Side<RequestInput>) -> std::result::Result<Vec<Vec<u8>>, Failure> {
        let value = evaluate(side.expression(), &|input| Cow::Owned(self.input(input)))?;
        let values = match side {
            Side::Value(_) => vec![value.into_owned()],
            Side::Elements(_) => json_tree::each(&value)?,
        };
        let mut written: Vec<Vec<u8>> = Vec::with_capacity(values.len());
        let mut seen = BTreeSet::new();
        for value in values.iter().filter(|value| has_equals(value)) {
            let mut out = Vec::new();
            json::write_parameter(&mut out, value);
            self.budget.spend(out.len() + size_of::<Vec<u8>>());
            if seen.insert(out.clone()) {
                written.push(out);
            }
        }
        Ok(written)
    }

    /// A value of the request.
    fn input(&self, input: &RequestInput) -> Value {
        let value = self.read_input(input);
        self.budget.spend(value.size());
        value
    }

    fn read_input(&self, input: &RequestInput) -> Value {
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
            return JsonTree::Object(entries(source)).value(Numbers::Doubles);
        };
        let mut found = source.get(&**first);
        let mut rest = rest.iter();
        while let Some(key) = rest.next() {
            found = match found {
                Some(Json::Object(map)) => map.get(&**key),
                Some(Json::Array(items)) => json_tree::index(key).and_then(|index| items.get(index)),
                // Units of a text, as `->>` has them.
                Some(Json::String(text)) => {
                    let text = JsonTree::Text(text.clone());
                    let unit = std::iter::once(key).chain(rest).try_fold(text, |text, key| text.step(key));
                    return unit.map_or(Value::Null, |unit| unit.value(Numbers::Doubles));
                }
                _ => None,
            };
        }
        found.map_or(Value::Null, |found| JsonTree::from(found).value(Numbers::Doubles))
    }
}

/// The bytes that all combinations of these take.
fn product(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> usize {
    let bytes = |list: &[Vec<u8>]| list.iter().map(|one| one.len() + size_of::<Vec<u8>>()).sum::<usize>();
    bytes(heads).saturating_mul(tails.len()).saturating_add(bytes(tails).saturating_mul(heads.len()))
}
