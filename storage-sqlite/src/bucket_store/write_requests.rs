//! Requests for write checkpoints, in a file of their own: durable at once, also while a large source transaction is open
//! in the other.
//!
//! A crash between the two files loses nothing: a commit of the store comes first, and a request whose marker was in it
//! but is still unconfirmed is sent again. Numbers that the source confirmed stand in a table of the store from the commit
//! that brought them until the next one that brings some, and are taken over from there when the files are opened.

use futures::channel::oneshot;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use syncline_core::{
    ChangeCollector, ClientKey, Clock, Error, Generation, MarkerFeed, MarkerToken, OpId, Result, SystemClock,
    WriteCheckpoint, WriteCheckpointRequest,
};
use uuid::Uuid;

use super::schema;
use super::sqlite_error::{failed, signed};

/// Requests of one client that are kept while they wait; beyond it every second one is dropped, never the oldest or the
/// newest, so that neither a lost marker nor a client that asks without end wedges the rest.
const WAITING: i64 = 256;

/// A request, and where its answer goes.
pub(super) type AskedRequest = (ClientKey, WriteCheckpointRequest, oneshot::Sender<Result<WriteCheckpoint>>);

#[derive(Debug)]
pub(super) struct WriteRequests {
    connection: Connection,
}

impl WriteRequests {
    /// Takes over the file. Requests of another generation of the store wait again, for a new marker.
    pub(super) fn open(connection: Connection, generation: Generation) -> Result<(Self, MarkerFeed)> {
        let failed = failed("cannot read write checkpoints");
        schema::prepare_requests(&connection)?;
        let mut requests = Self { connection };
        let found: Option<u32> = requests
            .connection
            .query_row("SELECT generation FROM meta", [], |row| row.get(0))
            .optional()
            .map_err(&failed)?;
        if found != Some(generation.0) {
            requests.start_over(generation, &new_token())?;
        }
        let pending = requests
            .connection
            .prepare("SELECT token FROM requests WHERE resolved_op IS NULL GROUP BY token ORDER BY min(id)")
            .and_then(|mut statement| {
                let tokens = statement.query_map([], |row| row.get::<_, String>(0))?;
                tokens.map(|token| token.map(|token| MarkerToken(token.into()))).collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(&failed)?;
        Ok((requests, MarkerFeed::new(pending)))
    }

    /// Answers requests that came together, with one sync to the disk and one marker for all that need one.
    pub(super) fn answer(&mut self, asked: Vec<AskedRequest>, markers: &MarkerFeed) {
        if asked.is_empty() {
            return;
        }
        let joined = markers.join();
        let token = joined.clone().unwrap_or_else(new_token);
        let questions: Vec<_> = asked.iter().map(|(client, request, _)| (client, *request)).collect();
        let answers = self.record_all(&questions, &token);
        // The rows are durable, so the marker may go out.
        if joined.is_some() {
            markers.release();
        } else if answers.as_ref().is_ok_and(|(_, waits)| *waits) {
            markers.push(token);
        }
        for (index, (_, _, reply)) in asked.into_iter().enumerate() {
            let answer = match &answers {
                Ok((numbers, _)) => match numbers.get(index) {
                    Some(Some(number)) => Ok(*number),
                    Some(None) => Err(ClientKey::too_many()),
                    None => Err(Error::internal("an answer is missing")),
                },
                Err(error) => Err(error.clone()),
            };
            // One who is gone needs no answer; the request stands.
            drop(reply.send(answer));
        }
    }

    /// The numbers, `None` for a client that is one too many, and whether any waits for the token.
    fn record_all(
        &mut self,
        asked: &[(&ClientKey, WriteCheckpointRequest)],
        token: &MarkerToken,
    ) -> Result<(Vec<Option<WriteCheckpoint>>, bool)> {
        let failed = failed("cannot record a write checkpoint");
        let now = SystemClock.wall().0;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let mut numbers = Vec::with_capacity(asked.len());
        let mut any_waits = false;
        for (client, request) in asked {
            let recorded = record(&transaction, client, *request, token, now).map_err(&failed)?;
            any_waits |= recorded.is_some_and(|(_, waits)| waits);
            numbers.push(recorded.map(|(number, _)| WriteCheckpoint(number)));
        }
        transaction.commit().map_err(&failed)?;
        Ok((numbers, any_waits))
    }

    /// Whose requests wait for one of these markers.
    pub(super) fn waiting_for(&self, tokens: &[MarkerToken]) -> Result<Vec<ClientKey>> {
        let mut clients = Vec::new();
        for token in tokens {
            self.connection
                .prepare_cached("SELECT DISTINCT client FROM requests WHERE token = ? AND resolved_op IS NULL")
                .and_then(|mut statement| {
                    for client in statement.query_map([&*token.0], |row| row.get::<_, String>(0))? {
                        clients.push(ClientKey(client?.into()));
                    }
                    Ok(())
                })
                .map_err(failed("cannot read write checkpoints"))?;
        }
        clients.sort();
        clients.dedup();
        Ok(clients)
    }

    /// The markers came back: requests that wait for them, and smaller numbers of the same clients, may be shown from
    /// `from` on. What is older than the newest that is shown at `published` is dropped.
    pub(super) fn resolve(&mut self, tokens: &[MarkerToken], from: u64, published: OpId) -> Result<()> {
        let failed = failed("cannot confirm a write checkpoint");
        let clients = self.waiting_for(tokens)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        for client in clients {
            resolve_one(&transaction, &client, tokens, signed(from), signed(published.0)).map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)
    }

    /// Whose write checkpoint rises with the numbers that the source confirmed.
    pub(super) fn note_rising(&self, store: &Connection, rising: &mut ChangeCollector) -> Result<()> {
        let note = |client: &str, number| {
            if rises(&self.connection, client, number)? {
                rising.client(&ClientKey(client.into()));
            }
            Ok(())
        };
        each_confirmed(store, note).map_err(failed("cannot read write checkpoints"))
    }

    /// The numbers that the source confirmed, and smaller numbers of the same clients, may be shown from `from` on. To do it
    /// twice changes nothing. What is older than the newest that is shown at `published` is dropped.
    pub(super) fn confirm(&mut self, store: &Connection, from: u64, published: OpId) -> Result<()> {
        let failed = failed("cannot confirm a write checkpoint");
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let confirm = |client: &str, number| {
            if rises(&transaction, client, number)? {
                confirm_one(&transaction, client, number, signed(from), signed(published.0))?;
            }
            Ok(())
        };
        each_confirmed(store, confirm).map_err(&failed)?;
        transaction.commit().map_err(&failed)
    }

    /// See [`shown`].
    pub(super) fn shown(&self, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
        shown(&self.connection, at, clients)
    }

    /// The store was reset: each client's newest number waits for a new marker.
    pub(super) fn reset(&mut self, generation: Generation, markers: &MarkerFeed) -> Result<()> {
        let token = new_token();
        let any = self.start_over(generation, &token)?;
        markers.clear();
        if any {
            markers.push(token);
        }
        Ok(())
    }

    fn start_over(&mut self, generation: Generation, token: &MarkerToken) -> Result<bool> {
        let failed = failed("cannot reset write checkpoints");
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let any = start_over(&transaction, generation, token).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        Ok(any)
    }
}

/// The largest number of each client that may be shown at `at`.
pub(super) fn shown(connection: &Connection, at: OpId, clients: &[ClientKey]) -> Result<Vec<Option<WriteCheckpoint>>> {
    let failed = failed("cannot read write checkpoints");
    let mut statement = connection
        .prepare_cached("SELECT max(number) FROM requests WHERE client = ? AND resolved_op <= ?")
        .map_err(&failed)?;
    let mut shown = Vec::with_capacity(clients.len());
    for client in clients {
        let number: Option<i64> =
            statement.query_row(params![&*client.0, signed(at.0)], |row| row.get(0)).map_err(&failed)?;
        shown.push(number.map(WriteCheckpoint));
    }
    Ok(shown)
}

fn new_token() -> MarkerToken {
    MarkerToken(Uuid::new_v4().to_string().into())
}

/// Records a request; its number, and whether it waits for the token. `None` if the user has too many clients.
fn record(
    transaction: &Transaction<'_>,
    client: &ClientKey,
    request: WriteCheckpointRequest,
    token: &MarkerToken,
    now: i64,
) -> rusqlite::Result<Option<(i64, bool)>> {
    let last: Option<(i64, bool)> = transaction
        .prepare_cached(
            "SELECT number, resolved_op IS NULL FROM requests WHERE client = ? ORDER BY number DESC, id DESC LIMIT 1",
        )?
        .query_row([&*client.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // The next number of a client that is forgotten is not below `now`.
    if last.is_none() && !make_room(transaction, client.user_part(), now)? {
        return Ok(None);
    }
    let (stored, last_waits) = last.unwrap_or((0, false));
    let number = match request {
        WriteCheckpointRequest::Next => stored.saturating_add(1).max(now).max(1),
        WriteCheckpointRequest::AtLeast(number) => number.0.max(stored),
    };
    if number == stored && !last_waits {
        return Ok(Some((number, false)));
    }
    transaction
        .prepare_cached("INSERT OR IGNORE INTO requests (client, number, token) VALUES (?, ?, ?)")?
        .execute(params![&*client.0, number, &*token.0])?;
    let waiting: i64 = transaction
        .prepare_cached("SELECT count(*) FROM requests WHERE client = ? AND resolved_op IS NULL")?
        .query_row([&*client.0], |row| row.get(0))?;
    if waiting > WAITING {
        tracing::warn!(waiting, "a client waits for many write checkpoints; every second one is dropped");
        transaction
            .prepare_cached(
                "DELETE FROM requests WHERE id IN (
                     SELECT id FROM (
                         SELECT id, row_number() OVER (ORDER BY number, id) AS place FROM requests
                         WHERE client = ?1 AND resolved_op IS NULL
                     ) WHERE place % 2 = 0 AND place < ?2
                 )",
            )?
            .execute(params![&*client.0, waiting])?;
    }
    Ok(Some((number, true)))
}

/// Forgets clients of a user if there are too many for a new one: those that were confirmed longest ago, and have no number
/// above `largest`. Whether there is room.
fn make_room(transaction: &Transaction<'_>, user: &str, largest: i64) -> rusqlite::Result<bool> {
    // All keys of the user: this part, alone or before a slash, which `0` follows.
    let (first, end) = (user, format!("{user}0"));
    let known: u32 = transaction
        .prepare_cached("SELECT count(DISTINCT client) FROM requests WHERE client >= ? AND client < ?")?
        .query_row(params![first, end], |row| row.get(0))?;
    if known < ClientKey::PER_USER {
        return Ok(true);
    }
    // Several at once, so that this is rare.
    let forgotten = transaction
        .prepare_cached(
            "DELETE FROM requests WHERE client IN (
                 SELECT client FROM requests WHERE client >= ? AND client < ? GROUP BY client
                 HAVING count(*) = count(resolved_op) AND max(number) <= ? ORDER BY max(resolved_op), client LIMIT ?
             )",
        )?
        .execute(params![first, end, largest, ClientKey::PER_USER / 8])?;
    tracing::info!(known, forgotten, limit = ClientKey::PER_USER, "a user has many clients; old ones are forgotten");
    Ok(forgotten > 0)
}

fn resolve_one(
    transaction: &Transaction<'_>,
    client: &ClientKey,
    tokens: &[MarkerToken],
    from: i64,
    published: i64,
) -> rusqlite::Result<()> {
    let mut resolved: Option<(i64, &MarkerToken)> = None;
    for token in tokens {
        let number: Option<i64> = transaction
            .prepare_cached("SELECT max(number) FROM requests WHERE client = ? AND token = ? AND resolved_op IS NULL")?
            .query_row(params![&*client.0, &*token.0], |row| row.get(0))?;
        if let Some(number) = number
            && resolved.is_none_or(|(largest, _)| number > largest)
        {
            resolved = Some((number, token));
        }
    }
    let Some((number, token)) = resolved else { return Ok(()) };
    transaction
        .prepare_cached("UPDATE requests SET resolved_op = ? WHERE client = ? AND number = ? AND token = ?")?
        .execute(params![from, &*client.0, number, &*token.0])?;
    drop_older(transaction, &client.0, number, published)
}

/// The numbers that the source confirmed with the last commit that brought any.
fn each_confirmed(store: &Connection, mut take: impl FnMut(&str, i64) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut statement = store.prepare_cached("SELECT client, number FROM confirmed ORDER BY client")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row.get_ref(0)?.as_str()?, row.get(1)?)?;
    }
    Ok(())
}

