//! The conformance suite, on a file and in memory; and what concerns files alone.
#![allow(clippy::unwrap_used)]

mod full_disk;
mod inspecting;
mod on_disk;

mod in_a_file {
    syncline_core::bucket_store_tests!(async {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::SqliteBucketStore::open(folder.path().join("buckets.db")).await.unwrap();
        (store, folder)
    });
}

mod in_memory {
    syncline_core::bucket_store_tests!(async { crate::SqliteBucketStore::open_in_memory().await.unwrap() });
}
