//! Queries: once, or again after each change.

use std::fmt;
use std::marker::PhantomData;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, ToSql, params_from_iter};
use serde::de::DeserializeOwned;

use super::error::Result;
use super::handle::Database;
use super::row;
use super::watch::Watch;
use super::writer::ask;

/// A query with its parameters, to be run once or watched. Made by [`Database::query`].
#[must_use = "a query does nothing until it is run or watched"]
pub struct Query<T> {
    database: Database,
    sql: String,
    parameters: Vec<Value>,
    wrong: Option<rusqlite::Error>,
    row: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("sql", &self.sql).field("parameters", &self.parameters.len()).finish()
    }
}

impl<T> Query<T> {
    pub(crate) fn new(database: Database, sql: String) -> Self {
        Self { database, sql, parameters: Vec::new(), wrong: None, row: PhantomData }
    }

    /// Binds the next parameter: the first call binds `?1`.
    pub fn bind(mut self, value: impl ToSql) -> Self {
        match value.to_sql() {
            Ok(ToSqlOutput::Borrowed(value)) => match Value::try_from(value) {
                Ok(value) => self.parameters.push(value),
                Err(error) => self.wrong = Some(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            },
            Ok(ToSqlOutput::Owned(value)) => self.parameters.push(value),
            Ok(_) => {
                let error = "this kind of value cannot be kept for a later run";
                self.wrong = Some(rusqlite::Error::ToSqlConversionFailure(error.into()));
            }
            Err(error) => self.wrong = Some(error),
        }
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> Query<T> {
    /// All rows.
    ///
    /// # Errors
    /// `Sqlite`: a wrong statement or parameters. `Row`: a row does not fit `T`. `Closed`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn all(self) -> Result<Vec<T>> {
        self.run(None).await
    }

    /// The first row.
    ///
    /// # Errors
    /// As [`Query::all`]; `QueryReturnedNoRows` if there is none.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn one(self) -> Result<T> {
        self.optional().await?.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// As [`Query::all`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn optional(self) -> Result<Option<T>> {
        Ok(self.run(Some(1)).await?.pop())
    }

    async fn run(self, limit: Option<usize>) -> Result<Vec<T>> {
        let (database, prepared) = self.prepare()?;
        ask(database.readers(), move |reader| reader.read(|conn| prepared.rows(conn, true, limit))).await
    }

    /// The result now, and again after each change to a table that the query reads, whoever made it. Changes that come
    /// faster than results are taken become one result; the last state is always delivered.
    pub fn watch(self) -> Watch<T> {
        Watch::new(self)
    }

    pub(crate) fn prepare(self) -> Result<(Database, Prepared)> {
        match self.wrong {
            Some(error) => Err(error.into()),
            None => Ok((self.database, Prepared { sql: self.sql, parameters: self.parameters })),
        }
    }
}

/// A query without its result type.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    sql: String,
    parameters: Vec<Value>,
}

impl Prepared {
    /// Runs it. A watched query is prepared anew each time, because only preparing tells which tables it reads.
    pub(crate) fn rows<T: DeserializeOwned>(
        &self,
        conn: &Connection,
        cached: bool,
        limit: Option<usize>,
    ) -> Result<Vec<T>> {
        if cached {
            self.collect(&mut *conn.prepare_cached(&self.sql)?, limit)
        } else {
            self.collect(&mut conn.prepare(&self.sql)?, limit)
        }
    }

    fn collect<T: DeserializeOwned>(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        limit: Option<usize>,
    ) -> Result<Vec<T>> {
        let mut rows = statement.query(params_from_iter(&self.parameters))?;
        // Only a statement that has begun to run knows its columns: the tables may have changed since it was prepared.
        let mut columns: Option<Vec<String>> = None;
        let mut values = Vec::new();
        while limit.is_none_or(|limit| values.len() < limit) {
            let Some(row) = rows.next()? else { break };
            let columns = columns.get_or_insert_with(|| row.as_ref().column_names().map(str::to_owned).collect());
            values.push(row::read(row, columns)?);
        }
        Ok(values)
    }
}
