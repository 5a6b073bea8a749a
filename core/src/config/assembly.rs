//! The buckets of a request, put together from what each querier has found.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytestring::ByteString;

use super::plan::{Plan, Stream};
use super::request::{
    Budget, Reason, ResolvedBucket, ResolvedRequest, ResolvedStream, StreamSubscription, SubscriptionRef,
};
use super::request_resolver::StreamWish;
use crate::bucket::BucketPriority;
use crate::error::Result;

/// Buckets with everything that leads to them.
pub(super) struct Assembly<'a> {
    plan: &'a Plan,
    budget: &'a Budget,
    subscriptions: &'a [StreamSubscription],
    buckets: Vec<ResolvedBucket>,
    /// How many queriers have found buckets of each definition. One alone finds no bucket twice.
    finders: BTreeMap<usize, usize>,
    /// Where the buckets are that several may find.
    places: BTreeMap<(usize, ByteString), usize>,
    reasons: usize,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(plan: &'a Plan, budget: &'a Budget, subscriptions: &'a [StreamSubscription]) -> Self {
        let (finders, places) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, budget, subscriptions, buckets: Vec::new(), finders, places, reasons: 0 }
    }

    pub(super) fn assemble(mut self, wishes: &[StreamWish]) -> Result<ResolvedRequest> {
        for wish in wishes {
            let queriers = self.plan.streams.get(wish.stream).map(|stream| stream.queriers.as_slice());
            queriers
                .into_iter()
                .flatten()
                .for_each(|querier| *self.finders.entry(querier.definition).or_default() += 1);
        }
        let (streams, numbers) = describe(self.plan, self.budget, wishes);
        for (wish, number) in wishes.iter().zip(numbers) {
            let Some(stream) = self.plan.streams.get(wish.stream) else { continue };
            let places = self.places(stream, wish)?;
            for (priority, reason) in wish.reasons(number, self.subscriptions) {
                self.add(stream, &places, priority, reason)?;
            }
        }
        Ok(ResolvedRequest { buckets: self.buckets, streams })
    }

    /// The places of the buckets of a wish in the list, each once, with the priorities that the config gives them.
    fn places(&mut self, stream: &Stream, wish: &StreamWish) -> Result<Vec<(usize, BucketPriority)>> {
        let mut places = Vec::new();
        for (querier, finder) in stream.queriers.iter().zip(&wish.finders) {
            let alone = self.finders.get(&querier.definition) == Some(&1);
            for parameters in finder.parameters() {
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

/// The streams that the wishes are for, with what could not be evaluated of them, and the place of each wish's stream.
pub(super) fn describe(plan: &Plan, budget: &Budget, wishes: &[StreamWish]) -> (Vec<ResolvedStream>, Vec<usize>) {
    let mut streams: Vec<ResolvedStream> = Vec::new();
    let mut numbers = Vec::with_capacity(wishes.len());
    let mut before = None;
    for wish in wishes {
        // Those of one stream follow each other.
        if before != Some(wish.stream)
            && let Some(stream) = plan.streams.get(wish.stream)
        {
            let (name, is_default) = (Arc::clone(&stream.name), stream.auto_subscribe);
            streams.push(ResolvedStream { name, is_default, errors: Vec::new() });
            before = Some(wish.stream);
        }
        let number = streams.len().saturating_sub(1);
        numbers.push(number);
        let mut failures: Vec<_> = wish.finders.iter().filter_map(|finder| finder.failure(budget)).collect();
        failures.dedup();
        if failures.is_empty() {
            continue;
        }
        let failure = failures.join("; ");
        let automatic = wish.automatic.then_some(SubscriptionRef::Default);
        let of = automatic.into_iter().chain(wish.explicit.iter().copied().map(SubscriptionRef::Explicit));
        if let Some(stream) = streams.last_mut() {
            stream.errors.extend(of.map(|of| (of, failure.clone())));
        }
    }
    (streams, numbers)
}
