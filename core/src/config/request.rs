//! Requests: what a client asks for, and which buckets it may have.

use std::cell::Cell;
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::querying::ConfigLookup;
use crate::bucket::BucketPriority;
use crate::error::Error;
use crate::identity::Identity;

/// Buckets that one kind of bucket may have in one subscription, so that lists of a client cannot exhaust the memory.
const REQUEST_LIMIT: usize = 10_000;
/// Reasons per bucket that a resolution may give, on average, at its limit of buckets.
const REASONS_PER_BUCKET: usize = 4;
/// Bytes of values and parameters that a resolution may handle: what takes a moment, and no longer.
const REQUEST_BYTES: usize = 16 << 20;
/// The same for each bucket, where many are allowed.
const BYTES_PER_BUCKET: usize = 1_600;

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

/// What has changed of a [`ResolvedRequest`] and of what it depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedChanges {
    /// Buckets that are new, or have other reasons or another priority.
    pub buckets: Vec<ResolvedBucket>,
    /// Buckets that have gone, by definition and parameters.
    pub gone: Vec<(usize, ByteString)>,
    /// Lookups that may be new, or may have gone: whether the request depends on them now.
    pub lookups: Vec<(ConfigLookup, bool)>,
    /// All streams that the request uses.
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
    pub(super) buckets: usize,
    /// Reasons of all buckets together.
    pub(super) reasons: usize,
    /// Buckets of one kind in one subscription, and keys of one lookup.
    pub(super) combinations: usize,
    /// Bytes that values and parameters may still take.
    bytes: Cell<usize>,
}

impl Budget {
    /// For at most so many buckets.
    pub(super) fn new(buckets: usize) -> Self {
        let bytes = REQUEST_BYTES.max(buckets.saturating_mul(BYTES_PER_BUCKET));
        let reasons = buckets.saturating_mul(REASONS_PER_BUCKET);
        Self { buckets, reasons, combinations: REQUEST_LIMIT.max(buckets), bytes: Cell::new(bytes) }
    }

    /// Whatever it takes.
    pub(super) fn unlimited() -> Self {
        let (buckets, reasons) = (usize::MAX, usize::MAX);
        Self { buckets, reasons, combinations: REQUEST_LIMIT, bytes: Cell::new(usize::MAX) }
    }

    pub(super) fn spend(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    /// Whether so many bytes are left, and more.
    pub(super) fn allows(&self, bytes: usize) -> bool {
        self.bytes.get() > bytes
    }

    pub(super) fn is_spent(&self) -> bool {
        self.bytes.get() == 0
    }

    /// The error when it is exceeded; `stream` is to blame.
    pub(super) fn exceeded(&self, stream: &str, what: &str) -> Error {
        let limit = self.buckets;
        Error::invalid(format!(
            "{what}, with stream `{stream}` (the limit of this service is {limit} buckets: ask for fewer, or raise \
             `buckets_per_stream`)"
        ))
        .with_code("PSYNC_S2305")
    }
}
