//! Publishing: what was staged becomes what the application sees, in one transaction (C1).

use std::collections::HashMap;

use bytestring::ByteString;
use rusqlite::Connection;
use syncline_core::{BucketPriority, Checksum, PublishOutcome, PublishRequest, StoredSubscription, TargetBucket};

use super::bucket_table::{self, Bucket};
use super::error::Result;
use super::layout::State;
use super::operation_log;
use super::replay::PendingWrites;
use super::resolve::{Resolver, Standing};
use super::row_writer::RowWriter;
use super::schema::Schema;
use super::work_queue::Step;
use super::writer::Writer;
use super::{subscriptions, upload_queue};

/// Operations of retired buckets that one purging transaction removes.
const PURGE: usize = 2_000;

/// Verifies, tests the upload queue, and shows.
pub(crate) fn publish(writer: &mut Writer, request: &PublishRequest) -> Result<PublishOutcome> {
    let outcome = writer.transaction(|conn, schema| {
        let outcome = Publication::begin(conn, schema, request)?.run()?;
        if outcome == PublishOutcome::Published {
            crate::failpoint::reach("database.publish.before_commit");
        }
        Ok(outcome)
    })?;
    if outcome != PublishOutcome::Held {
        submit_purge(writer);
    }
    Ok(outcome)
}

/// Removes what no publish will show again, in small transactions between other work.
pub(crate) fn submit_purge(writer: &Writer) {
    let submitted = writer.queue.submit_upkeep(Box::new(|writer: &mut Writer| {
        match writer.transaction(|conn, _| bucket_table::purge(conn, PURGE)) {
            Ok(true) => Step::Again,
            Ok(false) => Step::Done,
            Err(error) => {
                tracing::warn!(%error, "dropped buckets could not be purged; the next publish tries again");
                Step::Done
            }
        }
    }));
    if !submitted {
        tracing::debug!("the database closes; dropped buckets are purged when it is opened again");
    }
}

struct Publication<'c> {
    conn: &'c Connection,
    schema: &'c Schema,
    request: &'c PublishRequest,
    state: State,
    buckets: HashMap<ByteString, Bucket>,
}

impl<'c> Publication<'c> {
    fn begin(conn: &'c Connection, schema: &'c Schema, request: &'c PublishRequest) -> Result<Self> {
        Ok(Self { conn, schema, request, state: State::load(conn)?, buckets: bucket_table::load(conn)? })
    }

