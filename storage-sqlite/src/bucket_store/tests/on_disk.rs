//! What is found after a crash or a restart, and what happens on a full disk.

use std::path::PathBuf;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use rusqlite::Connection;
use syncline_core::{
    AppendBatch, BucketId, BucketStore, ByteString, Bytes, Changes, Checkpoint, ClientKey, Commit, CompactLimits,
    CurrentRow, DefinitionId, Deploy, ErrorKind, LookupEntry, LookupKey, MarkerToken, Membership, NewOperation, OpId,
    ReadRequest, Result, RowKey, SourcePosition, TableId, WriteCheckpoint, WriteCheckpointRequest,
};
use tempfile::TempDir;

use crate::SqliteBucketStore;

/// A folder with a store, to be opened again and again.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("buckets.db")
    }

    fn open(&self) -> SqliteBucketStore {
        block_on(SqliteBucketStore::open(self.path())).unwrap()
    }
}

fn bucket(definition: DefinitionId) -> BucketId {
    BucketId { definition, parameters: "[1]".into() }
}

fn put(bucket: &BucketId, id: &str, data: &str) -> NewOperation {
    let data = Bytes::from(format!("{{\"id\":\"{id}\",\"v\":\"{data}\"}}"));
    NewOperation::put(bucket.clone(), "items".into(), id.into(), "s".into(), data)
}

fn operations(operations: Vec<NewOperation>) -> AppendBatch {
    AppendBatch { operations, ..AppendBatch::default() }
}

fn publishing() -> Commit {
    Commit { publish: true, ..Commit::default() }
}

fn deploy(store: &SqliteBucketStore, forms: &[&str]) -> Checkpoint {
    let forms: Vec<ByteString> = forms.iter().map(|form| (*form).into()).collect();
    let text = format!("{forms:?}").into();
    block_on(store.commit(Commit { deploy: Some(Deploy { text, forms }), ..publishing() })).unwrap().unwrap()
}

fn publish(store: &SqliteBucketStore, batch: AppendBatch) -> Checkpoint {
    block_on(store.append(batch)).unwrap();
    block_on(store.commit(publishing())).unwrap().unwrap()
}

fn ids(store: &SqliteBucketStore, bucket: &BucketId, upto: OpId) -> Vec<(u64, String)> {
    let request = ReadRequest { bucket: bucket.clone(), after: OpId::ZERO, upto, max_bytes: 1 << 30 };
    let answer = block_on(store.read(&[request])).unwrap().remove(0);
    assert!(!answer.has_more);
    let read = |chunk: &syncline_core::Chunk| {
        let range = chunk.range(OpId::ZERO, answer.next_after);
        chunk.operations(range).map(|one| (one.op_id.0, one.object_id.to_owned())).collect::<Vec<_>>()
    };
    answer.chunks.iter().flat_map(read).collect()
}

fn pending(store: &SqliteBucketStore) -> Vec<MarkerToken> {
    let mut stream = store.pending_markers();
    std::iter::from_fn(|| stream.next().now_or_never().flatten().map(Result::unwrap)).collect()
}

