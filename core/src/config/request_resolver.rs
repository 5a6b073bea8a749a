//! The resolution of a request: which lookups it needs, and which buckets it comes to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::SyncConfig;
use super::plan::{Plan, Stage, Stream, StreamKind};
use super::querying::{self, Answers, ConfigLookup, Querying, Stop};
use super::request::{
    Budget, ConfigRequest, Reason, ResolvedBucket, ResolvedRequest, ResolvedStream, StreamSubscription, SubscriptionRef,
};
use super::wish::{Wish, parameters_text};
use crate::bucket::BucketPriority;
use crate::checkpoint::LookupRows;
use crate::error::{Error, Result};
use crate::identity::Identity;

/// Finds the buckets of one request, now and again when what it looked up has changed. It waits for nothing: whoever
/// drives it asks a store for the lookups that it wants, all at one checkpoint.
///
/// ```
/// use syncline_core::{ConfigRequest, Identity, LookupRows, ResolveStep, SyncConfig};
///
/// let config = SyncConfig::parse(
///     "
/// config: { edition: 3 }
/// streams:
///   notes:
///     auto_subscribe: true
///     query: SELECT * FROM notes WHERE list IN (SELECT list FROM members WHERE user = auth.user_id())
/// ",
/// )?;
/// let request = ConfigRequest {
///     identity: &Identity::new("anna"),
///     parameters: &Default::default(),
///     include_defaults: true,
///     subscriptions: &[],
/// };
/// let mut resolver = config.resolver(&request, 1_000);
/// let ResolveStep::Lookups(wanted) = resolver.poll()? else { panic!("the members must be asked for") };
/// assert_eq!(wanted[0].values, r#"["anna"]"#);
/// resolver.answer(wanted, vec![LookupRows { rows: vec!["[\"l1\"]".into(), "[\"l2\"]".into()] }])?;
/// let ResolveStep::Done(resolved) = resolver.poll()? else { panic!("nothing else is asked for") };
/// assert_eq!(resolved.buckets.len(), 2);
/// # Ok::<(), syncline_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RequestResolver {
    config: SyncConfig,
    identity: Identity,
    parameters: Map<String, Json>,
    subscriptions: Vec<StreamSubscription>,
    limit: usize,
    /// In the order of the config; those of one stream follow each other.
    wishes: Vec<StreamWish>,
    /// Answers that are needed still, or again when another one changes.
    answers: Answers,
    /// Lookups that were answered and have changed: they are asked for again before anything is found anew.
    changed: BTreeSet<ConfigLookup>,
}

/// What a resolution needs, or comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum ResolveStep {
    /// The rows of these keys, all at one checkpoint: to be given to [`RequestResolver::answer`].
    Lookups(Vec<ConfigLookup>),
    /// The buckets.
    Done(ResolvedRequest),
}

/// Subscriptions of a stream that differ in nothing but their priority.
#[derive(Debug)]
struct StreamWish {
    /// Index into the plan's streams.
    stream: usize,
    /// Whether the automatic subscription is meant.
    automatic: bool,
    /// Indexes into the subscriptions.
    explicit: Vec<usize>,
    /// What each of the stream's queriers has found; `None` is not known.
    found: Vec<Option<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    parameters: Vec<ByteString>,
    /// Why there may be more.
    failure: Option<String>,
    used: BTreeSet<ConfigLookup>,
}

