//! Publishing: what was staged becomes what the application sees, in one transaction (C1). A small publish is no more than
//! that; a large one is prepared before, in many (C4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use rusqlite::Connection;
use syncline_core::{BucketPriority, Checksum, PublishOutcome, PublishRequest, StoredSubscription, TargetBucket};

use super::bucket_table::{self, Bucket};
use super::changes::QUEUE;
use super::error::Result;
use super::layout::State;
use super::operation_log;
use super::preparation::{Preparation, Progress};
use super::replay::PendingWrites;
use super::resolve::{Resolver, Standing, Superseded};
use super::schema::Schema;
use super::show::Show;
use super::slice::Slice;
use super::work_queue::Step;
use super::writer::{End, Seen, Writer};
use super::{row_index, shadow, subscriptions, superseded, survey, upload_queue};

/// Operations that one purging transaction removes.
const PURGE: usize = 1_000;
/// So often a transaction that shows rows is given up for a local write; then it runs to its end.
const ATTEMPTS: u32 = 5;

/// A publish on its way: verifies, tests the upload queue, and shows.
#[derive(Debug)]
pub(crate) struct Publishing {
    request: PublishRequest,
    /// The checkpoint was verified, and what is prepared serves it.
    begun: bool,
    /// Nothing was left to prepare.
    ready: bool,
    /// Transactions that were given up.
    given_up: u32,
}

/// What a transaction of a publish led to.
enum Went {
    /// The publish has ended.
    Ended(PublishOutcome),
    /// It shows so many rows that it is prepared first.
    Large(HashMap<i64, Standing>, i64),
    /// There is more to prepare.
    More,
    /// All is prepared, but the transaction was long enough.
    Ready,
    /// A local write was let through.
    GivenUp,
    /// What was prepared is worthless.
    Worthless,
}

impl Publishing {
    pub(crate) fn new(request: PublishRequest) -> Self {
        Self { request, begun: false, ready: false, given_up: 0 }
    }

    /// One transaction. `None` while there is more to do.
    pub(crate) fn step(&mut self, writer: &mut Writer) -> Result<Option<PublishOutcome>> {
        let preparation = writer.preparation.take();
        let went = match preparation {
            // Without it, the database was cleared meanwhile.
            Some(preparation) if self.begun => self.go_on(writer, preparation),
            preparation => self.begin(writer, preparation),
        };
        let went = match went {
            Ok(went) => went,
            Err(error) => {
                // Whatever failed, a full disk for example, is given its space back.
                writer.preparation = None;
                submit_purge(writer);
                return Err(error);
            }
        };
        match went {
            Went::Ended(outcome) => {
                if outcome != PublishOutcome::Held {
                    writer.preparation = None;
                    submit_purge(writer);
                }
                return Ok(Some(outcome));
            }
            Went::Large(standings, released) => {
                let rows = writer.budget.rows();
                let preparation = Preparation::new(&writer.conn, self.request.partial, standings, released, rows)?;
                writer.preparation = Some(preparation);
                (self.begun, self.ready) = (true, false);
            }
            Went::More => (self.begun, self.ready) = (true, false),
            Went::Ready => self.ready = true,
            Went::GivenUp => self.given_up += 1,
            Went::Worthless => self.begun = false,
        }
        Ok(None)
    }

    /// Verifies, and shows if it is little.
    fn begin(&mut self, writer: &mut Writer, mut preparation: Option<Preparation>) -> Result<Went> {
        let (queue, limit) = (Arc::clone(&writer.queue), writer.budget.rows());
        let (begun, mut rows) = (Instant::now(), 0);
        let mut slice = writer.budget.slice(&queue);
        let went = writer.attempt(|conn, schema, seen| {
            let mut publication = Publication::begin(conn, &self.request)?;
            if let Some(outcome) = publication.verify()? {
                return Ok(End::Commit(Went::Ended(outcome)));
            }
            let (standings, released) = (publication.standings(), publication.released()?);
            if let Some(preparation) = &mut preparation
                && preparation.serves(self.request.partial, &standings, released)
            {
                preparation.go_on(standings);
                return Ok(End::CommitInSilence(Went::More));
            }
            let partial = self.request.partial.is_some();
            if survey::rough_count(conn, publication.state.published_seq, partial, limit + 1)? > limit {
                return Ok(End::CommitInSilence(Went::Large(standings, released)));
            }
            let Some(shown) = publication.show(schema, || self.must_give_up(&mut slice))? else {
                return Ok(End::Undo(Went::GivenUp));
            };
            rows = shown;
            publication.finish(seen)?;
            crate::failpoint::reach("database.publish.before_commit");
            Ok(End::Commit(Went::Ended(PublishOutcome::Published)))
        })?;
        match went {
            Went::Ended(PublishOutcome::Published) => writer.budget.took(rows, begun.elapsed()),
            // It is gone on with when the upload queue allows.
            Went::More | Went::Ended(PublishOutcome::Held) => writer.preparation = preparation,
            _ => {}
        }
        Ok(went)
    }

