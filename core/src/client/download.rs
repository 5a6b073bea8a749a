//! The download side of a session: lines in, steps for the store out, in order and in batches.
//!
//! Steps wait here while the store is busy. When it is free again, a run of them that ends in a complete checkpoint
//! becomes one group, in which only the newest checkpoint is shown: a client that lags behind takes larger steps instead
//! of more. A group is carried out to its end before the next is formed, so that something is always shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;

use crate::bucket::BucketPriority;
use crate::client_store::{PublishRequest, StoredSubscription, TargetBucket, TargetCheckpoint};
use crate::error::{Error, Result};
use crate::operation::OpId;
use crate::protocol::{BucketDescription, CheckpointDiffLine, CheckpointLine, DataLine, StreamDescription};
use crate::time::{Time, WallTime};

use super::event::StoreCommand;
use super::status::DownloadProgress;

/// A checkpoint to show.
#[derive(Debug, Clone)]
pub(super) struct Showing {
    pub(super) target: Arc<TargetCheckpoint>,
    pub(super) partial: Option<BucketPriority>,
    pub(super) requested: Arc<[StoredSubscription]>,
    /// It was not tried before.
    pub(super) first: bool,
}

impl Showing {
    pub(super) fn request(&self, now: WallTime) -> PublishRequest {
        PublishRequest {
            target: Arc::clone(&self.target),
            partial: self.partial,
            requested: Arc::clone(&self.requested),
            now,
        }
    }
}

/// A checkpoint that could not be shown yet, and when to try again at the latest.
#[derive(Debug, Clone)]
pub(super) struct Postponed {
    pub(super) showing: Showing,
    pub(super) retry_at: Time,
}

#[derive(Debug)]
enum Step {
    /// `keeps`: every bucket of the checkpoint before is in this one too.
    Begin {
        target: Arc<TargetCheckpoint>,
        keeps: bool,
    },
    Stage {
        lines: Vec<DataLine>,
        bytes: usize,
    },
    Show(Showing),
}

/// What is being downloaded.
#[derive(Debug)]
pub(super) struct Downloads {
    stage_bytes: usize,
    /// The checkpoint that the stream announced last.
    target: Option<Arc<TargetCheckpoint>>,
    requested: Arc<[StoredSubscription]>,
    /// Buckets that the client had something of when the stream was asked for.
    held: BTreeSet<ByteString>,
    /// A bucket left that is still shown, perhaps with its config: no part of a checkpoint may be shown before a whole one
    /// (S8).
    whole_first: bool,
    /// The streams of the last checkpoint line, and what the request named; kept while no stream is open.
    announced: Option<(Vec<StreamDescription>, Arc<[StoredSubscription]>)>,
    incoming: VecDeque<Step>,
    group: VecDeque<Step>,
    /// Bytes of lines in both queues.
    waiting_bytes: usize,
    postponed: Option<Postponed>,
    progress: Progress,
}

impl Downloads {
    pub(super) fn new(stage_bytes: usize) -> Self {
        Self {
            stage_bytes,
            target: None,
            requested: Arc::from([]),
            held: BTreeSet::new(),
            whole_first: false,
            announced: None,
            incoming: VecDeque::new(),
            group: VecDeque::new(),
            waiting_bytes: 0,
            postponed: None,
            progress: Progress::default(),
        }
    }

    /// A stream was asked for with these subscriptions; `held` are the buckets that the client has something of.
    pub(super) fn stream_asked(
        &mut self,
        requested: Arc<[StoredSubscription]>,
        held: impl Iterator<Item = ByteString>,
    ) {
        self.target = None;
        self.requested = requested;
        self.held = held.collect();
        self.progress.resume(self.held.iter().cloned());
    }

    /// The stream is gone. What it brought is still good, but nothing can be based on its last checkpoint.
    pub(super) fn stream_gone(&mut self) {
        self.target = None;
        self.progress.current = None;
    }

    /// Drops everything that is not in the store yet.
    pub(super) fn clear(&mut self) {
        self.stream_gone();
        self.incoming.clear();
        self.group.clear();
        self.waiting_bytes = 0;
        self.postponed = None;
    }

    pub(super) fn announced(&self) -> Option<(&[StreamDescription], &[StoredSubscription])> {
        self.announced.as_ref().map(|(streams, requested)| (&**streams, &**requested))
    }

    /// The subscriptions that the request of the stream named.
    pub(super) fn requested(&self) -> &[StoredSubscription] {
        &self.requested
    }

