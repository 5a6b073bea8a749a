//! One attempt to apply a local transaction, inside one transaction of Postgres.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use serde_json::{Map, Value as Json};
use syncline_core::{Conflict, Error, Identity, LocalTransaction, LocalWrite, Resolution, WriteKind};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use crate::backend::catalog::{Catalog, Column, TableShape};
use crate::backend::plan::{Plan, Unplanned};
use crate::backend::pool::Connection;
use crate::backend::refusal::{Verdict, database_error, judge, reason};
use crate::backend::statement;
use crate::backend::table_name::TableName;
use crate::backend::writable_table::WritableTable;
use crate::backend::write_rule::{Sight, Write};

/// Writes that are under way at once: one round trip serves so many.
const WINDOW: usize = 64;

type Object = Map<String, Json>;

/// Why an attempt ended without an applied transaction. Everything is to be rolled back.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was applied by an earlier upload.
    AppliedBefore,
    /// It is refused.
    Refused(String),
    /// The database refused this write, by its index. Its reason is for those who may write the row.
    RefusedByDatabase { write: usize, before: Option<Object>, reason: String },
    /// Another attempt may pass at once.
    TryAgain(Error),
    /// What became of a write cannot be told, because others were sent behind it: another attempt tells, if it sends one
    /// at a time.
    OneByOne(Error),
    /// Another attempt, with what the database now says about its tables, may pass.
    Schema(Error),
    /// This connection is not to be used again.
    Failed(Error),
}

/// Applies the writes of one transaction over one connection, which is inside a transaction.
pub(crate) struct Applier<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) catalog: &'a Catalog,
    pub(crate) tables: &'a HashMap<Arc<str>, WritableTable>,
    pub(crate) identity: &'a Identity,
    /// Sends a write only when the answer to the one before is there.
    pub(crate) one_by_one: bool,
}

/// A write that was sent, whose answer is awaited.
struct Sent<'a> {
    index: usize,
    plan: Plan<'a>,
    before: Option<Answer>,
    after: Answer,
}

type Rows = Result<Vec<Row>, tokio_postgres::Error>;

/// The answer to a statement, here or on its way.
enum Answer {
    Here(Rows),
    Coming(BoxFuture<'static, Rows>),
}

impl<'a> Applier<'a> {
    /// All but the commit.
    pub(crate) async fn apply(
        &mut self,
        transaction: &'a LocalTransaction,
        idempotency: Option<&TableName>,
    ) -> Result<(), Stop> {
        let plans = self.plan(&transaction.crud).await?;
        if let Some(table) = idempotency {
            self.claim(table, transaction).await?;
        }
        self.lock_in_order(&plans).await?;
        let window = if self.one_by_one { 1 } else { WINDOW };
        let mut sent = VecDeque::with_capacity(window);
        for (index, plan) in plans.into_iter().enumerate() {
            if plan.table.resolver.is_some() {
                self.settle(&mut sent, 0).await?;
                if let Some(plan) = self.resolve(index, plan).await? {
                    self.send(index, plan, &mut sent).await?;
                }
            } else if plan.kind != WriteKind::Patch || !plan.values.is_empty() {
                self.send(index, plan, &mut sent).await?;
            }
            self.settle(&mut sent, window - 1).await?;
        }
        self.settle(&mut sent, 0).await
    }

