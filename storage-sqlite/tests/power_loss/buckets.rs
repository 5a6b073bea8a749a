//! The server's bucket store.

use std::collections::BTreeMap;
use std::path::Path;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use serde_json::{Value as Json, json};
use syncline_core::{
    AppendBatch, BucketId, BucketStore, Bytes, Checksum, ClientKey, Commit, CompactLimits, CurrentRow, DefinitionId,
    Deploy, MarkerToken, NewOperation, OpId, OperationKind, ReadRequest, RowKey, SourcePosition, TableId,
    WriteCheckpoint, WriteCheckpointRequest,
};
use syncline_storage_sqlite::SqliteBucketStore;

use crate::power::{Noted, Notes, Wrong, check_honest_disk, check_integrity, check_other_disks, last, sound};

const FILE: &str = "buckets.db";
const REQUESTS: &str = "buckets.db-write-checkpoints";
/// The ignored test below.
const PROCESS: &str = "a_process_with_a_bucket_store";
const COMMITS: u64 = 120;
const BUCKETS: u64 = 3;
/// Rows of each bucket, and rows of the source that are small, or large.
const ROWS: u64 = 40;
/// Bytes of a large row. All of them together are written with every fourth commit, so that SQLite moves its log into the
/// database some times; it does when the log has 32 MB.
const LARGE: usize = 110_000;

fn client() -> ClientKey {
    ClientKey("1:u/phone".into())
}

fn bucket(definition: DefinitionId, number: u64) -> BucketId {
    BucketId { definition, parameters: format!("[{number}]").into() }
}

fn row(table: u64, number: u64) -> RowKey {
    RowKey { table: TableId(table), key: Bytes::from(number.to_string()) }
}

/// Another one in every byte that it may be, as SQLite does not write pages that stay what they are.
fn image(number: u64, length: usize) -> CurrentRow {
    let image = Bytes::from(format!("{number:04}").repeat(length / 4));
    CurrentRow { image, memberships: Vec::new(), lookups: Vec::new() }
}

/// Which rows a commit writes, the same rows in a bucket and of the source.
fn written(commit: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..10).map(move |k| (k % BUCKETS, (commit * 7 + k * 11) % ROWS))
}

fn has_large_rows(commit: u64) -> bool {
    commit.is_multiple_of(4)
}

fn asks_for_write_checkpoint(commit: u64) -> bool {
    commit % 7 == 1
}

/// The operations of others stay hidden until the next of these.
fn is_published(commit: u64) -> bool {
    !commit.is_multiple_of(3) || asks_for_write_checkpoint(commit)
}

fn batch(definition: DefinitionId, commit: u64) -> AppendBatch {
    let mut batch = AppendBatch::default();
    for (number, id) in written(commit) {
        let data = json!({ "commit": commit, "text": "x".repeat(200) }).to_string();
        let id = format!("r{id}");
        let bucket = bucket(definition, number);
        batch.operations.push(NewOperation::put(bucket, "items".into(), id.into(), "s".into(), data.into()));
    }
    batch.rows.extend(written(commit).map(|(_, id)| (row(1, id), Some(image(commit, 20)))));
    if has_large_rows(commit) {
        batch.rows.extend((0..ROWS).map(|id| (row(2, id), Some(image(commit, LARGE)))));
    }
    batch
}

