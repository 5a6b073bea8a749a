//! The buckets of one stream: which the client was told of, and what of them is still to be sent.
//!
//! A checkpoint costs what it touches, in content and in rights: nothing here goes through all buckets but the first line, and
//! what is done for a checkpoint of which it is not known what it touches.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::event::Touched;
use super::standing::{Standing, Standings};
use super::tracked_bucket::TrackedBucket;
use super::wanted::WantedBucket;
use crate::bucket::{BucketId, BucketPriority};
use crate::bucket_store::ReadRequest;
use crate::checkpoint::BucketChecksum;
use crate::operation::OpId;
use crate::protocol::BucketDescription;
use crate::sorted_list::SortedList;

/// Buckets asked for at once.
const BUCKETS_PER_READ: usize = 16;
/// Standings that may be kept beyond one for each bucket.
const SPARE_STANDINGS: usize = 64;

/// All buckets of a stream, known by their places: these stay until the next [`adopt`](TrackedBuckets::adopt).
#[derive(Debug, Default)]
pub(super) struct TrackedBuckets {
    all: SortedList<TrackedBucket>,
    standings: Standings,
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
        let mut open = self.take_open();
        for mut bucket in self.all.take(gone) {
            // The first line names all buckets that the client keeps; later ones say which have gone.
            if bucket.is_known() && !first_line {
                // What happens to it now is not heard of: if it comes back it is looked at again.
                bucket.set_told(false);
                self.dropped.insert(bucket.id().clone(), bucket);
            }
        }
        let mut new = Vec::with_capacity(come.len());
        for WantedBucket { bucket, priority, reasons } in come {
            open.push(bucket.id().clone());
            let standing = self.standings.number(Standing { priority, reasons });
            if let Ok(place) = self.all.find(bucket.id()) {
                // With another priority or reason it is told of again.
                let known = self.all.get_mut(place);
                if known.standing() != standing {
                    known.set_standing(standing);
                    known.set_told(false);
                }
                continue;
            }
            new.push(match self.dropped.remove(bucket.id()) {
                Some(mut dropped) => {
                    dropped.set_standing(standing);
                    dropped
                }
                None => {
                    let after = positions.get(bucket.name()).copied().unwrap_or_default();
                    TrackedBucket::new(bucket, standing, after)
                }
            });
        }
        self.all.add(new);
        self.enter(&open);
        self.forget_standings();
    }

    /// The buckets that are untold or unfinished: their places are about to be others.
    fn take_open(&mut self) -> Vec<BucketId> {
        let untold = std::mem::take(&mut self.untold);
        let unfinished = std::mem::take(&mut self.unfinished);
        let places: BTreeSet<usize> =
            untold.into_iter().chain(unfinished.into_iter().map(|(_, place)| place)).collect();
        places.into_iter().map(|place| self.all.get(place).id().clone()).collect()
    }

    /// Enters what is untold or unfinished of these, in the places that they have now.
    fn enter(&mut self, buckets: &[BucketId]) {
        for id in buckets {
            let Ok(place) = self.all.find(id) else { continue };
            let bucket = self.all.get(place);
            if !bucket.is_told() {
                self.untold.insert(place);
            }
            if bucket.is_unfinished() {
                self.unfinished.insert((self.standings.get(bucket.standing()).priority, place));
            }
        }
    }

    /// Standings that no bucket has any more, once they are many.
    fn forget_standings(&mut self) {
        if self.standings.len() <= self.all.len() + self.dropped.len() + SPARE_STANDINGS {
            return;
        }
        let before = std::mem::take(&mut self.standings);
        for bucket in self.all.iter_mut().chain(self.dropped.values_mut()) {
            bucket.set_standing(self.standings.number(before.get(bucket.standing()).clone()));
        }
    }

    pub(super) fn get(&self, place: usize) -> &TrackedBucket {
        self.all.get(place)
    }

    fn priority(&self, place: usize) -> BucketPriority {
        self.standings.get(self.all.get(place).standing()).priority
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
        self.all.find(id).ok()
    }

    /// Takes the sum of a bucket at a checkpoint; whether the client must be told.
    pub(super) fn describe(&mut self, place: usize, sum: BucketChecksum, upto: OpId) -> bool {
        let bucket = self.all.get_mut(place);
        let changed = bucket.described() != Some(sum) || !bucket.is_told();
        bucket.describe(sum);
        let unfinished = sum.count > 0 && (bucket.is_unfinished() || bucket.sent < upto);
        self.set_unfinished(place, unfinished);
        changed
    }

    /// What a line says of these; it tells them.
    pub(super) fn tell(&mut self, places: &[usize]) -> Vec<BucketDescription> {
        let mut descriptions = Vec::with_capacity(places.len());
        for place in places {
            let bucket = self.all.get_mut(*place);
            bucket.set_known();
            bucket.set_told(true);
            remove(&mut self.untold, place);
            descriptions.push(bucket.description(self.standings.get(bucket.standing())));
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
        let mut names: Vec<_> = dropped.into_values().map(|bucket| bucket.bucket().name().clone()).collect();
        names.sort_unstable();
        names
    }

    /// Operations up to here were sent, and maybe there are more.
    pub(super) fn set_sent(&mut self, place: usize, sent: OpId, has_more: bool) {
        self.all.get_mut(place).sent = sent;
        self.set_unfinished(place, has_more);
    }

    fn set_unfinished(&mut self, place: usize, unfinished: bool) {
        self.all.get_mut(place).set_unfinished(unfinished);
        let key = (self.priority(place), place);
        if unfinished {
            self.unfinished.insert(key);
        } else {
            remove(&mut self.unfinished, &key);
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
            let bucket = self.all.get(*place);
            ReadRequest { bucket: bucket.id().clone(), after: bucket.sent, upto, max_bytes: share }
        };
        let reads = places.iter().map(read).collect();
        Some((places, reads))
    }

    /// The most urgent priority that has an unfinished bucket.
    pub(super) fn most_urgent_unfinished(&self) -> Option<BucketPriority> {
        self.unfinished.first().map(|(priority, _)| *priority)
    }
}

/// Takes a place out. An empty set would keep the memory of its last one, in each of many idle streams.
fn remove<T: Ord>(places: &mut BTreeSet<T>, place: &T) {
    places.remove(place);
    if places.is_empty() {
        *places = BTreeSet::new();
    }
}