    /// Checks all writes against their tables before the first one is executed.
    async fn plan(&mut self, writes: &'a [LocalWrite]) -> Result<Vec<Plan<'a>>, Stop> {
        let mut shapes: HashMap<&str, Arc<TableShape>> = HashMap::new();
        let mut plans = Vec::with_capacity(writes.len());
        for write in writes {
            let table = self.tables.get(&write.table).ok_or_else(|| Stop::Refused(unwritable(&write.table)))?;
            let mut shape = match shapes.get(&*write.table) {
                Some(shape) => shape.clone(),
                None => self.catalog.shape(self.connection.client(), table).await?,
            };
            let mut planned = Plan::of_upload(table, &shape, write);
            if matches!(planned, Err(Unplanned::UnknownColumn(_))) && shape.may_be_outdated() {
                shape = self.catalog.look_up(self.connection.client(), table).await?;
                planned = Plan::of_upload(table, &shape, write);
            }
            plans.push(planned.map_err(|error| {
                Stop::Refused(match error {
                    Unplanned::UnknownColumn(column) => format!("`{}`: there is no column `{column}`", table.name),
                    Unplanned::Refused(reason) => reason,
                })
            })?);
            shapes.insert(&write.table, shape);
        }
        Ok(plans)
    }

    /// Records the transaction in the idempotency table, or finds it there.
    async fn claim(&mut self, table: &TableName, transaction: &LocalTransaction) -> Result<(), Stop> {
        let Some(last) = transaction.crud.last().map(|write| write.op_id).filter(|id| *id > 0) else { return Ok(()) };
        let Some(client) = &transaction.client_id else { return Ok(()) };
        let sql = format!(
            "INSERT INTO {table} (user_id, client_id, op_id) VALUES ($1::text, $2::text, $3::int8) ON CONFLICT DO NOTHING"
        );
        let user = self.identity.user_id();
        let statement = self.connection.prepare(&sql).await.map_err(stop)?;
        match self.connection.client().execute(&statement, &[&user, client, &last]).await.map_err(stop)? {
            0 => Err(Stop::AppliedBefore),
            _ => Ok(()),
        }
    }

    /// Locks the rows that are there already, if there may be several.
    async fn lock_in_order(&mut self, plans: &[Plan<'_>]) -> Result<(), Stop> {
        let mut rows: BTreeMap<&str, (&Plan<'_>, BTreeSet<&str>)> = BTreeMap::new();
        for plan in plans {
            rows.entry(&plan.shape.table).or_insert_with(|| (plan, BTreeSet::new())).1.insert(&plan.write.id);
        }
        if rows.len() < 2 && rows.values().all(|(_, ids)| ids.len() < 2) {
            return Ok(());
        }
        for (plan, ids) in rows.values() {
            let statement = self.connection.prepare(&statement::lock_in_order(&plan.shape)).await.map_err(stop)?;
            let ids: Vec<&str> = ids.iter().copied().collect();
            self.connection.client().execute(&statement, &[&ids]).await.map_err(|error| match error.as_db_error() {
                // An id that is none; that tells nothing about rows.
                Some(db) if judge(db) == Verdict::Refused => Stop::Refused(reason(Some(&plan.table.name), db)),
                _ => stop(error),
            })?;
        }
        Ok(())
    }

    /// Asks rule and resolver about a write whose row is locked now. `None`: nothing is to be written.
    async fn resolve(&mut self, index: usize, plan: Plan<'a>) -> Result<Option<Plan<'a>>, Stop> {
        let Some(resolver) = plan.table.resolver.clone() else { return Ok(Some(plan)) };
        let before = self.locked_row(&plan).await?;
        let data = self.normalized(index, &plan.values, &plan, before.as_ref()).await?;
        let old = self.normalized(index, &plan.old_values(), &plan, before.as_ref()).await?;
        let mut write = plan.write.clone();
        if write.data.is_some() {
            write.data = Some(data);
        }
        if write.old.is_some() {
            write.old = Some(old);
        }
        if before.is_some() {
            // Before the resolver's reason can tell anything about the row.
            let after = expected_after(before.as_ref(), &write);
            self.allow(&plan, before.as_ref(), after.as_ref())?;
        }
        let conflict = Conflict { identity: self.identity, write: &write, current: before.as_ref() };
        match resolver.resolve(&conflict) {
            Resolution::Apply => Ok(Some(plan).filter(|plan| plan.kind != WriteKind::Patch || !plan.values.is_empty())),
            Resolution::KeepCurrent => Ok(None),
            Resolution::Reject { reason } => Err(Stop::Refused(reason)),
            Resolution::ApplyInstead(columns) => {
                let kind = match (plan.kind, &before) {
                    (WriteKind::Put, None) => WriteKind::Put,
                    (_, Some(_)) => WriteKind::Patch,
                    (_, None) => return Ok(None), // the row is gone: deletion wins
                };
                let plan = plan.instead(kind, &columns).map_err(|column| {
                    let table = &plan.table.name;
                    Stop::Failed(Error::invalid(format!(
                        "the resolver of `{table}` writes `{column}`, which is no column"
                    )))
                })?;
                Ok(Some(plan).filter(|plan| plan.kind != WriteKind::Patch || !plan.values.is_empty()))
            }
        }
    }

    async fn locked_row(&mut self, plan: &Plan<'_>) -> Result<Option<Object>, Stop> {
        let statement = self.connection.prepare(&statement::lock(plan)).await.map_err(stop)?;
        let rows = self.connection.client().query(&statement, &[&plan.write.id]).await.map_err(stop)?;
        Ok(rows.first().map_or(Ok(None), |row| object(row, 0))?)
    }

    /// What a client says, in the JSON of Postgres.
    async fn normalized(
        &mut self,
        write: usize,
        values: &[(Column, Option<String>)],
        plan: &Plan<'_>,
        before: Option<&Object>,
    ) -> Result<Object, Stop> {
        if values.is_empty() {
            return Ok(Object::new());
        }
        let columns: Vec<&Column> = values.iter().map(|(column, _)| column).collect();
        let statement = self.connection.prepare(&statement::normalize(&columns)).await.map_err(stop)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|(_, value)| value as _).collect();
        match self.connection.client().query_one(&statement, &parameters).await {
            Ok(row) => Ok(object(&row, 0)?.unwrap_or_default()),
            Err(error) => Err(stop_at(write, plan, before.cloned(), error)),
        }
    }

    /// Sends a write without waiting for its answer.
    async fn send(&mut self, index: usize, plan: Plan<'a>, sent: &mut VecDeque<Sent<'a>>) -> Result<(), Stop> {
        let sees = plan.table.sight() != Sight::Nothing;
        let mut statements = [None, None];
        let locks = (sees && plan.kind != WriteKind::Put).then(|| statement::lock(&plan));
        for (slot, sql) in statements.iter_mut().zip([locks, Some(statement::write(&plan))]) {
            let Some(sql) = sql else { continue };
            match self.connection.prepare(&sql).await {
                Ok(statement) => *slot = Some(statement),
                Err(error) => {
                    // One that was sent before may have failed, which is the reason then.
                    self.settle(sent, 0).await?;
                    return Err(stop_at(index, &plan, None, error));
                }
            }
        }
        let [lock, write] = statements;
        let id = || vec![Some(plan.write.id.clone())];
        let before = match lock {
            Some(statement) => Some(start(self.connection.client(), statement, id()).await),
            None => None,
        };
        let mut parameters = id();
        if plan.kind != WriteKind::Delete {
            parameters.extend(plan.values.iter().map(|(_, value)| value.clone()));
        }
        if let Some(statement) = write {
            let after = start(self.connection.client(), statement, parameters).await;
            sent.push_back(Sent { index, plan, before, after });
        }
        Ok(())
    }

    /// Takes the answers in order until no more than `left` are awaited.
    async fn settle(&mut self, sent: &mut VecDeque<Sent<'a>>, left: usize) -> Result<(), Stop> {
        while sent.len() > left {
            let Some(Sent { index, plan, before, after }) = sent.pop_front() else { break };
            let mut row_before = None;
            if let Some(before) = before {
                match before.rows().await {
                    Ok(rows) => row_before = rows.first().map_or(Ok(None), |row| object(row, 0))?,
                    Err(error) => return Err(stop_at(index, &plan, None, error)),
                }
            }
            let rows = match after.rows().await {
                Ok(rows) => rows,
                Err(error) => return Err(stop_at(index, &plan, row_before, error)),
            };
            self.check(&plan, row_before, rows.first()).await?;
        }
        Ok(())
    }

    /// Judges what was written, now that it is known exactly.
    async fn check(&mut self, plan: &Plan<'_>, before: Option<Object>, answer: Option<&Row>) -> Result<(), Stop> {
        if plan.table.sight() == Sight::Nothing {
            return match plan.table.rule.is_read_only() {
                true => Err(Stop::Refused(not_allowed(&plan.table.name))),
                false => Ok(()),
            };
        }
        match (plan.kind, answer) {
            (WriteKind::Put, Some(row)) => {
                let (before, after) = (object(row, 0)?, object(row, 1)?);
                if after.is_some() {
                    return self.allow(plan, before.as_ref(), after.as_ref());
                }
                // A trigger may have suppressed it; or somebody else has inserted the row meanwhile.
                if before.is_none() && self.locked_row(plan).await?.is_some() {
                    // Unless a write behind this one, of the same transaction, has inserted it.
                    return Err(Stop::OneByOne(Error::unavailable("the row was inserted meanwhile")));
                }
                Ok(())
            }
            (WriteKind::Put, None) => Err(Stop::Failed(Error::internal("an insertion did not answer"))),
            (WriteKind::Patch, Some(row)) => {
                let after = object(row, 0)?;
                if before.is_none() {
                    return Err(Stop::TryAgain(Error::unavailable("the row was inserted meanwhile")));
                }
                self.allow(plan, before.as_ref(), after.as_ref())
            }
            (WriteKind::Patch, None) => Ok(()),
            (WriteKind::Delete, deleted) => match (&before, deleted) {
                (None, None) => Ok(()),
                (None, Some(_)) => Err(Stop::TryAgain(Error::unavailable("the row was inserted meanwhile"))),
                (Some(_), _) => self.allow(plan, before.as_ref(), None),
            },
        }
    }

    fn allow(&self, plan: &Plan<'_>, before: Option<&Object>, after: Option<&Object>) -> Result<(), Stop> {
        if allows(self.identity, plan.table, plan.write, before, after) {
            Ok(())
        } else {
            Err(Stop::Refused(not_allowed(&plan.table.name)))
        }
    }
}

/// Whether whoever wrote may be told why the database refused a write: only if the rule would have allowed it.
pub(crate) async fn may_know(
    client: &Client,
    catalog: &Catalog,
    table: &WritableTable,
    identity: &Identity,
    write: &LocalWrite,
    before: Option<Object>,
) -> syncline_core::Result<bool> {
    let shape = catalog.shape(client, table).await?;
    let Ok(plan) = Plan::of_upload(table, &shape, write) else { return Ok(false) };
    let before = match before {
        None if table.sight() != Sight::Nothing => match client.query(&statement::read(&plan), &[&write.id]).await {
            Ok(rows) => rows.first().map_or(Ok(None), |row| object(row, 0))?,
            // The id itself does not fit: there is no row to tell about.
            Err(error) if error.as_db_error().is_some_and(|db| judge(db) == Verdict::Refused) => None,
            Err(error) => return Err(database_error(error)),
        },
        before => before,
    };
    let after = expected_after(before.as_ref(), write);
    Ok(allows(identity, table, write, before.as_ref(), after.as_ref()))
}

fn allows(
    identity: &Identity,
    table: &WritableTable,
    write: &LocalWrite,
    before: Option<&Object>,
    after: Option<&Object>,
) -> bool {
    let (kind, id, table_name) = (write.op, write.id.as_str(), &*table.name);
    table.rule.allows(&Write { identity, table: table_name, id, kind, before, after })
}

/// The row after, as far as it can be told without writing it.
fn expected_after(before: Option<&Object>, write: &LocalWrite) -> Option<Object> {
    if write.op == WriteKind::Delete {
        return None;
    }
    let mut after = before.cloned().unwrap_or_default();
    for (name, value) in write.data.iter().flatten() {
        after.insert(name.clone(), value.clone());
    }
    Some(after)
}

/// Why a table cannot be written: the same for one that was not named and one that does not exist.
pub(crate) fn unwritable(table: &str) -> String {
    format!("table `{table}` cannot be written")
}

/// The reason of every refusal by a rule.
pub(crate) fn not_allowed(table: &str) -> String {
    format!("`{table}`: you are not allowed to make this change")
}

/// Sends a statement: polled once, it stands in the connection's queue.
async fn start(client: &Arc<Client>, statement: Statement, parameters: Vec<Option<String>>) -> Answer {
    let client = client.clone();
    let mut query = async move {
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        client.query(&statement, &parameters).await
    }
    .boxed();
    match poll!(&mut query) {
        Poll::Ready(rows) => Answer::Here(rows),
        Poll::Pending => Answer::Coming(query),
    }
}

impl Answer {
    async fn rows(self) -> Rows {
        match self {
            Self::Here(rows) => rows,
            Self::Coming(query) => query.await,
        }
    }
}

fn object(row: &Row, column: usize) -> Result<Option<Object>, Error> {
    let text: Option<&str> = row.try_get(column).map_err(database_error)?;
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Error::internal("the database sent a row that is no JSON object").caused_by(error))
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What an error that no write is to blame for means for the attempt.
pub(crate) fn stop(error: tokio_postgres::Error) -> Stop {
    let verdict = error.as_db_error().map(judge);
    let aborted = error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION);
    let error = database_error(error);
    match verdict {
        // An error of a write that was sent meanwhile, whose answer was not read yet, is the reason.
        _ if aborted => Stop::OneByOne(error),
        Some(Verdict::TryAgain) => Stop::TryAgain(error),
        Some(Verdict::Schema) => Stop::Schema(error),
        _ => Stop::Failed(error),
    }
}

fn stop_at(write: usize, plan: &Plan<'_>, before: Option<Object>, error: tokio_postgres::Error) -> Stop {
    match error.as_db_error() {
        Some(db) if judge(db) == Verdict::Refused => {
            Stop::RefusedByDatabase { write, before, reason: reason(Some(&plan.table.name), db) }
        }
        _ => stop(error),
    }
}
