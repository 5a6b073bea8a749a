//! The handle of an application's write endpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::{ConflictResolver, Error, Identity, LocalTransaction, Result, Uploaded};
use tokio::time::{sleep, timeout};

use crate::backend::applier::{Applier, Stop, may_know, not_allowed, stop, unwritable};
use crate::backend::catalog::{Catalog, check_privileges};
use crate::backend::pool::{Connection, Pool};
use crate::backend::refusal::{Verdict, database_error, judge, reason};
use crate::backend::table_name::{Literal, TableName};
use crate::backend::writable_table::WritableTable;
use crate::backend::write_rule::WriteRule;
use crate::config::PostgresConfig;

const ATTEMPTS: u32 = 6;

/// Applies uploaded local transactions to Postgres: what was named, under rules, each in one transaction of Postgres.
///
/// A handle: cheap to clone, all clones share their connections. Options are chained and belong before the first use.
///
/// ```no_run
/// use syncline_core::{Identity, LocalTransaction, RejectIfChanged};
/// use syncline_source_postgres::{PostgresBackend, WriteRule};
///
/// # async fn example(user: Identity, transaction: LocalTransaction) -> syncline_core::Result<()> {
/// let backend = PostgresBackend::new("postgres://app@localhost/app")?
///     .table("lists", WriteRule::owner("owner_id"))
///     .table("todos", WriteRule::owner("owner_id"))
///     .columns("todos", ["title", "done", "list_id", "owner_id"])
///     .resolver("todos", RejectIfChanged);
/// let uploaded = backend.apply(&user, &transaction).await?;
/// # let _ = uploaded;
/// # Ok(())
/// # }
/// ```
///
/// # What a write does
/// A PUT inserts the row or updates the given columns of the one that is there; a PATCH updates the given columns, and
/// nothing if the row is gone; a DELETE deletes the row if it is there. So an upload may be repeated: a client repeats it
/// until it gets an answer. (A repetition overwrites what others wrote in between, and a resolver may take it for a
/// conflict: [`idempotency_table`](Self::idempotency_table) prevents both.) Values are cast by Postgres from text to the type of their column: 0 and 1 become booleans,
/// JSON text becomes `jsonb` or an array. The session's time zone is UTC.
///
/// # What is rejected
/// A table or column that is not named or does not exist, what a [`WriteRule`] refuses, what a [`ConflictResolver`]
/// rejects, and what Postgres refuses for good: violated constraints, values that do not fit, row level security, an
/// exception that a trigger raises. Then nothing of the transaction is applied. The reason is for the user; Postgres's
/// own sentence is part of it only if the rule would have allowed the write, so that it tells nothing about rows of others.
///
/// # Rights
/// The role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and `SELECT` and `INSERT` on an
/// [idempotency table](Self::idempotency_table). Where one is missing, uploads fail and are repeated until it is granted;
/// [`check`](Self::check) names it. What row level security refuses, or a trigger that raises `insufficient_privilege`, is
/// rejected.
#[derive(Debug, Clone)]
pub struct PostgresBackend {
    options: Arc<Options>,
    pool: Pool,
    catalog: Arc<Catalog>,
}

#[derive(Debug, Clone)]
struct Options {
    tables: HashMap<Arc<str>, WritableTable>,
    idempotency: Option<TableName>,
    claims_setting: Option<Arc<str>>,
    time_limit: Duration,
    /// An option that was given for a table that was not named before it.
    misplaced: Option<Arc<str>>,
}

impl PostgresBackend {
    /// A backend over the database at this URL (see [`PostgresConfig`]). It connects when it is used, with up to 8
    /// connections.
    ///
    /// # Errors
    /// `Invalid` if the URL is none.
    pub fn new(url: &str) -> Result<Self> {
        let config: PostgresConfig = url.parse()?;
        let options = Options {
            tables: HashMap::new(),
            idempotency: None,
            claims_setting: None,
            time_limit: Duration::from_secs(30),
            misplaced: None,
        };
        Ok(Self { options: Arc::new(options), pool: Pool::new(config, 8), catalog: Arc::default() })
    }

    /// Lets clients write this table under this rule. A table that is not named cannot be written.
    #[must_use]
    pub fn table(self, name: impl Into<Arc<str>>, rule: WriteRule) -> Self {
        self.table_with(WritableTable::new(name, rule))
    }

    /// Lets clients write a table with options of its own.
    #[must_use]
    pub fn table_with(self, table: WritableTable) -> Self {
        self.with(|options| {
            options.tables.insert(table.name.clone(), table);
        })
    }

    /// Restricts what clients may write of a table, named before, to these columns (and the id).
    #[must_use]
    pub fn columns<C: Into<Arc<str>>>(self, table: &str, columns: impl IntoIterator<Item = C>) -> Self {
        self.with_table(table, |table| table.columns(columns))
    }

