//! The store owes nothing, is as short as it says, and has forgotten nothing when it is opened again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use custom_store::JournalStore;
use futures::FutureExt;
use futures::StreamExt;
use futures::executor::block_on;
use syncline_core::{
    AppendBatch, BucketId, BucketStore, Bytes, ClientKey, Commit, DefinitionId, Deploy, ErrorKind, NewOperation, OpId,
    ReadRequest, SourcePosition, WriteCheckpoint, WriteCheckpointRequest,
};

mod suite {
    // region: suite
    syncline_core::bucket_store_tests!(async {
        let folder = tempfile::tempdir().unwrap();
        let store = custom_store::JournalStore::open(folder.path().join("buckets.journal")).unwrap();
        (store, folder) // the folder is removed after the store
    });
    // endregion: suite
}

fn bucket() -> BucketId {
    BucketId { definition: DefinitionId(0), parameters: "[]".into() }
}

fn put(id: &str) -> AppendBatch {
    let data = Bytes::from(format!("{{\"id\":\"{id}\"}}"));
    let put = NewOperation::put(bucket(), "lists".into(), id.into(), id.into(), data);
    AppendBatch { operations: vec![put], ..AppendBatch::default() }
}

fn commit(store: &JournalStore, position: &'static str) {
    let commit = Commit { position: Some(SourcePosition(position.into())), publish: true, ..Commit::default() };
    block_on(store.commit(commit)).unwrap().unwrap();
}

/// The position, and the operations of the bucket.
fn content(store: &JournalStore) -> (Option<SourcePosition>, Vec<String>) {
    let upto = OpId(u64::from(u32::MAX));
    let request = ReadRequest { bucket: bucket(), after: OpId::ZERO, upto, max_bytes: 1 << 20 };
    let answer = block_on(store.read(&[request])).unwrap().remove(0);
    let operations = answer.chunks.iter().flat_map(|chunk| chunk.operations(0..chunk.len()));
    let names = operations.map(|one| format!("{} {} {}", one.op_id, one.kind.name(), one.object_id)).collect();
    (block_on(store.resume()).unwrap().position, names)
}

/// A journal with three commits, and where each of them ends.
fn three_commits(path: &Path) -> Vec<u64> {
    let store = JournalStore::open(path).unwrap();
    let deploy = Deploy { text: "config".into(), forms: vec!["form".into()] };
    block_on(store.commit(Commit { deploy: Some(deploy), publish: true, ..Commit::default() })).unwrap();
    let mut ends = Vec::new();
    for (id, position) in [("a", "1"), ("b", "2"), ("c", "3")] {
        block_on(store.append(put(id))).unwrap();
        commit(&store, position);
        ends.push(fs::metadata(path).unwrap().len());
    }
    ends
}

#[test]
fn what_was_committed_is_there_after_a_restart_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.journal");
    three_commits(&path);
    let store = JournalStore::open(&path).unwrap();
    let generation = block_on(store.resume()).unwrap().generation;
    let before = content(&store);
    assert_eq!(before.0, Some(SourcePosition("3".into())));
    block_on(store.append(put("lost"))).unwrap();
    let client = ClientKey("u/1".into());
    let number = block_on(store.request_write_checkpoint(&client, WriteCheckpointRequest::Next)).unwrap();
    drop(store);
    // Twice: once from events, once from the state that was written then.
    for _ in 0..2 {
        let store = JournalStore::open(&path).unwrap();
        let resume = block_on(store.resume()).unwrap();
        assert_eq!((resume.generation, content(&store)), (generation, before.clone()));
        let published = store.checkpoints().next().now_or_never().flatten().unwrap().unwrap();
        assert_eq!(Some(published.checkpoint), resume.checkpoint);
        let pending = store.pending_markers().next().now_or_never().flatten();
        assert!(pending.is_some(), "whoever waits for a marker still does");
    }
    let store = JournalStore::open(&path).unwrap();
    let again = block_on(store.request_write_checkpoint(&client, WriteCheckpointRequest::Next)).unwrap();
    assert!(again > number);
    block_on(store.append(put("d"))).unwrap();
    commit(&store, "4");
    assert_eq!(content(&store).1.last().unwrap(), "5 PUT d", "the id that was not committed is free");
}

#[test]
fn what_the_source_confirmed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.journal");
    three_commits(&path);
    let client = ClientKey("u/1".into());
    let confirm = |store: &JournalStore, number| {
        let write_checkpoints = [(client.clone(), WriteCheckpoint(number))].into();
        block_on(store.append(AppendBatch { write_checkpoints, ..AppendBatch::default() })).unwrap();
    };
    let store = JournalStore::open(&path).unwrap();
    confirm(&store, 7);
    commit(&store, "4");
    confirm(&store, 8);
    drop(store);
    // Twice: once from events, once from the state that was written then.
    for _ in 0..2 {
        let store = JournalStore::open(&path).unwrap();
        let at = block_on(store.resume()).unwrap().checkpoint.unwrap().op_id;
        let shown = block_on(store.write_checkpoints(at, std::slice::from_ref(&client))).unwrap();
        assert_eq!(shown, [Some(WriteCheckpoint(7))], "what was not committed is not there");
    }
}

#[test]
fn a_record_that_power_loss_has_cut_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.journal");
    let ends = three_commits(&path);
    let bytes = fs::read(&path).unwrap();
    for length in ends[1]..ends[2] {
        let cut = folder.path().join(format!("cut-{length}.journal"));
        fs::write(&cut, &bytes[..usize::try_from(length).unwrap()]).unwrap();
        let store = JournalStore::open(&cut).unwrap();
        assert_eq!(content(&store), (Some(SourcePosition("2".into())), vec!["2 PUT a".into(), "3 PUT b".into()]));
        block_on(store.append(put("c again"))).unwrap();
        commit(&store, "3");
        drop(store);
        assert_eq!(content(&JournalStore::open(&cut).unwrap()).0, Some(SourcePosition("3".into())));
    }
}

#[test]
fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.journal");
    let ends = three_commits(&path);
    let mut bytes = fs::read(&path).unwrap();
    let middle = usize::try_from(ends[0]).unwrap() + 20;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(JournalStore::open(&path).map(drop).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn one_journal_has_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buckets.journal");
    let store = JournalStore::open(&path).unwrap();
    assert_eq!(JournalStore::open(&path).map(drop).unwrap_err().kind(), ErrorKind::Unavailable);
    drop(store);
    JournalStore::open(&path).unwrap();
}

/// All of it but the program that shows it at work, comments included.
#[test]
fn the_store_has_fewer_than_500_lines() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files =
        fs::read_dir(sources).unwrap().map(|file| file.unwrap().path()).filter(|file| !file.ends_with("main.rs"));
    let lines: usize = files.map(|file| fs::read_to_string(file).unwrap().lines().count()).sum();
    assert!((200..500).contains(&lines), "{lines} lines");
}
