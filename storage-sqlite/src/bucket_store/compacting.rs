//! Compaction: sweeps over all buckets, in steps that fit between two commits.
//!
//! A sweep looks at what lies at or below the checkpoint that was published when it began. A bucket that grew by a tenth
//! since the last time is compacted as a whole; of others only the new chunks are merged, so that the cost of compaction
//! stays proportional to what is written.

use rusqlite::{OptionalExtension, params};
use syncline_core::{Chunk, ChunkBuilder, CompactLimits, Compacted, Compactor, LeadingRun, OpId, Result};

use super::bucket_cache::ChunkHeader;
use super::reading::load_chunk;
use super::sqlite_error::{failed, signed, unsigned};
use super::sweep_lookups::LookupSweep;
use super::writer::Writer;

/// Chunks of up to this size are merged.
const MERGED: usize = 64 << 10;
/// Rows that a pass over one bucket remembers; older operations of further rows are left for a later pass.
const ROWS: usize = 1 << 19;
/// Chunks of a definition that is gone that are dropped together.
const DROPPED: i64 = 200;

/// How far sweeping is. Forgotten with a transaction that is rolled back: buckets remember for themselves what is done.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    sweep: Option<Sweep>,
    /// The checkpoint of the last sweep that came to its end.
    swept: OpId,
    /// Lookup entries written since the last look at them.
    lookups_written: u64,
    /// How many there were then.
    lookups_seen: Option<u64>,
}

#[derive(Debug)]
struct Sweep {
    horizon: OpId,
    /// The last bucket that was begun.
    bucket: i64,
    pass: Option<Pass>,
    /// Begun when all buckets are done.
    lookups: Option<LookupSweep>,
}

/// A pass over one bucket, from its newest chunk to its oldest.
#[derive(Debug)]
struct Pass {
    bucket: i64,
    newest: ChunkHeader,
    removed: u64,
    /// Whether it goes down to the beginning, or only to the first chunk that was not merged yet.
    whole: bool,
    /// Chunks above this,
    lower: u64,
    /// and up to this are left to do.
    upper: u64,
    compactor: Compactor,
    /// Neighbours that become one chunk, newest first.
    group: Vec<Piece>,
    group_size: usize,
}

#[derive(Debug)]
struct Piece {
    header: ChunkHeader,
    chunk: Chunk,
    changed: bool,
}

/// A row of the table of buckets.
struct Candidate {
    id: i64,
    definition: u32,
    removed: u64,
    compacted_count: u64,
    merged_op: u64,
}

impl Sweeper {
    pub(super) fn lookups_written(&mut self, entries: u64) {
        self.lookups_written = self.lookups_written.saturating_add(entries);
    }
}