    fn run(mut self) -> Result<PublishOutcome> {
        let mismatched = self.mismatched();
        if !mismatched.is_empty() {
            for bucket in mismatched.iter().filter_map(|name| self.buckets.get(name)) {
                bucket_table::retire(self.conn, bucket, self.state.published_seq)?;
            }
            return Ok(PublishOutcome::Mismatch(mismatched));
        }
        self.raise_positions()?;
        if self.request.partial != Some(BucketPriority::HIGHEST) && !self.gate_is_open()? {
            return Ok(PublishOutcome::Held);
        }
        self.conn.prepare_cached("INSERT INTO syncline_publishing (active) VALUES (1)")?.execute([])?;
        match self.request.partial {
            None => self.show_everything()?,
            Some(_) => self.show_involved()?,
        }
        self.conn.prepare_cached("DELETE FROM syncline_publishing WHERE active = 1")?.execute([])?;
        subscriptions::completed(self.conn, &self.complete_subscriptions(), self.request.now)?;
        Ok(PublishOutcome::Published)
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

    /// C3: nothing is queued, and what was sent is covered by a write checkpoint that the target carries.
    fn gate_is_open(&self) -> Result<bool> {
        let sent = self.state.sent_upto;
        let last = upload_queue::last_entry(self.conn)?;
        if last > sent {
            return Ok(false);
        }
        let cover = upload_queue::last_cover(self.conn)?;
        if last > cover.map_or(0, |(upto, _)| upto) {
            return Ok(false);
        }
        Ok(cover.is_none_or(|(_, checkpoint)| {
            self.request.target.write_checkpoint.is_some_and(|carried| carried >= checkpoint)
        }))
    }

    fn standings(&self) -> HashMap<i64, Standing> {
        let standings = self.buckets.iter().map(|(name, bucket)| {
            let published = bucket.published_seq.max(self.state.published_seq);
            let involved = self.request.target.buckets.get(name).map(|target| self.is_involved(target));
            let standing = match (involved, self.request.partial) {
                (Some(true), _) => Standing::Shown { published },
                (Some(false), _) => Standing::Kept { published },
                // A checkpoint that does not name it takes it away.
                (None, None) => Standing::Retired,
                (None, Some(_)) => Standing::Kept { published },
            };
            (bucket.id, standing)
        });
        standings.collect()
    }

    fn row_writers(&self) -> Result<HashMap<i64, (String, RowWriter<'c>)>> {
        let mut writers = HashMap::new();
        let declared: HashMap<&str, &super::schema::Table> = self
            .schema
            .tables()
            .iter()
            .filter(|table| !table.is_local_only())
            .map(|table| (table.name(), table))
            .collect();
        for (number, name) in operation_log::all_numbers(self.conn)? {
            if let Some(table) = declared.get(name.as_str()) {
                let writer = RowWriter::new(self.conn, table, &name)?;
                writers.insert(number, (name, writer));
            }
        }
        Ok(writers)
    }

    /// A full publish: every row that the checkpoint changed, and every row that was written locally.
    fn show_everything(&mut self) -> Result<()> {
        for (name, bucket) in &self.buckets {
            if !self.request.target.buckets.contains_key(name) {
                bucket_table::retire(self.conn, bucket, self.state.published_seq)?;
            }
        }
        let mut show = Show {
            conn: self.conn,
            resolver: Resolver::new(self.conn, self.standings(), false),
            writers: self.row_writers()?,
            pending: PendingWrites::default(),
            partial: false,
        };
        show.new_operations(self.state.published_seq)?;
        show.retired_buckets()?;
        show.written_rows(self.schema)?;
        drop(show);
        upload_queue::forget_published(self.conn)?;
        let now = self.request.now.0;
        let target = &self.request.target;
        self.conn.prepare_cached("UPDATE syncline_buckets SET published_seq = 0 WHERE name IS NULL")?.execute([])?;
        self.conn
            .prepare_cached(
                "UPDATE syncline_state SET published_seq = next_seq - 1, published_op = ?1, \
                 write_checkpoint = coalesce(?2, write_checkpoint), last_synced_at = max(coalesce(last_synced_at, ?3), ?3)",
            )?
            .execute((bucket_table::signed(target.last_op_id), target.write_checkpoint.map(|number| number.0), now))?;
        Ok(())
    }

    /// A partial publish: rows of the involved buckets are added and replaced; nothing is deleted.
    fn show_involved(&mut self) -> Result<()> {
        let released = upload_queue::released_by(self.conn, self.request.target.write_checkpoint)?;
        let mut show = Show {
            conn: self.conn,
            resolver: Resolver::new(self.conn, self.standings(), true),
            writers: self.row_writers()?,
            pending: PendingWrites::load(self.conn, released)?,
            partial: true,
        };
        show.new_operations(self.state.published_seq)?;
        drop(show);
        let mut advance = self.conn.prepare_cached("UPDATE syncline_buckets SET published_seq = ?2 WHERE id = ?1")?;
        for (name, _) in self.involved() {
            if let Some(bucket) = self.buckets.get(name) {
                advance.execute((bucket.id, self.state.next_seq - 1))?;
            }
        }
        Ok(())
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

/// Shows rows, for the time of a publish.
struct Show<'c> {
    conn: &'c Connection,
    resolver: Resolver<'c>,
    /// The declared tables, by number. Rows of others stay in the log (C8).
    writers: HashMap<i64, (String, RowWriter<'c>)>,
    pending: PendingWrites,
    partial: bool,
}

impl Show<'_> {
    /// Every row with an operation that becomes published.
    fn new_operations(&mut self, published: i64) -> Result<()> {
        let conn = self.conn;
        let mut statement =
            conn.prepare_cached("SELECT seq, bucket, tbl, row_id, data FROM syncline_log WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([published])?;
        while let Some(row) = rows.next()? {
            let (seq, bucket): (i64, i64) = (row.get(0)?, row.get(1)?);
            if !self.resolver.is_new(seq, bucket) {
                continue;
            }
            let table: i64 = row.get(2)?;
            let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            if !self.resolver.is_alone(seq, table, id)? {
                let data = self.resolver.row(table, id)?;
                self.show(table, id, data.as_deref())?;
                continue;
            }
            match row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)? {
                Some(data) => self.show(table, id, Some(data))?,
                None => {
                    self.resolver.remove(seq)?;
                    self.show(table, id, None)?;
                }
            }
        }
        Ok(())
    }

    /// Every row that a retired bucket published: another bucket may show it, or nothing does.
    fn retired_buckets(&mut self) -> Result<()> {
        let conn = self.conn;
        let mut retired = conn.prepare_cached(
            "SELECT DISTINCT tbl, row_id FROM syncline_buckets AS b JOIN syncline_log AS l ON l.bucket = b.id \
             WHERE b.name IS NULL AND l.seq <= b.published_seq",
        )?;
        let mut rows = retired.query([])?;
        while let Some(row) = rows.next()? {
            let table: i64 = row.get(0)?;
            let id: String = row.get(1)?;
            let data = self.resolver.row(table, &id)?;
            self.show(table, &id, data.as_deref())?;
        }
        Ok(())
    }

    /// Every row that was written locally: what the server made of it takes its place. So a rejected write is undone.
    fn written_rows(&mut self, schema: &Schema) -> Result<()> {
        let conn = self.conn;
        let mut written = conn.prepare_cached("SELECT DISTINCT tbl, row_id FROM syncline_queue")?;
        let mut rows = written.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let id: String = row.get(1)?;
            match operation_log::find_number(conn, &name)? {
                Some(number) => {
                    let data = self.resolver.row(number, &id)?;
                    self.show(number, &id, data.as_deref())?;
                }
                None => {
                    // The server never mentioned the table.
                    let declared = schema.tables().iter().find(|table| table.name() == name && !table.is_local_only());
                    if let Some(table) = declared {
                        RowWriter::new(conn, table, &name)?.delete(&id)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, table: i64, id: &str, data: Option<&str>) -> Result<()> {
        let Some((name, writer)) = self.writers.get_mut(&table) else { return Ok(()) };
        match data {
            None if self.partial => Ok(()),
            None => writer.delete(id),
            Some(data) if self.partial && self.pending.touch(name, id) => {
                self.pending.show(writer, name, id, Some(data))
            }
            Some(data) => writer.put(id, data),
        }
    }
}