    pub(super) fn progress(&self) -> Option<DownloadProgress> {
        self.progress.current
    }

    /// Bytes of lines that wait for the store.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn waiting_steps(&self) -> usize {
        self.incoming.len()
    }

    pub(super) fn checkpoint(&mut self, line: CheckpointLine) {
        self.announced = Some((line.streams.clone(), Arc::clone(&self.requested)));
        let target = TargetCheckpoint {
            last_op_id: line.last_op_id,
            write_checkpoint: line.write_checkpoint,
            buckets: line.buckets.into_iter().map(described).collect(),
            streams: line.streams,
        };
        self.whole_first |= self.held.iter().any(|name| !target.buckets.contains_key(name));
        self.begin(Arc::new(target), false);
    }

    pub(super) fn checkpoint_diff(&mut self, line: CheckpointDiffLine) -> Result<()> {
        let Some(target) = &mut self.target else {
            return Err(Error::protocol("the server sent a checkpoint diff before any checkpoint"));
        };
        if line.last_op_id < target.last_op_id {
            return Err(Error::protocol(format!(
                "the server went back from checkpoint {} to {} within one stream",
                target.last_op_id, line.last_op_id
            )));
        }
        let keeps = line.removed_buckets.is_empty();
        // Copied only if the store still works on the one before.
        let merged = Arc::make_mut(target);
        merged.last_op_id = line.last_op_id;
        merged.write_checkpoint = line.write_checkpoint;
        self.whole_first |= !keeps;
        for bucket in &line.removed_buckets {
            merged.buckets.remove(bucket);
        }
        merged.buckets.extend(line.updated_buckets.into_iter().map(described));
        let merged = Arc::clone(target);
        self.begin(merged, keeps);
        Ok(())
    }

    fn begin(&mut self, target: Arc<TargetCheckpoint>, keeps: bool) {
        self.progress.begin(&target);
        self.target = Some(Arc::clone(&target));
        self.postponed = None;
        self.incoming.push_back(Step::Begin { target, keeps });
    }

    pub(super) fn data(&mut self, line: DataLine) {
        self.progress.received(&line);
        self.waiting_bytes += line.size;
        if let Some(Step::Stage { lines, bytes }) = self.incoming.back_mut()
            && *bytes + line.size <= self.stage_bytes
        {
            *bytes += line.size;
            lines.push(line);
            return;
        }
        let bytes = line.size;
        self.incoming.push_back(Step::Stage { lines: vec![line], bytes });
    }

    /// A `checkpoint_complete` or, with a priority, a `partial_checkpoint_complete`.
    pub(super) fn complete(&mut self, last_op_id: OpId, partial: Option<BucketPriority>) -> Result<()> {
        let Some(target) = &self.target else {
            return Err(Error::protocol("the server completed a checkpoint before it announced any"));
        };
        if target.last_op_id != last_op_id {
            return Err(Error::protocol(format!(
                "the server completed checkpoint {last_op_id}, but announced {}",
                target.last_op_id
            )));
        }
        if partial.is_some() && self.whole_first {
            return Ok(());
        }
        let showing =
            Showing { target: Arc::clone(target), partial, requested: Arc::clone(&self.requested), first: true };
        self.incoming.push_back(Step::Show(showing));
        Ok(())
    }

    /// Shows the buckets of the highest priority of a checkpoint that local writes hold back, ahead of what waits.
    pub(super) fn show_highest(&mut self, of: &Showing) {
        if self.whole_first {
            return;
        }
        self.group.push_front(Step::Show(Showing { partial: Some(BucketPriority::HIGHEST), ..of.clone() }));
    }

    pub(super) fn postpone(&mut self, showing: Showing, retry_at: Time) {
        // A newer checkpoint was announced meanwhile: that one will be shown.
        let superseded = self.target.as_ref().is_some_and(|target| !Arc::ptr_eq(target, &showing.target))
            || self.incoming.iter().any(|step| matches!(step, Step::Begin { .. }));
        // A full one that waits is not replaced by a part of it.
        let covered = showing.partial.is_some()
            && self.postponed.as_ref().is_some_and(|one| Arc::ptr_eq(&one.showing.target, &showing.target));
        if !superseded && !covered {
            self.postponed = Some(Postponed { showing, retry_at });
        }
    }

    pub(super) fn postponed(&self) -> Option<&Postponed> {
        self.postponed.as_ref()
    }

    /// Makes the postponed checkpoint due.
    pub(super) fn retry_postponed(&mut self, now: Time) {
        if let Some(postponed) = &mut self.postponed {
            postponed.retry_at = postponed.retry_at.min(now);
        }
    }

    /// A checkpoint was shown.
    pub(super) fn shown(&mut self, showing: &Showing) {
        let same = |one: &Postponed| Arc::ptr_eq(&one.showing.target, &showing.target);
        if self
            .postponed
            .as_ref()
            .is_some_and(|one| same(one) && (showing.partial.is_none() || one.showing.partial == showing.partial))
        {
            self.postponed = None;
        }
        if showing.partial.is_none() {
            // One that was announced meanwhile may lack a bucket of this one.
            let newest = self.target.as_ref().is_none_or(|target| Arc::ptr_eq(target, &showing.target));
            self.whole_first &= !newest;
            self.progress.finished(&showing.target);
        }
    }

    /// Everything of a checkpoint was received and verified, whether it could be shown or not.
    pub(super) fn received(&mut self, showing: &Showing) {
        if showing.partial.is_none() && self.target.as_ref().is_none_or(|target| Arc::ptr_eq(target, &showing.target)) {
            self.progress.current = None;
        }
    }

    /// The next call of the store, and what it shows if it is a publish.
    pub(super) fn next(&mut self, now: Time, wall: WallTime) -> Option<(StoreCommand, Option<Showing>)> {
        if self.group.is_empty() {
            self.form_group();
        }
        let Some(step) = self.group.pop_front() else {
            let due = self.postponed.as_ref().is_some_and(|postponed| postponed.retry_at <= now);
            let showing = if due { self.postponed.take()?.showing } else { return None };
            return Some((StoreCommand::Publish(showing.request(wall)), Some(showing)));
        };
        Some(match step {
            Step::Begin { target, .. } => (StoreCommand::BeginCheckpoint(target), None),
            Step::Stage { lines, bytes } => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
                (StoreCommand::Stage(lines), None)
            }
            Step::Show(showing) => (StoreCommand::Publish(showing.request(wall)), Some(showing)),
        })
    }

    fn form_group(&mut self) {
        // The last complete checkpoint that can be reached without forgetting a bucket on the way: a bucket that leaves
        // and comes back must be dropped in between.
        let mut end = None;
        for (index, step) in self.incoming.iter().enumerate() {
            match step {
                Step::Begin { keeps: false, .. } if index > 0 => break,
                Step::Show(Showing { partial: None, .. }) => end = Some(index),
                Step::Begin { .. } | Step::Stage { .. } | Step::Show(_) => {}
            }
        }
        let Some(end) = end else {
            self.group.extend(self.incoming.pop_front());
            return;
        };
        let mut begun = None;
        let mut stages: Vec<Step> = Vec::new();
        let mut last = None;
        for step in self.incoming.drain(..=end) {
            match step {
                Step::Begin { target, keeps: false } => self.group.push_back(Step::Begin { target, keeps: false }),
                Step::Begin { target, keeps: true } => begun = Some(target),
                Step::Stage { mut lines, bytes } => match stages.last_mut() {
                    Some(Step::Stage { lines: before, bytes: sum }) if *sum + bytes <= self.stage_bytes => {
                        before.append(&mut lines);
                        *sum += bytes;
                    }
                    _ => stages.push(Step::Stage { lines, bytes }),
                },
                Step::Show(showing) => last = Some(showing),
            }
        }
        self.group.extend(begun.map(|target| Step::Begin { target, keeps: true }));
        self.group.extend(stages);
        self.group.extend(last.map(Step::Show));
    }
}

