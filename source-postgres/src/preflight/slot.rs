//! The slot, while nobody remembers to have made it.

use syncline_core::{Error, ErrorKind};

use super::Findings;
use crate::error::PgError;
use crate::link::Link;
use crate::slot::{Holder, in_use, slot_condition};

/// Who wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A store that has no slot. One that is there may be that of a store whose replicator is just not running, and holds
    /// what that store has yet to read.
    NewStore,
    /// Somebody who may have a store: a slot that looks as ours do may be its own.
    Anybody,
}

/// # Errors
/// `Invalid` if no slot can have this name.
pub(crate) fn check_slot_name(slot: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "`{slot}` cannot be the name of a replication slot: use lower-case letters, digits and underscores"
        )));
    }
    Ok(())
}

/// Checks that a slot of this name can be made, or may have been made by us.
pub(crate) async fn check_slot(
    link: &mut Link,
    slot: &str,
    asking: Asking,
    findings: &mut Findings,
) -> Result<(), PgError> {
    if let Err(error) = check_slot_name(slot) {
        findings.add_error(&error);
        return Ok(());
    }
    let sql = format!(
        "SELECT s.slot_type, s.plugin, s.database, s.database = current_database() AS here, s.active_pid, s.wal_status, \
             a.application_name FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid \
         WHERE s.{}",
        slot_condition(slot)
    );
    let rows = link.query(&sql).await?;
    if rows.len() == 0 {
        return check_free_slot(link, findings).await;
    }
    let plugin = rows.get(0, "plugin").unwrap_or_default();
    let foreign = if rows.text(0, "slot_type")? != "logical" {
        Some("is that of a standby".to_owned())
    } else if plugin != "pgoutput" {
        Some(format!("is one of plugin {plugin}"))
    } else if !rows.is_true(0, "here") {
        Some(format!("belongs to database {}", rows.get(0, "database").unwrap_or_default()))
    } else {
        None
    };
    let own_name = "give this one a name of its own with PostgresSource::slot";
    let drop = format!("run `SELECT pg_drop_replication_slot('{slot}');`");
    if let Some(foreign) = foreign {
        let problem = format!("replication slot {slot} {foreign}: {own_name}, or, if nobody needs that one, {drop}");
        findings.add(ErrorKind::Invalid, problem);
        return Ok(());
    }
    let holder = rows.get(0, "active_pid").map(|pid| Holder::new(pid, rows.get(0, "application_name")));
    match (holder, asking) {
        (Some(holder), Asking::Anybody) if holder.may_be_ours() => {}
        (Some(holder), _) => findings.add_error(&in_use(slot, &holder)),
        (None, Asking::NewStore) if rows.get(0, "wal_status") != Some("lost") => findings.add(
            ErrorKind::Invalid,
            format!(
                "replication slot {slot} is there already, and this store did not make it: if the store that did is gone, \
                 {drop}, else {own_name}"
            ),
        ),
        (None, _) => {}
    }
    Ok(())
}

/// Checks that a new slot can be made.
pub(crate) async fn check_free_slot(link: &mut Link, findings: &mut Findings) -> Result<(), PgError> {
    let rows = link
        .query(
            "SELECT current_setting('max_replication_slots')::int AS slots, \
                 (SELECT count(*) FROM pg_replication_slots) AS used",
        )
        .await?;
    let (slots, used): (u64, u64) = (rows.parse(0, "slots")?, rows.parse(0, "used")?);
    if used >= slots {
        let problem = format!(
            "all {slots} replication slots are in use: drop one that nobody needs (SELECT slot_name, active FROM \
             pg_replication_slots), or raise max_replication_slots and restart the server"
        );
        findings.add(ErrorKind::Unavailable, problem);
    } else if slots - used < 2 {
        tracing::warn!(slots, used, "only one replication slot is free; a second deployment would find none");
    }
    Ok(())
}