/// Works with the store, and notes what it acknowledges. The tests below record it in a process of its own.
#[test]
fn a_process_with_a_bucket_store() {
    let (mut notes, directory) = Notes::begin();
    let path = directory.join(FILE);
    let mut store = block_on(SqliteBucketStore::open(&path)).unwrap();
    let deploy = Deploy { text: "a config".into(), forms: vec!["items".into()] };
    let deployed = block_on(store.commit(Commit { deploy: Some(deploy), publish: true, ..Commit::default() }));
    let deployed = deployed.unwrap().unwrap();
    notes.note("checkpoint", deployed.op_id.0);
    let definition = deployed.config.definitions[0].id;
    for commit in 1..=COMMITS {
        let mut markers = Vec::new();
        if asks_for_write_checkpoint(commit) {
            let number = WriteCheckpoint(commit.try_into().unwrap());
            let request = WriteCheckpointRequest::AtLeast(number);
            assert_eq!(block_on(store.request_write_checkpoint(&client(), request)).unwrap(), number);
            notes.note("asked", commit);
            markers.push(block_on(store.pending_markers().next()).unwrap().unwrap());
        }
        let publish = is_published(commit);
        let position = Some(SourcePosition(commit.to_string().into()));
        block_on(store.append(batch(definition, commit))).unwrap();
        let confirms = !markers.is_empty();
        let published = block_on(store.commit(Commit { position, markers, publish, ..Commit::default() })).unwrap();
        assert_eq!(published.is_some(), publish);
        notes.note("commit", commit);
        if let Some(checkpoint) = published {
            notes.note("checkpoint", checkpoint.op_id.0);
        }
        if confirms {
            notes.note("confirmed", commit);
        }
        if commit % 25 == 0 {
            while block_on(store.compact(CompactLimits { max_operations: 200 })).unwrap().more {}
        }
        if commit == COMMITS / 2 {
            // Closed in order, and opened again.
            drop(store);
            store = block_on(SqliteBucketStore::open(&path)).unwrap();
        }
    }
    notes.end();
}

/// What the store must hold, from what was acknowledged before the power was lost.
fn look(directory: &Path, noted: &Noted) -> Result<(), Wrong> {
    let path = directory.join(FILE);
    let store = block_on(SqliteBucketStore::open(&path)).map_err(Wrong::broken)?;
    block_on(look_into(&store, noted))?;
    // Waits until its files are closed.
    drop(store);
    check_integrity(&path)?;
    check_integrity(&directory.join(REQUESTS))
}

async fn look_into(store: &SqliteBucketStore, noted: &Noted) -> Result<(), Wrong> {
    let resume = store.resume().await.map_err(Wrong::broken)?;
    let commit = match &resume.position {
        None => 0,
        Some(position) => std::str::from_utf8(&position.0).map_err(Wrong::broken)?.parse().map_err(Wrong::broken)?,
    };
    last("commit", commit, noted.get("commit"))?;
    let checkpoint = resume.checkpoint.map_or(0, |checkpoint| checkpoint.op_id.0);
    if checkpoint < noted.get("checkpoint") {
        return Err(Wrong::Lost(format!("checkpoint {}: there is {checkpoint}", noted.get("checkpoint"))));
    }
    let Some(config) = resume.config else { return sound(commit == 0, || "the config is gone".to_owned()) };
    let definition = config.definitions[0].id;

    for table in [1, 2] {
        let keys: Vec<RowKey> = (0..ROWS).map(|id| row(table, id)).collect();
        let rows = store.current_rows(&keys).await.map_err(Wrong::broken)?;
        let expected: Vec<Option<CurrentRow>> = (0..ROWS).map(|id| source_row(table, id, commit)).collect();
        sound(rows == expected, || format!("the rows of table {table} are not those of commit {commit}"))?;
    }
    let published = (1..=commit).rev().find(|commit| is_published(*commit)).unwrap_or(0);
    let mut highest = 0;
    for number in 0..BUCKETS {
        let bucket = bucket(definition, number);
        highest = highest.max(look_into_bucket(store, &bucket, number, published, checkpoint).await?);
    }

    // Write checkpoints: those that were shown, and those that were promised.
    let shown = shown(store, checkpoint).await?;
    if shown < noted.get("confirmed") {
        return Err(Wrong::Lost(format!("write checkpoint {}: {shown} is shown", noted.get("confirmed"))));
    }
    let mut pending = store.pending_markers();
    let pending: Result<Vec<MarkerToken>, _> = std::iter::from_fn(|| pending.next().now_or_never().flatten()).collect();
    let markers = pending.map_err(Wrong::broken)?;
    // It goes on, above all that was ever given out (S1).
    store.append(batch(definition, commit + 1)).await.map_err(Wrong::broken)?;
    let next = store.commit(Commit { markers, publish: true, ..Commit::default() }).await.map_err(Wrong::broken)?;
    let Some(next) = next else { return Err(Wrong::Broken("nothing is published any more".to_owned())) };
    let taken = noted.get("checkpoint").max(checkpoint).max(highest);
    sound(next.op_id.0 >= taken + 10, || format!("ten operations after {taken} end at {}", next.op_id.0))?;
    for number in 0..BUCKETS {
        // With those that were hidden.
        look_into_bucket(store, &bucket(definition, number), number, commit + 1, next.op_id.0).await?;
    }
    let shown = self::shown(store, next.op_id.0).await?;
    if shown < noted.get("asked") {
        return Err(Wrong::Lost(format!("write checkpoint {}: {shown} is the last", noted.get("asked"))));
    }
    Ok(())
}