fn described(bucket: BucketDescription) -> (ByteString, TargetBucket) {
    let BucketDescription { bucket, checksum, count, priority, subscriptions } = bucket;
    (bucket, TargetBucket { checksum, priority, count, subscriptions })
}

/// Counts of operations, for the status only.
#[derive(Debug, Default)]
struct Progress {
    current: Option<DownloadProgress>,
    /// Operations of each bucket that the client has. `None`: some, but not known how many.
    had: BTreeMap<ByteString, Option<u64>>,
}

impl Progress {
    fn resume(&mut self, held: impl Iterator<Item = ByteString>) {
        let mut known = std::mem::take(&mut self.had);
        self.had = held
            .map(|bucket| {
                let count = known.remove(&bucket).flatten();
                (bucket, count)
            })
            .collect();
    }

    fn begin(&mut self, target: &TargetCheckpoint) {
        let missing = target.buckets.iter().map(|(name, bucket)| match (self.had.get(name), bucket.count) {
            (Some(None), _) | (_, None) => 0,
            (Some(Some(had)), Some(count)) => count.saturating_sub(*had),
            (None, Some(count)) => count,
        });
        // A server may state any numbers.
        let total = missing.fold(0, u64::saturating_add);
        self.current = Some(DownloadProgress { received: 0, total });
    }

