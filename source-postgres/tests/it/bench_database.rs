//! A database of its own for a test, with a publication of all its tables.

use std::sync::Arc;
use std::time::Duration;

use syncline_core::{TablePattern, TableSelection};
use syncline_source_postgres::PostgresSource;
use tokio_postgres::Client;

/// How long anything may take before the test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A database and a client of it.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Database {
    /// A fresh one in the shared cluster; `sql` is run before `CREATE PUBLICATION syncline FOR ALL TABLES`.
    pub(crate) async fn new(sql: &str) -> Self {
        let url = postgres_fixture::fresh_database().await;
        Self::at(url, sql).await
    }

    pub(crate) async fn at(url: String, sql: &str) -> Self {
        let client = connect(&url).await;
        client.batch_execute(sql).await.unwrap();
        client.batch_execute("CREATE PUBLICATION syncline FOR ALL TABLES").await.unwrap();
        Self { url, client }
    }

    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// A source with a slot of its own.
    pub(crate) fn source(&self) -> PostgresSource {
        PostgresSource::new(&self.url).unwrap()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The only value of a query, as text.
    pub(crate) async fn value(&self, sql: &str) -> Option<String> {
        let messages = self.client.simple_query(sql).await.unwrap();
        messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })?
    }

    /// Polls a query until it returns this text.
    pub(crate) async fn wait_for(&self, sql: &str, text: &str) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let value = self.value(sql).await;
            if value.as_deref() == Some(text) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{sql} is {value:?}, not {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    // It ends with the server; the test then sees that its statements fail.
    tokio::spawn(connection);
    client
}

/// All columns of these tables, in schema `public`; `t%` is a prefix.
pub(crate) fn tables(names: &[&str]) -> TableSelection {
    TableSelection { patterns: names.iter().map(|name| pattern(name, None)).collect(), ..Default::default() }
}

/// Some columns of a table.
pub(crate) fn columns(name: &str, columns: &[&str]) -> TableSelection {
    TableSelection { patterns: vec![pattern(name, Some(columns))], ..Default::default() }
}

fn pattern(name: &str, columns: Option<&[&str]>) -> TablePattern {
    let (name, prefix) = match name.strip_suffix('%') {
        Some(name) => (name, true),
        None => (name, false),
    };
    TablePattern {
        schema: None,
        name: name.into(),
        prefix,
        columns: columns.map(|columns| columns.iter().map(|name| Arc::from(*name)).collect()),
        places: Default::default(),
    }
}