impl RequestResolver {
    pub(super) fn new(config: SyncConfig, request: &ConfigRequest<'_>, limit: usize) -> Self {
        let mut wishes: Vec<StreamWish> = Vec::new();
        for (index, stream) in config.plan().streams.iter().enumerate() {
            let wish = |automatic, explicit| {
                let found = stream.queriers.iter().map(|_| None).collect();
                StreamWish { stream: index, automatic, explicit, found }
            };
            if stream.auto_subscribe && request.include_defaults {
                wishes.push(wish(true, Vec::new()));
            }
            let mut places: BTreeMap<String, usize> = BTreeMap::new();
            let explicit = request.subscriptions.iter().enumerate();
            let by_name = stream.kind == StreamKind::Stream;
            for (number, subscription) in explicit.filter(|(_, wish)| by_name && wish.stream == *stream.name) {
                match places.entry(parameters_text(subscription)) {
                    Entry::Occupied(known) => wishes[*known.get()].explicit.push(number),
                    Entry::Vacant(new) => {
                        new.insert(wishes.len());
                        wishes.push(wish(false, vec![number]));
                    }
                }
            }
        }
        Self {
            identity: request.identity.clone(),
            parameters: request.parameters.clone(),
            subscriptions: request.subscriptions.to_vec(),
            config,
            limit,
            wishes,
            answers: Answers::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Whether anything is looked up for it: if not, it never changes.
    pub fn is_dynamic(&self) -> bool {
        let plan = self.config.plan();
        let looks_up = |stage: &Stage| matches!(stage, Stage::Lookup { .. });
        self.wishes.iter().any(|wish| {
            let queriers = plan.streams.get(wish.stream).map(|stream| stream.queriers.as_slice());
            queriers.into_iter().flatten().any(|querier| querier.wanted.stages.iter().any(looks_up))
        })
    }

    /// What is needed next, or what it comes to.
    ///
    /// # Errors
    /// `Invalid` with `PSYNC_S2305` as soon as the request exceeds its limit of buckets, or other things out of proportion
    /// to them (S9); the message names the stream that is to blame. `Invalid` too if a bucket definition cannot be evaluated
    /// for this request: other than with a stream, there is nobody to tell but the whole connection.
    pub fn poll(&mut self) -> Result<ResolveStep> {
        if !self.changed.is_empty() {
            return Ok(ResolveStep::Lookups(std::mem::take(&mut self.changed).into_iter().collect()));
        }
        let budget = if self.limit == usize::MAX { Budget::unlimited() } else { Budget::new(self.limit) };
        let mut missing = BTreeSet::new();
        let mut wishes = std::mem::take(&mut self.wishes);
        let advanced = wishes.iter_mut().try_for_each(|wish| self.advance(wish, &budget, &mut missing));
        self.wishes = wishes;
        advanced?;
        if !missing.is_empty() {
            return Ok(ResolveStep::Lookups(missing.into_iter().collect()));
        }
        self.keep_answers();
        Assembly::new(self.config.plan(), &budget).assemble(self).map(ResolveStep::Done)
    }

    /// The rows of keys that were asked for, in their order.
    ///
    /// # Errors
    /// `Internal` if there is not one answer per key, or a row is no JSON array.
    pub fn answer(&mut self, asked: Vec<ConfigLookup>, answers: Vec<LookupRows>) -> Result<()> {
        if asked.len() != answers.len() {
            return Err(Error::internal("there must be one answer per lookup"));
        }
        for (lookup, answer) in asked.into_iter().zip(answers) {
            let rows = querying::rows(&answer).map_err(|failure| Error::internal(failure.message))?;
            self.answers.insert(lookup, rows);
        }
        Ok(())
    }

    /// The keys that the result depends on.
    pub fn lookups(&self) -> impl Iterator<Item = &ConfigLookup> {
        self.wishes.iter().flat_map(|wish| &wish.found).flatten().flat_map(|found| &found.used)
    }

    /// Forgets what is not worth keeping, and above all what nobody depends on: nobody watches whether it changes. A querier
    /// with a single lookup starts over when that one changes; of one with many, only what has changed is asked for again.
    fn keep_answers(&mut self) {
        let used = self.wishes.iter().flat_map(|wish| &wish.found).flatten().map(|found| &found.used);
        let used = used.filter(|used| used.len() > 1);
        // Mostly one querier has asked for all of them.
        if used.clone().any(|used| used.iter().eq(self.answers.keys())) {
            return;
        }
        let kept: BTreeSet<&ConfigLookup> = used.flatten().collect();
        self.answers.retain(|lookup, _| kept.contains(lookup));
    }

    /// The rows of these keys have changed since they were answered: what depends on them is found again by the next
    /// [`poll`](Self::poll), which asks for them alone. Whether there is anything.
    ///
    /// A resolution that was not [`Done`](ResolveStep::Done) starts over: nobody may have watched what it has asked for so far.
    pub fn invalidate(&mut self, changed: &BTreeSet<ConfigLookup>) -> bool {
        self.forget(|used| changed.iter().filter(|lookup| used.contains(*lookup)).cloned().collect())
    }

    /// The same if any key may have changed.
    pub fn invalidate_all(&mut self) -> bool {
        self.forget(Clone::clone)
    }

    /// `changed` says which of the lookups that a querier used have changed.
    fn forget(&mut self, changed: impl Fn(&BTreeSet<ConfigLookup>) -> BTreeSet<ConfigLookup>) -> bool {
        let interrupted = self.wishes.iter().flat_map(|wish| &wish.found).any(Option::is_none);
        self.changed.clear();
        let mut any = interrupted;
        for found in self.wishes.iter_mut().flat_map(|wish| &mut wish.found) {
            let Some(known) = found else { continue };
            let mut lookups = changed(&known.used);
            if !lookups.is_empty() {
                any = true;
                *found = None;
                self.changed.append(&mut lookups);
            }
        }
        if interrupted {
            self.answers.clear();
            self.changed.clear();
        }
        self.changed.iter().for_each(|lookup| drop(self.answers.remove(lookup)));
        any
    }

    /// Finds what is not known of a wish, as far as answers are there.
    fn advance(&self, wish: &mut StreamWish, budget: &Budget, missing: &mut BTreeSet<ConfigLookup>) -> Result<()> {
        let plan = self.config.plan();
        let Some(stream) = plan.streams.get(wish.stream) else { return Ok(()) };
        let subscription = wish.explicit.first().and_then(|index| self.subscriptions.get(*index));
        let values = Wish { identity: &self.identity, parameters: &self.parameters, subscription, budget };
        for (querier, found) in stream.queriers.iter().zip(&mut wish.found).filter(|(_, found)| found.is_none()) {
            let mut querying = Querying { querier, wish: values, answers: &self.answers, used: BTreeSet::new() };
            let result = querying.parameters();
            let used = querying.used;
            match result {
                Ok(parameters) => *found = Some(Found { parameters, failure: None, used }),
                Err(Stop::Failure(failure)) if stream.kind == StreamKind::BucketDefinition => {
                    return Err(Error::invalid(format!(
                        "the bucket definition `{}` cannot be evaluated for this request: {}",
                        stream.name, failure.message
                    )));
                }
                Err(Stop::Failure(failure)) => {
                    budget.spend(failure.message.len());
                    *found = Some(Found { parameters: Vec::new(), failure: Some(failure.message), used });
                }
                Err(Stop::Missing(lookups)) => missing.extend(lookups),
            }
            if budget.is_spent() {
                return Err(budget.exceeded(&stream.name, "the parameters of this request yield too much"));
            }
            if missing.len() > self.limit.saturating_mul(LOOKUPS_PER_BUCKET) {
                return Err(budget.exceeded(&stream.name, "this request needs too many lookups"));
            }
        }
        Ok(())
    }
}

/// Lookups that a request may need at a time, for each bucket of its limit.
const LOOKUPS_PER_BUCKET: usize = 10;

/// Buckets with everything that leads to them.
struct Assembly<'a> {
    plan: &'a Plan,
    budget: &'a Budget,
    buckets: Vec<ResolvedBucket>,
    /// How many queriers have found buckets of each definition. One alone finds no bucket twice.
    finders: BTreeMap<usize, usize>,
    /// Where the buckets are that several may find.
    places: BTreeMap<(usize, ByteString), usize>,
    reasons: usize,
}

impl<'a> Assembly<'a> {
    fn new(plan: &'a Plan, budget: &'a Budget) -> Self {
        let (finders, places) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, budget, buckets: Vec::new(), finders, places, reasons: 0 }
    }

