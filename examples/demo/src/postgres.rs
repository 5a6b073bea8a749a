//! The database of the demo: a throwaway cluster, or the user's own under `DATABASE_URL`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use postgres_fixture::Cluster;
use tokio_postgres::Client;

use crate::DEADLINE;

/// What the demo puts into a database of the user's, and removes again.
const TABLES: &str = "
    BEGIN;
    CREATE TABLE demo_lists (id text PRIMARY KEY, owner_id text NOT NULL, name text NOT NULL);
    CREATE TABLE demo_todos (id text PRIMARY KEY, list_id text NOT NULL REFERENCES demo_lists, owner_id text NOT NULL,
                             title text NOT NULL, done int NOT NULL);
    CREATE TABLE demo_notes (id text PRIMARY KEY, title text, body text);
    CREATE TABLE demo_applied (user_id text NOT NULL, client_id text NOT NULL, op_id bigint NOT NULL,
                               applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (user_id, client_id, op_id));
    CREATE PUBLICATION syncline_demo FOR TABLE demo_lists, demo_todos, demo_notes;
    COMMENT ON TABLE demo_lists IS 'made by the demo of Syncline';
    COMMENT ON TABLE demo_todos IS 'made by the demo of Syncline';
    COMMENT ON TABLE demo_notes IS 'made by the demo of Syncline';
    COMMENT ON TABLE demo_applied IS 'made by the demo of Syncline';
    COMMENT ON PUBLICATION syncline_demo IS 'made by the demo of Syncline';
    INSERT INTO demo_lists VALUES ('list-anna', 'anna', 'Groceries'), ('list-ben', 'ben', 'Garden');
    INSERT INTO demo_notes VALUES ('shared', 'a note for all', 'nothing yet');
    COMMIT;
";

/// What has a name that the demo wants, and whether the demo made it. A slot has no comment: it is the demo's if the
/// publication is, which is removed after it.
const FOUND: &str = "
    WITH found (kind, name, made) AS (
        SELECT 'table', c.relname, obj_description(c.oid, 'pg_class')
        FROM pg_class c WHERE c.relname IN ('demo_lists', 'demo_todos', 'demo_notes', 'demo_applied')
            AND c.relnamespace = current_schema()::regnamespace
        UNION ALL
        SELECT 'publication', p.pubname, obj_description(p.oid, 'pg_publication')
        FROM pg_publication p WHERE p.pubname = 'syncline_demo'
        UNION ALL
        SELECT 'replication slot', s.slot_name,
               (SELECT obj_description(p.oid, 'pg_publication') FROM pg_publication p WHERE p.pubname = 'syncline_demo'
                AND s.database = current_database())
        FROM pg_replication_slots s WHERE s.slot_name = 'syncline_demo'
    )
    SELECT kind || ' `' || name || '`', coalesce(made = 'made by the demo of Syncline', false) FROM found";

/// A database and a connection to it.
pub(crate) struct Postgres {
    pub(crate) url: String,
    client: Client,
    /// From here on, what has the demo's names is the demo's.
    made: AtomicBool,
    /// Stops the cluster when dropped; `None` for the user's own database.
    _cluster: Option<Cluster>,
}

impl Postgres {
    pub(crate) async fn start() -> Result<Self> {
        let (cluster, url) = match std::env::var("DATABASE_URL") {
            Ok(url) => (None, url),
            Err(_) => {
                let cluster = Cluster::start().await?;
                let url = cluster.url();
                (Some(cluster), url)
            }
        };
        let client = syncline_source_postgres::connect(&url).await.context("cannot connect to Postgres")?;
        Ok(Self { url, client, made: AtomicBool::new(false), _cluster: cluster })
    }

    pub(crate) async fn create_tables(&self, todos: i64) -> Result<()> {
        let found = self.client.query(FOUND, &[]).await?;
        for row in &found {
            let (what, ours): (&str, bool) = (row.try_get(0)?, row.try_get(1)?);
            ensure!(
                ours,
                "the database has a {what} that this demo did not make; it touches nothing: use another database"
            );
        }
        self.made.store(true, Ordering::Relaxed);
        if !found.is_empty() {
            // A demo that was killed has left it behind.
            self.clean_up().await?;
        }
        self.client.batch_execute(TABLES).await?;
        let rows = "INSERT INTO demo_todos SELECT u || '-' || n, 'list-' || u, u, 'todo number ' || n, (n % 3 = 0)::int
                    FROM unnest(ARRAY['anna', 'ben']) u, generate_series(1, $1::bigint) n";
        self.client.execute(rows, &[&todos]).await?;
        Ok(())
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        Ok(self.client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// The rows of a query as text, `None` for NULL.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        for message in self.client.simple_query(sql).await? {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// Waits until a count is as expected.
    pub(crate) async fn until(&self, sql: &str, expected: i64) -> Result<()> {
        let begun = tokio::time::Instant::now();
        loop {
            let count = self.count(sql).await?;
            if count == expected {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                bail!("expected {expected}, found {count}: {sql}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Removes what the demo made, if it came so far.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        if !self.made.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A transaction that was given up half way.
        self.client.batch_execute("ROLLBACK").await?;
        self.drop_slot().await?;
        let drop = "DROP PUBLICATION IF EXISTS syncline_demo; \
                    DROP TABLE IF EXISTS demo_todos, demo_lists, demo_notes, demo_applied;";
        Ok(self.client.batch_execute(drop).await?)
    }

    /// The walsender may need a moment to let go of the slot.
    async fn drop_slot(&self) -> Result<()> {
        let begun = tokio::time::Instant::now();
        loop {
            let free = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                        WHERE slot_name = 'syncline_demo' AND NOT active";
            self.client.batch_execute(free).await?;
            let left =
                self.count("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'syncline_demo'").await?;
            if left == 0 {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                bail!("the replication slot `syncline_demo` is in use by another program");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
