//! A connection for SQL that is opened when it is needed, and again after it broke.

use std::time::Duration;

use crate::config::PostgresConfig;
use crate::connection::{Connection, Rows, Session};
use crate::error::PgError;
use crate::lsn::Lsn;
use crate::preflight::Occasion;

/// For queries that only look something up.
pub(crate) const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// The prefix of our logical messages.
pub(crate) const MESSAGE_PREFIX: &str = "syncline";

/// A connection that comes back.
#[derive(Debug)]
pub(crate) struct Link {
    config: PostgresConfig,
    application_name: String,
    /// What a refused login means.
    occasion: Occasion,
    connection: Option<Connection>,
}

impl Link {
    pub(crate) fn new(config: PostgresConfig, application_name: impl Into<String>, occasion: Occasion) -> Self {
        Self { config, application_name: application_name.into(), occasion, connection: None }
    }

    /// From here on all was right once: what keeps a connection from being opened is waited for.
    pub(crate) fn settled(mut self) -> Self {
        self.occasion = Occasion::Again;
        self
    }

    /// The connection, opened if there is none that can be used.
    pub(crate) async fn connection(&mut self) -> Result<&mut Connection, PgError> {
        if !self.connection.as_ref().is_some_and(Connection::is_idle) {
            // Taken out first, so that a broken one does not stay if this fails.
            self.connection = None;
            let opened = Connection::open(&self.config, Session::Sql, &self.application_name, self.occasion).await?;
            self.connection = Some(opened);
        }
        self.connection.as_mut().ok_or_else(|| PgError::Protocol("a connection vanished".into()))
    }

    pub(crate) async fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        self.connection().await?.query(sql, QUERY_LIMIT).await
    }

    /// As [`query`](Self::query), once more on a new connection if an old one turned out to be dead. For statements that
    /// may run twice.
    pub(crate) async fn query_again(&mut self, sql: &str) -> Result<Rows, PgError> {
        let fresh = self.connection.is_none();
        match self.query(sql).await {
            Err(error) if !fresh && self.is_broken(&error) => {
                self.connection = None;
                self.query(sql).await
            }
            other => other,
        }
    }

    /// Whether an error says that the connection is gone, not that the statement is wrong.
    fn is_broken(&self, error: &PgError) -> bool {
        match error {
            PgError::Io(_) => true,
            PgError::Server(_) => !self.connection.as_ref().is_some_and(Connection::is_idle),
            _ => false,
        }
    }

    /// Where the next record of the log goes. Unlike the *written* position it lies at or above everything visible.
    pub(crate) async fn insert_lsn(&mut self) -> Result<Lsn, PgError> {
        let rows = self.query_again("SELECT pg_current_wal_insert_lsn() AS lsn").await?;
        rows.parse(0, "lsn")
    }
}
