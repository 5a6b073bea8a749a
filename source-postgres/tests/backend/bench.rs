//! A database with tables, and a backend over it.

use serde_json::{Value as Json, json};
use syncline_core::{Identity, LocalTransaction, Uploaded};
use syncline_source_postgres::PostgresBackend;
use tokio_postgres::Client;

/// The tables that most tests use.
pub(crate) const TABLES: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, name text NOT NULL CHECK (name <> ''), owner_id text NOT NULL,
                        position int, UNIQUE (owner_id, name));
    CREATE TABLE todos (id uuid PRIMARY KEY, list_id text REFERENCES lists, title text, done bool NOT NULL DEFAULT false,
                        owner_id text NOT NULL DEFAULT 'anna');";

pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) backend: PostgresBackend,
    pub(crate) url: String,
}

impl Bench {
    pub(crate) async fn new(setup: &str) -> Self {
        let url = postgres_fixture::fresh_database().await;
        let client = postgres_fixture::shared().await.connect(&url).await.unwrap();
        client.batch_execute(setup).await.unwrap();
        Self { client, backend: PostgresBackend::new(&url).unwrap(), url }
    }

    pub(crate) fn with(mut self, options: impl FnOnce(PostgresBackend) -> PostgresBackend) -> Self {
        self.backend = options(self.backend);
        self
    }

    /// Uploads as a user and returns the answer.
    pub(crate) async fn upload(&self, user: &str, writes: Json) -> Uploaded {
        self.backend.apply(&Identity::new(user), &transaction(writes)).await.unwrap()
    }

    pub(crate) async fn applied(&self, user: &str, writes: Json) {
        assert_eq!(self.upload(user, writes).await, Uploaded::Applied);
    }

    pub(crate) async fn rejected(&self, user: &str, writes: Json) -> String {
        match self.upload(user, writes.clone()).await {
            Uploaded::Rejected { reason } => reason,
            Uploaded::Applied => panic!("was applied: {writes}"),
        }
    }

    /// The rows of a query as JSON.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Json> {
        let sql = format!("SELECT to_jsonb(r.*)::text FROM ({query}) AS r");
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect()
    }
}

pub(crate) fn transaction(writes: Json) -> LocalTransaction {
    serde_json::from_value(json!({ "transaction_id": 1, "client_id": "device", "crud": writes })).unwrap()
}

pub(crate) fn put(table: &str, id: &str, data: Json) -> Json {
    json!({ "op_id": 1, "op": "PUT", "type": table, "id": id, "data": data })
}

pub(crate) fn patch(table: &str, id: &str, data: Json) -> Json {
    json!({ "op_id": 1, "op": "PATCH", "type": table, "id": id, "data": data })
}

pub(crate) fn delete(table: &str, id: &str) -> Json {
    json!({ "op_id": 1, "op": "DELETE", "type": table, "id": id })
}