    /// Prepares a bit more; shows when all is prepared.
    fn go_on(&mut self, writer: &mut Writer, mut preparation: Preparation) -> Result<Went> {
        let queue = Arc::clone(&writer.queue);
        let (begun, mut rows) = (Instant::now(), 0);
        let mut slice = writer.budget.slice(&queue);
        let went = writer.attempt(|conn, schema, seen| {
            if !gate_is_open(conn, &self.request)? {
                return Ok(End::CommitInSilence(Went::Ended(PublishOutcome::Held)));
            }
            match preparation.advance(conn, schema, &mut slice)? {
                Progress::Worthless => return Ok(End::CommitInSilence(Went::Worthless)),
                Progress::More | Progress::Filled => return Ok(End::CommitInSilence(Went::More)),
                // The last transaction is to have its time for itself.
                Progress::Ready if !self.ready && slice.is_late() => return Ok(End::CommitInSilence(Went::Ready)),
                Progress::Ready => {}
            }
            let mut publication = Publication::begin(conn, &self.request)?;
            if let Some(outcome) = publication.verify()? {
                return Ok(End::Commit(Went::Ended(outcome)));
            }
            let (standings, released) = (publication.standings(), publication.released()?);
            if !preparation.serves(self.request.partial, &standings, released) || !preparation.fits(conn)? {
                return Ok(End::CommitInSilence(Went::Worthless));
            }
            conn.execute_batch("SAVEPOINT shown")?;
            let shown = publishing(conn, || preparation.show_rest(conn, schema, || self.must_give_up(&mut slice)))?;
            let Some(shown) = shown else {
                // What was prepared is kept.
                conn.execute_batch("ROLLBACK TO shown; RELEASE shown")?;
                return Ok(End::CommitInSilence(Went::GivenUp));
            };
            rows = shown;
            conn.execute_batch("RELEASE shown")?;
            superseded::publish(conn)?;
            publication.finish(seen)?;
            for shadow in preparation.shadows() {
                seen.changed(shadow.table());
            }
            shadow::exchange(conn, preparation.shadows())?;
            crate::failpoint::reach("database.publish.before_commit");
            Ok(End::Commit(Went::Ended(PublishOutcome::Published)))
        })?;
        match went {
            Went::Ended(PublishOutcome::Published) => {
                crate::failpoint::reach("database.publish.exchanged");
                writer.budget.took(rows, begun.elapsed());
            }
            Went::Worthless => {}
            _ => {
                crate::failpoint::reach("database.publish.prepared");
                writer.budget.prepared(slice.rows(), begun.elapsed());
                writer.preparation = Some(preparation);
            }
        }
        Ok(went)
    }

    /// Whether a transaction that shows rows is to be undone for the sake of a local write.
    fn must_give_up(&self, slice: &mut Slice<'_>) -> bool {
        self.given_up < ATTEMPTS && slice.is_over_after_row() && slice.is_waited_for()
    }
}

/// Removes what no publish will show again, in small transactions between other work.
pub(crate) fn submit_purge(writer: &Writer) {
    let submitted = writer.queue.submit_upkeep(Box::new(|writer: &mut Writer| match purge(writer) {
        Ok(true) => Step::Again,
        Ok(false) => Step::Done,
        Err(error) => {
            tracing::warn!(%error, "what is no longer needed could not be removed; the next publish tries again");
            Step::Done
        }
    }));
    if !submitted {
        tracing::debug!("the database closes; what is no longer needed is removed when it is opened again");
    }
}

