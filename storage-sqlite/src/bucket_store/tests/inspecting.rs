//! Looking at a store without opening it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures::executor::block_on;
use rusqlite::Connection;
use syncline_core::{BucketStore, Commit, Deploy, ErrorKind};
use tempfile::tempdir;

use crate::SqliteBucketStore;

fn fill(store: &SqliteBucketStore) {
    let deploy = Deploy { text: "the text".into(), forms: vec!["a".into()] };
    block_on(store.commit(Commit { deploy: Some(deploy), publish: true, ..Commit::default() })).unwrap().unwrap();
}

/// All files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn what_is_stored_is_found_and_nothing_is_changed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("buckets 100%?.db");
    let inspect = || block_on(SqliteBucketStore::inspect(&path));
    assert_eq!(inspect().unwrap(), None);
    assert!(files(folder.path()).is_empty());

    let store = block_on(SqliteBucketStore::open(&path)).unwrap();
    fill(&store);
    let stored = block_on(store.resume()).unwrap();
    let error = inspect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("open already"), "{error}");
    // As a process leaves them that is killed, with everything in the log.
    let killed = tempdir().unwrap();
    for (name, content) in files(folder.path()) {
        fs::write(killed.path().join(name), content).unwrap();
    }
    drop(store);

    for place in [folder.path(), killed.path()] {
        for with_index in [true, false] {
            let path = place.join("buckets 100%?.db");
            if !with_index {
                let _ = fs::remove_file(place.join("buckets 100%?.db-shm"));
                let _ = fs::remove_file(place.join("buckets 100%?.db-write-checkpoints-shm"));
            }
            let content = |place| {
                let mut found = files(place);
                // Marks of readers, of no importance to anyone.
                found.iter_mut().filter(|(name, _)| name.ends_with("-shm")).for_each(|(_, content)| content.clear());
                found
            };
            let before = content(place);
            let found = block_on(SqliteBucketStore::inspect(&path)).unwrap().unwrap();
            assert_eq!((found.config, found.checkpoint), (stored.config.clone(), stored.checkpoint.clone()));
            assert_eq!(content(place), before);
        }
    }
}

#[test]
fn files_of_others_and_of_other_versions_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("buckets.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (id INTEGER)").unwrap();
    let refused = || block_on(SqliteBucketStore::inspect(&path)).unwrap_err();
    assert_eq!(refused().kind(), ErrorKind::Invalid);
    fs::remove_file(&path).unwrap();

    drop(block_on(SqliteBucketStore::open(&path)).unwrap());
    for file in [folder.path().join("buckets.db-write-checkpoints"), path.clone()] {
        let connection = Connection::open(&file).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = refused();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("version 99"), "{error}");
        connection.pragma_update(None, "user_version", version).unwrap();
    }
    fs::write(&path, "x".repeat(10_000)).unwrap();
    assert_eq!(refused().kind(), ErrorKind::Data);
    let nowhere = folder.path().join("missing/buckets.db");
    let error = block_on(SqliteBucketStore::inspect(nowhere)).unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("missing"), "{error}");
}