async fn shown(store: &SqliteBucketStore, at: u64) -> Result<u64, Wrong> {
    let shown = store.write_checkpoints(OpId(at), &[client()]).await.map_err(Wrong::broken)?;
    Ok(shown[0].map_or(0, |number| u64::try_from(number.0).unwrap()))
}

/// A row of the source after this commit.
fn source_row(table: u64, id: u64, commit: u64) -> Option<CurrentRow> {
    let mut commits = (1..=commit).rev();
    if table == 2 {
        return commits.find(|commit| has_large_rows(*commit)).map(|commit| image(commit, LARGE));
    }
    commits.find(|commit| written(*commit).any(|(_, written)| written == id)).map(|commit| image(commit, 20))
}

/// That its operations and sums are those of this commit. Answers its last operation.
async fn look_into_bucket(
    store: &SqliteBucketStore,
    bucket: &BucketId,
    number: u64,
    commit: u64,
    checkpoint: u64,
) -> Result<u64, Wrong> {
    let request = ReadRequest { bucket: bucket.clone(), after: OpId::ZERO, upto: OpId(1 << 40), max_bytes: 1 << 30 };
    let answer = store.read(&[request]).await.map_err(Wrong::broken)?.remove(0);
    let (mut rows, mut sum, mut highest) = (BTreeMap::new(), Checksum(0), 0);
    for chunk in &answer.chunks {
        for operation in chunk.operations(chunk.range(OpId::ZERO, answer.next_after)) {
            let id = operation.op_id.0;
            sound(highest < id && id <= checkpoint, || format!("operation {id} between {highest} and {checkpoint}"))?;
            highest = id;
            sum += operation.checksum;
            match operation.kind {
                OperationKind::Put => {
                    let data: Json = serde_json::from_str(operation.data).map_err(Wrong::broken)?;
                    rows.insert(operation.object_id.to_owned(), data["commit"].as_u64());
                }
                OperationKind::Clear => rows.clear(),
                OperationKind::Move | OperationKind::Remove => {}
            }
        }
    }
    let mut expected = BTreeMap::new();
    for commit in 1..=commit {
        expected.extend(
            written(commit).filter(|(bucket, _)| *bucket == number).map(|(_, id)| (format!("r{id}"), Some(commit))),
        );
    }
    sound(rows == expected, || format!("bucket {number} after commit {commit} holds {rows:?}"))?;
    let sums = store.checksums(OpId(checkpoint), std::slice::from_ref(bucket)).await.map_err(Wrong::broken)?;
    sound(sums[0].checksum == sum, || format!("{:?} is not the sum of bucket {number}, {sum:?}", sums[0]))?;
    Ok(highest)
}

#[test]
fn what_the_bucket_store_acknowledges_survives_a_power_loss() {
    check_honest_disk(PROCESS, FILE, look);
}

#[test]
fn the_bucket_store_needs_its_syncs() {
    let logs = ["buckets.db-wal", "buckets.db-write-checkpoints-wal"];
    check_other_disks(PROCESS, FILE, &logs, look);
}