#[test]
fn what_was_committed_is_found_after_a_crash_and_nothing_else() {
    let disk = Disk::new();
    let store = disk.open();
    let config = deploy(&store, &["a", "b"]);
    let (a, b) = (config.config.definitions[0].id, config.config.definitions[1].id);
    let bucket = bucket(a);
    let row = RowKey { table: TableId(u64::MAX), key: Bytes::from_static(b"\x00\xff") };
    let key = LookupKey { index: b, values: "[\"k\"]".into() };
    let current = CurrentRow {
        image: Bytes::from_static(b"image"),
        memberships: vec![Membership { bucket: bucket.clone(), object_type: "items".into(), object_id: "r1".into() }],
        lookups: vec![key.clone()],
    };
    let batch = AppendBatch {
        rows: vec![(row.clone(), Some(current.clone()))],
        lookups: vec![LookupEntry { row: row.clone(), key: key.clone(), outputs: vec!["[1]".into(), "[2]".into()] }],
        ..operations(vec![put(&bucket, "r1", "1")])
    };
    let at = publish(&store, batch);
    let hidden = Commit { position: Some(SourcePosition("hidden".into())), ..Commit::default() };
    block_on(store.append(operations(vec![put(&bucket, "r2", "hidden")]))).unwrap();
    assert!(block_on(store.commit(hidden)).unwrap().is_none());
    let large = (0..5000).map(|number| put(&bucket, &format!("lost{number}"), &"x".repeat(100))).collect();
    let lost = AppendBatch { truncate: vec![row.table], ..operations(large) };
    block_on(store.append(lost)).unwrap();
    drop(store);

    let store = disk.open();
    let resume = block_on(store.resume()).unwrap();
    assert_eq!(resume.generation, at.generation);
    assert_eq!(resume.checkpoint, Some(at.clone()));
    assert_eq!(resume.config, Some(at.config.clone()));
    assert_eq!(resume.position, Some(SourcePosition("hidden".into())));
    assert_eq!(block_on(store.current_rows(&[row])).unwrap(), [Some(current)]);
    assert_eq!(block_on(store.lookup(at.op_id, &[key])).unwrap()[0].rows.len(), 2);
    assert_eq!(ids(&store, &bucket, OpId(1 << 40)).len(), 1);
    let mut checkpoints = store.checkpoints();
    assert_eq!(block_on(checkpoints.next()).unwrap().unwrap().checkpoint, at);
    // What is published now was committed by the process before; nobody knows any more what it touched.
    let next = block_on(store.commit(publishing())).unwrap().unwrap();
    assert!(matches!(block_on(checkpoints.next()).unwrap().unwrap().changes, Changes::Unknown));
    let found = ids(&store, &bucket, next.op_id);
    assert_eq!(found.iter().map(|(_, id)| &**id).collect::<Vec<_>>(), ["r1", "r2"]);
    let last = publish(&store, operations(vec![put(&bucket, "r3", "3")]));
    let found = ids(&store, &bucket, last.op_id);
    assert!(found[2].0 > next.op_id.0, "no operation is added at or below a checkpoint");
    let sums = block_on(store.checksums(last.op_id, &[bucket])).unwrap();
    assert_eq!(sums[0].count, 3);
}

#[test]
fn definitions_go_on_being_numbered_after_a_restart() {
    let disk = Disk::new();
    let first = deploy(&disk.open(), &["a", "b"]).config;
    let second = deploy(&disk.open(), &["b"]).config;
    assert_eq!(second.definitions[0].id, first.definitions[1].id);
    let third = deploy(&disk.open(), &["a", "b"]).config;
    assert_eq!(third.definitions[1].id, first.definitions[1].id);
    assert!(first.definitions.iter().all(|old| old.id != third.definitions[0].id));
}

#[test]
fn write_checkpoints_survive_a_restart() {
    let disk = Disk::new();
    let me = ClientKey("me".into());
    let ask = |store: &SqliteBucketStore| {
        block_on(store.request_write_checkpoint(&me, WriteCheckpointRequest::Next)).unwrap()
    };
    let shown = |store: &SqliteBucketStore, at: &Checkpoint| {
        block_on(store.write_checkpoints(at.op_id, std::slice::from_ref(&me))).unwrap()[0]
    };
    let store = disk.open();
    deploy(&store, &["a"]);
    let first = ask(&store);
    let tokens = pending(&store);
    drop(store);

    let store = disk.open();
    assert_eq!(pending(&store), tokens, "they are sent again");
    let at = block_on(store.commit(Commit { markers: tokens, ..publishing() })).unwrap().unwrap();
    assert_eq!(shown(&store, &at), Some(first));
    let second = ask(&store);
    assert!(second > first);
    drop(store);

    let store = disk.open();
    assert_eq!(shown(&store, &at), Some(first));
    let tokens = pending(&store);
    assert_eq!(tokens.len(), 1);
    // A reset of which only the first file heard.
    let generation = block_on(store.resume()).unwrap().generation;
    drop(store);
    Connection::open(disk.path()).unwrap().execute("UPDATE meta SET generation = ?", [generation.0 ^ 1]).unwrap();

    let store = disk.open();
    assert_eq!(shown(&store, &at), None, "what another generation confirmed proves nothing");
    let fresh = pending(&store);
    assert_ne!(fresh, tokens);
    let at = block_on(store.commit(Commit { markers: fresh, ..publishing() })).unwrap().unwrap();
    assert_eq!(shown(&store, &at), Some(second));
    assert!(ask(&store) > second);
}

