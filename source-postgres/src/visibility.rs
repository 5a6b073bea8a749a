//! Waiting until what the stream has sent can be seen by a query.
//!
//! A commit enters the stream when its record is written, but queries see it only when its transaction has left the list
//! of running ones, which may be much later where a standby must answer first. A read that is combined with the stream
//! must wait for that, or it returns a state that the stream has already left behind.

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::PgError;
use crate::link::Link;

/// How long a read waits for the transactions before it.
const WAIT_LIMIT: Duration = Duration::from_secs(600);
/// How long until it says what it waits for.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// How many transactions are kept before those that are visible are looked for.
pub(crate) const MANY: usize = 50_000;

/// What a query at some moment sees: `pg_current_snapshot()`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    /// All transactions below have ended.
    xmin: u64,
    /// No transaction from here on is visible.
    xmax: u64,
    /// Those between that were running.
    running: Vec<u64>,
}

impl FromStr for Snapshot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(());
        let (xmin, xmax) = (number()?, number()?);
        let running = parts.next().ok_or(())?.split(',').filter(|part| !part.is_empty());
        Ok(Self { xmin, xmax, running: running.map(|part| part.parse().map_err(|_| ())).collect::<Result<_, ()>>()? })
    }
}

impl Snapshot {
    /// Whether a transaction that committed is visible. The stream names it by the lower half of its number.
    fn sees(&self, xid: u32) -> bool {
        let epoch = self.xmax & !0xFFFF_FFFF;
        let half = 1 << 31;
        let mut full = epoch | u64::from(xid);
        if full > self.xmax + half {
            full = full.wrapping_sub(1 << 32);
        } else if full + half < self.xmax {
            full += 1 << 32;
        }
        full < self.xmin || (full < self.xmax && !self.running.contains(&full))
    }
}

/// The transactions that the stream has sent and that are not yet known to be visible.
#[derive(Debug, Default)]
pub(crate) struct Streamed(Mutex<Vec<u32>>);

impl Streamed {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds transactions; returns how many there are.
    pub(crate) fn add(&self, xids: &mut Vec<u32>) -> usize {
        let mut known = self.lock();
        known.append(xids);
        known.len()
    }

    /// Forgets all, at the start of a stream.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn forget_visible(&self, snapshot: &Snapshot) {
        self.lock().retain(|xid| !snapshot.sees(*xid));
    }

    /// Forgets the transactions that are visible by now.
    pub(crate) async fn prune(&self, link: &mut Link) -> Result<(), PgError> {
        let snapshot = current(link).await?;
        self.forget_visible(&snapshot);
        Ok(())
    }

    /// At the start of a stream: where a standby must answer first, a transaction that an earlier stream has sent may
    /// still be invisible, so every running one counts.
    pub(crate) async fn begin(&self, link: &mut Link) -> Result<(), PgError> {
        self.clear();
        let rows = link.query("SELECT current_setting('synchronous_standby_names') AS names").await?;
        if !rows.text(0, "names")?.is_empty() {
            // A hidden one may be the newest of all, which the list leaves out; a later one that has ended moves the end
            // of the list behind it. It takes a statement of its own.
            link.query("SELECT pg_current_xact_id()").await?;
            // The lower half is what the stream would name.
            let running = current(link).await?.running;
            self.lock().extend(running.iter().map(|xid| (*xid & 0xFFFF_FFFF) as u32));
        }
        Ok(())
    }

    /// Waits until all that was streamed before this call is visible to a new query.
    pub(crate) async fn wait(&self, link: &mut Link) -> Result<(), PgError> {
        let mut waiting = self.lock().clone();
        if waiting.is_empty() {
            return Ok(());
        }
        let mut patience = Patience::new();
        loop {
            let snapshot = current(link).await?;
            self.forget_visible(&snapshot);
            waiting.retain(|xid| !snapshot.sees(*xid));
            if waiting.is_empty() {
                return Ok(());
            }
            patience.wait(link, "transactions that the stream has sent but queries do not see yet").await?;
        }
    }
}

/// Waits until every transaction that is running now has ended, so that all that committed before is visible.
pub(crate) async fn barrier(link: &mut Link) -> Result<(), PgError> {
    let rows = link.query("SELECT pg_current_xact_id()::text AS xid").await?;
    let own: u64 = rows.parse(0, "xid")?;
    let mut patience = Patience::new();
    while current(link).await?.xmin <= own {
        patience.wait(link, "the end of all transactions that were running when the slot was made").await?;
    }
    Ok(())
}

async fn current(link: &mut Link) -> Result<Snapshot, PgError> {
    let rows = link.query_again("SELECT pg_current_snapshot()::text AS snapshot").await?;
    rows.text(0, "snapshot")?
        .parse()
        .map_err(|()| PgError::Protocol("pg_current_snapshot() returned something else".into()))
}

/// Polls ever more slowly, tells what blocks, and ends.
struct Patience {
    since: Instant,
    delay: Duration,
    report_at: Instant,
}

impl Patience {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, delay: Duration::from_millis(1), report_at: now + REPORT_AFTER }
    }

    async fn wait(&mut self, link: &mut Link, what: &str) -> Result<(), PgError> {
        if self.since.elapsed() > WAIT_LIMIT {
            let blockers = blockers(link).await?;
            tracing::error!(%blockers, "gave up waiting for {what}");
            return Err(PgError::Timeout(WAIT_LIMIT));
        }
        if Instant::now() >= self.report_at {
            let blockers = blockers(link).await?;
            tracing::warn!(%blockers, waited = ?self.since.elapsed(), "still waiting for {what}");
            self.report_at = Instant::now() + REPORT_AFTER;
        }
        sleep(self.delay).await;
        self.delay = (self.delay * 2).min(Duration::from_millis(200));
        Ok(())
    }
}

/// The transactions that hold back a snapshot or the creation of a slot, for people.
pub(crate) async fn blockers(link: &mut Link) -> Result<String, PgError> {
    let rows = link
        .query(
            "SELECT format('process %s (%s) since %s', pid, application_name, xact_start) AS text FROM pg_stat_activity \
                 WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
             UNION ALL SELECT format('prepared transaction %s since %s', gid, prepared) FROM pg_prepared_xacts",
        )
        .await?;
    let texts: Vec<&str> = (0..rows.len()).filter_map(|row| rows.get(row, "text")).collect();
    Ok(if texts.is_empty() { "none that this role can see".into() } else { texts.join(", ") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn visibility_follows_the_snapshot_over_the_wrap_of_numbers() {
        let snapshot: Snapshot = "4294967290:4294967300:4294967295,4294967298".parse().unwrap();
        assert!(!snapshot.sees(5), "not begun");
        assert!(snapshot.sees(4_294_967_289) && snapshot.sees(4_294_967_294) && snapshot.sees(3));
        assert!(!snapshot.sees(4_294_967_295) && !snapshot.sees(2) && !snapshot.sees(4));
        let young: Snapshot = "10:12:".parse().unwrap();
        assert!(young.sees(9) && young.sees(11) && !young.sees(12));
        assert!("".parse::<Snapshot>().is_err() && "1:2".parse::<Snapshot>().is_err());
    }
}
