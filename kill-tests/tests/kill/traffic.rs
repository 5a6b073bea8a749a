//! Somebody else who writes to Postgres all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use crate::patience::until;
use crate::postgres::connect;

/// Between two transactions: far less than what replication can do, so that no backlog hides how fast it recovers.
const PACE: Duration = Duration::from_millis(25);
/// Rows that a transaction touches with each of its statements, in turn.
const SIZES: [u64; 8] = [1, 3, 1, 20, 1, 2, 150, 1];
/// Rows that exist at most, so that a longer test is not a slower one.
const WINDOW: u64 = 2_000;

/// A writer that goes on until it is stopped, over crashes of the server too.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Traffic {
    pub(crate) fn start(url: &str) -> Self {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(write(url.to_owned(), stop.clone(), committed.clone()));
        Self { stop, committed, task }
    }

    /// Waits for so many more transactions.
    pub(crate) async fn flows(&self, transactions: u64) {
        let wanted = self.committed.load(Ordering::Relaxed) + transactions;
        until("traffic flows", async || (self.committed.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    }

    /// Finishes the transaction under way and stops.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

async fn write(url: String, stop: Arc<AtomicBool>, committed: Arc<AtomicU64>) {
    let mut client = connect(&url).await;
    let mut pace = tokio::time::interval(PACE);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        round += 1;
        match transaction(&mut client, round).await {
            Ok(()) => drop(committed.fetch_add(1, Ordering::Relaxed)),
            // It was told not to write that.
            Err(error) if error.as_db_error().is_some_and(|error| error.severity() == "ERROR") => panic!("{error:?}"),
            // The server is gone. Whether the transaction is in it, it knows.
            Err(_) => client = connect(&url).await,
        }
    }
}

/// Inserts, updates, deletes and moves rows of a window that wanders with the rounds.
async fn transaction(client: &mut Client, round: u64) -> Result<(), Error> {
    let size = SIZES[usize::try_from(round).unwrap() % SIZES.len()];
    let (from, upto) = (round * 7 % WINDOW, round * 7 % WINDOW + size - 1);
    let old = format!("id IN (SELECT 'w' || i FROM generate_series({from}, {upto}) i)");
    let owner = |shift: u64| format!("(ARRAY['anna', 'ben', 'carl'])[1 + (i + {shift}) % 3]");
    let statements = [
        format!(
            "INSERT INTO items SELECT 'w' || i, {}, repeat(md5(i::text), 3), {round} FROM generate_series({from}, {upto}) i \
             ON CONFLICT (id) DO UPDATE SET version = {round}",
            owner(0)
        ),
        format!(
            "UPDATE items SET owner_id = CASE owner_id WHEN 'anna' THEN 'ben' ELSE 'anna' END WHERE {old} AND version % 3 = 0"
        ),
        format!("DELETE FROM items WHERE {old} AND version % 5 = 1"),
        format!(
            "INSERT INTO lists SELECT 'l' || i, {} FROM generate_series({from}, {from} + 1) i \
             ON CONFLICT (id) DO UPDATE SET owner_id = excluded.owner_id",
            owner(round)
        ),
        format!(
            "INSERT INTO todos SELECT 't' || i, (ARRAY['[\"anna\"]', '[\"anna\",\"ben\"]', '[\"ben\",\"carl\"]'])[1 + (i + {round}) % 3], \
             'title ' || {round} FROM generate_series({from}, {upto}) i \
             ON CONFLICT (id) DO UPDATE SET editors = excluded.editors, title = excluded.title"
        ),
        format!("DELETE FROM todos WHERE id = 't' || {from} / 2"),
    ];
    let transaction = client.transaction().await?;
    transaction.batch_execute(&statements.join(";")).await?;
    transaction.commit().await
}