    /// Sets what decides how writes to a table, named before, meet rows that have changed meanwhile. By default the last
    /// write to arrive wins, column by column. See [`WritableTable::resolver`].
    #[must_use]
    pub fn resolver(self, table: &str, resolver: impl ConflictResolver + 'static) -> Self {
        self.with_table(table, |table| table.resolver(resolver))
    }

    /// Remembers applied transactions in this table (`table` or `schema.table`), so that a repeated upload is not
    /// executed again. Off by default: writes may be repeated anyway, unless triggers count them or another client's
    /// write in between must not be overwritten by the repetition.
    ///
    /// The table is made by a migration of the application, which also decides how long its rows are kept. A schema of its
    /// own keeps it away from clients: a sync config that takes every table of `public` (`FROM "%"`) would send it, with the
    /// ids of all users, to each of them.
    ///
    /// ```sql
    /// CREATE SCHEMA syncline;
    /// CREATE TABLE syncline.applied (
    ///     user_id    text        NOT NULL,
    ///     client_id  text        NOT NULL,
    ///     op_id      bigint      NOT NULL,
    ///     applied_at timestamptz NOT NULL DEFAULT now(),
    ///     PRIMARY KEY (user_id, client_id, op_id)
    /// );
    /// ```
    ///
    /// The key is the user, the client's database and the number of the last write of the transaction. An upload
    /// without `client_id` or with `op_id` 0 has no key and is executed each time.
    #[must_use]
    pub fn idempotency_table(self, table: &str) -> Self {
        let table = TableName::parse(table);
        self.with(|options| options.idempotency = Some(table))
    }

    /// Puts the verified claims as JSON into this setting for the time of each transaction, for policies and triggers:
    /// `current_setting('request.jwt.claims', true)::jsonb ->> 'sub'`. Off by default. The name needs a dot in it.
    #[must_use]
    pub fn claims_setting(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.with(|options| options.claims_setting = Some(name))
    }