/// The process before may have sent its marker, and what a new request is about may follow it in the source (S6).
#[test]
fn a_marker_from_before_a_restart_takes_no_new_request() {
    let disk = Disk::new();
    let (me, other) = (ClientKey("me".into()), ClientKey("other".into()));
    let ask = |store: &SqliteBucketStore, client: &ClientKey| {
        block_on(store.request_write_checkpoint(client, WriteCheckpointRequest::Next)).unwrap()
    };
    let store = disk.open();
    deploy(&store, &["a"]);
    let first = ask(&store, &me);
    drop(store);

    let store = disk.open();
    // Nobody has looked at the markers of this process yet.
    let second = ask(&store, &other);
    let tokens = pending(&store);
    assert_eq!(tokens.len(), 2);
    let shown = |at: &Checkpoint| block_on(store.write_checkpoints(at.op_id, &[me.clone(), other.clone()])).unwrap();
    let at = block_on(store.commit(Commit { markers: vec![tokens[0].clone()], ..publishing() })).unwrap().unwrap();
    assert_eq!(shown(&at), [Some(first), None]);
    let at = block_on(store.commit(Commit { markers: vec![tokens[1].clone()], ..publishing() })).unwrap().unwrap();
    assert_eq!(shown(&at), [Some(first), Some(second)]);
}

/// The two files are written one after the other; what the source confirmed is durable with the first.
#[test]
fn a_confirmed_number_that_reached_the_first_file_alone_is_found_again() {
    let disk = Disk::new();
    let (me, other) = (ClientKey("me".into()), ClientKey("other".into()));
    let numbers = |numbers: &[(&ClientKey, i64)]| AppendBatch {
        write_checkpoints: numbers
            .iter()
            .map(|(client, number)| ((*client).clone(), WriteCheckpoint(*number)))
            .collect(),
        ..AppendBatch::default()
    };
    let shown = |store: &SqliteBucketStore, at: OpId| {
        let shown = block_on(store.write_checkpoints(at, &[me.clone(), other.clone()])).unwrap();
        shown.into_iter().map(|number| number.map(|number| number.0)).collect::<Vec<_>>()
    };
    let lose = || {
        let requests = Connection::open(disk.0.path().join("buckets.db-write-checkpoints")).unwrap();
        assert!(requests.execute("DELETE FROM requests", []).unwrap() > 0);
    };
    let store = disk.open();
    deploy(&store, &["a"]);
    let first = publish(&store, numbers(&[(&me, 3)])).op_id;
    drop(store);
    lose();

    let store = disk.open();
    assert_eq!(shown(&store, first), [Some(3), None]);
    let named = WriteCheckpointRequest::AtLeast(WriteCheckpoint(2));
    assert_eq!(block_on(store.request_write_checkpoint(&me, named)).unwrap(), WriteCheckpoint(3));
    block_on(store.append(numbers(&[(&me, 4), (&other, 4)]))).unwrap();
    assert!(block_on(store.commit(Commit::default())).unwrap().is_none());
    block_on(store.append(numbers(&[(&me, 5)]))).unwrap();
    drop(store);
    lose();

    let store = disk.open();
    assert_eq!(shown(&store, first), [None, None], "nothing before the checkpoint that carries it");
    let at = block_on(store.commit(publishing())).unwrap().unwrap().op_id;
    assert_eq!(shown(&store, at), [Some(4), Some(4)], "what was not committed is not there");
    drop(store);
    // The same once more changes nothing.
    assert_eq!(shown(&disk.open(), at), [Some(4), Some(4)]);
}

