//! The resolution of a request: which lookups it needs, and which buckets it comes to.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::SyncConfig;
use super::assembly::{Assembly, describe};
use super::finder::{Finder, Reopened};
use super::plan::{Stage, StreamKind};
use super::querying::{Answer, Answers, ConfigLookup};
use super::request::{
    Budget, ConfigRequest, Reason, ResolvedBucket, ResolvedChanges, ResolvedRequest, StreamSubscription,
};
use super::wish::{Wish, parameters_text};
use crate::bucket::BucketPriority;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lookup_change::LookupChange;

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
    changed: Reopened,
    /// What it came to the last time.
    totals: Option<Totals>,
}

/// What a resolution needs, or comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum ResolveStep<T = ResolvedRequest> {
    /// The rows of these keys, all at one checkpoint: to be given to [`RequestResolver::answer`].
    Lookups(Vec<ConfigLookup>),
    /// The same of keys that were answered before and have changed since: for each what differs from that answer, or all
    /// rows that it has now.
    Changed(Vec<ConfigLookup>),
    /// The buckets, or what has changed of them.
    Done(T),
}

/// Subscriptions of a stream that differ in nothing but their priority.
#[derive(Debug)]
pub(super) struct StreamWish {
    /// Index into the plan's streams.
    pub(super) stream: usize,
    /// Whether the automatic subscription is meant.
    pub(super) automatic: bool,
    /// Indexes into the subscriptions.
    pub(super) explicit: Vec<usize>,
    /// What each of the stream's queriers finds.
    pub(super) finders: Vec<Finder>,
}

impl StreamWish {
    /// The reasons that it gives its buckets, each with the priority that replaces that of the config; `number` is the place
    /// of its stream.
    pub(super) fn reasons<'a>(
        &'a self,
        number: usize,
        subscriptions: &'a [StreamSubscription],
    ) -> impl Iterator<Item = (Option<BucketPriority>, Reason)> + 'a {
        let automatic = self.automatic.then_some((None, Reason::Default(number)));
        automatic.into_iter().chain(self.explicit.iter().map(|index| {
            let own = subscriptions.get(*index).and_then(|subscription| subscription.override_priority);
            (own, Reason::Subscription(*index))
        }))
    }

    fn reason_count(&self) -> usize {
        usize::from(self.automatic) + self.explicit.len()
    }
}

/// How much a request came to.
#[derive(Debug, Clone, Copy)]
struct Totals {
    buckets: usize,
    reasons: usize,
}

/// A bucket by its definition and its parameters.
type BucketKey = (usize, ByteString);