impl Writer {
    pub(super) fn compact(&mut self, limits: CompactLimits) -> Result<Compacted> {
        self.check()?;
        let published = self.meta.published_op();
        let idle = self.sweeper.sweep.is_none() && self.sweeper.swept == published;
        if published == OpId::ZERO || idle {
            return Ok(Compacted::default());
        }
        let failed = failed("cannot compact the bucket store");
        // Within a source transaction that is open, compaction becomes durable with it. Nothing that it does depends on
        // what that transaction appended.
        self.connection.execute_batch("SAVEPOINT compaction").map_err(&failed)?;
        let mut sweep =
            self.sweeper.sweep.take().unwrap_or(Sweep { horizon: published, bucket: 0, pass: None, lookups: None });
        let mut done = Compacted::default();
        let outcome = self
            .sweep(&mut sweep, limits, &mut done)
            .and_then(|()| self.connection.execute_batch("RELEASE compaction").map_err(&failed));
        if let Err(error) = outcome {
            let open = self.staged.is_some();
            let undone = self.connection.execute_batch("ROLLBACK TO compaction; RELEASE compaction");
            // SQLite itself rolled everything back, or nothing can be said about the open transaction.
            self.failed = open && (undone.is_err() || self.connection.is_autocommit());
            if !open && !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK").map_err(&failed)?;
            }
            self.sweeper = Sweeper::default();
            return Err(error);
        }
        if done.more {
            self.sweeper.sweep = Some(sweep);
        } else {
            self.sweeper.swept = sweep.horizon;
        }
        Ok(done)
    }

    fn sweep(&mut self, sweep: &mut Sweep, limits: CompactLimits, done: &mut Compacted) -> Result<()> {
        let mut work = 0u64;
        loop {
            let step = if let Some(pass) = &mut sweep.pass {
                let before = done.operations;
                if self.step(pass, done)? {
                    self.finish(pass, sweep.horizon, done)?;
                    sweep.pass = None;
                }
                (done.operations - before).max(1)
            } else if let Some(lookups) = &mut sweep.lookups {
                let seen = lookups.step(&self.connection, &self.meta, sweep.horizon)?;
                if seen == 0 {
                    self.sweeper.lookups_seen = Some(lookups.seen());
                    self.raise_lookup_floor(lookups.floor())?;
                    return Ok(());
                }
                seen
            } else {
                self.next_bucket(sweep, done)?
            };
            work = work.saturating_add(step);
            if sweep.lookups.is_none() && sweep.bucket == i64::MAX {
                if !self.lookups_are_due() {
                    return Ok(());
                }
                self.sweeper.lookups_written = 0;
                sweep.lookups = Some(LookupSweep::default());
            }
            if work >= limits.max_operations {
                if let Some(lookups) = &sweep.lookups {
                    self.raise_lookup_floor(lookups.floor())?;
                }
                done.more = true;
                return Ok(());
            }
        }
    }

    fn lookups_are_due(&self) -> bool {
        match self.sweeper.lookups_seen {
            None => true,
            Some(seen) => self.sweeper.lookups_written.saturating_mul(10) >= seen.max(1),
        }
    }

    fn raise_lookup_floor(&mut self, floor: OpId) -> Result<()> {
        if floor > self.meta.lookup_floor {
            self.connection
                .execute("UPDATE meta SET lookup_floor = ?", [signed(floor.0)])
                .map_err(failed("cannot compact lookups"))?;
            self.meta.lookup_floor = floor;
        }
        Ok(())
    }

    /// Looks at the next bucket and begins a pass over it if it has something new. Sets `sweep.bucket` to its largest
    /// value after the last. Returns the work done.
    fn next_bucket(&mut self, sweep: &mut Sweep, done: &mut Compacted) -> Result<u64> {
        let failed = failed("cannot compact a bucket");
        let candidate = self
            .connection
            .prepare_cached(
                "SELECT id, definition, removed, compacted_count, merged_op FROM buckets
                 WHERE id > ? ORDER BY id LIMIT 1",
            )
            .and_then(|mut statement| {
                let row = statement.query_row([sweep.bucket], |row| {
                    Ok(Candidate {
                        id: row.get(0)?,
                        definition: row.get(1)?,
                        removed: unsigned(row.get(2)?),
                        compacted_count: unsigned(row.get(3)?),
                        merged_op: unsigned(row.get(4)?),
                    })
                });
                row.optional()
            })
            .map_err(&failed)?;
        let Some(candidate) = candidate else {
            sweep.bucket = i64::MAX;
            return Ok(0);
        };
        if !self.meta.is_live(candidate.definition) {
            return self.drop_chunks(&candidate, sweep, done);
        }
        sweep.bucket = candidate.id;
        let Some(newest) = self.chunk_upto(candidate.id, sweep.horizon.0)? else { return Ok(1) };
        if newest.last_op <= candidate.merged_op {
            return Ok(1);
        }
        let new = newest.totals.count.saturating_sub(candidate.compacted_count);
        let whole = new.saturating_mul(10) >= newest.totals.count.saturating_sub(candidate.removed);
        sweep.pass = Some(Pass {
            bucket: candidate.id,
            newest,
            removed: candidate.removed,
            whole,
            lower: if whole { 0 } else { candidate.merged_op },
            upper: newest.last_op,
            compactor: Compactor::new(ROWS),
            group: Vec::new(),
            group_size: 0,
        });
        Ok(1)
    }

    /// The newest chunk that ends at or below an operation.
    fn chunk_upto(&self, bucket: i64, upto: u64) -> Result<Option<ChunkHeader>> {
        self.connection
            .prepare_cached(
                "SELECT last_op, first_op, count, sum, target, size FROM chunks
                 WHERE bucket = ? AND last_op <= ? ORDER BY last_op DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                statement.query_row(params![bucket, signed(upto)], ChunkHeader::from_row).optional()
            })
            .map_err(failed("cannot compact a bucket"))
    }

    /// Drops chunks of a definition that is neither deployed nor published, a few at a time. Rows may still name the
    /// bucket, so its number stays.
    fn drop_chunks(&mut self, candidate: &Candidate, sweep: &mut Sweep, done: &mut Compacted) -> Result<u64> {
        let failed = failed("cannot drop a bucket");
        let (bucket, horizon) = (candidate.id, signed(sweep.horizon.0));
        let headers: Vec<ChunkHeader> = self
            .connection
            .prepare_cached(
                "SELECT last_op, first_op, count, sum, target, size FROM chunks
                 WHERE bucket = ? AND last_op <= ? ORDER BY last_op LIMIT ?",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map(params![bucket, horizon, DROPPED], ChunkHeader::from_row)?;
                rows.collect()
            })
            .map_err(&failed)?;
        for header in &headers {
            header.delete(&self.connection, bucket)?;
            done.bytes_freed += header.size;
        }
        if headers.is_empty() {
            sweep.bucket = bucket;
            return Ok(1);
        }
        self.connection
            .prepare_cached("UPDATE buckets SET cleared_op = ?, merged_op = ? WHERE id = ?")
            .and_then(|mut statement| statement.execute(params![horizon, horizon, bucket]))
            .map_err(&failed)?;
        self.cache.forget_totals(bucket);
        Ok(headers.len() as u64)
    }

    /// Takes the next older chunk of a pass. Returns whether there was none.
    fn step(&mut self, pass: &mut Pass, done: &mut Compacted) -> Result<bool> {
        let header = self.chunk_upto(pass.bucket, pass.upper)?.filter(|header| header.last_op > pass.lower);
        let Some(mut header) = header else { return Ok(true) };
        let chunk = load_chunk(&self.connection, header.last_op)?;
        let revised = pass.compactor.revise(&chunk)?;
        let changed = revised.target > OpId::ZERO;
        header.target = header.target.max(revised.target.0);
        pass.upper = header.first_op.saturating_sub(1);
        done.operations += chunk.len() as u64;
        let size = revised.chunk.bytes().len();
        if pass.group_size + size > MERGED {
            self.write_group(pass, done)?;
        }
        pass.group_size += size;
        pass.group.push(Piece { header, chunk: revised.chunk, changed });
        Ok(false)
    }

    /// Replaces the chunks of a group by one.
    fn write_group(&mut self, pass: &mut Pass, done: &mut Compacted) -> Result<()> {
        pass.group_size = 0;
        let pieces = std::mem::take(&mut pass.group);
        let (Some(newest), Some(oldest)) = (pieces.first(), pieces.last()) else { return Ok(()) };
        if pieces.len() == 1 && !newest.changed {
            return Ok(());
        }
        let mut builder = ChunkBuilder::new();
        let mut target = 0;
        let mut freed = 0;
        for piece in pieces.iter().rev() {
            for operation in piece.chunk.operations(0..piece.chunk.len()) {
                builder.push(operation)?;
            }
            target = target.max(piece.header.target);
            freed += piece.header.size;
        }
        let merged = builder.finish();
        let size = merged.bytes().len() as u64;
        let header = ChunkHeader { first_op: oldest.header.first_op, target, size, ..newest.header };
        for piece in &pieces[1..] {
            piece.header.delete(&self.connection, pass.bucket)?;
        }
        header.write(&self.connection, pass.bucket, merged.bytes())?;
        done.bytes_freed += freed.saturating_sub(size);
        Ok(())
    }

    fn finish(&mut self, pass: &mut Pass, horizon: OpId, done: &mut Compacted) -> Result<()> {
        self.write_group(pass, done)?;
        let (bucket, newest) = (pass.bucket, &pass.newest);
        if pass.whole {
            self.clear(pass, horizon, done)?;
            self.connection
                .prepare_cached("UPDATE buckets SET compacted_op = ?, compacted_count = ?, merged_op = ? WHERE id = ?")
                .and_then(|mut statement| {
                    let count = signed(newest.totals.count);
                    statement.execute(params![signed(newest.last_op), count, signed(newest.last_op), bucket])
                })
                .map_err(failed("cannot compact a bucket"))?;
        } else {
            self.connection
                .prepare_cached("UPDATE buckets SET merged_op = ? WHERE id = ?")
                .and_then(|mut statement| statement.execute(params![signed(newest.last_op), bucket]))
                .map_err(failed("cannot compact a bucket"))?;
        }
        Ok(())
    }

    /// Replaces everything before the oldest PUT by one CLEAR.
    fn clear(&mut self, pass: &Pass, horizon: OpId, done: &mut Compacted) -> Result<()> {
        let failed = failed("cannot clear a bucket");
        let oldest_put = pass.compactor.oldest_put();
        let boundary = match oldest_put {
            None => self.chunk_upto(pass.bucket, horizon.0)?,
            Some(put) => self
                .connection
                .prepare_cached(
                    "SELECT last_op, first_op, count, sum, target, size FROM chunks
                     WHERE bucket = ? AND last_op >= ? ORDER BY last_op LIMIT 1",
                )
                .and_then(|mut statement| {
                    statement.query_row(params![pass.bucket, signed(put.0)], ChunkHeader::from_row).optional()
                })
                .map_err(&failed)?,
        };
        let Some(boundary) = boundary else { return Ok(()) };
        let chunk = load_chunk(&self.connection, boundary.last_op)?;
        let before = self.chunk_upto(pass.bucket, boundary.first_op.saturating_sub(1))?;
        let totals = (boundary.totals.count, boundary.totals.sum);
        let run = LeadingRun::find(&chunk, oldest_put, totals, before.map(|header| OpId(header.last_op)));
        let Some(run) = run.filter(|run| run.count.saturating_sub(pass.removed) >= 2) else { return Ok(()) };
        let (older, target): (u64, u64) = self
            .connection
            .prepare_cached(
                "SELECT coalesce(sum(size), 0), coalesce(max(target), 0) FROM chunks WHERE bucket = ? AND last_op < ?",
            )
            .and_then(|mut statement| {
                statement.query_row(params![pass.bucket, signed(boundary.last_op)], |row| {
                    Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
                })
            })
            .map_err(&failed)?;
        let cleared = run.clear(&chunk)?;
        let size = cleared.bytes().len() as u64;
        for delete in [
            "DELETE FROM contents WHERE last_op IN (SELECT last_op FROM chunks WHERE bucket = ? AND last_op < ?)",
            "DELETE FROM chunks WHERE bucket = ? AND last_op < ?",
        ] {
            self.connection
                .prepare_cached(delete)
                .and_then(|mut statement| statement.execute(params![pass.bucket, signed(boundary.last_op)]))
                .map_err(&failed)?;
        }
        let header = ChunkHeader { first_op: run.last_op.0, target: target.max(boundary.target), size, ..boundary };
        header.write(&self.connection, pass.bucket, cleared.bytes())?;
        self.connection
            .prepare_cached("UPDATE buckets SET cleared_op = ?, removed = ? WHERE id = ?")
            .and_then(|mut statement| {
                statement.execute(params![signed(run.last_op.0), signed(run.count - 1), pass.bucket])
            })
            .map_err(&failed)?;
        done.bytes_freed += (older + boundary.size).saturating_sub(size);
        Ok(())
    }
}
