//! The application's backend: applies uploads to the source database, as they come, or refuses them.

use serde_json::Value as Json;

use super::database::{Change, Database};
use super::ledger::{Fact, Ledger};
use crate::local_transaction::{LocalTransaction, LocalWrite, Uploaded, WriteKind};

/// A write of a text that begins so is refused.
pub(super) const REFUSED: &str = "refused";

/// The backend. A handle.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    pub(super) database: Database,
    pub(super) ledger: Ledger,
}

impl Backend {
    /// Applies a transaction of a client, also one that was applied before.
    pub(super) fn apply(&self, client: usize, writes: &LocalTransaction) -> Uploaded {
        let transaction = writes.transaction_id.unwrap_or(0);
        let is_refused = |write: &LocalWrite| {
            let mut values = write.data.iter().flat_map(|data| data.values());
            values.any(|value| value.as_str().is_some_and(|text| text.starts_with(REFUSED)))
        };
        if writes.crud.iter().any(is_refused) {
            self.ledger.record(Fact::Refused { client, transaction });
            return Uploaded::Rejected { reason: "the backend does not want it".to_owned() };
        }
        let changes: Vec<Change> = writes.crud.iter().map(change).collect();
        let commits = self.database.commit(&changes);
        self.ledger.record(Fact::Applied { client, transaction, commits });
        Uploaded::Applied
    }
}

fn change(write: &LocalWrite) -> Change {
    let (table, id) = (write.table.to_string(), write.id.clone());
    let mut columns = write.data.clone().unwrap_or_default();
    match write.op {
        WriteKind::Put => {
            columns.insert("id".to_owned(), Json::String(id));
            Change::Put { table, row: columns }
        }
        WriteKind::Patch => Change::Patch { table, id, columns },
        WriteKind::Delete => Change::Delete { table, id },
    }
}
