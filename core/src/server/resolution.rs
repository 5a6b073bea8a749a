//! Which buckets a stream has: its request, resolved at each checkpoint that changes what it depends on.
//!
//! Keeps S7: every lookup of a resolution is answered at the checkpoint that it is for, and one whose rows changed is asked
//! again before anything of that checkpoint is told.

use std::sync::Arc;

use bytestring::ByteString;

use super::event::{ResolvedStreams, Touched};
use super::interest::InterestChange;
use super::shared_bucket::SharedBuckets;
use super::wanted::WantedBucket;
use crate::bucket::{BucketId, BucketPriority, DefinitionId, Generation};
use crate::checkpoint::{Checkpoint, DeployedConfig, LookupKey};
use crate::config::{
    ConfigLookup, ConfigRequest, Reason, RequestResolver, ResolveStep, ResolvedChanges, StreamSubscription,
    SubscriptionRef, SyncConfig,
};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::lookup_change::LookupChange;
use crate::protocol::{StreamDescription, StreamError, SubscriptionReason, SyncRequest};

/// The request of a stream, with the numbers that the store gave to what its config names.
#[derive(Debug)]
pub(super) struct StreamResolver {
    resolver: RequestResolver,
    deployed: Arc<DeployedConfig>,
    /// How many of the deployed forms are definitions; those of lookup indexes follow.
    definitions: usize,
    generation: Generation,
    /// The buckets of all streams.
    shared: Arc<SharedBuckets>,
    /// What was asked, until it is answered.
    asked: Vec<ConfigLookup>,
}

/// What a resolution needs, or comes to.
#[derive(Debug)]
pub(super) enum Resolved {
    /// The rows of these keys, at the checkpoint that it is for.
    Asks(Vec<LookupKey>),
    /// The same, or what has changed of them since the checkpoint up to which they were known.
    AsksWhatChanged(Vec<LookupKey>),
    Done {
        streams: ResolvedStreams,
        interest: InterestChange,
    },
}

impl StreamResolver {
    pub(super) fn new(
        config: &SyncConfig,
        deployed: Arc<DeployedConfig>,
        generation: Generation,
        identity: &Identity,
        request: SyncRequest,
        limits: (usize, Arc<SharedBuckets>),
    ) -> Self {
        let (limit, shared) = limits;
        let SyncRequest { parameters, streams, .. } = request;
        let include_defaults = streams.as_ref().is_none_or(|streams| streams.include_defaults);
        let subscriptions = streams.map(|streams| streams.subscriptions).unwrap_or_default();
        let subscriptions: Vec<_> = subscriptions
            .into_iter()
            .map(|requested| StreamSubscription {
                stream: requested.stream,
                parameters: requested.parameters,
                override_priority: requested.override_priority.map(BucketPriority),
            })
            .collect();
        let request =
            ConfigRequest { identity, parameters: &parameters, include_defaults, subscriptions: &subscriptions };
        let resolver = config.resolver(&request, limit);
        Self { resolver, deployed, definitions: config.definitions().len(), generation, shared, asked: Vec::new() }
    }

    /// Whether its buckets can ever change.
    pub(super) fn is_dynamic(&self) -> bool {
        self.resolver.is_dynamic()
    }

    /// Whether a checkpoint is of the same store and config.
    pub(super) fn is_of(&self, checkpoint: &Checkpoint) -> bool {
        let same_config = Arc::ptr_eq(&self.deployed, &checkpoint.config) || *self.deployed == *checkpoint.config;
        self.generation == checkpoint.generation && same_config
    }

    /// Takes note of what changed; whether its buckets may be others now.
    pub(super) fn note(&mut self, touched: &Touched) -> bool {
        self.asked.clear();
        match touched {
            Touched::Unknown => self.resolver.invalidate_all(),
            Touched::These { lookups, .. } => {
                let changed = lookups.iter().filter_map(|key| self.lookup(key)).collect();
                self.resolver.invalidate(&changed)
            }
        }
    }