/// Whether a number is above all of its client that were confirmed.
fn rises(requests: &Connection, client: &str, number: i64) -> rusqlite::Result<bool> {
    requests
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM requests WHERE client = ? AND number >= ? AND resolved_op IS NOT NULL)",
        )?
        .query_row(params![client, number], |row| row.get(0))
}

fn confirm_one(
    transaction: &Transaction<'_>,
    client: &str,
    number: i64,
    from: i64,
    published: i64,
) -> rusqlite::Result<()> {
    let is_known: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM requests WHERE client = ?)")?
        .query_row([client], |row| row.get(0))?;
    if !is_known {
        // Whoever waits is not forgotten, so that there may be a few too many.
        make_room(transaction, ClientKey(client.into()).user_part(), i64::MAX)?;
    }
    transaction
        .prepare_cached("INSERT INTO requests (client, number, token, resolved_op) VALUES (?, ?, '', ?)")?
        .execute(params![client, number, from])?;
    drop_older(transaction, client, number, published)
}

/// Drops the requests that a confirmed number stands for, and those that are no longer shown to anybody.
fn drop_older(transaction: &Transaction<'_>, client: &str, number: i64, published: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM requests WHERE client = ? AND number <= ? AND resolved_op IS NULL")?
        .execute(params![client, number])?;
    transaction
        .prepare_cached(
            "DELETE FROM requests WHERE client = ?1 AND resolved_op IS NOT NULL AND number < (
                 SELECT max(number) FROM requests WHERE client = ?1 AND resolved_op <= ?2
             )",
        )?
        .execute(params![client, published])?;
    Ok(())
}

fn start_over(transaction: &Transaction<'_>, generation: Generation, token: &MarkerToken) -> rusqlite::Result<bool> {
    transaction.execute("INSERT OR REPLACE INTO meta (id, generation) VALUES (0, ?)", [generation.0])?;
    transaction.execute(
        "DELETE FROM requests AS older WHERE EXISTS (
             SELECT 1 FROM requests AS newer WHERE newer.client = older.client
             AND (newer.number, newer.id) > (older.number, older.id)
         )",
        [],
    )?;
    let waiting = transaction.execute("UPDATE requests SET token = ?, resolved_op = NULL", [&*token.0])?;
    Ok(waiting > 0)
}