    /// How long an upload may take. Default: 30 s. It waits at most a third of it for a lock.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        self.with(|options| options.time_limit = limit)
    }

    /// How many connections there may be at most. Default: 8. Zero counts as one.
    #[must_use]
    pub fn connections(mut self, limit: usize) -> Self {
        self.pool = self.pool.resized(limit.max(1));
        self
    }

    /// Looks at the database: whether all named tables and columns are there, and whether the role may write them. A check
    /// for the start of a program.
    ///
    /// # Errors
    /// `Invalid` names what is missing; `Unavailable` if the database cannot be reached.
    pub async fn check(&self) -> Result<()> {
        self.check_options()?;
        let checking = async {
            let connection = self.pool.begin("BEGIN READ ONLY").await?;
            for table in self.options.tables.values() {
                let shape = self.catalog.look_up(connection.client(), table).await?;
                let missing = table.columns.iter().flatten().find(|column| shape.column(column).is_none());
                if let Some(column) = missing {
                    let message = format!("table {} has no column `{column}`, which clients may write", shape.table);
                    return Err(Error::invalid(message));
                }
                check_privileges(connection.client(), table, &shape).await?;
            }
            if let Some(table) = &self.options.idempotency {
                let sql = format!("SELECT user_id, client_id, op_id FROM {table} LIMIT 0");
                connection.client().batch_execute(&sql).await.map_err(database_error)?;
                let may_insert = "SELECT has_table_privilege($1::text::regclass, 'INSERT')";
                let name = table.to_string();
                let row = connection.client().query_one(may_insert, &[&name]).await.map_err(database_error)?;
                if !row.get::<_, bool>(0) {
                    return Err(Error::invalid(format!(
                        "the backend's role may not write table {table}: grant it INSERT"
                    )));
                }
            }
            self.roll_back(connection).await
        };
        timeout(self.options.time_limit, checking).await.map_err(|_| self.too_slow())?
    }

    /// Applies a local transaction as a whole, or nothing of it.
    ///
    /// # Errors
    /// `Unavailable` if the database is away, busy or too slow, or if the same rows are written again and again: the
    /// client tries again. `Invalid` if the backend is set up in a way that does not fit the database (a table or the
    /// unique index of its id is missing, its role lacks a privilege, a trigger's SQL is wrong): the client tries again too, until that is mended.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back, unless the commit is under way; then the transaction may have been applied. The
    /// client repeats it: see "What a write does".
    pub async fn apply(&self, identity: &Identity, transaction: &LocalTransaction) -> Result<Uploaded> {
        self.check_options()?;
        for write in &transaction.crud {
            match self.options.tables.get(&write.table) {
                None => return Ok(Uploaded::Rejected { reason: unwritable(&write.table) }),
                Some(table) if table.rule.is_read_only() => {
                    return Ok(Uploaded::Rejected { reason: format!("table `{}` is read-only", table.name) });
                }
                Some(_) => {}
            }
        }
        if transaction.crud.is_empty() {
            return Ok(Uploaded::Applied);
        }
        let applying = self.apply_with_retries(identity, transaction);
        let uploaded = timeout(self.options.time_limit, applying).await.map_err(|_| self.too_slow())??;
        if let Uploaded::Rejected { reason } = &uploaded {
            tracing::debug!(user = identity.user_id(), reason, "an upload was rejected");
        }
        Ok(uploaded)
    }

    async fn apply_with_retries(&self, identity: &Identity, transaction: &LocalTransaction) -> Result<Uploaded> {
        let begin = self.begin_statements(identity);
        let mut attempt = 1;
        let mut one_by_one = false;
        loop {
            let mut connection = self.pool.begin(&begin).await?;
            let stopped = match self.attempt(&mut connection, identity, transaction, one_by_one).await {
                Ok(()) => {
                    self.pool.give_back(connection);
                    return Ok(Uploaded::Applied);
                }
                Err(stopped) => stopped,
            };
            let error = match stopped {
                Stop::Failed(error) => return Err(error),
                Stop::AppliedBefore => {
                    self.roll_back(connection).await?;
                    return Ok(Uploaded::Applied);
                }
                Stop::Refused(reason) => {
                    self.roll_back(connection).await?;
                    return Ok(Uploaded::Rejected { reason });
                }
                Stop::RefusedByDatabase { write, before, reason } => {
                    connection.client().batch_execute("ROLLBACK").await.map_err(database_error)?;
                    let Some(write) = transaction.crud.get(write) else {
                        return Err(Error::internal("an unknown write was refused"));
                    };
                    let Some(table) = self.options.tables.get(&write.table) else {
                        return Ok(Uploaded::Rejected { reason: unwritable(&write.table) });
                    };
                    let known = may_know(connection.client(), &self.catalog, table, identity, write, before).await;
                    self.pool.give_back(connection);
                    let reason = if known? { reason } else { not_allowed(&table.name) };
                    return Ok(Uploaded::Rejected { reason });
                }
                Stop::TryAgain(error) => error,
                Stop::OneByOne(error) => {
                    one_by_one = true;
                    error
                }
                Stop::Schema(error) => {
                    self.catalog.forget();
                    if attempt > 1 {
                        self.roll_back(connection).await?;
                        return Err(error);
                    }
                    error
                }
            };
            self.roll_back(connection).await?;
            if attempt == ATTEMPTS {
                return Err(error.context(format!("gave up after {ATTEMPTS} attempts")));
            }
            // Not all of those who meet in the same row come back at the same time.
            let spread = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % 16;
            sleep(Duration::from_millis((spread + 4) << attempt.min(5))).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        connection: &mut Connection,
        identity: &Identity,
        transaction: &LocalTransaction,
        one_by_one: bool,
    ) -> Result<(), Stop> {
        let tables = &self.options.tables;
        let mut applier = Applier { connection, catalog: &self.catalog, tables, identity, one_by_one };
        applier.apply(transaction, self.options.idempotency.as_ref()).await?;
        let committed = connection.client().batch_execute("COMMIT").await;
        committed.map_err(|error| match error.as_db_error() {
            // A deferred constraint.
            Some(db) if judge(db) == Verdict::Refused => Stop::Refused(reason(None, db)),
            _ => stop(error),
        })
    }

    fn begin_statements(&self, identity: &Identity) -> String {
        let limit = self.options.time_limit.as_millis();
        let mut sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {limit}; \
             SET LOCAL TimeZone = 'UTC'",
            (limit / 3).max(1),
        );
        if let Some(setting) = &self.options.claims_setting {
            let claims = serde_json::Value::Object(identity.claims().clone()).to_string();
            sql.push_str(&format!("; SELECT set_config({}, {}, true)", Literal(setting), Literal(&claims)));
        }
        sql
    }

    async fn roll_back(&self, connection: Connection) -> Result<()> {
        connection.client().batch_execute("ROLLBACK").await.map_err(database_error)?;
        self.pool.give_back(connection);
        Ok(())
    }

    fn too_slow(&self) -> Error {
        Error::unavailable(format!("the database did not finish within {:?}", self.options.time_limit))
    }

    fn check_options(&self) -> Result<()> {
        match &self.options.misplaced {
            Some(table) => Err(Error::invalid(format!("name table `{table}` before you set options of it"))),
            None => Ok(()),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }

    fn with_table(self, name: &str, change: impl FnOnce(WritableTable) -> WritableTable) -> Self {
        self.with(|options| match options.tables.remove(name) {
            Some(table) => {
                let table = change(table);
                options.tables.insert(table.name.clone(), table);
            }
            None => options.misplaced = Some(name.into()),
        })
    }
}