    fn assemble(mut self, resolver: &RequestResolver) -> Result<ResolvedRequest> {
        let mut streams: Vec<ResolvedStream> = Vec::new();
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        for wish in &resolver.wishes {
            let queriers = self.plan.streams.get(wish.stream).map(|stream| stream.queriers.as_slice());
            queriers
                .into_iter()
                .flatten()
                .for_each(|querier| *self.finders.entry(querier.definition).or_default() += 1);
        }
        for wish in &resolver.wishes {
            let Some(stream) = self.plan.streams.get(wish.stream) else { continue };
            let number = *numbers.entry(wish.stream).or_insert_with(|| {
                let (name, is_default) = (Arc::clone(&stream.name), stream.auto_subscribe);
                streams.push(ResolvedStream { name, is_default, errors: Vec::new() });
                streams.len() - 1
            });
            let places = self.places(stream, wish)?;
            let mut failures: Vec<_> =
                wish.found.iter().flatten().filter_map(|found| found.failure.as_deref()).collect();
            failures.dedup();
            let failure = (!failures.is_empty()).then(|| failures.join("; "));
            let automatic = wish.automatic.then_some((None, Reason::Default(number), SubscriptionRef::Default));
            let explicit = wish.explicit.iter().map(|index| {
                let own = resolver.subscriptions.get(*index).and_then(|subscription| subscription.override_priority);
                (own, Reason::Subscription(*index), SubscriptionRef::Explicit(*index))
            });
            for (priority, reason, of) in automatic.into_iter().chain(explicit) {
                self.add(stream, &places, priority, reason)?;
                if let Some(failure) = &failure {
                    streams[number].errors.push((of, failure.clone()));
                }
            }
        }
        Ok(ResolvedRequest { buckets: self.buckets, streams })
    }

