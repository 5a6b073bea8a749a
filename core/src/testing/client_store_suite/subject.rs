//! A client store under test, as its application uses it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use crate::client_store::ClientStore;
use crate::local_transaction::{LocalTransaction, LocalWrite};
use crate::memory::MemoryClientStore;

/// A client store under test. What sync does with it is in [`ClientStore`]; an application's side is different for every
/// store, so the test of a store says here what that is.
///
/// The store must know these synced tables, each with a text `id`, and nothing else need be in it:
///
/// | Table | Columns |
/// |---|---|
/// | `lists` | `name`: text, `rank`: integer |
/// | `todos` | `list_id`: text, `title`: text |
///
/// A method that cannot do its work panics: then the case has failed.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store as a sync client uses it. After [`reopen`](Self::reopen) it is another one.
    fn store(&self) -> Arc<dyn ClientStore>;

    /// Makes local writes in one transaction, in order, and returns when it is durable. `op`, `table`, `id` and `data` are
    /// given; numbers are the store's to give. A PUT is an insert, a PATCH sets the columns of `data`, a DELETE deletes.
    async fn write(&self, writes: Vec<LocalWrite>);

    /// All rows of a table as one read of the application sees them, by column name, `id` included. The order does not
    /// matter, and a column without a value may be null or absent.
    async fn rows(&self, table: &str) -> Vec<Map<String, Json>>;

    /// The transactions that the application's backend refused, oldest first, with the reasons.
    async fn rejected(&self) -> Vec<(LocalTransaction, String)>;

    /// The application is killed at this moment and started again: what is durable is there, and nothing else. A store in
    /// files opens a copy of them as they are now, without closing the first in an orderly way. Nobody holds what
    /// [`store`](Self::store) returned before.
    async fn reopen(&mut self);
}

// region: memory
#[async_trait]
impl Subject for MemoryClientStore {
    fn store(&self) -> Arc<dyn ClientStore> {
        Arc::new(self.clone())
    }

    async fn write(&self, writes: Vec<LocalWrite>) {
        Self::write(self, writes);
    }

    async fn rows(&self, table: &str) -> Vec<Map<String, Json>> {
        Self::rows(self, table)
    }

    async fn rejected(&self) -> Vec<(LocalTransaction, String)> {
        Self::rejected(self)
    }

    // It has nothing to forget: it lives as long as a handle.
    async fn reopen(&mut self) {}
}
// endregion: memory

#[cfg(test)]
mod tests {
    crate::client_store_tests!(crate::memory::MemoryClientStore::new("device"));
}
