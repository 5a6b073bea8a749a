//! What a walsender is told before the stream begins.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio::sync::watch;

use super::reader::WalStream;
use crate::connection::Connection;
use crate::error::PgError;
use crate::lsn::Lsn;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A slot is made only when every running transaction has ended, up to three times over; each wait has a limit of its
/// own, [`CREATION_LOCK_LIMIT_MS`].
const CREATION_LIMIT: Duration = Duration::from_secs(120);
const CREATION_LOCK_LIMIT_MS: u32 = 30_000;

/// Which cluster this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) system: u64,
    pub(crate) timeline: u32,
}

/// Asks which cluster this is. It fails where a pooler does not pass replication through.
pub(crate) async fn identify(connection: &mut Connection) -> Result<Identity, PgError> {
    let rows = connection.query("IDENTIFY_SYSTEM", COMMAND_LIMIT).await?;
    Ok(Identity { system: rows.parse(0, "systemid")?, timeline: rows.parse(0, "timeline")? })
}

/// Where a timeline was left for the next one: `None` if the history does not name it.
pub(crate) async fn timeline_switch(
    connection: &mut Connection,
    current: u32,
    left: u32,
) -> Result<Option<Lsn>, PgError> {
    let rows = connection.query(&format!("TIMELINE_HISTORY {current}"), COMMAND_LIMIT).await?;
    for line in rows.text(0, "content")?.lines() {
        let mut words = line.split_whitespace();
        if words.next().and_then(|word| word.parse().ok()) == Some(left)
            && let Some(lsn) = words.next().and_then(|word| word.parse().ok())
        {
            return Ok(Some(lsn));
        }
    }
    Ok(None)
}

/// Creates a slot and returns its consistent point: it sends every transaction that commits after it.
pub(crate) async fn create_slot(connection: &mut Connection, slot: &str) -> Result<Lsn, PgError> {
    connection.query(&format!("SET lock_timeout = {CREATION_LOCK_LIMIT_MS}"), COMMAND_LIMIT).await?;
    let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", escape_identifier(slot));
    let rows = connection.query(&sql, CREATION_LIMIT).await?;
    rows.text(0, "consistent_point")?
        .parse()
        .map_err(|_| PgError::Protocol("CREATE_REPLICATION_SLOT returned no position".into()))
}

/// Starts the stream where the slot stands. What is at or before `start` is for the caller to leave out; `durable` tells
/// what may be confirmed.
pub(crate) async fn start(
    connection: Connection,
    slot: &str,
    publication: &str,
    start: Lsn,
    sender_timeout: Duration,
    durable: watch::Receiver<Lsn>,
) -> Result<WalStream, PgError> {
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, messages 'true')",
        escape_identifier(slot),
        escape_literal(&escape_identifier(publication)),
    );
    let (socket, input) = connection.into_stream(&sql, COMMAND_LIMIT).await?;
    Ok(WalStream::spawn(socket, input, start, sender_timeout, Arc::new(durable)))
}
