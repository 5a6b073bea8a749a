//! The replication slot: making it, finding out whether it still has what we need, getting it back from the dead, and
//! dropping it.
//!
//! A store remembers the name of its slot before the slot is made, and forgets it only after it was dropped: a crash in
//! between leaves no slot that nobody knows, which would keep the server's log for ever.

use std::fmt;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use syncline_core::Error;
use tokio::time::{Instant, sleep};

use crate::connection::{Connection, Session};
use crate::error::PgError;
use crate::link::Link;
use crate::lsn::Lsn;
use crate::preflight::{self, Findings, Occasion};
use crate::source::{Settings, Shared};
use crate::state::{SlotOwner, State};
use crate::visibility::blockers;
use crate::walsender::{self, Identity, WalStream};

/// How long a slot that somebody else holds is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(120);
/// How long a connection of ours that died is given to go away by itself.
const GRACE: Duration = Duration::from_millis(300);
/// How long between two terminations, so that two replicators with one store cannot fight for ever.
const TERMINATE_INTERVAL: Duration = Duration::from_secs(30);

/// Why no stream can be had from where it is asked for.
#[derive(Debug)]
pub(crate) enum SlotError {
    /// Changes are gone.
    Lost(String),
    Failed(Error),
}

impl From<PgError> for SlotError {
    fn from(error: PgError) -> Self {
        match lost(&error) {
            Some(reason) => Self::Lost(reason),
            None => Self::Failed(error.into()),
        }
    }
}

impl SlotError {
    /// What an error of a walsender means. Only there is a missing file one of the log; for a query it is one of a table,
    /// and starting over would not bring it back.
    pub(crate) fn of_walsender(error: PgError) -> Self {
        match &error {
            PgError::Server(server) if server.code == "58P01" => Self::Lost(server.to_string()),
            _ => error.into(),
        }
    }
}

impl From<Error> for SlotError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The reason, if an error says that the slot no longer has what we need.
fn lost(error: &PgError) -> Option<String> {
    let PgError::Server(server) = error else { return None };
    let about_slot = server.message.contains("replication slot");
    match server.code.as_str() {
        "42704" if about_slot || server.message.contains("publication") => Some(server.to_string()),
        "55000" if about_slot => Some(format!("{server}; max_slot_wal_keep_size may be too small")),
        _ => None,
    }
}

/// The SQL condition that finds a slot by its name.
pub(crate) fn slot_condition(slot: &str) -> String {
    format!("slot_name = {}", escape_literal(slot))
}

/// What the names of all connections that use slots begin with.
const OWN_PREFIX: &str = "syncline ";

/// How our connections of one slot call themselves. The random part tells them from those of another store.
pub(crate) fn application_name(incarnation: u64) -> String {
    format!("{OWN_PREFIX}{incarnation:016x}")
}

/// Whether the slot exists, the server still keeps what it needs, and nobody has moved it beyond `position`, up to where
/// everything is stored or on its way. A slot that is lost during the very first reading of the tables would most likely be
/// lost again, so a person is asked.
pub(crate) async fn check_health(link: &mut Link, state: &State, position: Lsn, fresh: bool) -> Result<(), SlotError> {
    let slot = &state.slot;
    // All columns, read by name: later servers have more.
    let sql = format!("SELECT * FROM pg_replication_slots WHERE {}", slot_condition(slot));
    let rows = link.query_again(&sql).await?;
    if rows.len() == 0 {
        return Err(SlotError::Lost(format!("replication slot {slot} is gone")));
    }
    let status = rows.get(0, "wal_status");
    if status == Some("lost") || rows.is_true(0, "conflicting") {
        let reason = rows.get(0, "invalidation_reason").map(|reason| format!(" ({reason})")).unwrap_or_default();
        let reason = format!(
            "replication slot {slot} was invalidated{reason}: max_slot_wal_keep_size may be too small for what is written \
             while nothing is read"
        );
        if fresh && !state.is_complete() {
            return Err(SlotError::Failed(Error::invalid(format!(
                "{reason}; it happened while the tables were read for the first time: raise the setting, then run `SELECT \
                 pg_drop_replication_slot('{slot}');` and start again"
            ))));
        }
        return Err(SlotError::Lost(reason));
    }
    if status == Some("unreserved") {
        let safe = rows.get(0, "safe_wal_size").unwrap_or("unknown");
        tracing::warn!(
            slot,
            safe_wal_size = safe,
            "the server may soon give up the slot: max_slot_wal_keep_size is near"
        );
    }
    let Some(confirmed) = rows.get(0, "confirmed_flush_lsn") else {
        return Err(SlotError::Lost(format!("replication slot {slot} was never completed")));
    };
    let confirmed: Lsn = confirmed.parse()?;
    if confirmed > position {
        return Err(SlotError::Lost(format!(
            "replication slot {slot} stands at {confirmed}, after {position} where the store is: the store was restored \
             from a copy, or somebody else uses the slot"
        )));
    }
    Ok(())
}