    /// What the config calls a key.
    fn lookup(&self, key: &LookupKey) -> Option<ConfigLookup> {
        let indexes = self.deployed.definitions.get(self.definitions..)?;
        let index = indexes.iter().position(|index| index.id == key.index)?;
        Some(ConfigLookup { index, values: key.values.clone() })
    }

    /// What is needed next, or what it comes to: at first everything, then what differs from the last time.
    pub(super) fn step(&mut self) -> Result<Resolved> {
        match self.resolver.poll_changes()? {
            ResolveStep::Lookups(wanted) => {
                let keys = self.keys(&wanted)?;
                self.asked = wanted;
                Ok(Resolved::Asks(keys))
            }
            ResolveStep::Changed(wanted) => {
                let keys = self.keys(&wanted)?;
                self.asked = wanted;
                Ok(Resolved::AsksWhatChanged(keys))
            }
            ResolveStep::Done(changes) => {
                let lookups = changes.lookups.iter().map(|(lookup, is_used)| Ok((self.key(lookup)?, *is_used)));
                let lookups = lookups.collect::<Result<Vec<_>>>()?;
                let streams = self.streams(changes)?;
                let come = streams.buckets.iter().map(|bucket| bucket.bucket.clone()).collect();
                let gone = streams.gone.clone();
                Ok(Resolved::Done { streams, interest: InterestChange { come, gone, lookups } })
            }
        }
    }

    /// The rows of the keys that were asked for, or what has changed of them.
    pub(super) fn answer(&mut self, answers: Vec<LookupChange>) -> Result<()> {
        self.resolver.answer(std::mem::take(&mut self.asked), answers)
    }

    fn keys(&self, lookups: &[ConfigLookup]) -> Result<Vec<LookupKey>> {
        lookups.iter().map(|lookup| self.key(lookup)).collect()
    }

    fn key(&self, lookup: &ConfigLookup) -> Result<LookupKey> {
        let index = self.deployed_id(self.definitions + lookup.index)?;
        Ok(LookupKey { index, values: lookup.values.clone() })
    }

    fn deployed_id(&self, place: usize) -> Result<DefinitionId> {
        let definition = self.deployed.definitions.get(place).map(|definition| definition.id);
        definition.ok_or_else(|| Error::internal("the deployed config has fewer definitions than its text"))
    }

    fn streams(&self, resolved: ResolvedChanges) -> Result<ResolvedStreams> {
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let reason = |reason: &Reason| match *reason {
            Reason::Default(index) => SubscriptionReason::Default(number(index)),
            Reason::Subscription(index) => SubscriptionReason::Subscription(number(index)),
        };
        let id = |definition, parameters: &ByteString| {
            Ok(BucketId { definition: self.deployed_id(definition)?, parameters: parameters.clone() })
        };
        let ids = resolved.buckets.iter().map(|bucket| id(bucket.definition, &bucket.parameters));
        let keys = ids.map(|id| Ok((self.generation, id?))).collect::<Result<Vec<_>>>()?;
        let shared = self.shared.share(&keys);
        let wanted = shared.into_iter().zip(resolved.buckets).map(|(bucket, resolved)| WantedBucket {
            bucket,
            priority: resolved.priority,
            reasons: resolved.reasons.iter().map(reason).collect(),
        });
        let buckets = wanted.collect();
        let gone = resolved.gone.iter().map(|(definition, parameters)| id(*definition, parameters));
        let gone = gone.collect::<Result<_>>()?;
        let streams = resolved.streams.into_iter().map(|stream| StreamDescription {
            name: stream.name.to_string(),
            is_default: stream.is_default,
            errors: stream
                .errors
                .into_iter()
                .map(|(subscription, message)| StreamError {
                    subscription: match subscription {
                        SubscriptionRef::Default => None,
                        SubscriptionRef::Explicit(index) => u32::try_from(index).ok(),
                    },
                    message,
                })
                .collect(),
        });
        Ok(ResolvedStreams { buckets, gone, streams: streams.collect() })
    }
}
