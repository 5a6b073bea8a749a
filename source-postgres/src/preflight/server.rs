//! The server itself and the role.

use postgres_protocol::escape::escape_identifier;
use syncline_core::{Error, ErrorKind};

use super::{Findings, Occasion};
use crate::link::Link;

/// The oldest server whose stream carries our markers.
const OLDEST_VERSION: u32 = 140_000;

/// What was found out about the server on the way.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Such as 150018.
    pub(crate) version: u32,
    /// The patience of its walsenders in milliseconds; zero is endless.
    pub(crate) sender_timeout_ms: u64,
    /// The role that we are, quoted as SQL needs it.
    pub(crate) role: String,
}

/// Checks the server itself and the role.
///
/// # Errors
/// If nothing more can be found out: the server cannot be asked, or is so old that it would not understand.
pub(crate) async fn check_server(
    link: &mut Link,
    occasion: Occasion,
    findings: &mut Findings,
) -> Result<Server, Error> {
    let rows = link
        .query(
            "SELECT current_setting('server_version_num') AS version, current_setting('wal_level') AS wal_level, \
                 current_setting('server_encoding') AS encoding, \
                 pg_is_in_recovery() AS standby, current_user AS role, \
                 (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
                     OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' \
                         AND pg_has_role(current_user, oid, 'member')) AS may_replicate, \
                 EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AS rds, \
                 (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout') AS sender_timeout",
        )
        .await?;
    let version: u32 = rows.parse(0, "version")?;
    let kind = occasion.kind();
    let role = escape_identifier(rows.text(0, "role")?);
    if version < OLDEST_VERSION {
        findings.add(kind, format!("the server has version {}, but 14 is the oldest that works", version / 10_000));
    }
    if rows.is_true(0, "standby") {
        // Even at first: it may be about to be promoted.
        findings.add(ErrorKind::Unavailable, "the server is a standby: use the address of the primary");
    }
    let level = rows.text(0, "wal_level")?;
    if level != "logical" {
        let problem = format!(
            "wal_level is {level}: run `ALTER SYSTEM SET wal_level = logical;` and restart the server (hosts have a \
             setting of their own for it, such as rds.logical_replication)"
        );
        findings.add(kind, problem);
    }
    if rows.text(0, "encoding")? == "SQL_ASCII" {
        findings.add(
            kind,
            "the database has encoding SQL_ASCII, so that nobody knows what its text means: copy it into one with encoding \
             UTF8",
        );
    }
    if !rows.is_true(0, "may_replicate") {
        // On Amazon RDS there is no superuser, and a role that stands for the right.
        let statement = if rows.is_true(0, "rds") {
            format!("GRANT rds_replication TO {role};")
        } else {
            format!("ALTER ROLE {role} REPLICATION;")
        };
        let problem = format!("role {} may not replicate: run `{statement}` as a superuser", rows.text(0, "role")?);
        findings.add(kind, problem);
    }
    if version < OLDEST_VERSION {
        std::mem::take(findings).finish()?;
    }
    Ok(Server { version, sender_timeout_ms: rows.parse(0, "sender_timeout")?, role })
}