    /// The places of the buckets of a wish in the list, each once, with the priorities that the config gives them.
    fn places(&mut self, stream: &Stream, wish: &StreamWish) -> Result<Vec<(usize, BucketPriority)>> {
        let mut places = Vec::new();
        for (querier, found) in stream.queriers.iter().zip(&wish.found) {
            let alone = self.finders.get(&querier.definition) == Some(&1);
            for parameters in found.iter().flat_map(|found| &found.parameters) {
                let next = self.buckets.len();
                if !alone {
                    match self.places.entry((querier.definition, parameters.clone())) {
                        Entry::Occupied(known) => {
                            places.push((*known.get(), querier.priority));
                            continue;
                        }
                        Entry::Vacant(new) => drop(new.insert(next)),
                    }
                }
                if next == self.budget.buckets {
                    return Err(self.budget.exceeded(&stream.name, "this user's streams yield too many buckets"));
                }
                self.buckets.push(ResolvedBucket {
                    definition: querier.definition,
                    parameters: parameters.clone(),
                    priority: BucketPriority(u8::MAX),
                    reasons: Vec::new(),
                });
                places.push((next, querier.priority));
            }
        }
        places.sort_unstable();
        // The smallest priority of each comes first.
        places.dedup_by_key(|(place, _)| *place);
        Ok(places)
    }

    /// Adds a reason to buckets; `priority` replaces that of the config.
    fn add(
        &mut self,
        stream: &Stream,
        places: &[(usize, BucketPriority)],
        priority: Option<BucketPriority>,
        reason: Reason,
    ) -> Result<()> {
        self.reasons = self.reasons.saturating_add(places.len());
        if self.reasons > self.budget.reasons {
            return Err(self.budget.exceeded(&stream.name, "this user's subscriptions lead to too many buckets"));
        }
        for (place, own) in places {
            let bucket = &mut self.buckets[*place];
            bucket.priority = bucket.priority.min(priority.unwrap_or(*own));
            bucket.reasons.push(reason);
        }
        Ok(())
    }
}
