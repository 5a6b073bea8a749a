//! The database, which may be killed as well.

use std::time::Instant;

use postgres_fixture::Cluster;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::patience::{DEADLINE, LOOK, until};

/// How Postgres goes down.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outage {
    /// An orderly restart.
    Restart,
    /// An immediate shutdown, with recovery at the start.
    Crash,
    /// SIGKILL of the postmaster: its children find out by themselves.
    KillPostmaster,
}

/// A cluster, one database and a connection to it.
pub(crate) struct Postgres {
    pub(crate) url: String,
    cluster: Cluster,
    client: Client,
}

/// Connects as soon as the server takes connections.
pub(crate) async fn connect(url: &str) -> Client {
    let began = Instant::now();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(began.elapsed() < DEADLINE, "Postgres takes no connections: {error:?}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Postgres {
    /// An empty database in a cluster of its own.
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let url = cluster.fresh_database().await.unwrap();
        let client = connect(&url).await;
        Self { url, cluster, client }
    }

    /// A port near the cluster's that nobody uses: below those of outgoing connections, so that it stays free while the
    /// server that listens there is down.
    pub(crate) fn free_port(&self) -> u16 {
        let from = self.cluster.port() + 1;
        (from..from + 1000).find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The rows of a query, as text.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        rows.collect()
    }

    /// The one value of a query.
    pub(crate) async fn value(&self, query: &str) -> String {
        let rows = self.rows(query).await;
        rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_else(|| panic!("{query}"))
    }

    /// Goes down and comes back; returns when connections are taken.
    pub(crate) async fn suffer(&mut self, outage: Outage) {
        match outage {
            Outage::Restart => {
                self.cluster.restart().await.unwrap();
                self.client = connect(&self.url).await;
                return;
            }
            Outage::Crash => {}
            Outage::KillPostmaster => self.cluster.signal("KILL", self.cluster.pid().unwrap()).unwrap(),
        }
        self.crash();
        self.start_again().await;
    }

    /// Ends at once, unless it has already.
    pub(crate) fn crash(&self) {
        self.cluster.crash().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        // A new postmaster refuses to start as long as a child of a killed one lives.
        until("Postgres starts again", async || self.cluster.start_again().await.ok()).await;
        self.client = connect(&self.url).await;
    }
}