impl RequestResolver {
    pub(super) fn new(config: SyncConfig, request: &ConfigRequest<'_>, limit: usize) -> Self {
        let mut wishes: Vec<StreamWish> = Vec::new();
        for (index, stream) in config.plan().streams.iter().enumerate() {
            let wish = |automatic, explicit| {
                let finders = stream.queriers.iter().map(|_| Finder::New).collect();
                StreamWish { stream: index, automatic, explicit, finders }
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
            changed: Reopened::default(),
            totals: None,
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
        let budget = self.budget();
        if let Some(step) = self.find(&budget)? {
            return Ok(step);
        }
        for finder in self.wishes.iter_mut().flat_map(|wish| &mut wish.finders) {
            finder.take_changes(&budget);
        }
        self.whole(&budget).map(ResolveStep::Done)
    }

    /// The same, as what differs from the last time: at first and after an error everything. What it takes depends on what
    /// has changed, and not on how many buckets there are, for conditions whose lookups each need one that comes before: a
    /// list in which the user is a member, of an organisation in which they are one. For others, among them those that need
    /// several lookups at a time or `json_each`, it takes what their definition takes as a whole.
    ///
    /// # Errors
    /// Those of [`poll`](Self::poll).
    pub fn poll_changes(&mut self) -> Result<ResolveStep<ResolvedChanges>> {
        let budget = self.budget();
        if let Some(step) = self.find(&budget)? {
            return Ok(step);
        }
        self.changes(&budget).map(ResolveStep::Done)
    }

    fn budget(&self) -> Budget {
        if self.limit == usize::MAX { Budget::unlimited() } else { Budget::new(self.limit) }
    }

    /// Finds what is not known, as far as answers are there: the lookups that are needed next, or that nothing is missing.
    fn find<T>(&mut self, budget: &Budget) -> Result<Option<ResolveStep<T>>> {
        let Reopened { whole, differences } = &mut self.changed;
        if !whole.is_empty() {
            return Ok(Some(ResolveStep::Lookups(std::mem::take(whole).into_iter().collect())));
        }
        if !differences.is_empty() {
            return Ok(Some(ResolveStep::Changed(std::mem::take(differences).into_iter().collect())));
        }
        let mut missing = BTreeSet::new();
        // What is kept counts as long as it is kept.
        let kept = self.wishes.iter().flat_map(|wish| &wish.finders).filter(|finder| finder.is_done());
        kept.for_each(|finder| budget.spend(finder.size()));
        let mut wishes = std::mem::take(&mut self.wishes);
        let advanced = wishes.iter_mut().try_for_each(|wish| self.advance(wish, budget, &mut missing));
        self.wishes = wishes;
        if let Err(error) = advanced {
            self.totals = None;
            return Err(error);
        }
        if missing.is_empty() {
            self.keep_answers();
            return Ok(None);
        }
        Ok(Some(ResolveStep::Lookups(missing.into_iter().collect())))
    }

    /// Everything that was found.
    fn whole(&mut self, budget: &Budget) -> Result<ResolvedRequest> {
        self.totals = None;
        let resolved = Assembly::new(self.config.plan(), budget, &self.subscriptions).assemble(&self.wishes)?;
        let reasons = resolved.buckets.iter().map(|bucket| bucket.reasons.len()).sum();
        self.totals = Some(Totals { buckets: resolved.buckets.len(), reasons });
        Ok(resolved)
    }

    fn changes(&mut self, budget: &Budget) -> Result<ResolvedChanges> {
        // Of each bucket whose finders have changed: who found it before and does not now, or the other way round.
        let mut flipped: BTreeMap<BucketKey, BTreeSet<(usize, usize)>> = BTreeMap::new();
        let mut moved = BTreeSet::new();
        for (place, wish) in self.wishes.iter_mut().enumerate() {
            let Some(stream) = self.config.plan().streams.get(wish.stream) else { continue };
            for (number, (querier, finder)) in stream.queriers.iter().zip(&mut wish.finders).enumerate() {
                let mut changes = finder.take_changes(budget);
                moved.append(&mut changes.lookups);
                if self.totals.is_some() {
                    for parameters in changes.parameters {
                        flipped.entry((querier.definition, parameters)).or_default().insert((place, number));
                    }
                }
            }
        }
        let Some(totals) = self.totals else {
            let resolved = self.whole(budget)?;
            let lookups = self.lookups().cloned().collect::<BTreeSet<_>>().into_iter();
            let lookups = lookups.map(|lookup| (lookup, true)).collect();
            return Ok(ResolvedChanges {
                buckets: resolved.buckets,
                gone: Vec::new(),
                lookups,
                streams: resolved.streams,
            });
        };
        let lookups = moved.into_iter().map(|lookup| {
            let used = self.wishes.iter().flat_map(|wish| &wish.finders).any(|finder| finder.uses(&lookup));
            (lookup, used)
        });
        let lookups = lookups.collect();
        // Either the buckets one by one, each with all who may find it, or all together.
        let steps = flipped.len().saturating_mul(self.wishes.len());
        let found = match steps <= totals.buckets + totals.reasons {
            true => self.one_by_one(&flipped, totals, budget),
            false => None,
        };
        match found {
            Some((totals, buckets, gone)) => {
                self.totals = Some(totals);
                let (streams, _) = describe(self.config.plan(), budget, &self.wishes);
                Ok(ResolvedChanges { buckets, gone, lookups, streams })
            }
            None => {
                let ResolvedRequest { buckets, streams } = self.whole(budget)?;
                let mut gone = flipped;
                let mut changed = Vec::new();
                for bucket in buckets {
                    if gone.remove(&(bucket.definition, bucket.parameters.clone())).is_some() {
                        changed.push(bucket);
                    }
                }
                Ok(ResolvedChanges { buckets: changed, gone: gone.into_keys().collect(), lookups, streams })
            }
        }
    }

    /// What each of these buckets is now, and how much it comes to; `None` if that is more than the request may have.
    fn one_by_one(
        &self,
        flipped: &BTreeMap<BucketKey, BTreeSet<(usize, usize)>>,
        mut totals: Totals,
        budget: &Budget,
    ) -> Option<(Totals, Vec<ResolvedBucket>, Vec<BucketKey>)> {
        let (_, numbers) = describe(self.config.plan(), budget, &self.wishes);
        let (mut buckets, mut gone) = (Vec::new(), Vec::new());
        for (key, flipped) in flipped {
            let (definition, parameters) = key;
            let mut bucket = ResolvedBucket {
                definition: *definition,
                parameters: parameters.clone(),
                priority: BucketPriority(u8::MAX),
                reasons: Vec::new(),
            };
            let mut reasons_before = 0;
            for (place, wish) in self.wishes.iter().enumerate() {
                let Some(stream) = self.config.plan().streams.get(wish.stream) else { continue };
                let (mut before, mut own) = (false, None);
                for (number, (querier, finder)) in stream.queriers.iter().zip(&wish.finders).enumerate() {
                    if querier.definition == *definition {
                        let finds = finder.contains(parameters);
                        before |= finds != flipped.contains(&(place, number));
                        own = own.into_iter().chain(finds.then_some(querier.priority)).min();
                    }
                }
                reasons_before += if before { wish.reason_count() } else { 0 };
                let Some(own) = own else { continue };
                for (priority, reason) in wish.reasons(numbers[place], &self.subscriptions) {
                    bucket.priority = bucket.priority.min(priority.unwrap_or(own));
                    bucket.reasons.push(reason);
                }
            }
            totals.buckets = totals.buckets + usize::from(!bucket.reasons.is_empty()) - usize::from(reasons_before > 0);
            totals.reasons = totals.reasons + bucket.reasons.len() - reasons_before;
            if bucket.reasons.is_empty() {
                gone.push(key.clone());
            } else {
                buckets.push(bucket);
            }
        }
        let within = totals.buckets <= budget.buckets && totals.reasons <= budget.reasons;
        within.then_some((totals, buckets, gone))
    }

    /// The rows of keys that were asked for, in their order: [`LookupRows`](crate::LookupRows), or, for those that have
    /// [changed](ResolveStep::Changed), what [`LookupChange`] says.
    ///
    /// # Errors
    /// `Internal` if there is not one answer per key, or a row is no JSON array.
    pub fn answer<A: Into<LookupChange>>(&mut self, asked: Vec<ConfigLookup>, answers: Vec<A>) -> Result<()> {
        if asked.len() != answers.len() {
            return Err(Error::internal("there must be one answer per lookup"));
        }
        for (lookup, answer) in asked.into_iter().zip(answers) {
            let answer = Answer::new(&answer.into()).map_err(|failure| Error::internal(failure.message))?;
            self.answers.insert(lookup, answer);
        }
        Ok(())
    }

    /// The keys that the result depends on; one may come several times.
    pub fn lookups(&self) -> impl Iterator<Item = &ConfigLookup> {
        self.wishes.iter().flat_map(|wish| &wish.finders).flat_map(Finder::lookups)
    }

    /// Forgets what is not worth keeping, and above all what nobody depends on: nobody watches whether it changes. A querier
    /// with a single lookup starts over when that one changes, and a chain keeps what it needs by itself; of any other, only
    /// what has changed is asked for again.
    fn keep_answers(&mut self) {
        let used = self.wishes.iter().flat_map(|wish| &wish.finders).filter_map(Finder::needed_again);
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
        self.forget(Some(changed))
    }

    /// The same if any key may have changed.
    pub fn invalidate_all(&mut self) -> bool {
        self.forget(None)
    }

    /// `None` stands for all.
    fn forget(&mut self, changed: Option<&BTreeSet<ConfigLookup>>) -> bool {
        let finders = || self.wishes.iter().flat_map(|wish| &wish.finders);
        let interrupted = finders().any(|finder| !finder.is_done());
        self.changed = Reopened::default();
        let mut any = interrupted;
        for finder in self.wishes.iter_mut().flat_map(|wish| &mut wish.finders) {
            let changed = if finder.is_done() { changed } else { None };
            any |= finder.forget(changed, &mut self.changed);
        }
        if interrupted {
            self.answers.clear();
            self.changed = Reopened::default();
        }
        let Reopened { whole, differences } = &mut self.changed;
        differences.retain(|lookup| !whole.contains(lookup));
        whole.iter().chain(&*differences).for_each(|lookup| drop(self.answers.remove(lookup)));
        any
    }

    /// Finds what is not known of a wish, as far as answers are there.
    fn advance(&self, wish: &mut StreamWish, budget: &Budget, missing: &mut BTreeSet<ConfigLookup>) -> Result<()> {
        let plan = self.config.plan();
        let Some(stream) = plan.streams.get(wish.stream) else { return Ok(()) };
        let subscription = wish.explicit.first().and_then(|index| self.subscriptions.get(*index));
        let values = Wish { identity: &self.identity, parameters: &self.parameters, subscription, budget };
        let queriers = stream.queriers.iter().zip(&mut wish.finders);
        for (querier, finder) in queriers.filter(|(_, finder)| !finder.is_done()) {
            let failure = finder.advance(querier, values, self.config.texts(), &self.answers, missing)?;
            if let Some(failure) = failure
                && stream.kind == StreamKind::BucketDefinition
            {
                // So that it fails again if it is polled again.
                *finder = Finder::New;
                return Err(Error::invalid(format!(
                    "the bucket definition `{}` cannot be evaluated for this request: {}",
                    stream.name, failure.message
                )));
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