/// Compares the slot with what the store remembers. `durable` is where the store stands.
pub(crate) async fn check(
    link: &mut Link,
    replication: &mut Connection,
    identity: &Identity,
    state: &State,
    durable: Lsn,
    fresh: bool,
) -> Result<(), SlotError> {
    if identity.system != state.system {
        return Err(SlotError::Lost("this is another cluster than before: its system identifier differs".into()));
    }
    check_health(link, state, durable, fresh).await?;
    let insert = link.insert_lsn().await?;
    if durable > insert {
        return Err(SlotError::Lost(format!(
            "the server's log ends at {insert}, before {durable} where the store is: the server was restored from a copy"
        )));
    }
    if identity.timeline != state.timeline {
        let left = walsender::timeline_switch(replication, identity.timeline, state.timeline)
            .await
            .map_err(SlotError::of_walsender)?;
        if left.is_none_or(|left| durable > left) {
            return Err(SlotError::Lost(format!(
                "the server was promoted and does not have all that the store has (timeline {} instead of {})",
                identity.timeline, state.timeline
            )));
        }
    }
    Ok(())
}

/// Makes the slot of a store that remembers that it is about to; one of its name is there if it was about to before.
pub(crate) async fn create(
    link: &mut Link,
    replication: &mut Connection,
    shared: &Shared,
    owner: &SlotOwner,
) -> Result<Lsn, SlotError> {
    let slot = &owner.slot;
    if let Some(holder) = drop_own(link, shared, owner).await? {
        return Err(SlotError::Failed(in_use(slot, &holder)));
    }
    let mut findings = Findings::default();
    preflight::check_free_slot(link, &mut findings).await?;
    findings.finish()?;
    match walsender::create_slot(replication, slot).await {
        Ok(consistent_point) => Ok(consistent_point),
        Err(error) => {
            let waited = error.code() == Some("55P03") || matches!(error, PgError::Timeout(_));
            let blockers = if waited { blockers(link).await? } else { String::new() };
            let error = Error::from(error).context(format!("cannot create replication slot {slot}"));
            Err(SlotError::Failed(if waited {
                Error::unavailable(format!("{error}; it waits for running transactions: {blockers}"))
            } else {
                error
            }))
        }
    }
}

/// Who stands at a slot.
#[derive(Debug)]
enum Occupancy {
    Missing,
    Idle,
    Held(Holder),
}

/// A process that uses a slot.
#[derive(Debug)]
pub(crate) struct Holder {
    pid: String,
    application_name: String,
}

impl Holder {
    pub(crate) fn new(pid: &str, application_name: Option<&str>) -> Self {
        let application_name = application_name.unwrap_or("a process that has just ended").to_owned();
        Self { pid: pid.to_owned(), application_name }
    }

    /// Whether it calls itself as some source of ours does.
    pub(crate) fn may_be_ours(&self) -> bool {
        self.application_name.starts_with(OWN_PREFIX)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.application_name)
    }
}

pub(crate) fn in_use(slot: &str, holder: &impl fmt::Display) -> Error {
    Error::unavailable(format!(
        "replication slot {slot} is in use by {holder}: another replicator must have a slot of its own, given by \
         PostgresSource::slot"
    ))
}

async fn occupancy(link: &mut Link, slot: &str) -> Result<Occupancy, PgError> {
    let sql = format!(
        "SELECT s.active_pid, a.application_name FROM pg_replication_slots s \
         LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.{}",
        slot_condition(slot)
    );
    let rows = link.query_again(&sql).await?;
    if rows.len() == 0 {
        return Ok(Occupancy::Missing);
    }
    Ok(match rows.get(0, "active_pid") {
        Some(pid) => Occupancy::Held(Holder::new(pid, rows.get(0, "application_name"))),
        None => Occupancy::Idle,
    })
}