/// Streams that were told of the checkpoint too early would not look again.
#[test]
fn a_checkpoint_is_told_when_the_numbers_that_it_confirms_are_there() {
    let disk = Disk::new();
    let me = ClientKey("me".into());
    let store = disk.open();
    deploy(&store, &["a"]);
    let mut checkpoints = store.checkpoints();
    block_on(checkpoints.next()).unwrap().unwrap();
    let requests = Connection::open(disk.0.path().join("buckets.db-write-checkpoints")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON requests BEGIN SELECT RAISE(ABORT, 'no'); END";
    requests.execute_batch(refuse).unwrap();
    let write_checkpoints = [(me.clone(), WriteCheckpoint(7))].into();
    block_on(store.append(AppendBatch { write_checkpoints, ..AppendBatch::default() })).unwrap();
    assert!(block_on(store.commit(publishing())).is_err());
    assert!(checkpoints.next().now_or_never().is_none());
    assert!(block_on(store.resume()).is_err());
    requests.execute_batch("DROP TRIGGER refuse").unwrap();
    block_on(store.resume()).unwrap();
    let told = block_on(checkpoints.next()).unwrap().unwrap();
    assert!(matches!(told.changes, Changes::Unknown));
    assert_eq!(block_on(store.write_checkpoints(told.checkpoint.op_id, &[me])).unwrap(), [Some(WriteCheckpoint(7))]);
}

#[test]
fn many_requests_at_once_share_a_marker_and_all_are_answered() {
    let disk = Disk::new();
    let store = disk.open();
    deploy(&store, &["a"]);
    let clients: Vec<ClientKey> = (0..500).map(|number| ClientKey(format!("c{number}").into())).collect();
    let asked = clients.iter().map(|client| store.request_write_checkpoint(client, WriteCheckpointRequest::Next));
    let numbers = block_on(futures::future::try_join_all(asked)).unwrap();
    let tokens = pending(&store);
    assert!(tokens.len() < 100, "{} markers for 500 requests", tokens.len());
    let at = block_on(store.commit(Commit { markers: tokens, ..publishing() })).unwrap().unwrap();
    let shown = block_on(store.write_checkpoints(at.op_id, &clients)).unwrap();
    assert_eq!(shown, numbers.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn a_second_user_of_the_file_is_refused() {
    let disk = Disk::new();
    let store = disk.open();
    let error = block_on(SqliteBucketStore::open(disk.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("open already"), "{error}");
    let clone = store.clone();
    drop(store);
    assert!(block_on(SqliteBucketStore::open(disk.path())).is_err(), "a clone still has it");
    drop(clone);
    disk.open();
}

#[cfg(unix)]
#[test]
fn a_link_to_the_file_leads_to_the_same_lock() {
    let disk = Disk::new();
    let link = disk.0.path().join("link.db");
    std::os::unix::fs::symlink(disk.path(), &link).unwrap();
    assert!(block_on(SqliteBucketStore::open(&link)).is_err(), "a link to nothing");
    let store = disk.open();
    let error = block_on(SqliteBucketStore::open(&link)).unwrap_err();
    assert!(error.to_string().contains("open already"), "{error}");
    drop(store);
    let store = block_on(SqliteBucketStore::open(&link)).unwrap();
    assert!(block_on(SqliteBucketStore::open(disk.path())).is_err());
    drop(store);
    assert!(!disk.0.path().join("link.db.lock").exists());
}

#[test]
fn the_log_does_not_grow_without_end_while_readers_are_busy() {
    let disk = Disk::new();
    let store = disk.open();
    let config = deploy(&store, &["a"]).config;
    let bucket = bucket(config.definitions[0].id);
    let limit = 1 << 20;
    block_on(store.with_writer(move |writer| {
        writer.wal.as_mut().unwrap().limit = limit;
        Ok(())
    }))
    .unwrap();
    let data = "x".repeat(100_000);
    for round in 0..60 {
        let reads = (0..16).map(|_| {
            let request =
                ReadRequest { bucket: bucket.clone(), after: OpId::ZERO, upto: OpId(u64::MAX), max_bytes: 1 << 20 };
            let store = store.clone();
            async move { store.read(&[request]).await.map(drop) }
        });
        let append = async {
            store.append(operations(vec![put(&bucket, &format!("r{round}"), &data)])).await?;
            store.commit(publishing()).await.map(drop)
        };
        let (read, appended) = block_on(futures::future::join(futures::future::try_join_all(reads), append));
        read.unwrap();
        appended.unwrap();
        let size = std::fs::metadata(disk.path().with_file_name("buckets.db-wal")).unwrap().len();
        assert!(size < limit + 500_000, "{size} bytes in round {round}");
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = Disk::new();
    std::fs::write(disk.path(), "not a database, but long enough to have a header ".repeat(100)).unwrap();
    let error = block_on(SqliteBucketStore::open(disk.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let disk = Disk::new();
    let mine = Connection::open(disk.path()).unwrap();
    mine.execute_batch("CREATE TABLE mine (x)").unwrap();
    let error = block_on(SqliteBucketStore::open(disk.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let mode: String = mine.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete", "not even its journal is changed");
    let disk = Disk::new();
    drop(disk.open());
    Connection::open(disk.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = block_on(SqliteBucketStore::open(disk.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("99"), "{error}");
}

#[test]
fn a_full_disk_is_reported_and_passes() {
    let disk = Disk::new();
    let store = disk.open();
    let config = deploy(&store, &["a"]).config;
    let bucket = bucket(config.definitions[0].id);
    let before = publish(&store, operations(vec![put(&bucket, "r1", "1")]));
    let limit = |pages: i64| {
        block_on(store.with_writer(move |writer| {
            writer.connection.pragma_update(None, "max_page_count", pages).unwrap();
            Ok(())
        }))
        .unwrap();
    };
    limit(100);
    let large = |name: &str| {
        let row = |number| put(&bucket, &format!("{name}{number}"), &"x".repeat(1000));
        operations((0..2000).map(row).collect())
    };
    let error = loop {
        if let Err(error) = block_on(store.append(large("full"))) {
            break error;
        }
        if let Err(error) = block_on(store.commit(publishing())) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert!(block_on(store.append(large("again"))).is_err(), "only resume goes on");
    assert!(block_on(store.commit(publishing())).is_err());
    assert_eq!(ids(&store, &bucket, before.op_id).len(), 1, "reads go on");
    limit(1_000_000);
    assert_eq!(block_on(store.resume()).unwrap().checkpoint, Some(before));
    let after = publish(&store, large("later"));
    let found = ids(&store, &bucket, after.op_id);
    assert_eq!(found.len(), 2001);
    assert_eq!(block_on(store.checksums(after.op_id, &[bucket])).unwrap()[0].count, 2001);
}

#[test]
fn operations_of_a_definition_that_is_gone_are_dropped() {
    let disk = Disk::new();
    let store = disk.open();
    let config = deploy(&store, &["a", "b"]).config;
    let (kept, gone) = (bucket(config.definitions[0].id), bucket(config.definitions[1].id));
    let row = RowKey { table: TableId(1), key: "k".into() };
    let member =
        |bucket: &BucketId| Membership { bucket: bucket.clone(), object_type: "items".into(), object_id: "r".into() };
    let key = LookupKey { index: config.definitions[1].id, values: "[]".into() };
    let current =
        CurrentRow { image: Bytes::new(), memberships: vec![member(&kept), member(&gone)], lookups: vec![key.clone()] };
    let many = (0..3000).map(|number| put(&gone, &format!("r{number}"), &"x".repeat(300)));
    let batch = AppendBatch {
        rows: vec![(row.clone(), Some(current.clone()))],
        lookups: vec![LookupEntry { row: row.clone(), key: key.clone(), outputs: vec!["[1]".into()] }],
        ..operations(many.chain([put(&kept, "r", "1")]).collect())
    };
    let old = publish(&store, batch);
    let new = deploy(&store, &["a"]);
    let mut freed = 0;
    while {
        let done = block_on(store.compact(CompactLimits { max_operations: 10 })).unwrap();
        freed += done.bytes_freed;
        done.more
    } {}
    assert!(freed > 900_000, "{freed} bytes");
    assert_eq!(ids(&store, &kept, new.op_id).len(), 1);
    let request = ReadRequest { bucket: gone.clone(), after: OpId::ZERO, upto: old.op_id, max_bytes: 1000 };
    let answer = block_on(store.read(&[request])).unwrap().remove(0);
    assert_eq!(answer.superseded, Some(new.op_id), "the old checkpoint cannot be completed");
    assert!(block_on(store.checksums(old.op_id, std::slice::from_ref(&gone))).is_err());
    assert!(block_on(store.lookup(old.op_id, std::slice::from_ref(&key))).is_err());
    // Rows still name the bucket, and leave it as if it were there.
    assert_eq!(block_on(store.current_rows(std::slice::from_ref(&row))).unwrap(), [Some(current)]);
    let last = publish(&store, AppendBatch { truncate: vec![row.table], ..AppendBatch::default() });
    assert_eq!(ids(&store, &kept, last.op_id).len(), 2);
}

#[test]
fn compaction_goes_on_where_a_restart_interrupted_it() {
    let disk = Disk::new();
    let mut store = disk.open();
    let config = deploy(&store, &["a"]).config;
    let bucket = bucket(config.definitions[0].id);
    let mut at = OpId::ZERO;
    for round in 0..40 {
        let batch = (0..50).map(|row| put(&bucket, &format!("r{row}"), &format!("{round}{}", "x".repeat(500))));
        at = publish(&store, operations(batch.collect())).op_id;
    }
    let sum = block_on(store.checksums(at, std::slice::from_ref(&bucket))).unwrap()[0].checksum;
    let mut rounds = 0;
    loop {
        let done = block_on(store.compact(CompactLimits { max_operations: 500 })).unwrap();
        rounds += 1;
        if !done.more {
            break;
        }
        if rounds == 2 {
            drop(store);
            store = disk.open();
        }
        assert!(rounds < 100);
    }
    let found = ids(&store, &bucket, at);
    assert_eq!(found.len(), 51, "one CLEAR and the newest of each row");
    let now = block_on(store.checksums(at, &[bucket])).unwrap()[0];
    assert_eq!((now.checksum, now.count), (sum, 51));
}

#[test]
fn a_store_in_memory_is_gone_with_its_last_handle() {
    let store = block_on(SqliteBucketStore::open_in_memory()).unwrap();
    let mut checkpoints = store.checkpoints();
    let mut markers = store.pending_markers();
    let other = block_on(SqliteBucketStore::open_in_memory()).unwrap();
    deploy(&store, &["a"]);
    assert!(block_on(other.resume()).unwrap().config.is_none(), "each is its own");
    assert!(block_on(checkpoints.next()).is_some());
    drop(store);
    assert!(block_on(checkpoints.next()).is_none());
    assert!(block_on(markers.next()).is_none());
}