    fn received(&mut self, line: &DataLine) {
        let count = line.operations.len() as u64;
        match self.had.get_mut(&line.bucket) {
            Some(Some(had)) => *had = had.saturating_add(count),
            Some(None) => {
                if let Some(current) = &mut self.current {
                    current.total = current.total.saturating_add(count);
                }
            }
            None => {
                self.had.insert(line.bucket.clone(), Some(count));
            }
        }
        if let Some(current) = &mut self.current {
            current.received += count;
            current.total = current.total.max(current.received);
        }
    }

    fn finished(&mut self, target: &TargetCheckpoint) {
        let Self { had, .. } = self;
        had.retain(|name, _| target.buckets.contains_key(name));
        for (name, bucket) in &target.buckets {
            match had.get_mut(name) {
                Some(known) => *known = bucket.count,
                None => {
                    had.insert(name.clone(), bucket.count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Checksum;
    use crate::operation::{Operation, OperationKind};

    fn checkpoint(id: u64, buckets: &[&str]) -> CheckpointLine {
        let describe = |name: &&str| BucketDescription {
            bucket: ByteString::from(*name),
            checksum: Checksum(0),
            count: None,
            priority: BucketPriority::HIGHEST,
            subscriptions: Vec::new(),
        };
        CheckpointLine {
            last_op_id: OpId(id),
            write_checkpoint: None,
            buckets: buckets.iter().map(describe).collect(),
            streams: Vec::new(),
        }
    }

    fn showings(downloads: &mut Downloads) -> Vec<Showing> {
        std::iter::from_fn(|| downloads.next(Time(0), WallTime(0))).filter_map(|(_, showing)| showing).collect()
    }

    #[test]
    fn counts_that_add_up_to_more_than_there_is_are_no_trouble() {
        let mut downloads = Downloads::new(1 << 20);
        let mut line = checkpoint(1, &["a", "b"]);
        line.buckets.iter_mut().for_each(|bucket| bucket.count = Some(u64::MAX));
        downloads.checkpoint(line.clone());
        assert_eq!(downloads.progress(), Some(DownloadProgress { received: 0, total: u64::MAX }));
        downloads.complete(OpId(1), None).expect("announced");
        showings(&mut downloads).iter().for_each(|shown| downloads.shown(shown));
        let operation = Operation {
            op_id: OpId(2),
            kind: OperationKind::Clear,
            object_type: ByteString::new(),
            object_id: ByteString::new(),
            subkey: None,
            data: None,
            checksum: Checksum(0),
        };
        downloads.data(DataLine { bucket: "a".into(), operations: vec![operation], size: 1 });
        assert_eq!(downloads.progress().map(|progress| progress.received), Some(1));
    }

    #[test]
    fn the_first_checkpoint_without_a_bucket_that_is_shown_is_shown_as_a_whole() {
        let mut downloads = Downloads::new(1 << 20);
        downloads.stream_asked(Arc::from([]), [ByteString::from("before")].into_iter());
        downloads.checkpoint(checkpoint(1, &["after"]));
        downloads.complete(OpId(1), Some(BucketPriority::HIGHEST)).expect("announced");
        assert!(showings(&mut downloads).is_empty(), "nothing of it beside what is shown");
        downloads.complete(OpId(1), None).expect("announced");
        let whole = showings(&mut downloads);
        assert!(matches!(&whole[..], [Showing { partial: None, .. }]), "{whole:?}");
        downloads.show_highest(&whole[0]);
        assert!(showings(&mut downloads).is_empty(), "nor past local writes");
        // Another stream, which no longer names what left.
        downloads.stream_asked(Arc::from([]), std::iter::empty());
        downloads.checkpoint(checkpoint(2, &["after"]));
        downloads.complete(OpId(2), Some(BucketPriority::HIGHEST)).expect("announced");
        assert!(showings(&mut downloads).is_empty(), "it was not shown as a whole yet");
        downloads.complete(OpId(2), None).expect("announced");
        let whole = showings(&mut downloads);
        downloads.shown(&whole[0]);
        downloads.show_highest(&whole[0]);
        assert_eq!(showings(&mut downloads).len(), 1);
    }
}