/// Drops the slot of a store that starts over, before the store forgets that it has one. Nothing is done on another
/// cluster than the one it was made on: one of its name there is another store's.
pub(crate) async fn give_up(link: &mut Link, shared: &Shared, owner: &SlotOwner) -> Result<(), SlotError> {
    let sql = "SELECT system_identifier AS system, pg_is_in_recovery() AS standby FROM pg_control_system()";
    let rows = link.query_again(sql).await?;
    // Signed there, unsigned where a walsender tells it.
    if rows.parse::<i64>(0, "system")?.cast_unsigned() != owner.system {
        return Ok(());
    }
    if rows.is_true(0, "standby") {
        // It does not show the slots of its primary.
        return Err(Error::unavailable(format!(
            "replication slot {} is to be dropped, but the server is a standby: use the address of the primary",
            owner.slot
        ))
        .into());
    }
    if let Some(holder) = drop_own(link, shared, owner).await? {
        tracing::warn!(slot = owner.slot, %holder, "the slot of this store is left to somebody else who uses it");
    }
    Ok(())
}

/// Drops the slot that a store has made, if it is there. A process of ours that died is ended if it holds it; one of
/// somebody else keeps it, and is returned.
async fn drop_own(link: &mut Link, shared: &Shared, owner: &SlotOwner) -> Result<Option<Holder>, SlotError> {
    let slot = &owner.slot;
    let own_name = application_name(owner.incarnation);
    let began = Instant::now();
    let mut delay = Duration::from_millis(20);
    loop {
        match occupancy(link, slot).await? {
            Occupancy::Missing => return Ok(None),
            Occupancy::Held(holder) if holder.application_name != own_name => return Ok(Some(holder)),
            Occupancy::Held(holder) => {
                if began.elapsed() > BUSY_LIMIT {
                    return Err(SlotError::Failed(in_use(slot, &holder)));
                }
                end_holder(link, shared, slot, &own_name, began.elapsed() > GRACE).await?;
            }
            Occupancy::Idle => {
                tracing::warn!(slot, "dropping the replication slot of an earlier life of this store");
                let sql = format!(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {}",
                    slot_condition(slot)
                );
                match link.query(&sql).await {
                    Ok(_) => return Ok(None),
                    // It is in use again, or has gone.
                    Err(error) if matches!(error.code(), Some("55006" | "42704")) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        sleep(delay).await;
        delay = (delay * 2).min(Duration::from_millis(500));
    }
}

/// Starts the stream. If a process of ours that died still holds the slot, it is ended.
pub(crate) async fn open_stream(
    link: &mut Link,
    settings: &Settings,
    shared: &Shared,
    state: &State,
    start: Lsn,
    sender_timeout: Duration,
) -> Result<WalStream, SlotError> {
    let name = application_name(state.incarnation);
    let began = Instant::now();
    let mut delay = Duration::from_millis(20);
    loop {
        let connection = Connection::open(&settings.config, Session::Replication, &name, Occasion::Again).await?;
        let durable = shared.durable.subscribe();
        let slot = &state.slot;
        match walsender::start(connection, slot, &settings.publication, start, sender_timeout, durable).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.code() == Some("55006") => {
                let holder = end_holder(link, shared, slot, &name, began.elapsed() > GRACE).await?;
                if began.elapsed() > BUSY_LIMIT {
                    return Err(SlotError::Failed(in_use(slot, &holder)));
                }
            }
            Err(error) => return Err(SlotError::of_walsender(error)),
        }
        sleep(delay).await;
        delay = (delay * 2).min(Duration::from_millis(500));
    }
}

/// Ends the process that holds our slot if it calls itself as we do; says who it is.
async fn end_holder(
    link: &mut Link,
    shared: &Shared,
    slot: &str,
    own_name: &str,
    patient_enough: bool,
) -> Result<String, PgError> {
    let sql = format!(
        "SELECT a.pid, a.application_name FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid \
         WHERE s.{}",
        slot_condition(slot)
    );
    let rows = link.query(&sql).await?;
    let (Some(pid), Some(name)) = (rows.get(0, "pid"), rows.get(0, "application_name")) else {
        return Ok("a process that has just ended".into());
    };
    if name == own_name && patient_enough && shared.may_terminate(TERMINATE_INTERVAL) {
        tracing::warn!(pid, slot, "ending a walsender whose client has died");
        // Named again, so that nobody else is hit if the process number has passed on.
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {} AND application_name = {}",
            rows.parse::<u32>(0, "pid")?,
            escape_literal(own_name)
        );
        link.query(&sql).await?;
    }
    Ok(format!("process {pid} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerError;

    #[test]
    fn a_missing_file_is_lost_history_only_for_a_walsender() {
        let error = || PgError::Server(Box::new(ServerError { code: "58P01".into(), ..ServerError::default() }));
        assert!(matches!(SlotError::of_walsender(error()), SlotError::Lost(_)));
        assert!(matches!(SlotError::from(error()), SlotError::Failed(_)));
    }
}
