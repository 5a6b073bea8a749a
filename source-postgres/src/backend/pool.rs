//! A few connections to the database, opened when they are needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use syncline_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, Statement};

use crate::backend::agreed_tls::AgreedTls;
use crate::backend::refusal::database_error;
use crate::config::PostgresConfig;
use crate::connection::Socket;
use crate::error::{ConnectError, PgError};
use crate::preflight::Occasion;

/// A connection that was idle for longer may have been cut by something in between.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// An idle connection that does not answer within this is given up.
const WAKE_LIMIT: Duration = Duration::from_secs(5);
const STATEMENTS: usize = 256;

/// Opens, keeps and replaces connections.
#[derive(Clone)]
pub(crate) struct Pool {
    config: Arc<PostgresConfig>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(config: PostgresConfig, size: usize) -> Self {
        Self { config: Arc::new(config), idle: Arc::default(), permits: Arc::new(Semaphore::new(size)) }
    }

    /// The same database with another number of connections.
    pub(crate) fn resized(&self, size: usize) -> Self {
        Self { config: self.config.clone(), idle: Arc::default(), permits: Arc::new(Semaphore::new(size)) }
    }

    /// A connection in which `begin` was executed; waits until one is free.
    ///
    /// Dropped, it is closed, which rolls back; [`give_back`](Self::give_back) keeps it.
    ///
    /// # Errors
    /// `Unavailable` if none can be had.
    pub(crate) async fn begin(&self, begin: &str) -> Result<Connection> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::closed("the backend was closed"))?;
        while let Some(mut connection) = self.pop() {
            match timeout(WAKE_LIMIT, connection.client.batch_execute(begin)).await {
                Ok(Ok(())) => {
                    connection.permit = Some(permit);
                    return Ok(connection);
                }
                Ok(Err(error)) => tracing::debug!(%error, "an idle connection to the database was lost"),
                Err(_) => tracing::debug!("an idle connection to the database does not answer"),
            }
        }
        let mut connection = self.connect().await?;
        connection.client.batch_execute(begin).await.map_err(database_error)?;
        connection.permit = Some(permit);
        Ok(connection)
    }

    /// Keeps a connection, which must be outside of a transaction, for the next one.
    pub(crate) fn give_back(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let permit = connection.permit.take();
        if !connection.client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        drop(permit); // only now, so that whoever waits for it finds the connection
    }

    fn pop(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.client.is_closed() && connection.idle_since.elapsed() < IDLE_LIMIT);
        idle.pop()
    }

    async fn connect(&self) -> Result<Connection> {
        let client = log_in(&self.config, "syncline-backend").await?;
        Ok(Connection {
            client: Arc::new(client),
            statements: HashMap::new(),
            idle_since: Instant::now(),
            permit: None,
        })
    }
}

/// Connects as [`PostgresBackend`](crate::PostgresBackend) and [`PostgresSource`](crate::PostgresSource) do, by the same
/// URL (see [`PostgresConfig`]) and with its `sslmode`: for statements of the application's own beside them. The connection
/// is kept by a task of its own until the client is dropped.
///
/// # Errors
/// `Invalid` if the URL is none, `Unavailable` if the database cannot be reached within `connect_timeout` or does not let in.
pub async fn connect(url: &str) -> Result<Client> {
    log_in(&url.parse()?, "syncline").await
}

async fn log_in(config: &PostgresConfig, application: &str) -> Result<Client> {
    let connecting = async {
        // TLS is agreed on below tokio-postgres, as the source of changes does.
        let socket = Socket::open(config).await.map_err(|cause| {
            let (address, occasion) = (config.address(), Occasion::First);
            PgError::Connect(Box::new(ConnectError { address, cause, occasion }))
        })?;
        let mut login = Config::new();
        login.user(&config.user).dbname(config.database()).application_name(application);
        AgreedTls::prepare(&mut login, config);
        if let Some(password) = &config.password {
            login.password(password);
        }
        let (client, connection) = login.connect_raw(socket, AgreedTls).await.map_err(database_error)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        Ok::<_, Error>(client)
    };
    let limit = config.connect_timeout;
    timeout(limit, connecting).await.map_err(|_| {
        let address = config.address();
        Error::unavailable(format!("Postgres at {address} did not accept a connection within {limit:?}"))
    })?
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("database", &self.config).finish_non_exhaustive()
    }
}

/// A connection with its prepared statements.
pub(crate) struct Connection {
    client: Arc<Client>,
    statements: HashMap<String, Statement>,
    idle_since: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The statement, prepared now or before.
    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear(); // clients choose the columns of a write, so there may be many
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}
