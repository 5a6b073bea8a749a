//! The conformance suite of sources, on a database of its own for each case.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use syncline_core::testing::RunningCase;
use syncline_core::testing::source_suite::{Change, Hand, Row};
use syncline_core::{Source, async_trait};
use tokio_postgres::Client;

use crate::bench_database::{Database, LIMIT};

// region: suite
syncline_core::source_tests!(on: run_on_tokio, async { PostgresHand::new().await });

fn run_on_tokio(case: RunningCase<'_>) {
    tokio::runtime::Runtime::new().unwrap().block_on(case);
}
// endregion: suite

/// A hand on a database of Postgres.
struct PostgresHand {
    database: Database,
    /// For transactions that overlap those of the other client.
    beside: Client,
}

impl std::fmt::Debug for PostgresHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresHand").field("database", &self.database.url).finish_non_exhaustive()
    }
}

impl PostgresHand {
    async fn new() -> Self {
        let database = Database::new("").await;
        let beside = database.connect().await;
        Self { database, beside }
    }
}

fn value(value: &Option<String>) -> String {
    value.as_deref().map_or_else(|| "NULL".to_owned(), escape_literal)
}

fn assignments(columns: &Row) -> String {
    let one = |(name, of): (&String, &Option<String>)| format!("{} = {}", escape_identifier(name), value(of));
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn statement(change: &Change) -> String {
    match change {
        Change::Insert { table, id, row } => {
            let names: String = row.keys().map(|name| format!(", {}", escape_identifier(name))).collect();
            let values: String = row.values().map(|of| format!(", {}", value(of))).collect();
            format!("INSERT INTO {} (id{names}) VALUES ({}{values})", escape_identifier(table), escape_literal(id))
        }
        Change::Update { table, id, columns } => format!(
            "UPDATE {} SET {} WHERE id = {}",
            escape_identifier(table),
            assignments(columns),
            escape_literal(id)
        ),
        Change::Rename { table, from, to } => format!(
            "UPDATE {} SET id = {} WHERE id = {}",
            escape_identifier(table),
            escape_literal(to),
            escape_literal(from)
        ),
        Change::Delete { table, id } => {
            format!("DELETE FROM {} WHERE id = {}", escape_identifier(table), escape_literal(id))
        }
        Change::Truncate { table } => format!("TRUNCATE {}", escape_identifier(table)),
    }
}

fn script(changes: &[Change]) -> String {
    changes.iter().map(|change| statement(change) + ";\n").collect()
}

// region: hand
#[async_trait]
impl Hand for PostgresHand {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.database.source().poll_interval(Duration::from_millis(500)))
    }

    fn patience(&self) -> Duration {
        LIMIT
    }

    fn many_rows(&self) -> usize {
        // The first chunk of a table has 10 000.
        12_000
    }

    async fn create_table(&self, name: &str, columns: &[&str]) {
        let name = escape_identifier(name);
        let mut sql = format!("CREATE TABLE {name} (id text PRIMARY KEY);");
        for column in columns {
            let column = escape_identifier(column);
            sql += &format!(
                "ALTER TABLE {name} ADD {column} text; ALTER TABLE {name} ALTER {column} SET STORAGE EXTERNAL;"
            );
        }
        self.database.execute(&sql).await;
    }

    async fn commit(&self, changes: &[Change]) {
        self.database.execute(&format!("BEGIN; {} COMMIT", script(changes))).await;
    }

    async fn commit_overlapping(&self, first: &[Change], second: &[Change]) {
        let (begins, rest) = second.split_at(1);
        let begin = format!("BEGIN; {}", script(begins));
        self.beside.batch_execute(&begin).await.unwrap();
        self.commit(first).await;
        self.beside.batch_execute(&format!("{} COMMIT", script(rest))).await.unwrap();
    }

    async fn lose_history(&self) {
        let mine = "FROM pg_replication_slots WHERE database = current_database()";
        self.database.wait_for(&format!("SELECT count(pg_terminate_backend(active_pid)) {mine} AND active"), "0").await;
        self.database.execute(&format!("SELECT pg_drop_replication_slot(slot_name) {mine}")).await;
    }
}
// endregion: hand
