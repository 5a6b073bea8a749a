//! Local writes on their way to the application's backend, in the JSON of the official SDKs' CRUD entries.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// The writes of one local transaction, oldest first.
///
/// Its JSON is what the official SDKs call a CRUD transaction, so that a Flutter or web app posts to the same endpoint:
/// `{"transaction_id":7,"client_id":"…","crud":[{"op_id":12,"op":"PATCH","type":"todos","id":"t1","tx_id":7,"data":{"done":1}}]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalTransaction {
    /// Its number in the queue of this client; rises, is never reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<i64>,
    /// The client's database: with the number of a write it names that write for ever, as an idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The writes, in order.
    pub crud: Vec<LocalWrite>,
}

impl LocalTransaction {
    /// About how many bytes its JSON has, without making it.
    pub(crate) fn approximate_bytes(&self) -> u64 {
        let values =
            |map: &Map<String, Json>| map.iter().map(|(key, value)| key.len() + approximate(value)).sum::<usize>();
        let bytes = self.crud.iter().map(|write| {
            let maps = [&write.data, &write.old].into_iter().flatten().map(values).sum::<usize>();
            64 + write.table.len() + write.id.len() + maps + write.metadata.as_ref().map_or(0, String::len)
        });
        bytes.sum::<usize>() as u64
    }
}

fn approximate(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        // SQLite has no others; those that a test makes are small.
        _ => 8,
    }
}

/// One write to one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalWrite {
    /// Its number in the queue of this client; rises, is never reused.
    #[serde(default, alias = "clientId")]
    pub op_id: i64,
    /// What was done.
    pub op: WriteKind,
    /// The synced table.
    #[serde(rename = "type", alias = "table")]
    pub table: Arc<str>,
    /// The row.
    pub id: String,
    /// The local transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_id: Option<i64>,
    /// PUT: all non-null columns; PATCH: the changed columns, with `null` where a value was cleared; DELETE: none.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "opData")]
    pub data: Option<Map<String, Json>>,
    /// The values before, of tables that track them.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "previousValues")]
    pub old: Option<Map<String, Json>>,
    /// A note of the application, of tables that track it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// What a local write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WriteKind {
    /// A row was inserted or replaced.
    Put,
    /// Columns were updated.
    Patch,
    /// The row was deleted.
    Delete,
}

/// What became of an uploaded transaction. (`Err` of [`Connector::upload`](crate::Connector::upload) means: try again.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Uploaded {
    /// It is committed in the source database.
    Applied,
    /// It was refused and will not be retried: its local effect is rolled back with the next checkpoint.
    Rejected {
        /// Why, for the user of the app and the dead-letter table.
        reason: String,
    },
}
