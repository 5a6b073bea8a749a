//! The buckets of one stream: which the client was told of, and what of them is still to be sent.
//!
//! A checkpoint costs what it touches, in content and in rights: nothing here goes through all buckets but the first line, and
//! what is done for a checkpoint of which it is not known what it touches.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::event::Touched;
use super::wanted::{TrackedBucket, WantedBucket};
use crate::bucket::{BucketId, BucketPriority};
use crate::bucket_store::ReadRequest;
use crate::checkpoint::BucketChecksum;
use crate::operation::OpId;
use crate::protocol::BucketDescription;

/// Buckets asked for at once.
const BUCKETS_PER_READ: usize = 16;

/// All buckets of a stream, known by their places: these stay until the next [`adopt`](TrackedBuckets::adopt).
#[derive(Debug, Default)]
pub(super) struct TrackedBuckets {
    all: Vec<TrackedBucket>,
    by_id: BTreeMap<BucketId, usize>,
    /// Places of those of which no line has said yet what they are now.
    untold: BTreeSet<usize>,
    /// Places of those of which operations between what was sent and the checkpoint may be missing, the most urgent first.
    unfinished: BTreeSet<(BucketPriority, usize)>,
    /// Buckets that the client has and that are not wanted any more, until it is told.
    dropped: BTreeMap<BucketId, TrackedBucket>,
}

impl TrackedBuckets {
    /// Takes how what a request yields has changed. `positions` says where the client stands before the `first_line`.
    pub(super) fn adopt(
        &mut self,
        come: Vec<WantedBucket>,
        gone: &BTreeSet<BucketId>,
        positions: &BTreeMap<ByteString, OpId>,
        first_line: bool,
    ) {
        for id in gone {
            let Some(bucket) = self.take(id) else { continue };
            // The first line names all buckets that the client keeps; later ones say which have gone.
            if bucket.known && !first_line {
                // What happens to it now is not heard of: if it comes back it is looked at again.
                self.dropped.insert(id.clone(), TrackedBucket { told: false, ..bucket });
            }
        }
        self.all.reserve(come.len());
        for wanted in come {
            if let Some(&place) = self.by_id.get(&wanted.id) {
                // With another priority or reason it is told of again.
                let bucket = &mut self.all[place];
                if bucket.wanted != wanted {
                    let key = (bucket.wanted.priority, place);
                    (bucket.told, bucket.wanted) = (false, wanted);
                    if self.unfinished.remove(&key) {
                        self.unfinished.insert((bucket.wanted.priority, place));
                    }
                    self.untold.insert(place);
                }
                continue;
            }
            let bucket = match self.dropped.remove(&wanted.id) {
                Some(bucket) => TrackedBucket { wanted, ..bucket },
                None => {
                    let after = positions.get(&wanted.name).copied().unwrap_or_default();
                    TrackedBucket::new(wanted, after)
                }
            };
            self.put(bucket);
        }
    }

    fn put(&mut self, bucket: TrackedBucket) {
        let place = self.all.len();
        self.by_id.insert(bucket.wanted.id.clone(), place);
        self.enter(place, &bucket);
        self.all.push(bucket);
    }

    /// Takes a bucket out; the last one moves to its place.
    fn take(&mut self, id: &BucketId) -> Option<TrackedBucket> {
        let place = self.by_id.remove(id)?;
        let last = self.all.len() - 1;
        for place in [place, last] {
            self.untold.remove(&place);
            self.unfinished.remove(&(self.all[place].wanted.priority, place));
        }
        let bucket = self.all.swap_remove(place);
        if let Some(moved) = self.all.get(place).cloned() {
            self.by_id.insert(moved.wanted.id.clone(), place);
            self.enter(place, &moved);
        }
        Some(bucket)
    }

    fn enter(&mut self, place: usize, bucket: &TrackedBucket) {
        if !bucket.told {
            self.untold.insert(place);
        }
        if bucket.unfinished {
            self.unfinished.insert((bucket.wanted.priority, place));
        }
    }

    pub(super) fn get(&self, place: usize) -> &TrackedBucket {
        &self.all[place]
    }

    /// Whether there are buckets that the client is to be told the loss of.
    pub(super) fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// The places of what must be described for a checkpoint that touched these.
    pub(super) fn to_describe(&self, touched: &Touched) -> Vec<usize> {
        let Touched::These { buckets, .. } = touched else { return (0..self.all.len()).collect() };
        let mut places = self.untold.clone();
        places.extend(buckets.iter().filter_map(|id| self.place(id)));
        places.into_iter().collect()
    }

    fn place(&self, id: &BucketId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Takes the sum of a bucket at a checkpoint; whether the client must be told.
    pub(super) fn describe(&mut self, place: usize, sum: BucketChecksum, upto: OpId) -> bool {
        let bucket = &mut self.all[place];
        let changed = bucket.described != Some(sum) || !bucket.told;
        bucket.described = Some(sum);
        let unfinished = sum.count > 0 && (bucket.unfinished || bucket.sent < upto);
        self.set_unfinished(place, unfinished);
        changed
    }

    /// What a line says of these; it tells them.
    pub(super) fn tell(&mut self, places: &[usize]) -> Vec<BucketDescription> {
        let mut descriptions = Vec::with_capacity(places.len());
        for place in places {
            let bucket = &mut self.all[*place];
            (bucket.known, bucket.told) = (true, true);
            self.untold.remove(place);
            descriptions.push(bucket.description());
        }
        descriptions
    }

    /// What the first line says: everything.
    pub(super) fn tell_all(&mut self) -> Vec<BucketDescription> {
        let places: Vec<usize> = (0..self.all.len()).collect();
        self.tell(&places)
    }

    /// The names of the buckets that have gone, in a fixed order; they are told now.
    pub(super) fn tell_dropped(&mut self) -> Vec<ByteString> {
        let dropped = std::mem::take(&mut self.dropped);
        let mut names: Vec<_> = dropped.into_values().map(|bucket| bucket.wanted.name).collect();
        names.sort_unstable();
        names
    }

    /// Operations up to here were sent, and maybe there are more.
    pub(super) fn set_sent(&mut self, place: usize, sent: OpId, has_more: bool) {
        self.all[place].sent = sent;
        self.set_unfinished(place, has_more);
    }

    fn set_unfinished(&mut self, place: usize, unfinished: bool) {
        let bucket = &mut self.all[place];
        bucket.unfinished = unfinished;
        let key = (bucket.wanted.priority, place);
        if unfinished {
            self.unfinished.insert(key);
        } else {
            self.unfinished.remove(&key);
        }
    }

    /// The next reads of the most urgent unfinished priority, and the places that they are for: several buckets at once,
    /// bounded bytes.
    pub(super) fn next_reads(&self, upto: OpId, max_bytes: usize) -> Option<(Vec<usize>, Vec<ReadRequest>)> {
        let urgent = self.most_urgent_unfinished()?;
        let of_it = self.unfinished.iter().take_while(|(priority, _)| *priority == urgent);
        let places: Vec<usize> = of_it.map(|(_, place)| *place).take(BUCKETS_PER_READ).collect();
        let share = (max_bytes / places.len().max(1)).max(1);
        let read = |place: &usize| {
            let bucket = &self.all[*place];
            ReadRequest { bucket: bucket.wanted.id.clone(), after: bucket.sent, upto, max_bytes: share }
        };
        let reads = places.iter().map(read).collect();
        Some((places, reads))
    }

    /// The most urgent priority that has an unfinished bucket.
    pub(super) fn most_urgent_unfinished(&self) -> Option<BucketPriority> {
        self.unfinished.first().map(|(priority, _)| *priority)
    }
}