/// The same for what the last run of the program has left.
pub(crate) fn purge_leftovers(writer: &Writer) -> Result<()> {
    let conn = &writer.conn;
    if bucket_table::has_retired(conn)? || superseded::is_due(conn)? || shadow::is_there(conn)? {
        submit_purge(writer);
    }
    Ok(())
}

fn purge(writer: &mut Writer) -> Result<bool> {
    // Operations of a run that is being sorted may go.
    if let Some(preparation) = &mut writer.preparation {
        preparation.sort_again();
    }
    let preparation = writer.preparation.take();
    let more = writer.attempt(|conn, _, _| {
        let in_use = preparation.as_ref().map(Preparation::shadows).unwrap_or_default();
        let more = bucket_table::purge(conn, PURGE)? || superseded::purge(conn, PURGE)? || shadow::sweep(conn, in_use)?;
        crate::failpoint::reach("database.purge.before_commit");
        Ok(End::CommitInSilence(more))
    });
    writer.preparation = preparation;
    more
}

struct Publication<'c> {
    conn: &'c Connection,
    request: &'c PublishRequest,
    state: State,
    buckets: HashMap<ByteString, Bucket>,
}

impl<'c> Publication<'c> {
    fn begin(conn: &'c Connection, request: &'c PublishRequest) -> Result<Self> {
        Ok(Self { conn, request, state: State::load(conn)?, buckets: bucket_table::load(conn)? })
    }

    /// Tests the checkpoint and the upload queue. An outcome if nothing may be shown.
    fn verify(&mut self) -> Result<Option<PublishOutcome>> {
        let mismatched = self.mismatched();
        if !mismatched.is_empty() {
            for bucket in mismatched.iter().filter_map(|name| self.buckets.get(name)) {
                bucket_table::retire(self.conn, bucket, self.state.published_seq)?;
            }
            return Ok(Some(PublishOutcome::Mismatch(mismatched)));
        }
        if self.request.partial.is_none() {
            self.retire_unnamed()?;
        }
        self.raise_positions()?;
        Ok(if gate_is_open(self.conn, self.request)? { None } else { Some(PublishOutcome::Held) })
    }

    fn is_involved(&self, bucket: &TargetBucket) -> bool {
        self.request.partial.is_none_or(|priority| bucket.priority <= priority)
    }

