//! Where the stores of a world have their files.

use std::path::Path;
use std::sync::Arc;

use syncline_core::Clock;
use syncline_core::testing::{WorldBucketStore, WorldClientStore, WorldStores};
use syncline_storage_sqlite::{Schema, Table};
use tempfile::TempDir;

use crate::buckets::Buckets;
use crate::device::Device;

/// Makes stores in files, in memory where the system has a place for that.
#[derive(Debug)]
pub(crate) struct SqliteStores;

impl WorldStores for SqliteStores {
    fn bucket_store(&self, clock: Arc<dyn Clock>, chance: u64) -> Arc<dyn WorldBucketStore> {
        Arc::new(Buckets::new(directory(), clock, chance))
    }

    fn client_store(&self, client_id: &str) -> Arc<dyn WorldClientStore> {
        Arc::new(Device::new(directory(), schema(), client_id))
    }

    fn test(&self) -> &str {
        "-p syncline-storage-sqlite --test world seeds_break_no_promise"
    }
}

/// The tables of scenarios, with the columns of either of their configs.
fn schema() -> Schema {
    Schema::new()
        .table(Table::new("notices").text("text").text("message"))
        .table(Table::new("lists").text("name").text("title").text("owner_id").integer("shared").text("body"))
        .table(Table::new("items").text("list_id").text("text").index("by_list", ["list_id"]))
        .table(Table::new("projects").text("name").text("title").text("team"))
}

/// A place for the files of one store.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("syncline-world-");
    if memory.is_dir() { builder.tempdir_in(memory).unwrap() } else { builder.tempdir().unwrap() }
}