    fn involved(&self) -> impl Iterator<Item = (&'c ByteString, &'c TargetBucket)> + use<'c> {
        let request = self.request;
        request
            .target
            .buckets
            .iter()
            .filter(|(_, bucket)| request.partial.is_none_or(|priority| bucket.priority <= priority))
    }

    /// The involved buckets whose sum differs from what the server says (C6).
    fn mismatched(&self) -> Vec<ByteString> {
        self.involved()
            .filter(|(name, target)| {
                let sum = self.buckets.get(*name).map_or(Checksum(0), |bucket| bucket.sum);
                sum != target.checksum
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Buckets that the checkpoint does not name leave with it.
    fn retire_unnamed(&mut self) -> Result<()> {
        let Self { conn, request, state, buckets } = self;
        for (_, bucket) in buckets.extract_if(|name, _| !request.target.buckets.contains_key(name)) {
            bucket_table::retire(conn, &bucket, state.published_seq)?;
        }
        Ok(())
    }

    /// Verified buckets stand at the checkpoint, also if nothing is shown: the server need not look before it again.
    fn raise_positions(&mut self) -> Result<()> {
        let last_op = self.request.target.last_op_id;
        for (name, _) in self.involved() {
            let mut bucket = match self.buckets.get(name) {
                Some(bucket) if bucket.last_op >= last_op => continue,
                Some(bucket) => bucket.clone(),
                None => bucket_table::create(self.conn, name)?,
            };
            bucket.last_op = last_op;
            bucket_table::save(self.conn, &bucket)?;
            self.buckets.insert(name.clone(), bucket);
        }
        Ok(())
    }

    fn standings(&self) -> HashMap<i64, Standing> {
        let standings = self.buckets.iter().map(|(name, bucket)| {
            let published = bucket.published_seq.max(self.state.published_seq);
            let involved = self.request.target.buckets.get(name).is_some_and(|target| self.is_involved(target));
            let standing = if involved { Standing::Shown { published } } else { Standing::Kept { published } };
            (bucket.id, standing)
        });
        standings.collect()
    }

    /// Entries of the queue up to here are carried by the checkpoint.
    fn released(&self) -> Result<i64> {
        upload_queue::released_by(self.conn, self.request.target.write_checkpoint)
    }

    /// Shows every row that the checkpoint affects, and returns how many; `None` if `until` said stop. What was written
    /// locally is on top of a partial publish alone: a full one carries it.
    fn show(&self, schema: &Schema, until: impl FnMut() -> bool) -> Result<Option<usize>> {
        let partial = self.request.partial.is_some();
        let pending =
            if partial { PendingWrites::load(self.conn, self.released()?)? } else { PendingWrites::default() };
        let resolver = Resolver::new(self.conn, self.standings(), partial, Superseded::Removed);
        let mut show = Show::new(self.conn, resolver, &pending, partial);
        let names: HashMap<i64, String> = operation_log::all_numbers(self.conn)?.into_iter().collect();
        for table in schema.tables() {
            show.write_to(schema, table.name(), table.name())?;
        }
        row_index::complete(self.conn)?;
        let done = publishing(self.conn, || show.everything(self.state.published_seq, &names, None, until))?;
        Ok(done.then(|| show.shown()))
    }

    /// Everything is shown.
    fn finish(&self, seen: &Seen) -> Result<()> {
        let upto = self.state.next_seq - 1;
        if self.request.partial.is_none() {
            if upload_queue::forget_published(self.conn)? {
                seen.changed(QUEUE);
            }
            let target = &self.request.target;
            self.conn.prepare_cached("UPDATE syncline_buckets SET published_seq = 0 WHERE name IS NULL")?.execute([])?;
            self.conn
                .prepare_cached(
                    "UPDATE syncline_state SET published_seq = ?4, published_op = ?1, \
                     write_checkpoint = coalesce(?2, write_checkpoint), \
                     last_synced_at = max(coalesce(last_synced_at, ?3), ?3)",
                )?
                .execute((
                    bucket_table::signed(target.last_op_id),
                    target.write_checkpoint.map(|number| number.0),
                    self.request.now.0,
                    upto,
                ))?;
        } else {
            let mut advance =
                self.conn.prepare_cached("UPDATE syncline_buckets SET published_seq = ?2 WHERE id = ?1")?;
            for bucket in self.involved().filter_map(|(name, _)| self.buckets.get(name)) {
                advance.execute((bucket.id, upto))?;
            }
        }
        subscriptions::completed(self.conn, &self.complete_subscriptions(), self.request.now)
    }

    /// The subscriptions whose rows are all here: every one after a full publish; after a partial one those whose
    /// buckets were all involved.
    fn complete_subscriptions(&self) -> Vec<&'c StoredSubscription> {
        let request = self.request;
        if request.partial.is_none() {
            return request.requested.iter().collect();
        }
        let mut complete: HashMap<usize, bool> = HashMap::new();
        for bucket in request.target.buckets.values() {
            for reason in &bucket.subscriptions {
                if let syncline_core::protocol::SubscriptionReason::Subscription(index) = reason {
                    *complete.entry(*index as usize).or_insert(true) &= self.is_involved(bucket);
                }
            }
        }
        complete.into_iter().filter(|(_, all)| *all).filter_map(|(index, _)| request.requested.get(index)).collect()
    }
}

/// C3: nothing is queued, and what was sent is covered by a write checkpoint that the target carries. The highest priority
/// alone is shown past local writes.
fn gate_is_open(conn: &Connection, request: &PublishRequest) -> Result<bool> {
    if request.partial == Some(BucketPriority::HIGHEST) {
        return Ok(true);
    }
    let last = upload_queue::last_entry(conn)?;
    if last > State::load(conn)?.sent_upto {
        return Ok(false);
    }
    let cover = upload_queue::last_cover(conn)?;
    if last > cover.map_or(0, |(upto, _)| upto) {
        return Ok(false);
    }
    Ok(cover.is_none_or(|(_, checkpoint)| request.target.write_checkpoint.is_some_and(|carried| carried >= checkpoint)))
}

/// Writes that are not the application's: they are not captured (C7).
fn publishing<R>(conn: &Connection, work: impl FnOnce() -> Result<R>) -> Result<R> {
    conn.prepare_cached("INSERT INTO syncline_publishing (active) VALUES (1)")?.execute([])?;
    let answer = work()?;
    conn.prepare_cached("DELETE FROM syncline_publishing WHERE active = 1")?.execute([])?;
    Ok(answer)
}
